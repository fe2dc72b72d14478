"""A process that stands still is ended, and says where it stood."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cofi_tune import watchdog
from cofi_tune.watchdog import FILE, Watchdog, hung

STUCK = """
import sys, time
from pathlib import Path
from cofi_tune.watchdog import GroupWatchdog, Watchdog
def the_call_that_never_returns():
    time.sleep(3600)
with Watchdog(Path(sys.argv[1]), 0.5) if sys.argv[2] == "own" else GroupWatchdog(Path(sys.argv[1]), -9.0):
    the_call_that_never_returns()
"""


def run(directory: Path, kind: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", STUCK, str(directory), kind], check=False, timeout=600, capture_output=True
    ).returncode


def test_a_stuck_process_ends_and_says_where(tmp_path: Path) -> None:
    assert run(tmp_path, "own") == 1
    assert "the_call_that_never_returns" in (tmp_path / FILE).read_text()
    assert hung(tmp_path)


def test_a_group_without_a_sign_of_life_ends_its_waiter(tmp_path: Path) -> None:
    assert run(tmp_path, "group") == 1
    assert "no worker started or moved" in (tmp_path / FILE).read_text()
    assert hung(tmp_path)


def test_a_start_may_take_longer_than_a_step(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 0.1, start_seconds=600.0):
        time.sleep(2.0)
    assert not hung(tmp_path)


def test_one_that_moves_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each beat sets the interpreter's timer anew, and the end stops it."""
    timers: list[float | None] = []
    monkeypatch.setattr(watchdog, "REST_SECONDS", 0.0)
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda seconds, **more: timers.append(seconds))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: timers.append(None))
    with Watchdog(tmp_path, 3.0, start_seconds=600.0) as dog:
        dog.beat()
        dog.beat()
    assert timers == [600.0, 3.0, 3.0, None]

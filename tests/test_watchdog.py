"""A process that stands still is ended, and says where it stood."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from cofi_tune.watchdog import FILE, Watchdog, hung

STUCK = """
import sys, time
from pathlib import Path
from cofi_tune.watchdog import GroupWatchdog, Watchdog
def the_call_that_never_returns():
    time.sleep(60)
with Watchdog(Path(sys.argv[1]), 0.5) if sys.argv[2] == "own" else GroupWatchdog(Path(sys.argv[1]), -9.0):
    the_call_that_never_returns()
"""


def run(directory: Path, kind: str) -> tuple[int, float]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(directory), kind], check=False, timeout=50, capture_output=True
    )
    return done.returncode, time.monotonic() - began


def test_a_stuck_process_ends_and_says_where(tmp_path: Path) -> None:
    status, seconds = run(tmp_path, "own")
    assert status == 1
    assert seconds < 30
    assert "the_call_that_never_returns" in (tmp_path / FILE).read_text()
    assert hung(tmp_path)


def test_a_group_without_a_sign_of_life_ends_its_waiter(tmp_path: Path) -> None:
    status, seconds = run(tmp_path, "group")
    assert status == 1
    assert seconds < 30
    assert "no worker started or moved" in (tmp_path / FILE).read_text()
    assert hung(tmp_path)


def test_a_start_may_take_longer_than_a_step(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 0.1, start_seconds=60.0):
        time.sleep(2.0)
    assert not hung(tmp_path)


def test_one_that_moves_is_left_alone(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 3.0) as dog:
        for _ in range(10):
            time.sleep(0.5)
            dog.beat()
    time.sleep(4.5)
    assert not hung(tmp_path)

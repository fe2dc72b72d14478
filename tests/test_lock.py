"""Locks: one holder at a time, and none that is dead."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import optuna
import pytest

from cofi_tune.lock import exclusive, only_driver, refuse_elsewhere

HOLD = """
import sys, time
from pathlib import Path
from cofi_tune.lock import only_driver
with only_driver(Path(sys.argv[1]), "s", print):
    print("held", flush=True)
    time.sleep(60)
"""


def never(text: str) -> None:
    raise AssertionError(text)


def test_a_second_driver_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    refused = r"named s is running already \(pid \d+ on .+, started 20.*another --name"
    with (
        only_driver(tmp_path, "s", never),
        pytest.raises(ValueError, match=refused),
        only_driver(tmp_path, "s", never),
    ):
        pass
    with only_driver(tmp_path, "s", never):
        pass


def test_a_dead_drivers_lock_is_taken_over_and_said_so(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"pid {holder.pid}"), only_driver(tmp_path, "s", never):
        pass
    holder.kill()
    holder.wait()
    notes: list[str] = []
    with only_driver(tmp_path, "s", notes.append):
        pass
    assert len(notes) == 1
    assert f"taking over from pid {holder.pid}" in notes[0]


def test_who_waits_is_heard_of_and_may_give_up(tmp_path: Path) -> None:
    heard: list[int] = []

    def meanwhile() -> None:
        heard.append(len(heard))
        if len(heard) == 3:
            raise TimeoutError

    with (
        exclusive(tmp_path / "lock"),
        pytest.raises(TimeoutError),
        exclusive(tmp_path / "lock", meanwhile=meanwhile),
    ):
        pass
    assert heard == [0, 1, 2]
    with exclusive(tmp_path / "lock", meanwhile=meanwhile):
        assert heard == [0, 1, 2]


def test_one_study_in_two_outputs_has_one_driver(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s")
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    with only_driver(here, "s", never):
        refuse_elsewhere(study, here)
        with only_driver(there, "s", never), pytest.raises(ValueError, match=f"running already .*{here}"):
            refuse_elsewhere(study, there)
    with only_driver(there, "s", never):
        refuse_elsewhere(study, there)
    assert study.user_attrs["home"]["directory"] == str(there)


def test_a_torn_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"pid": 1')
    with only_driver(tmp_path, "s", never):
        pass


def test_the_second_of_two_waits(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with exclusive(tmp_path / "x.lock", lambda: order.append("waits")):
            order.append("second")

    with exclusive(tmp_path / "x.lock", lambda: order.append("never")):
        thread = threading.Thread(target=second)
        thread.start()
        while not order:
            time.sleep(0.01)
        order.append("first")
    thread.join(300)
    assert order == ["waits", "first", "second"]

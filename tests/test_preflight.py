"""What is found before Ray starts: no place to write, no room, what an earlier run left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cofi_tune import preflight

LEAVE = """
import os, subprocess, sys
from pathlib import Path
from cofi_tune import preflight
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
with preflight.marked(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], **quiet)
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    preflight.writable(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"--output .*file.*cannot be written.*give another directory"):
        preflight.writable(tmp_path / "file")


def test_no_room_is_said_in_figures(tmp_path: Path) -> None:
    preflight.room(tmp_path, 1, trials=1, at_once=1)
    with pytest.raises(OSError, match=r"[\d,]+ MB free, about [\d,]+ MB needed for 16 models .*--trials"):
        preflight.room(tmp_path, 2**50, trials=16, at_once=2)


def test_trials_that_no_database_knows_are_not_written_over(tmp_path: Path) -> None:
    preflight.known(tmp_path, set())
    (tmp_path / "trials" / "s-0000").mkdir(parents=True)
    preflight.known(tmp_path, {"s-0000", "s-0001"})
    with pytest.raises(ValueError, match=r"holds 1 trials .* does not know; .* --fresh"):
        preflight.known(tmp_path, {"s-0001"})


def test_what_a_dead_driver_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    children = []
    for directory in (mine, other):
        done = subprocess.run(
            [sys.executable, "-c", LEAVE, str(directory)], capture_output=True, text=True, check=False
        )
        children.append(psutil.Process(int(done.stdout)))
    (mine / ".stop-abc").touch()
    (mine / ".ray" / "1").mkdir(parents=True)
    notes: list[str] = []
    try:
        with preflight.marked(mine):
            alive = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
            preflight.clear(mine, notes.append)
        assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE
        assert children[1].is_running()
        assert alive.poll() is None, "its driver, this process, is alive"
        assert notes == ["ending 1 processes that an earlier run of this search left behind"]
        assert list(mine.iterdir()) == []
        assert preflight.DRIVER not in os.environ
    finally:
        children[1].kill()
        alive.kill()
        alive.wait()

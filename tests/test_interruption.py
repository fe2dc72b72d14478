"""The first signal asks, the second insists; what cannot start is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cofi_tune import attempts, interruption
from cofi_tune.interruption import Interruption, Starvation, signals


def test_first_asks_second_insists(tmp_path: Path) -> None:
    notes: list[str] = []
    noted = threading.Event()

    def note(text: str) -> None:
        notes.append(text)
        noted.set()

    stopper = Interruption(tmp_path / "stop", note)
    running = ["s-0000"]
    stopper.running = lambda: running
    before = signal.getsignal(signal.SIGTERM)
    with signals(stopper):
        assert not stopper.stop_all()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.requested
        assert stopper.stop_file.exists()
        assert not stopper.stop_all(), "a running trial saves a checkpoint first"
        running.clear()
        assert stopper.stop_all()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert noted.wait(300)
    assert len(notes) == 1
    assert "stopping on SIGTERM" in notes[0]


PRINTING = """
import io, os, pathlib, signal, sys, threading
from cofi_tune import interruption

class Terminal(io.RawIOBase):
    def writable(self):
        return True
    def write(self, data):
        if b"first" in bytes(data):
            os.kill(os.getpid(), signal.SIGINT)
        return os.write(1, data)

sys.stdout = io.TextIOWrapper(io.BufferedWriter(Terminal()))
said = threading.Event()

def note(text):
    print(text, flush=True)
    said.set()

with interruption.signals(interruption.Interruption(pathlib.Path(sys.argv[1]), note)):
    print("first", flush=True)
    assert said.wait(300)
"""


def test_a_signal_in_the_midst_of_printing_is_said_too(tmp_path: Path) -> None:
    """A buffer that is being written refuses what its own thread prints meanwhile."""
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, str(tmp_path / "stop")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("first\nstopping on SIGINT"), done.stdout


def test_first_signal_asks_whatever_else_has_asked_before(tmp_path: Path) -> None:
    """Of a signal to all processes the driver may hear after it has seen that Ray is gone."""
    stopper = Interruption(tmp_path / "stop", lambda text: None)
    with signals(stopper):
        stopper.request("Ray was ended from outside")
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.blocked == "Ray was ended from outside"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_trials_that_do_not_stop_are_left_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "GRACE_SECONDS", -1.0)
    stopper = Interruption(tmp_path / "stop", print)
    stopper.running = lambda: ["s-0000"]
    stopper.request()
    assert stopper.stop_all()


LEFT_ALONE = """
import pathlib, sys, threading
from cofi_tune import interruption
interruption.GRACE_SECONDS = 1.0
stopper = interruption.Interruption(pathlib.Path(sys.argv[1]), print, "the command")
if sys.argv[2] == "asked":
    stopper.request()
with stopper.leaving_when(lambda: True):
    while sys.argv[2] != "ends" or not stopper.blocked:
        threading.Event().wait(0.1)
print(stopper.blocked)
"""


@pytest.mark.parametrize(("how", "status"), [("hangs", 4), ("asked", 130), ("ends", 0)])
def test_a_search_whose_ray_is_gone_ends_in_words(tmp_path: Path, how: str, status: int) -> None:
    """Whether or not what waits for Ray ever returns."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_ALONE, str(tmp_path / "stop"), how],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == status, done.stderr
    assert "Ray was ended from outside" in done.stdout
    assert "the same command goes on:\n  the command" in done.stdout
    assert (tmp_path / "stop").exists(), "trials that run were asked to save a checkpoint"


def test_trials_that_never_start_end_the_search_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    notes: list[str] = []
    stopper = Interruption(tmp_path / "stop", notes.append)
    stopper.running = lambda: ["s-0000", "s-0001"]
    starvation = Starvation(stopper, tmp_path, 300.0, "2 processes with 8 CPUs each")
    starvation.look()
    now[0] += 100
    starvation.look()
    assert notes == ["waiting for Ray to start a trial: each needs 2 processes with 8 CPUs each"]
    attempts.begin(tmp_path / "s-0001", stopper.stop_file.name)
    now[0] += 1000
    starvation.look()
    assert not stopper.requested, "one runs, the other waits for it"
    stopper.running = lambda: ["s-0000"]
    starvation.look()
    now[0] += 301
    starvation.look()
    assert stopper.blocked is not None
    assert "no trial could start within 300 s: each needs 2 processes with 8 CPUs" in stopper.blocked

"""The first signal asks, the second insists; what cannot start is said."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cofi_tune import attempts, interruption
from cofi_tune.interruption import Interruption, Starvation, signals


def test_first_asks_second_insists(tmp_path: Path) -> None:
    notes: list[str] = []
    stopper = Interruption(tmp_path / "stop", notes.append)
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
    assert len(notes) == 1
    assert "stopping on SIGTERM" in notes[0]


def test_trials_that_do_not_stop_are_left_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "GRACE_SECONDS", -1.0)
    stopper = Interruption(tmp_path / "stop", print)
    stopper.running = lambda: ["s-0000"]
    stopper.request()
    assert stopper.stop_all()


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

"""A trial is tried again as long as it gets further."""

from __future__ import annotations

from pathlib import Path

import torch

from cofi_tune import attempts, checkpoint, watchdog
from cofi_tune.checkpoint import State


def come_to(directory: Path, step: int) -> None:
    checkpoint.save(directory / checkpoint.DIRECTORY, State(step, {"x": torch.ones(1)}, {}), {})


def test_as_often_as_it_gets_further(tmp_path: Path) -> None:
    for step in range(1, 12):
        assert attempts.begin(tmp_path, "a") is None
        come_to(tmp_path, step)


def test_twice_from_the_same_step_is_the_end(tmp_path: Path) -> None:
    assert attempts.begin(tmp_path, "a") is None
    come_to(tmp_path, 5)
    assert attempts.begin(tmp_path, "a") is None
    assert attempts.begin(tmp_path, "a") is None
    given_up = attempts.begin(tmp_path, "a")
    assert given_up is not None
    assert (given_up.state, given_up.reason) == ("fail", "lost")
    assert "2 times in a row after step 5" in given_up.message


def test_one_that_hung_is_called_so(tmp_path: Path) -> None:
    for _ in range(2):
        attempts.begin(tmp_path, "a")
    (tmp_path / watchdog.FILE).write_text("Thread 0x1 ...")
    given_up = attempts.begin(tmp_path, "a")
    assert given_up is not None
    assert given_up.reason == "timeout"


def test_another_drivers_attempts_do_not_count(tmp_path: Path) -> None:
    for session in "abc":
        for _ in range(2):
            assert attempts.begin(tmp_path, session) is None
    assert attempts.has_begun(tmp_path, "c")
    assert not attempts.has_begun(tmp_path, "a")


def test_a_record_torn_anywhere_counts_as_none(tmp_path: Path) -> None:
    for _ in range(2):
        attempts.begin(tmp_path, "a")
    whole = (tmp_path / attempts.FILE).read_bytes()
    for length in range(len(whole)):
        (tmp_path / attempts.FILE).write_bytes(whole[:length])
        assert attempts.begin(tmp_path, "a") is None


def test_nodes_that_went_are_no_fault_of_the_trial(tmp_path: Path) -> None:
    for lost in (3, 4, 5, 6):
        assert attempts.begin(tmp_path, "a", lost) is None
    assert attempts.begin(tmp_path, "a", 6) is None
    assert attempts.begin(tmp_path, "a", 6) is not None, "two of the last five were its own"


def test_a_loss_that_is_noticed_late_counts(tmp_path: Path) -> None:
    assert attempts.begin(tmp_path, "a", 0) is None
    assert attempts.begin(tmp_path, "a", 0) is None
    assert attempts.begin(tmp_path, "a", 1) is None
    assert attempts.begin(tmp_path, "a", 1) is not None


def test_nodes_lost_before_are_not_counted(tmp_path: Path) -> None:
    assert attempts.begin(tmp_path, "a", 7) is None
    assert attempts.begin(tmp_path, "a", 7) is None
    assert attempts.begin(tmp_path, "a", 7) is not None

"""A trial's memory is bounded from above, and no more trials start than fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cofi_tune import memory
from cofi_tune.config import StudyConfig
from cofi_tune.memory import GB, Room, trial_bytes, worker_bytes

COLA = np.repeat([7, 10, 24], [400, 100, 100])
RTE = np.full(200, 128)
"""Lengths much like those of two tasks, in tokens."""


def teacher(directory: Path, hidden: int, layers: int, heads: int, num_bytes: int) -> Path:
    sizes = {
        "hidden_size": hidden,
        "heads_per_layer": [heads] * layers,
        "ffn_per_layer": [4 * hidden] * layers,
    }
    (directory / "config.json").write_text(json.dumps(sizes))
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(num_bytes)
    return directory


@pytest.mark.parametrize(
    ("sizes", "lengths", "peak_bytes"),
    [
        ((128, 2, 2, 2_200_000), COLA, 803e6),
        ((256, 4, 4, 17_000_000), COLA, 1_015e6),
        ((384, 6, 12, 90_900_000), COLA, 1_657e6),
        ((512, 8, 8, 107_400_000), COLA, 2_387e6),
        ((384, 6, 12, 90_900_000), RTE, 3_104e6),
    ],
    ids=["tiny", "mini", "MiniLM", "medium", "MiniLM, long rows"],
)
def test_estimate_is_a_bound_near_what_trials_took(
    tmp_path: Path, study_config: Callable[..., StudyConfig], sizes: Any, lengths: Any, peak_bytes: float
) -> None:
    config = study_config(tmp_path, workers_per_trial=0)
    bound = worker_bytes(config, teacher(tmp_path, *sizes), lengths, 32)
    assert peak_bytes <= bound <= 1.6 * peak_bytes


def test_estimate_grows_with_what_a_process_takes_of_a_batch(
    tmp_path: Path, study_config: Callable[..., StudyConfig]
) -> None:
    base = teacher(tmp_path, 768, 12, 12, 440_000_000)
    long_rows = np.full(1000, 128)

    def each(batch_size: int, lengths: Any = long_rows, **changes: Any) -> int:
        return worker_bytes(study_config(tmp_path, **changes), base, lengths, batch_size)

    assert each(64) > each(32) > each(32, COLA)
    assert each(64, workers_per_trial=2) == each(32)
    assert each(64, gpus_per_worker=1.0) == each(8, gpus_per_worker=1.0), "activations are on the GPU"
    two = study_config(tmp_path, workers_per_trial=2)
    assert trial_bytes(two, 3 * GB) == 6 * GB + memory.TRAIN_BYTES
    assert trial_bytes(study_config(tmp_path, workers_per_trial=0), 3 * GB) == 3 * GB


class Machine:
    """Memory that others take and give back, and a clock."""

    def __init__(self, usable_gb: float, concurrency: int = 4) -> None:
        self.usable_gb, self.seconds = usable_gb, 0.0
        self.notes: list[str] = []
        self.room = Room(int(3.1 * GB), concurrency, self.notes.append, self._usable, lambda: self.seconds)

    def _usable(self) -> int:
        return int(self.usable_gb * GB)

    def admits(self, running: int) -> bool:
        self.seconds += memory.LOOK_SECONDS
        return self.room.admits(running)


def test_fewer_trials_start_than_asked_for_and_one_line_says_so() -> None:
    machine = Machine(7.0)
    assert [machine.admits(running) for running in (0, 1, 2, 2, 2)] == [True, True, False, False, False]
    said = "trials at a time: 2 instead of 4: each needs about 3.1 GB, and there are 7.0 GB for trials"
    assert machine.notes == [said]


def test_memory_that_others_take_and_give_back_is_seen() -> None:
    machine = Machine(20.0)
    assert machine.admits(3)
    machine.usable_gb = 4.0
    assert not machine.admits(1)
    machine.usable_gb = 13.0
    assert machine.admits(3)
    machine.usable_gb = 4.0
    assert not machine.admits(1)
    assert len(machine.notes) == 1


def test_one_trial_is_always_tried() -> None:
    machine = Machine(2.0)
    assert [machine.admits(running) for running in (0, 0, 1)] == [True, True, False]
    [note] = machine.notes
    assert note.startswith("a trial needs about 3.1 GB, and there are 2.0 GB for trials")
    assert memory.REMEDY in note


def test_fewer_start_once_one_was_ended_for_lack_of_memory() -> None:
    machine = Machine(20.0)
    assert machine.admits(3)
    machine.room.lower(3)
    assert [machine.admits(running) for running in (0, 1, 2)] == [True, True, False]
    machine.room.lower(1)
    assert [machine.admits(running) for running in (0, 1)] == [True, False]


def test_memory_is_looked_at_once_in_a_while() -> None:
    machine = Machine(7.0)
    assert machine.room.admits(1)
    machine.usable_gb = 2.0
    assert machine.room.admits(1), "nobody has looked again"
    assert not machine.admits(1)


def test_what_ray_leaves_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = memory.free_bytes()
    assert now > 0
    monkeypatch.setenv(memory.KILL_SHARE, "0.0")
    assert memory.free_bytes() == 0

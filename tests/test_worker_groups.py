"""A group of workers whose trial died is freed, at whatever moment that was; others stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from cofi_tune.config import StudyConfig
from cofi_tune.ray_session import ray_started
from cofi_tune.worker_groups import LOOK_SECONDS, GroupSweeper

pytestmark = pytest.mark.ray


def state_of(group: str) -> str:
    return str(placement_group_table()[group]["state"])


def test_groups_of_the_dead_are_freed(tmp_path: Path, study_config: Callable[..., StudyConfig]) -> None:
    # Within the test, so that it travels by value.
    class Controller:
        def start(self) -> str:
            """Its workers have not started yet, so that nobody else has heard of the group."""
            self.group = placement_group([{"CPU": 0.1}])
            assert self.group.wait(60)
            return str(self.group.id.hex())

    recovered: list[tuple[str, str]] = []

    def hear(trial_id: str, error: str) -> None:
        recovered.append((trial_id, error))

    with ray_started(study_config(tmp_path), None), GroupSweeper(hear) as sweeper:
        alive, dead = (ray.remote(Controller).options(num_cpus=0).remote() for _ in range(2))
        kept, freed = ray.get([alive.start.remote(), dead.start.remote()])
        own = placement_group([{"CPU": 0.1}])
        assert own.wait(60)
        ray.kill(dead)
        deadline = time.monotonic() + 60
        while state_of(freed) != "REMOVED":
            assert time.monotonic() < deadline, "freed"
            time.sleep(0.1)
        time.sleep(2 * LOOK_SECONDS)
        assert [state_of(kept), state_of(own.id.hex())] == ["CREATED", "CREATED"]

        class Trial:
            trial_id, error_file = "t", None

        sweeper.on_trial_recover(1, [], Trial())
    assert recovered == [("t", "")]

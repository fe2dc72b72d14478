"""A group of workers whose trial died is freed, at whatever moment that was; others stay."""

from __future__ import annotations

import time

import pytest
import ray
from ray.util.placement_group import placement_group, placement_group_table

from cofi_tune.worker_groups import LOOK_SECONDS, GroupSweeper

pytestmark = pytest.mark.ray


def state_of(group: str) -> str:
    return str(placement_group_table()[group]["state"])


@pytest.mark.usefixtures("own_ray")
def test_groups_of_the_dead_are_freed() -> None:
    # Within the test, so that it travels by value.
    class Controller:
        def start(self) -> str:
            """Its workers have not started yet, so that nobody else has heard of the group."""
            self.group = placement_group([{"CPU": 0.1}])
            assert self.group.wait(300)
            return str(self.group.id.hex())

    recovered: list[tuple[str, str]] = []

    def hear(trial_id: str, error: str) -> None:
        recovered.append((trial_id, error))

    with GroupSweeper(hear) as sweeper:
        alive, dead = (ray.remote(Controller).options(num_cpus=0).remote() for _ in range(2))
        kept, freed = ray.get([alive.start.remote(), dead.start.remote()])
        own = placement_group([{"CPU": 0.1}])
        assert own.wait(300)
        ray.kill(dead)
        deadline = time.monotonic() + 300
        while state_of(freed) != "REMOVED":
            assert time.monotonic() < deadline, "freed"
            time.sleep(0.1)
        time.sleep(2 * LOOK_SECONDS)
        assert [state_of(kept), state_of(own.id.hex())] == ["CREATED", "CREATED"]

        class Trial:
            trial_id, error_file = "t", None

        sweeper.on_trial_recover(1, [], Trial())
    assert recovered == [("t", "")]

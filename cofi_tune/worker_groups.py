"""Frees the placement groups of Ray Train's workers, should Ray Train not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.core.generated.gcs_pb2 import PlacementGroupTableData

from cofi_tune.messages import Outcome

LOOK_SECONDS = 2.0
"""From one look at the groups to the next: so long Ray Train may take by itself."""


class GroupSweeper(tune.Callback):
    """Frees groups that outlive who has made them: the controller of a trial's workers.

    Ray keeps them until their job ends. Ray Train's own cleaner knows a group only once its workers have
    started, and fails beside another Ray.
    """

    def __init__(self, recovered: Callable[[str, str], Outcome | None]) -> None:
        """
        Args:
            recovered: called with Tune's id of a trial that lost a process, and with Ray's words for that;
                returns None if it is tried once more, or how it has ended.
        """
        self.recovered = recovered
        self._over = threading.Event()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the Tuner pickles its callbacks."""
        return {}

    def __enter__(self) -> GroupSweeper:
        """Begin to look; Ray runs."""
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Look no longer, while Ray still runs; one that has died may not answer."""
        self._over.set()
        self._thread.join(2 * LOOK_SECONDS)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It lost a process."""
        failures = Path(trial.error_file).read_text() if trial.error_file else ""
        outcome = self.recovered(trial.trial_id, failures.rpartition("Failure # ")[2])
        if outcome is not None:
            # Tune starts it again whatever this returns.
            trial.config["job"] = replace(trial.config["job"], given_up=outcome)

    def _look(self) -> None:
        before: set[str] = set()
        while not self._over.wait(LOOK_SECONDS):
            with contextlib.suppress(Exception):  # whatever is wrong with Ray, others say so
                now = orphaned_groups()
                for group in now & before:
                    if not self._over.is_set():  # after Ray's end this call would start another one
                        free_group(group)
                before = now


def orphaned_groups() -> set[str]:
    """Ids, in hex, of the placement groups of this job whose actor is dead."""
    job = ray.get_runtime_context().get_job_id()
    # The public table of placement groups does not say who has made them.
    table = ray._private.state.state._connect_and_get_accessor().get_placement_group_table()
    return {
        row.placement_group_id.hex()
        for row in map(PlacementGroupTableData.FromString, table)
        # Of those that the driver has made, Tune's own, it says the same.
        if row.creator_actor_dead
        and not ray.ActorID(row.creator_actor_id).is_nil()
        and row.creator_job_id.hex() == job
        and row.state != PlacementGroupTableData.REMOVED
    }


def free_group(group: str) -> None:
    """Remove a placement group, given its id in hex."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))

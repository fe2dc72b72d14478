"""Frees the placement groups of Ray Train's workers, should Ray Train not."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray import tune

from cofi_tune.messages import KEY

FREE_AFTER_SECONDS = 2.0
"""How long Ray Train may take by itself."""


class GroupSweeper(tune.Callback):
    """Frees worker groups that outlive their trial: Ray Train's own cleaner fails beside another Ray."""

    def __init__(self, recovered: Callable[[str], None]) -> None:
        """
        Args:
            recovered: called with Tune's id of a trial that lost a process and is tried once more.
        """
        self.recovered = recovered
        self.groups: dict[str, str] = {}
        """Ids in hex, by Tune's id of the trial."""
        self.timers: dict[str, threading.Timer] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the Tuner pickles its callbacks."""
        return {}

    def __enter__(self) -> GroupSweeper:
        """Nothing to open."""
        return self

    def __exit__(self, *error: object) -> None:
        """Free what is left while Ray still runs: a call after its end would start another one."""
        for timer in self.timers.values():
            timer.cancel()
        for group in {*self.groups.values(), *self.timers}:
            free_group(group)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """Remember the trial's group."""
        if KEY in result:
            group = json.loads(result[KEY])["placement_group"]
            if group is not None:
                self.groups[trial.trial_id] = group

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its next attempt has a group of its own."""
        self._free(trial)
        self.recovered(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It is over."""
        self._free(trial)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It is over."""
        self._free(trial)

    def _free(self, trial: Any) -> None:
        group = self.groups.pop(trial.trial_id, None)
        if group is not None:
            self.timers[group] = threading.Timer(FREE_AFTER_SECONDS, free_group, [group])
            self.timers[group].daemon = True
            self.timers[group].start()


def free_group(group: str) -> None:
    """Remove a placement group, given its id in hex; nothing happens where it, or Ray, is gone."""
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    if not ray.is_initialized():
        return
    with contextlib.suppress(Exception):
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))

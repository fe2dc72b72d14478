"""Processes that Ray's memory monitor has ended."""

from __future__ import annotations

import re
from typing import Any

from ray.air.execution._internal import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller

RAYS_WORDS = "the node running low on memory"
USED = re.compile(r"was ([0-9.]+)GB used / ([0-9.]+)GB limit")
GIB_IN_GB = 1.024**3
"""What Ray calls GB is a GiB."""


class ActorManager(RayActorManager):
    """Takes the end of an actor by Ray's memory monitor for a death like any other.

    Its calls raise an error that Tune does not know: it would end the search, with Ray's own report.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        super()._actor_task_failed(tracked_actor_task, exception)


def recover_from_kills() -> None:
    """Have Tune try a trial again whose process Ray's memory monitor has ended."""
    tune_controller.RayActorManager = ActorManager


def describe_kill(error: str) -> str | None:
    """What happened, in words for a person; None: memory was not the reason.

    A process that the kernel has ended cannot be told from one that was killed otherwise.

    Args:
        error: what Ray said of a process's death.
    """
    if RAYS_WORDS not in error:
        return None
    used = USED.search(error)
    figures = f" (the machine had {_gb(used[1])} of {_gb(used[2])} GB in use)" if used else ""
    return f"its process was ended for lack of memory{figures}"


def _gb(gib: str) -> str:
    return f"{float(gib) * GIB_IN_GB:.1f}"

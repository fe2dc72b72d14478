"""Processes that were ended for lack of memory, by Ray's monitor or by the kernel."""

from __future__ import annotations

import re
from pathlib import Path
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


class MemoryKills:
    """Tells for which deaths of processes a lack of memory is the reason."""

    def __init__(self, vmstat: Path = Path("/proc/vmstat")) -> None:
        """
        Args:
            vmstat: the kernel's counters.
        """
        self.vmstat = vmstat
        self._by_kernel = self._kernel_kills()

    def describe(self, error: str) -> str | None:
        """What happened, in words for a person; None: memory was not the reason.

        Args:
            error: what Ray said of the death.
        """
        before, self._by_kernel = self._by_kernel, self._kernel_kills()
        if RAYS_WORDS in error:
            used = USED.search(error)
            figures = f" ({_gb(used[1])} of {_gb(used[2])} GB used)" if used else ""
            return f"its process was ended for lack of memory{figures}"
        return "its process was ended for lack of memory" if self._by_kernel > before else None

    def _kernel_kills(self) -> int:
        """Processes that the kernel has ended on this machine, for its own limit or that of a cgroup."""
        try:
            return int(re.findall(r"^oom_kill (\d+)$", self.vmstat.read_text(), re.MULTILINE)[0])
        except (OSError, IndexError):  # of another system
            return 0


def _gb(gib: str) -> str:
    return f"{float(gib) * GIB_IN_GB:.1f}"

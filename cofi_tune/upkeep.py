"""What a training does between its steps besides training; a file of its own, which imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cofi_tune.records import Progress


@dataclass(frozen=True)
class Upkeep:
    """What happens between the steps of a training."""

    checkpoint_seconds: float = 30.0
    """From one checkpoint to the next, at least."""
    stop_requested: Callable[[], bool] = lambda: False
    """Asked after every step."""
    beat: Callable[[], None] = lambda: None
    """Called after every step."""
    saved: Callable[[Path], None] = lambda path: None
    """Called by the first worker with every checkpoint."""
    goes_on: Callable[[Sequence[Progress]], None] = lambda reports: None
    """Called with what led to the checkpoint that a training goes on from."""

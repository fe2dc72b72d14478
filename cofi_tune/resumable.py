"""A training that survives its process: checkpoints now and then, and one before it stops on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cofi_tune import checkpoint
from cofi_tune.checkpoint import State
from cofi_tune.loop import Training
from cofi_tune.records import INTERRUPTED, Progress, Stopped

SHARE = 20
"""Training goes on for this many times as long as a checkpoint took, at least: 5 % of the time at most."""
AGREE_STEPS = 10
"""How often several workers ask each other whether to stop or to save."""


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


def resumable(
    training: Training, directory: Path, identity: Mapping[str, Any], upkeep: Upkeep
) -> Iterator[Progress]:
    """Train, from the last good checkpoint if there is one; yields the reports.

    Args:
        training: not begun yet.
        directory: of its checkpoints.
        identity: what it is; the checkpoints of another one are not used.
        upkeep: what happens between the steps.

    Raises:
        Stopped: `interrupted`, with a checkpoint written; or as of `Training.run`.
        OSError: a checkpoint cannot be written.
    """
    state = _latest(training, directory, identity)
    if state is not None:
        training.restore(state)
    due = time.monotonic() + upkeep.checkpoint_seconds
    for progress in training.steps():
        upkeep.beat()
        if progress is not None:
            yield progress
        stop, save = _agreed(training, upkeep.stop_requested(), time.monotonic() >= due)
        if stop or save:
            began = time.monotonic()
            now = training.state()
            if training.ranks.rank == 0:
                upkeep.saved(checkpoint.save(directory, now, identity))
            ended = time.monotonic()
            due = ended + max(upkeep.checkpoint_seconds, SHARE * (ended - began))
        if stop:
            raise Stopped(INTERRUPTED, f"stopped on request at step {training.step}; it can go on from there")


def _latest(training: Training, directory: Path, identity: Mapping[str, Any]) -> State | None:
    """The same state for every worker: the first one looks, and names it to the others."""
    ranks = training.ranks
    if ranks.size == 1:
        return checkpoint.latest(directory, identity)
    mine = checkpoint.latest(directory, identity) if ranks.rank == 0 else None
    step = torch.tensor(-1 if mine is None else mine.step)
    first = int(ranks.gather(step, training.student.device)[0])
    if first < 0 or mine is not None:
        return mine
    return checkpoint.load(directory / checkpoint.NAME.format(first), identity)


def _agreed(training: Training, stop: bool, due: bool) -> tuple[bool, bool]:
    """Whether any worker is to stop, and whether the first one's checkpoint is due."""
    ranks = training.ranks
    if ranks.size == 1:
        return stop, due
    if training.step % AGREE_STEPS:
        return False, False
    asked = torch.tensor([stop, due and ranks.rank == 0], dtype=torch.float32)
    stops, dues = ranks.sum(asked.to(training.student.device)).tolist()
    return stops > 0, dues > 0

"""A training that survives its process: checkpoints now and then, and one before it stops on request.

A report is on its way for a moment, and is lost with the process that made it, while the checkpoint behind it
stays. So a checkpoint holds the reports that led to it, and whoever goes on from it can say them again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cofi_tune import checkpoint
from cofi_tune.checkpoint import State
from cofi_tune.loop import Training
from cofi_tune.records import INTERRUPTED, PARENT_LOST, Progress, Stopped
from cofi_tune.upkeep import Upkeep

SHARE = 20
"""Training goes on for this many times as long as a checkpoint took, at least: 5 % of the time at most."""
AGREE_STEPS = 10
"""How often several workers ask each other whether to stop or to save."""
REPORTS = "reports"
"""Among the values of a checkpoint."""


class Kept(NamedTuple):
    """Where a state is kept."""

    directory: Path
    identity: Mapping[str, Any]
    """What it is; another one is not used."""


def resumable(
    training: Training,
    directory: Path,
    identity: Mapping[str, Any],
    upkeep: Upkeep,
    begins: Kept | None = None,
    hands_on: Kept | None = None,
) -> Iterator[Progress]:
    """Train, from the last good checkpoint if there is one; yields the reports.

    Args:
        training: not begun yet.
        directory: of its checkpoints.
        identity: what it is; the checkpoints of another one are not used.
        upkeep: what happens between the steps.
        begins: the state of another run that this one begins with; None: it begins as it is.
        hands_on: where a run that goes on from this one looks for its state; None: there is none.

    Raises:
        Stopped: `interrupted`, with a checkpoint written; `parent_lost`: nothing to begin with; or as of
            `Training.run`.
        OSError: a checkpoint cannot be written.
    """
    reports: list[Progress] = []
    state = _latest(training, directory, identity)
    if state is not None:
        training.restore(state)
        reports = [Progress(**one) for one in state.values.get(REPORTS, ())]
        upkeep.goes_on(tuple(reports))
    elif begins is not None:
        state = _latest(training, *begins)
        if state is None:
            raise Stopped(PARENT_LOST, f"there is no state to begin with in {begins.directory}")
        training.go_on(state)
    due = time.monotonic() + upkeep.checkpoint_seconds
    for progress in training.steps():
        upkeep.beat()
        if progress is not None:
            reports.append(progress)
            yield progress
        if hands_on is not None and training.hands_on:  # before any checkpoint that lies behind it
            now = training.state()
            if training.ranks.rank == 0:
                upkeep.saved(checkpoint.save(hands_on.directory, now, hands_on.identity))
        stop, save = _agreed(training, upkeep.stop_requested(), time.monotonic() >= due)
        if stop or save:
            began = time.monotonic()
            now = training.state()
            if training.ranks.rank == 0:
                upkeep.saved(checkpoint.save(directory, _with(now, reports), identity))
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


def _with(state: State, reports: Sequence[Progress]) -> State:
    return replace(state, values={**state.values, REPORTS: [asdict(one) for one in reports]})


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

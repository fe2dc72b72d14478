"""How often a trial is tried again: as long as every attempt comes further than the one before.

A node that is taken away costs a trial nothing but the steps since its last checkpoint, however often it
happens, even before the first; a trial that ends its process at the same place twice is given up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from cofi_tune import checkpoint, watchdog
from cofi_tune.messages import LOST, Outcome

FILE = "attempts.json"
MOST_WITHOUT_PROGRESS = 2


class Attempt(NamedTuple):
    """How one began."""

    step: int
    """Of the checkpoint that it started from; 0: from the beginning."""
    nodes_lost: int
    """Nodes that the cluster had lost by then."""


def begin(directory: Path, session: str, nodes_lost: int = 0, step: int | None = None) -> Outcome | None:
    """Note that another attempt begins.

    Args:
        directory: of the trial.
        session: of the driver; what an earlier driver's attempts came to is no fault of the trial.
        nodes_lost: nodes that the cluster has lost so far. For each that went while attempts started from one
            checkpoint, one of these is no fault of the trial.
        step: of the newest checkpoint; None: as lies in the directory.

    Returns:
        None, or the trial's end if it was tried from the same checkpoint too often.
    """
    before = _attempts(directory, session)
    if step is None:
        step = checkpoint.latest_step(directory / checkpoint.DIRECTORY)
    same: list[Attempt] = []
    for attempt in reversed(before):
        if attempt.step != step:
            break
        same.append(attempt)
    if same and len(same) - (nodes_lost - same[-1].nodes_lost) >= MOST_WITHOUT_PROGRESS:
        where = f"{MOST_WITHOUT_PROGRESS} times in a row after step {step}"
        if watchdog.hung(directory):
            hang = directory / watchdog.FILE
            return Outcome.failed("timeout", f"it stood still {where}; where, is in {hang}")
        return Outcome.failed(LOST, f"its process died {where}")
    directory.mkdir(parents=True, exist_ok=True)
    record = {"session": session, "attempts": [*before, Attempt(step, nodes_lost)]}
    (directory / FILE).write_text(json.dumps(record))
    return None


def has_begun(directory: Path, session: str) -> bool:
    """Whether this driver's trial has come as far as a process of its own."""
    return bool(_attempts(directory, session))


def _attempts(directory: Path, session: str) -> list[Attempt]:
    """How this driver's attempts began; a torn record counts as none."""
    try:
        read = json.loads((directory / FILE).read_text(encoding="utf-8"))
        if read["session"] != session:
            return []
        return [Attempt(int(step), int(lost)) for step, lost in read["attempts"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []

"""How often a trial is tried again: as long as every attempt comes further than the one before.

A node that is taken away costs a trial nothing but the steps since its last checkpoint, however often it
happens; a trial that ends its process at the same place twice is given up.
"""

from __future__ import annotations

import json
from pathlib import Path

from cofi_tune import checkpoint, watchdog
from cofi_tune.messages import LOST, Outcome

FILE = "attempts.json"
MOST_WITHOUT_PROGRESS = 2


def begin(directory: Path, session: str) -> Outcome | None:
    """Note that another attempt begins.

    Args:
        directory: of the trial.
        session: of the driver; what an earlier driver's attempts came to is no fault of the trial.

    Returns:
        None, or the trial's end if it was tried from the same checkpoint too often.
    """
    steps = _steps(directory, session)
    step = checkpoint.latest_step(directory / checkpoint.DIRECTORY)
    if steps[-MOST_WITHOUT_PROGRESS:] == [step] * MOST_WITHOUT_PROGRESS:
        where = f"{MOST_WITHOUT_PROGRESS} times in a row after step {step}"
        if watchdog.hung(directory):
            hang = directory / watchdog.FILE
            return Outcome.failed("timeout", f"it stood still {where}; where, is in {hang}")
        return Outcome.failed(LOST, f"its process died {where}")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text(json.dumps({"session": session, "steps": [*steps, step]}))
    return None


def has_begun(directory: Path, session: str) -> bool:
    """Whether this driver's trial has come as far as a process of its own."""
    return bool(_steps(directory, session))


def _steps(directory: Path, session: str) -> list[int]:
    """Where this driver's attempts began; a torn record counts as none."""
    try:
        read = json.loads((directory / FILE).read_text(encoding="utf-8"))
        return [int(step) for step in read["steps"]] if read["session"] == session else []
    except (OSError, ValueError, TypeError, KeyError):
        return []

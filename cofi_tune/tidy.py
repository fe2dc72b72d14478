"""Removes what only a running trial needs, or the next link of its chain."""

from __future__ import annotations

from pathlib import Path

from cofi_tune import checkpoint, watchdog
from cofi_tune.messages import UNFINISHED, Asked, OpenLinks, Outcome
from cofi_tune.records import Progress


class Tidy:
    """A watcher that removes the checkpoints of trials that are over, and known to be."""

    def __init__(self, trials: Path) -> None:
        self.trials = trials
        self._links = OpenLinks()

    def started(self, asked: Asked) -> None:
        """Nothing to remove yet."""
        self._links.started(asked)

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """Nothing to remove yet."""

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        """Nothing to remove yet."""

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """An interrupted trial will go on from there."""
        if outcome.reason not in UNFINISHED:
            checkpoint.discard(self.trials / trial_id / checkpoint.DIRECTORY)
            for one in self._links.over(trial_id, outcome):
                checkpoint.discard(self.trials / one / checkpoint.LINK)
            if not watchdog.hung(self.trials / trial_id):
                (self.trials / trial_id / watchdog.FILE).unlink(missing_ok=True)

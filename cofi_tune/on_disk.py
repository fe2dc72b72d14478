"""A study as its runs would say it, from its own database and files: what a report reads when a search ends.

The same as `analysis.tracked` finds in MLflow once that has everything, so that both make the same report;
and there when MLflow is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna

from analysis.runs import Curves, Run
from cofi_tune import fields, history, optuna_study, timings
from cofi_tune.messages import Asked, Outcome


class OnDisk:
    """An `analysis.runs.Source` of one study."""

    def __init__(self, study: optuna.Study, tags: Mapping[str, str], directory: Path) -> None:
        """
        Args:
            study: its trials.
            tags: what all its runs have in common.
            directory: has `trials/<trial id>/`.
        """
        self.study, self.tags, self.directory = study, tags, directory

    def runs(self) -> list[Run]:
        """The study's own run and one for each trial."""
        common = {
            "cofi.study": self.study.study_name,
            "cofi.study_id": self.study.user_attrs["uid"],
            **self.tags,
        }
        own = Run("", f"{self.study.study_name} (study)", {}, {}, {**common, "cofi.kind": "study"})
        return [
            own,
            *(self._run(asked, outcome, common) for asked, outcome in optuna_study.all_trials(self.study)),
        ]

    def _run(self, asked: Asked, outcome: Outcome | None, common: Mapping[str, str]) -> Run:
        place = self._place(asked.trial_id)
        known = fields.of_trial(asked, outcome, history.read(place), timed=timings.read(place))
        metrics = {name: value for name, value, _, _ in known.points}
        tags = {**common, **known.tags, "cofi.trial_id": asked.trial_id}
        return Run(asked.trial_id, asked.trial_id, known.params, metrics, tags)

    def curves(self, runs: Sequence[Run]) -> dict[str, Curves]:
        """What the trials reported."""
        return {run.run_id: self._curves(run.run_id) for run in runs}

    def _curves(self, trial_id: str) -> Curves:
        found: dict[str, set[tuple[int, float]]] = {}
        for entry in history.read(self._place(trial_id)):
            for name, value, _, step in fields.of_report(entry):
                if step > 0:
                    found.setdefault(name, set()).add((step, value))
        return {name: sorted(points) for name, points in sorted(found.items())}

    def artifact(self, run: Run, name: str) -> bytes | None:
        """A file of the trial's directory."""
        path = self._place(run.run_id) / name
        return path.read_bytes() if run.run_id and path.is_file() else None

    def _place(self, trial_id: str) -> Path:
        return self.directory / "trials" / trial_id

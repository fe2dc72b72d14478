"""Ray Tune's way to the study: asks for the next trial, tells how one ended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.trial import Trial
from ray.tune.search import Searcher

from cofi_tune.messages import INTERRUPTED, KEY, LOST, Message, Outcome, Watcher, decode
from cofi_tune.optuna_study import asked_of, tell, trial_id_of
from cofi_tune.records import InvalidPoint, Progress

Space = Callable[[Any], Mapping[str, Any]]
Prepare = Callable[[str, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
"""Trial id and proposal -> the worker's job and every setting. ValueError for an impossible proposal."""


class Proposals(Searcher):
    """Ray Tune's way to the study: asks for the next trial, tells how one ended.

    Stock `OptunaSearch` leaves a NaN trial running for ever and tells a stopped one as complete; here only
    a finished trial with possible objectives is COMPLETE, and every other end has a reason.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        prepare: Prepare,
        sampler_for: Callable[[int], optuna.samplers.BaseSampler],
        budget: int,
        watchers: Sequence[Watcher] = (),
        unfinished: Sequence[Trial] = (),
    ) -> None:
        """
        Args:
            study: where trials are asked and told.
            space: proposes.
            prepare: checks a proposal and makes the worker's job of it.
            sampler_for: the sampler of a trial, by its number.
            budget: how many trials may still be asked.
            watchers: hear of everything.
            unfinished: trials of an earlier driver, offered first, under their ids and with their parameters.
        """
        super().__init__()
        self.study, self.space, self.prepare = study, space, prepare
        self.sampler_for, self.budget, self.watchers = sampler_for, budget, watchers
        self.unfinished = [*unfinished]
        self.running: dict[str, Trial] = {}
        """By Tune's own id, which is known nowhere else."""
        self._last: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: the Tuner pickles its searcher, and nobody may bring it back from there."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on disk."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config for Ray Tune, or that there is none."""
        while self.budget > 0:
            self.budget -= 1
            trial = self.unfinished.pop(0) if self.unfinished else self._ask()
            own_id = trial_id_of(self.study.study_name, trial.number)
            trial.set_user_attr("trial_id", own_id)
            self.running[trial_id] = trial
            try:
                job, settings = self.prepare(own_id, self.space(trial))
            except optuna.exceptions.StorageInternalError:
                raise
            except Exception as error:  # a user's own space may raise anything
                what = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                self._start(own_id, trial)
                self._end(trial_id, Outcome.failed("invalid_point", what))
                continue
            trial.set_user_attr("settings", dict(settings))
            self._start(own_id, trial)
            return {"job": job, "trial_id": own_id}
        return str(Searcher.FINISHED)

    def _ask(self) -> Trial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = self.sampler_for(len(self.study.get_trials(deepcopy=False)))
            return self.study.ask()

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A worker's message came."""
        text = result.get(KEY)
        trial = self.running.get(trial_id)
        # Tune sends the last result of a trial twice.
        if trial is None or text is None or self._last.get(trial_id) == text:
            return
        self._last[trial_id] = text
        try:
            message = decode(text)
        except InvalidPoint as error:
            message = Message(Outcome.failed("invalid_metric", str(error)))
        own_id = trial_id_of(self.study.study_name, trial.number)
        for watcher in self.watchers:
            for warning in message.warnings:
                watcher.warned(own_id, warning)
            if isinstance(message.content, Progress):
                watcher.heard(own_id, message.content)
        if isinstance(message.content, Outcome):
            self._end(trial_id, message.content)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tune is done with a trial; one that has not said how it ended is lost."""
        self.on_trial_result(trial_id, result or {})
        if trial_id in self.running:
            what = "its process died, twice" if error else "it ended without a word"
            self._end(trial_id, Outcome.failed(LOST, what))

    def recovered(self, trial_id: str) -> None:
        """Tune tries a trial again."""
        trial = self.running.get(trial_id)
        if trial is not None:
            for watcher in self.watchers:
                watcher.warned(
                    trial_id_of(self.study.study_name, trial.number),
                    "a process of it died; it is tried once more",
                )

    def leave(self, why: str) -> None:
        """Give up what still runs: Optuna keeps it as running, and the next search offers it again first."""
        self.budget = 0
        for trial in self.running.values():
            for watcher in self.watchers:
                own_id = trial_id_of(self.study.study_name, trial.number)
                watcher.ended(own_id, Outcome.failed(INTERRUPTED, why))
        self.running.clear()

    def _start(self, own_id: str, trial: Trial) -> None:
        asked = asked_of(own_id, trial)
        for watcher in self.watchers:
            watcher.started(asked)

    def _end(self, trial_id: str, outcome: Outcome) -> None:
        trial = self.running.pop(trial_id)
        if outcome.state == "complete" and outcome.measurement is None:
            outcome = Outcome.failed("invalid_metric", "it ended without a measurement")
        # The attribute first: should the driver die in between, `settle` finishes what it says.
        trial.set_user_attr("outcome", asdict(outcome))
        tell(self.study, trial.number, outcome)
        for watcher in self.watchers:
            watcher.ended(trial_id_of(self.study.study_name, trial.number), outcome)

"""The study on disk: what is proposed next, and what became of it (architecture D11).

Optuna's storage, written by the driver alone, is the one truth about trials. Ray Tune asks and tells through
`Proposals`; a Tuner that dies takes nothing with it.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher

from cofi_tune.messages import (
    INTERRUPTED,
    KEY,
    LOST,
    UNFINISHED,
    Asked,
    Message,
    Outcome,
    Watcher,
    decode,
    outcome_from_json,
)
from cofi_tune.records import OBJECTIVES, InvalidPoint, Progress

Space = Callable[[Any], Mapping[str, Any]]
Prepare = Callable[[str, Mapping[str, Any]], tuple[Any, Mapping[str, Any]]]
"""Trial id and proposal -> the worker's job and every setting. Raises ValueError for an impossible proposal."""

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}


class OtherPurpose(ValueError):
    """A study of this name exists and was made for something else."""


@dataclass(frozen=True)
class Finished:
    """A trial that is over."""

    asked: Asked
    outcome: Outcome


def open_study(storage: str, name: str, purpose: Mapping[str, Any]) -> optuna.Study:
    """The study of that name, made if need be.

    Args:
        storage: URL of a database.
        name: of the study.
        purpose: what its trials have in common; JSON values.

    Raises:
        OtherPurpose: it exists and was made for something else; names each difference.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A second command on the same file waits instead of failing with "database is locked".
    engine = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}
    study = optuna.create_study(
        study_name=name,
        storage=optuna.storages.RDBStorage(storage, engine_kwargs=engine),
        directions=[objective.direction for objective in OBJECTIVES],
        load_if_exists=True,
    )
    before = study.user_attrs.get("purpose")
    if before is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective.name for objective in OBJECTIVES])
        study.set_user_attr("uid", uuid.uuid4().hex)
        study.set_user_attr("purpose", dict(purpose))
        return study
    changed = differences(before, purpose)
    if changed:
        raise OtherPurpose(
            f"the study {name!r} exists and was made for something else ({'; '.join(changed)}); "
            "give this one another --name"
        )
    return study


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each setting that is not the same."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def settle(study: optuna.Study) -> list[str]:
    """End what an earlier driver left running; returns the ids of trials that are lost."""
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        outcome = _outcome(trial) or Outcome.failed(LOST, "its driver ended before it")
        if outcome.reason == LOST:
            lost.append(trial_id_of(study.study_name, trial.number))
            study._storage.set_trial_user_attr(trial._trial_id, "outcome", asdict(outcome))
        _tell(study, trial.number, outcome)
    return lost


def finished(study: optuna.Study) -> list[Finished]:
    """Trials that are over and count, in the order in which they were asked."""
    over = []
    for trial in study.get_trials(deepcopy=False, states=tuple(STATES.values())):
        outcome = _outcome(trial) or Outcome.failed(LOST)
        if outcome.reason not in UNFINISHED:
            trial_id = trial_id_of(study.study_name, trial.number)
            over.append(Finished(_asked(trial_id, trial), outcome))
    return over


def trial_id_of(study_name: str, number: int) -> str:
    """The one id of a trial: in Ray, on disk, in MLflow, in Optuna."""
    return f"{study_name}-{number:04d}"


def sampler(name: str, seed: int, number: int, trials: int) -> optuna.samplers.BaseSampler:
    """The sampler that makes one proposal.

    Made anew for each, with a seed of its own, so that a proposal depends on what is in the study and on
    nothing that a process keeps: a search goes on after a crash as if there had been none.

    Args:
        name: `tpe`, `nsga2`, `gp` or `random`.
        seed: the study's.
        number: of the trial.
        trials: how many are asked for; few of them leave little to random exploration.
    """
    import numpy as np

    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=own, n_startup_trials=max(4, min(10, trials // 3)))
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=own, population_size=max(8, min(50, trials // 5)))
            case "gp":
                return optuna.samplers.GPSampler(seed=own, n_startup_trials=max(4, min(10, trials // 3)))
            case "random":
                return optuna.samplers.RandomSampler(seed=own)
    raise ValueError(f"unknown sampler {name!r}: tpe, nsga2, gp or random")


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
    ) -> None:
        """
        Args:
            study: where trials are asked and told.
            space: proposes.
            prepare: checks a proposal and makes the worker's job of it.
            sampler_for: the sampler of a trial, by its number.
            budget: how many trials may still be asked.
            watchers: hear of everything.
        """
        super().__init__()
        self.study, self.space, self.prepare = study, space, prepare
        self.sampler_for, self.budget, self.watchers = sampler_for, budget, watchers
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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.sampler = self.sampler_for(len(self.study.get_trials(deepcopy=False)))
                trial = self.study.ask()
            own_id = trial_id_of(self.study.study_name, trial.number)
            trial.set_user_attr("trial_id", own_id)
            self.running[trial_id] = trial
            try:
                job, settings = self.prepare(own_id, self.space(trial))
            except ValueError as error:
                self._start(own_id, trial)
                self._end(trial_id, Outcome.failed("invalid_point", str(error)))
                continue
            trial.set_user_attr("settings", dict(settings))
            self._start(own_id, trial)
            return {"job": job, "trial_id": own_id}
        return str(Searcher.FINISHED)

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
            what = "its process died" if error else "it ended without a word"
            self._end(trial_id, Outcome.failed(LOST, what))

    def interrupt(self) -> None:
        """End every trial that still runs, since the search is being stopped."""
        self._close(Outcome.failed(INTERRUPTED, "the search was interrupted"))

    def abandon(self) -> None:
        """End every trial of which nothing more will be heard."""
        self._close(Outcome.failed(LOST, "the search ended before it"))

    def _close(self, outcome: Outcome) -> None:
        self.budget = 0
        for trial_id in list(self.running):
            self._end(trial_id, outcome)

    def _start(self, own_id: str, trial: Trial) -> None:
        asked = _asked(own_id, trial)
        for watcher in self.watchers:
            watcher.started(asked)

    def _end(self, trial_id: str, outcome: Outcome) -> None:
        trial = self.running.pop(trial_id)
        if outcome.state == "complete" and outcome.measurement is None:
            outcome = Outcome.failed("invalid_metric", "it ended without a measurement")
        # The attribute first: should the driver die in between, `settle` finishes what it says.
        trial.set_user_attr("outcome", asdict(outcome))
        _tell(self.study, trial.number, outcome)
        for watcher in self.watchers:
            watcher.ended(trial_id_of(self.study.study_name, trial.number), outcome)


def _tell(study: optuna.Study, number: int, outcome: Outcome) -> None:
    values = None
    if outcome.measurement is not None:
        values = [getattr(outcome.measurement, objective.name) for objective in OBJECTIVES]
    study.tell(number, values, state=STATES[outcome.state])


def _asked(trial_id: str, trial: Trial | FrozenTrial) -> Asked:
    return Asked(
        trial_id,
        params=dict(trial.params),
        settings=trial.user_attrs.get("settings", {}),
        logarithmic=frozenset(_logarithmic(trial.distributions.items())),
    )


def _logarithmic(distributions: Iterable[tuple[str, BaseDistribution]]) -> Iterable[str]:
    return (name for name, distribution in distributions if getattr(distribution, "log", False))


def _outcome(trial: FrozenTrial) -> Outcome | None:
    raw = trial.user_attrs.get("outcome")
    return None if raw is None else outcome_from_json(raw)

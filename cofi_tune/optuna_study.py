"""The Optuna study on disk: the one truth about trials, written by the driver alone."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from cofi_tune.messages import DUPLICATE, LOST, Asked, Link, Outcome, outcome_from_json
from cofi_tune.records import OBJECTIVES
from cofi_tune.storage import database_errors, open_storage

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}
WARM_START = "warm_start"
"""User attribute of a trial that another study has run: knowledge, and none of this study's own."""
LINK = "link"
"""User attribute of a trial of a chain: its place there."""
WORST = {"score": -1.0, "speedup": 0.0}
"""What a trial without a model counts as where the study has constraints."""


class OtherPurpose(ValueError):  # noqa: N818
    """A study of this name exists and was made for something else."""


@dataclass(frozen=True)
class Finished:
    """A trial that is over."""

    asked: Asked
    outcome: Outcome
    ended_ms: int | None = None
    """When, since 1970."""


def open_study(storage: str, name: str, purpose: Mapping[str, Any]) -> optuna.Study:
    """The study of that name, made if need be.

    Args:
        storage: URL of a database.
        name: of the study.
        purpose: what its trials have in common; JSON values.

    Raises:
        OSError: the database cannot be used.
        OtherPurpose: it exists and was made for something else; names each difference.
    """
    opened = open_storage(storage)
    with database_errors():
        study = optuna.create_study(
            study_name=name,
            storage=opened,
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
    if changed and not study.get_trials(deepcopy=False):
        study.set_user_attr("purpose", dict(purpose))  # an attempt that never came to a trial
    elif changed:
        raise OtherPurpose(
            f"the study {name!r} exists and was made for something else ({'; '.join(changed)}); "
            "give this one another --name, or --fresh"
        )
    return study


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each setting that is not the same."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name}: {_said(before.get(name))} there, {_said(now.get(name))} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _said(setting: Any) -> str:
    return "none" if setting is None else repr(setting)


def settle(study: optuna.Study) -> list[Trial]:
    """End what an earlier driver left half told; returns the trials to be offered again."""
    unfinished = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        outcome = _outcome(trial)
        if outcome is None:
            unfinished.append(Trial(study, trial._trial_id))
        else:
            tell(study, Trial(study, trial._trial_id), outcome)
    return unfinished


def finished(study: optuna.Study) -> list[Finished]:
    """The study's own trials that are over, in the order in which they were asked."""
    return [
        Finished(
            asked_of(trial_id_of(study.study_name, trial.number), trial),
            _outcome(trial) or Outcome.failed(LOST),
            trial.datetime_complete and int(trial.datetime_complete.timestamp() * 1000),
        )
        for trial in study.get_trials(deepcopy=False, states=tuple(STATES.values()))
        if WARM_START not in trial.user_attrs
    ]


def all_trials(study: optuna.Study) -> list[tuple[Asked, Outcome | None]]:
    """What was asked for every trial of the study's own that has started, and how it ended; None: not yet."""
    started = (*STATES.values(), TrialState.RUNNING)
    return [
        (
            asked_of(trial_id_of(study.study_name, trial.number), trial),
            _outcome(trial) or (Outcome.failed(LOST) if trial.state.is_finished() else None),
        )
        for trial in study.get_trials(deepcopy=False, states=started)
        if WARM_START not in trial.user_attrs
    ]


def num_run(over: Iterable[Finished]) -> int:
    """How many of these count as trials of the budget: what was only proposed again does not."""
    return sum(one.outcome.reason != DUPLICATE for one in over)


def trial_id_of(study_name: str, number: int) -> str:
    """The one id of a trial: in Ray, on disk, in MLflow, in Optuna."""
    return f"{study_name}-{number:04d}"


def sampler(name: str, seed: int, number: int, trials: int, links: int = 1) -> optuna.samplers.BaseSampler:
    """The sampler that makes one proposal.

    Made anew for each, with a seed of its own, so that a proposal depends on what is in the study and on
    nothing that a process keeps: a search goes on after a crash as if there had been none.

    Args:
        name: `tpe`, `nsga2`, `gp` or `random`.
        seed: the study's.
        number: of the trial.
        trials: how many are asked for; few of them leave little to random exploration.
        links: trials of each proposal, which tell a sampler of one point.
    """
    startup = links * max(4 if links == 1 else 2, min(10, trials // links // 3))
    own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(seed=own, n_startup_trials=startup)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=own, population_size=max(8, min(50, trials // 5)))
            case "gp":
                return optuna.samplers.GPSampler(seed=own, n_startup_trials=startup)
            case "random":
                return optuna.samplers.RandomSampler(seed=own)
    raise ValueError(f"unknown sampler {name!r}: tpe, nsga2, gp or random")


def tell(study: optuna.Study, trial: Trial, outcome: Outcome) -> None:
    """End a running trial: its constraints first, which samplers want of every trial that is over."""
    values = None
    if outcome.measurement is not None:
        values = {one.name: float(getattr(outcome.measurement, one.name)) for one in OBJECTIVES}
    known = trial.constraints
    for name, value in violations(study.user_attrs["purpose"], values or WORST).items():
        if name not in known:  # set by a driver that died before it could tell
            trial.set_constraint(name, value)
    for name, value in in_short(outcome).items():
        trial.set_user_attr(name, value)
    study.tell(trial, None if values is None else [*values.values()], state=STATES[outcome.state])


def in_short(outcome: Outcome) -> dict[str, Any]:
    """What a person wants to see beside the objectives, in a table of user attributes."""
    m = outcome.measurement
    if m is None:
        return {"reason": outcome.reason, "message": outcome.message}
    timings = {f"{timing.scenario}_speedup": round(timing.speedup, 3) for timing in m.latencies}
    return {"sparsity": round(m.sparsity, 4), "num_parameters": m.num_parameters, **timings}


def violations(purpose: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, float]:
    """How far a model is from what a study demands of every model: above 0 is not enough.

    Args:
        purpose: of the study; its `min_score` and `min_speedup`, where there are any.
        values: the objectives by name.
    """
    demands = {f"min_{name}": (purpose.get(f"min_{name}"), value) for name, value in values.items()}
    return {name: least - value for name, (least, value) in demands.items() if least is not None}


def asked_of(trial_id: str, trial: Trial | FrozenTrial) -> Asked:
    """What was proposed for a trial."""
    return Asked(
        trial_id,
        params=dict(trial.params),
        settings=trial.user_attrs.get("settings", {}),
        logarithmic=frozenset(_logarithmic(trial.distributions.items())),
        reproduce=trial.user_attrs.get("reproduce", ""),
        link=link_of(trial),
    )


def link_of(trial: Trial | FrozenTrial) -> Link | None:
    """Which link of a chain a trial is; None: it is of none."""
    raw = trial.user_attrs.get(LINK)
    return None if raw is None else Link(**{**raw, "chain": tuple(raw["chain"])})


def _logarithmic(distributions: Iterable[tuple[str, BaseDistribution]]) -> Iterable[str]:
    return (name for name, distribution in distributions if getattr(distribution, "log", False))


def _outcome(trial: FrozenTrial) -> Outcome | None:
    raw = trial.user_attrs.get("outcome")
    return None if raw is None else outcome_from_json(raw)

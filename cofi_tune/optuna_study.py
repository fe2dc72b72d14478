"""The Optuna study on disk: the one truth about trials, written by the driver alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from cofi_tune import connection
from cofi_tune.messages import LOST, Asked, Outcome, outcome_from_json
from cofi_tune.records import OBJECTIVES

STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "fail": TrialState.FAIL}


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with connection.making(storage):
            study = optuna.create_study(
                study_name=name,
                storage=optuna.storages.RDBStorage(storage, engine_kwargs=engine_settings(storage)),
                directions=[objective.direction for objective in OBJECTIVES],
                load_if_exists=True,
            )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"the study's database (--storage) cannot be used: {line}") from error
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
            "give this one another --name"
        )
    return study


def engine_settings(storage: str) -> dict[str, Any]:
    """For SQLAlchemy: a second command on the same file waits instead of failing as "locked"."""
    return {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each setting that is not the same."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def settle(study: optuna.Study) -> list[Trial]:
    """End what an earlier driver left half told; returns the trials to be offered again."""
    unfinished = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        outcome = _outcome(trial)
        if outcome is None:
            unfinished.append(Trial(study, trial._trial_id))
        else:
            tell(study, trial.number, outcome)
    return unfinished


def finished(study: optuna.Study) -> list[Finished]:
    """Trials that are over, in the order in which they were asked."""
    return [
        Finished(
            asked_of(trial_id_of(study.study_name, trial.number), trial),
            _outcome(trial) or Outcome.failed(LOST),
            trial.datetime_complete and int(trial.datetime_complete.timestamp() * 1000),
        )
        for trial in study.get_trials(deepcopy=False, states=tuple(STATES.values()))
    ]


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


@contextlib.contextmanager
def only_driver(directory: Path, name: str) -> Iterator[None]:
    """One driver at a time: two would offer the same trials. A dead one holds no lock.

    Args:
        directory: of the study.
        name: of the study.

    Raises:
        ValueError: another driver works on it.
    """
    with (directory / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip()
            raise ValueError(f"a search named {name} is running here already ({holder})") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield


def tell(study: optuna.Study, number: int, outcome: Outcome) -> None:
    """End a running trial."""
    values = None
    if outcome.measurement is not None:
        values = [getattr(outcome.measurement, objective.name) for objective in OBJECTIVES]
    study.tell(number, values, state=STATES[outcome.state])


def asked_of(trial_id: str, trial: Trial | FrozenTrial) -> Asked:
    """What was proposed for a trial."""
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

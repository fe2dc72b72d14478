"""Proposals that repeat an earlier trial, and what a finite space has left when they pile up."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from cofi_tune.optuna_study import WARM_START, trial_id_of

MOST_COMBINATIONS = 10_000
"""Of a space that is small enough to be walked through."""


def repeats(study: optuna.Study, number: int, settings: Mapping[str, Any]) -> str | None:
    """The id of an earlier trial of the study that has these very settings, and a result or hope of one.

    Trials of other studies (`--warm-start`) do not count: this study has not measured them.

    Args:
        study: whose trials.
        number: of the trial that is proposed.
        settings: every setting of its run.
    """
    wanted = _canonical(settings)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING)):
        earlier = trial.number < number and WARM_START not in trial.user_attrs
        if earlier and _canonical(trial.user_attrs.get("settings")) == wanted:
            return trial_id_of(study.study_name, trial.number)
    return None


def untried(study: optuna.Study) -> dict[str, Any] | None:
    """The first combination of a finite space's values that no trial of the study has had.

    Returns:
        Params; None for a space without end, or without anything new.
    """
    tried, space = _tried(study)
    return next((params for params in combinations(space) if _canonical(params) not in tried), None)


def exhausted(study: optuna.Study) -> int | None:
    """The number of combinations of a finite space that have all been tried; None while there are others.

    Of a space that asks for other names in other trials this is never known.
    """
    tried, space = _tried(study)
    number = num_combinations(space.values())
    return number if space and number is not None and len(tried) >= number else None


def _tried(study: optuna.Study) -> tuple[set[str], dict[str, BaseDistribution]]:
    """The params of the study's own trials, and the space; it is empty if trials were asked other names."""
    own = [t for t in study.get_trials(deepcopy=False) if t.params and WARM_START not in t.user_attrs]
    same = len({frozenset(trial.params) for trial in own}) == 1
    return {_canonical(trial.params) for trial in own}, own[-1].distributions if same else {}


def combinations(distributions: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
    """Every combination of values, or nothing where there are too many to walk through."""
    if distributions and 0 < (num_combinations(distributions.values()) or 0) <= MOST_COMBINATIONS:
        for values in itertools.product(*(_values(one) for one in distributions.values())):
            yield dict(zip(distributions, values, strict=True))


def num_combinations(distributions: Iterable[BaseDistribution]) -> int | None:
    """How many there are; None if one of them is continuous."""
    product = 1
    for one in distributions:
        if isinstance(one, CategoricalDistribution):
            product *= len(one.choices)
        elif isinstance(one, FloatDistribution) and one.step is None and not one.single():
            return None
        else:
            product *= 1 if one.single() else int((one.high - one.low) / one.step) + 1
    return product


def _values(distribution: Any) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [*distribution.choices]
    if distribution.single():
        return [distribution.low]
    number = num_combinations([distribution]) or 0
    return [distribution.low + i * distribution.step for i in range(number)]


def _canonical(values: Mapping[str, Any] | None) -> str:
    return json.dumps(values, sort_keys=True, default=str)

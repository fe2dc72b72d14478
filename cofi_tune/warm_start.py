"""What earlier studies have found, as knowledge for this one's sampler (`--warm-start`).

A trial of an earlier study is added as it would have been proposed here: with this space's parameters, values
that the earlier space had fixed among them. It is marked, and is none of this study's own trials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from cofi_tune.data.names import closest
from cofi_tune.database import sqlite_file
from cofi_tune.optuna_study import WARM_START, trial_id_of, violations
from cofi_tune.records import OBJECTIVES
from cofi_tune.storage import open_storage

FROM, TASK, OTHER_TASK = "warm_start_study_id", "warm_start_task", "warm_start_other_task"
"""User attributes beside `WARM_START`, which is the earlier trial's id."""


def check(storage: str, names: Sequence[str], own: str | None, scenario: str) -> None:
    """Refuse studies that cannot be learned from.

    Args:
        storage: URL of the database that this study and the earlier ones are in.
        names: of the earlier studies.
        own: this study's name; None: a new one.
        scenario: whose speedup this study improves.

    Raises:
        ValueError: no such study, or one with other objectives; one line, with the nearest name.
    """
    file = sqlite_file(storage)
    if file is not None and not file.is_file():  # which opening it would make
        raise ValueError(f"--warm-start {names[0]}: there is no study yet in {file}")
    opened = open_storage(storage)
    there = [study.study_name for study in optuna.get_all_study_summaries(opened)]
    for name in names:
        if name == own:
            raise ValueError(f"--warm-start {name}: this is the study itself, which goes on anyway")
        if name not in there:
            known = [one for one in there if one != own]
            near = closest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(
                f"--warm-start {name}: there is no such study in this storage{hint} "
                f"(studies: {', '.join(known) or 'none'})"
            )
        purpose = optuna.load_study(study_name=name, storage=opened).user_attrs.get("purpose", {})
        wanted = [f"{one.direction} {one.name}" for one in OBJECTIVES]
        if purpose.get("objectives") != wanted:
            raise ValueError(
                f"--warm-start {name}: its objectives are {purpose.get('objectives')}, here {wanted}"
            )
        if purpose.get("scenario") != scenario:
            raise ValueError(
                f"--warm-start {name}: its speedups are of the scenario {purpose.get('scenario')!r}, here "
                f"{scenario!r}; give --scenario {purpose.get('scenario')}, or leave this study out"
            )


def add(
    study: optuna.Study,
    storage: str,
    names: Sequence[str],
    space: Callable[[Any], Any],
    note: Callable[[str], None],
) -> None:
    """Add the complete trials of earlier studies that are not there yet.

    Args:
        study: to which they are added.
        storage: URL of the database.
        names: of the earlier studies, which `check` has passed.
        space: this study's.
        note: told what was added, and what was not and why.
    """
    trials = study.get_trials(deepcopy=False)
    have = [[trial.user_attrs.get(key) for key in (WARM_START, FROM)] for trial in trials]
    purpose = study.user_attrs["purpose"]
    for name in dict.fromkeys(names):
        earlier = optuna.load_study(study_name=name, storage=open_storage(storage))
        task = earlier.user_attrs["purpose"]["task"]
        marks = {TASK: task, OTHER_TASK: task != purpose["task"]}
        told = Counter[str]()
        for trial_id, trial in _own_complete(earlier):
            mark = {WARM_START: trial_id, FROM: earlier.user_attrs["uid"]}
            if [*mark.values()] in have:
                told["known already"] += 1
                continue
            asked = _Replay(trial)
            try:
                space(asked)
            except ValueError as error:
                told[f"left out, {error}"] += 1
                continue
            study.add_trial(_marked(trial, asked, purpose, mark | marks))
            told["added"] += 1
        other = f" (another task, {task})" if marks[OTHER_TASK] else ""
        counts = ", ".join(f"{number} {what}" for what, number in told.items())
        note(f"warm start from {name}{other}: {counts or 'it has no complete trial'}")


def _own_complete(earlier: optuna.Study) -> Iterator[tuple[str, FrozenTrial]]:
    for trial in earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if WARM_START not in trial.user_attrs:
            yield trial_id_of(earlier.study_name, trial.number), trial


class _Replay(FixedTrial):
    """Answers a space with what an earlier trial had: drawn, or fixed by its own space."""

    def __init__(self, trial: FrozenTrial) -> None:
        super().__init__({**trial.user_attrs.get("settings", {}), **trial.params})

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._params:
            raise ValueError(f"they have no {name}")
        try:
            fits = distribution._contains(distribution.to_internal_repr(self._params[name]))
        except (ValueError, TypeError):  # of another kind
            fits = False
        if not fits:
            raise ValueError(f"this space does not have their {name}")
        return super()._suggest(name, distribution)


def _marked(
    trial: FrozenTrial, asked: FixedTrial, purpose: Mapping[str, Any], marks: Mapping[str, Any]
) -> FrozenTrial:
    values = dict(zip((one.name for one in OBJECTIVES), trial.values, strict=True))
    return optuna.trial.create_trial(
        params=asked.params,
        distributions=asked.distributions,
        values=[*values.values()],
        user_attrs=dict(marks),
        # Genetic algorithms breed only from generations: this is their first.
        system_attrs={optuna.samplers.NSGAIISampler._get_generation_key(): 0},
        constraints=violations(purpose, values),
    )

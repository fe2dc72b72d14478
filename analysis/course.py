"""How a search went: how its trials ended, what each added to the front, and which settings mattered."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from analysis import hypervolume
from analysis.fronts import is_measured, plain
from analysis.runs import Study, searched

if TYPE_CHECKING:
    import optuna
    import pandas as pd

OBJECTIVES = ("score", "speedup")
FEWEST_FOR_IMPORTANCE = 10
BEST_SHARE, FEWEST_BEST = 0.1, 5
MOST_POINTS = 1000
"""Trials that are drawn line by line, and that importance is computed from, evenly spaced."""


def of(study: Study, frame: pd.DataFrame) -> dict[str, Any]:
    """The course of one study, as JSON.

    Args:
        study: what its own run says.
        frame: its trials, of `analysis.runs.table`, in the order of proposals.
    """
    names = searched(frame)
    importance, why_not = importances(frame, names)
    drawn = _spaced(list(frame.index), MOST_POINTS)
    return {
        "name": study.name,
        "task": study.tag("task"),
        "space": study.tag("space"),
        "model": study.tag("model"),
        "counts": dict(Counter(map(_kind, frame["state"], frame["reason"]))),
        "ends": _ends(frame),
        "course": _course(study, frame),
        "processor": "GPU" if study.tag("device") == "cuda" else "CPU",
        "importance": importance,
        "importance_note": why_not,
        "searched": names,
        "logarithmic": [name for name in names if f"param/log10_{name}" in frame],
        "points": [_point(frame.loc[i], names) for i in drawn],
        "points_note": f"{len(drawn):,} of {len(frame):,} trials are drawn"
        if len(drawn) < len(frame)
        else None,
        "command": study.tag("command"),
        "versions": {
            name.removeprefix("version."): value
            for name, value in sorted(study.tags.items())
            if name.startswith("version.")
        }
        | {"cofi-tune": study.tag("version")},
    }


def importances(
    frame: pd.DataFrame, names: Sequence[str]
) -> tuple[dict[str, dict[str, float]] | None, str | None]:
    """How much each setting matters for coming out among the best: PED-ANOVA (Watanabe et al., 2023).

    The best are a tenth of the trials, or five where that is more.

    Args:
        frame: trials.
        names: of the settings that were searched.

    Returns:
        Shares of 1 by name, the largest first, for each objective and for the front; or None and why not.
    """
    complete = frame[is_measured(frame)]
    complete = complete.loc[_spaced(list(complete.index), MOST_POINTS)]
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        return None, f"Importance needs {FEWEST_FOR_IMPORTANCE} complete trials; there are {len(complete)}."
    varied = [name for name in names if complete[f"param/{name}"].nunique() > 1]
    if not varied:
        return None, "No setting varied."
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = _as_study(complete, varied)
        share = max(BEST_SHARE, FEWEST_BEST / len(complete))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        found = {}
        for number, objective in enumerate((*OBJECTIVES, "front")):
            target = None if objective == "front" else _negated(number)
            shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
            found[objective] = {name: float(value) for name, value in shares.items()}
    return found, None


def _negated(number: int) -> Callable[[optuna.trial.FrozenTrial], float]:
    """An objective as the evaluator wants it: the lower, the better."""
    return lambda trial: -float(trial.values[number])


def _as_study(frame: pd.DataFrame, names: Sequence[str]) -> optuna.Study:
    """The trials in Optuna's own form; ranges are those that were seen."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    kinds: dict[str, BaseDistribution] = {}
    for name in names:
        column = frame[f"param/{name}"].dropna()
        if column.dtype.kind in "iuf":
            low, high = float(column.min()), float(column.max())
            kinds[name] = FloatDistribution(low, high, log=f"param/log10_{name}" in frame and low > 0)
        else:
            kinds[name] = CategoricalDistribution(sorted({plain(value) for value in column}))
    study = optuna.create_study(directions=["maximize"] * len(OBJECTIVES))
    for _, row in frame.iterrows():
        params = {name: plain(row[f"param/{name}"]) for name in names}
        given = {name: value for name, value in params.items() if value is not None}
        study.add_trial(
            optuna.create_trial(
                params={
                    n: float(v) if isinstance(kinds[n], FloatDistribution) else v for n, v in given.items()
                },
                distributions={name: kinds[name] for name in given},
                values=[float(row[objective]) for objective in OBJECTIVES],
            )
        )
    return study


def _course(study: Study, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The hypervolume after each trial that is over, in the order of ends, and the compute until then."""
    over = frame[~frame["state"].isin(["running", "interrupted"]) & (frame["reason"] != "duplicate")]
    heard = over["heard_ms"].ffill().fillna(0.0)  # what was never run ended when it was proposed
    over = over.loc[heard.sort_values(kind="stable").index]
    corner = (study.number("reference_score") or 0.0, 1.0)
    done = is_measured(over)
    points = [
        (float(score), float(speedup)) if complete else corner
        for score, speedup, complete in zip(over["score"], over["speedup"], done, strict=True)
    ]
    seconds = over["seconds"].fillna(0.0).cumsum()
    hours = seconds * (study.number("held") or 1.0) / 3600
    grown = hypervolume.growth(points, corner)
    return [
        {"trial": trial, "number": number, "seconds": float(s), "compute_hours": float(h), "hypervolume": v}
        for number, (trial, s, h, v) in enumerate(zip(over["trial"], seconds, hours, grown, strict=True), 1)
    ]


def _ends(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every way to end without a model, the most frequent first."""
    other = frame[frame["state"] != "complete"]
    found = []
    for state, reason in dict.fromkeys(zip(other["state"], other["reason"], strict=True)):
        same = other[(other["state"] == state) & (other["reason"] == reason)]
        messages = [message for message in same["message"] if message]
        found.append(
            {
                "state": state,
                "reason": reason,
                "count": len(same),
                "trials": list(same["trial"].iloc[:5]),
                "message": messages[0] if messages else "",
            }
        )
    return sorted(found, key=lambda end: (-end["count"], end["state"], end["reason"]))


def _point(row: pd.Series[Any], names: Sequence[str]) -> dict[str, Any]:
    values = {name: plain(row[name]) for name in ("trial", "state", *OBJECTIVES)}
    return values | {"settings": {name: plain(row[f"param/{name}"]) for name in names}}


def _spaced(places: Sequence[Any], most: int) -> list[Any]:
    """At most so many of these, evenly spaced, in order."""
    if len(places) <= most:
        return list(places)
    return [places[i * len(places) // most] for i in range(most)]


def _kind(state: str, reason: str) -> str:
    return f"{state} ({reason})" if reason else state

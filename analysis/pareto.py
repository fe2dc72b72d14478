"""The front: models that no other beats on both score and speed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cofi_tune.records import Measurement

KEEP = 0.95
"""Share of the teacher's score below which a fast model is called too dull to recommend."""


@dataclass(frozen=True)
class Point:
    """A finished trial."""

    trial: str
    measurement: Measurement
    model: str
    """Directory of the loadable model."""


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no point dominates, in the order given.

    A point dominates another if it is at least as good in both numbers and better in one; of equal points
    all stay. Both numbers are to be as large as possible, and finite.
    """
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    kept: list[int] = []
    best_second = float("-inf")
    for i in order:
        ties = bool(kept) and points[i] == points[kept[-1]]
        if points[i][1] > best_second or ties:
            kept.append(i)
            best_second = points[i][1]
    return sorted(kept)


def contract_of(measurement: Measurement) -> tuple[tuple[str, str], ...]:
    """What a point is comparable under, as something hashable."""
    return tuple(sorted((name, str(value)) for name, value in measurement.contract.items()))


def comparable(points: Sequence[Point]) -> list[Point]:
    """The points measured under the most common contract; the others share no front."""
    if not points:
        return []
    [(common, _)] = Counter(contract_of(p.measurement) for p in points).most_common(1)
    return [p for p in points if contract_of(p.measurement) == common]


def summary(
    points: Sequence[Point],
    *,
    study: str,
    task: str,
    metric: str,
    scenario: str,
    min_score: float | None = None,
    min_speedup: float | None = None,
) -> dict[str, Any]:
    """Everything worth knowing of a search's finished trials, as JSON.

    Args:
        points: trials with objectives.
        study: its name.
        task: its task's name.
        metric: the score's name.
        scenario: whose speedup is the objective.
        min_score: a model below is of no use, and on no front.
        min_speedup: likewise.

    Returns:
        `teacher`: the dense model; `trials`: one row each, best score first; `fastest_keeping`: the id of the
        fastest trial of the front with at least `KEEP` of the teacher's score, or None; `recommended`: that
        one, or, with demands, the fastest that meets `min_score`, or the best that meets `min_speedup` alone;
        `not_comparable`: ids left out, since they were measured elsewhere or otherwise.
    """
    same = comparable(points)
    useful = [p for p in same if _meets(p.measurement, min_score, min_speedup)]
    on_front = {useful[i].trial for i in front([_objectives(p) for p in useful])}
    rows = [_row(p, p.trial in on_front, p in useful, metric) for p in same]
    rows.sort(key=lambda row: (-row["score"], -row["speedup"]))
    best = [row for row in rows if row["on_front"]]
    keeping = [r for r in best if r["score_share"] is not None and r["score_share"] >= KEEP]
    fastest_keeping = max(keeping, key=lambda r: r["speedup"])["trial"] if keeping else None
    recommended = fastest_keeping
    if best and min_score is not None:
        recommended = max(best, key=lambda r: r["speedup"])["trial"]
    elif best and min_speedup is not None:
        recommended = best[0]["trial"]
    one = same[0].measurement if same else None
    return {
        "study": study,
        "task": task,
        "metric": metric,
        "scenario": scenario,
        "contract": dict(one.contract) if one else {},
        "teacher": {
            "score": one.teacher_scores[metric],
            "scores": dict(one.teacher_scores),
            "num_parameters": one.dense_num_parameters,
            "latency_ms": {t.scenario: t.dense_ms for t in one.latencies},
        }
        if one
        else None,
        "keep": KEEP,
        "min_score": min_score,
        "min_speedup": min_speedup,
        "fastest_keeping": fastest_keeping,
        "recommended": recommended,
        "trials": rows,
        "not_comparable": [p.trial for p in points if p not in same],
    }


def to_csv(document: Mapping[str, Any]) -> str:
    """The rows of a summary, one line each."""
    rows = [_flat(row) for row in document["trials"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names or ["trial"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _meets(measurement: Measurement, min_score: float | None, min_speedup: float | None) -> bool:
    return (min_score is None or measurement.score >= min_score) and (
        min_speedup is None or measurement.speedup >= min_speedup
    )


def _objectives(point: Point) -> tuple[float, float]:
    return point.measurement.score, point.measurement.speedup


def _row(point: Point, on_front: bool, meets_demands: bool, metric: str) -> dict[str, Any]:
    m = point.measurement
    teacher = m.teacher_scores[metric]
    return {
        "trial": point.trial,
        "on_front": on_front,
        "meets_demands": meets_demands,
        "score": m.score,
        "score_share": m.score / teacher if teacher > 0 else None,
        "scores": dict(m.scores),
        "speedup": m.speedup,
        "scenarios": {
            t.scenario: {
                "speedup": t.speedup,
                "low": t.speedup_low,
                "high": t.speedup_high,
                "latency_ms": t.latency_ms,
            }
            for t in m.latencies
        },
        "sparsity": m.sparsity,
        "model_sparsity": m.model_sparsity,
        "num_parameters": m.num_parameters,
        "macs": m.macs,
        "seconds": m.seconds,
        "model": point.model,
    }


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat

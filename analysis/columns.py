"""All trials of a front as columns: what the page needs to draw, filter and name ten thousand of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def of_front(front: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A front by columns; numbers have six digits, methods and studies are places in a list.

    Returns:
        `trial`, `score`, `low`, `high` (of the score's interval), `speedup`, `slow`, `fast` (of its spread),
        `method`, `study`, `chain`: one value per trial; `settings`: a pair of name and column per searched
        parameter; `dense`, `keep` and what the axes are called.
    """
    rows, dense = front["trials"], front["dense"]
    spread = [row["scenarios"][front["scenario"]] for row in rows]
    methods, studies = (sorted({str(row[name]) for row in rows}) for name in ("method", "study"))
    settings = sorted({name for row in rows for name in row["settings"]})
    return {
        "label": front["label"],
        "metric": front["metric"],
        "scenario": front["scenario"],
        "keep": front["keep"],
        "min_score": front["min_score"],
        "min_speedup": front["min_speedup"],
        "dense": {
            name: rounded(dense.get(key))
            for name, key in {"score": "score", "low": "score_low", "high": "score_high"}.items()
        },
        "methods": methods,
        "studies": studies,
        "trial": [names[row["trial"]] for row in rows],
        "score": _column(rows, lambda row: row["score"]),
        "low": _column(rows, lambda row: row.get("score_low")),
        "high": _column(rows, lambda row: row.get("score_high")),
        "speedup": _column(rows, lambda row: row["speedup"]),
        "slow": _column(spread, lambda one: one["low"]),
        "fast": _column(spread, lambda one: one["high"]),
        "method": [methods.index(str(row["method"])) for row in rows],
        "study": [studies.index(str(row["study"])) for row in rows],
        "chain": [row.get("chain") for row in rows],
        "settings": [[name, _column(rows, lambda row: row["settings"].get(name))] for name in settings],  # noqa: B023
    }


def scenarios(front: Mapping[str, Any]) -> list[str]:
    """What the models were timed in; the one whose speedup is the objective first."""
    return list(
        dict.fromkeys([front["scenario"], *(name for row in front["trials"] for name in row["scenarios"])])
    )


def rounded(value: Any, digits: int = 6) -> Any:
    """A number with six digits, None for one that is none; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _column(rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
    return [rounded(value(row)) for row in rows]

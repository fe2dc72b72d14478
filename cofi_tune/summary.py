"""What a search has found: the front as files, as a table, and where everything lies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis import figure, pareto
from cofi_tune.messages import DUPLICATE, Outcome

REPEATED = f"pruned ({DUPLICATE})"
"""Of `counts`: trials that were proposed, but not run again."""


def of(
    ends: Sequence[tuple[str, Outcome]],
    *,
    study: str,
    task: str,
    metric: str,
    scenario: str,
    min_score: float | None = None,
    min_speedup: float | None = None,
) -> dict[str, Any]:
    """`analysis.pareto.summary` of a study, with `counts` of how its trials ended.

    Args:
        ends: trial ids and how they ended.
        study: its name.
        task: its task's name.
        metric: the score's name.
        scenario: whose speedup is the objective.
        min_score: what every useful model has.
        min_speedup: likewise.
    """
    points = [
        pareto.Point(trial_id, outcome.measurement, f"trials/{trial_id}/model")
        for trial_id, outcome in ends
        if outcome.measurement is not None
    ]
    document = pareto.summary(
        points,
        study=study,
        task=task,
        metric=metric,
        scenario=scenario,
        min_score=min_score,
        min_speedup=min_speedup,
    )
    document["counts"] = dict(Counter(_kind(outcome) for _, outcome in ends))
    return document


def files(document: Mapping[str, Any]) -> dict[str, str]:
    """The front as text, by file name."""
    texts = {"front.json": json.dumps(document, indent=2) + "\n"}
    if document["trials"]:
        texts |= {"front.csv": pareto.to_csv(document), "front.svg": figure.of_summary(document)}
    return texts


def metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """The study in a few numbers."""
    rows = document["trials"]
    over, repeated = sum(document["counts"].values()), document["counts"].get(REPEATED, 0)
    found: dict[str, float] = {
        "num_finished": over - repeated,
        "num_duplicates": repeated,
        "num_complete": len(rows),
    }
    if rows:
        found |= {
            "num_on_front": sum(row["on_front"] for row in rows),
            "teacher_score": document["teacher"]["score"],
            "best_score": max(row["score"] for row in rows),
            "best_speedup": max(row["speedup"] for row in rows),
        }
    return found


def show(console: Console, document: Mapping[str, Any], directory: Path) -> None:
    """Print the finished trials, the front marked, and where everything is.

    Args:
        console: where to.
        document: what `of` returns; `comparison` of MLflow and `ui_command`, if there are any.
        directory: of the study, as the user named it.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    rows = document["trials"]
    if rows:
        console.print()
        console.print(_table(document))
        say(_recommendation(document, directory))
        say(f"Models: {directory}/trials/{document['study']}-<trial>/model")
    if document["not_comparable"]:
        say(f"Measured elsewhere or otherwise, so left out: {', '.join(document['not_comparable'])}")
    counts = ", ".join(f"{number} {kind}" for kind, number in document["counts"].items())
    ended = f"; ended by {document['ended_by']}" if document.get("ended_by") else ""
    say(f"Trials: {counts or 'none'}{ended}")
    if rows:
        say(f"Front: {directory}/front.svg, front.csv, front.json")
    else:
        say(f"No trial gave a model. Tracebacks, where there are any: {directory}/trials/*/error.txt")
    if document.get("comparison"):
        if document.get("ui_command"):
            say(f"MLflow: {document['ui_command']}")
        say(f"Compare: {document['comparison']}")


def _table(document: Mapping[str, Any]) -> Table:
    teacher, rows = document["teacher"], document["trials"]
    scenarios = [*rows[0]["scenarios"]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.title = f"{document['task']}: {document['metric']} against speed; nobody beats * on both"
    speedups = (f"{scenario} speedup" for scenario in scenarios)
    for name in ("", "trial", "score", "of teacher", *speedups, "sparsity", "parameters"):
        table.add_column(name, justify="left" if name in ("", "trial") else "right")
    dense = [f"{teacher['score']:.3f}", "100 %", *("1.00" for _ in scenarios), "0.000"]
    table.add_row("", "teacher", *dense, f"{teacher['num_parameters']:,}")
    for row in rows:
        speeds = (f"{s['speedup']:.2f} [{s['low']:.2f}-{s['high']:.2f}]" for s in row["scenarios"].values())
        table.add_row(
            "*" if row["on_front"] else "",
            escape(row["trial"].removeprefix(f"{document['study']}-")),
            f"{row['score']:.3f}",
            "" if row["score_share"] is None else _percent(row["score_share"]),
            *(escape(speed) for speed in speeds),
            f"{row['sparsity']:.3f}",
            f"{row['num_parameters']:,}",
            style=None if row["on_front"] else "dim",
        )
    return table


def _recommendation(document: Mapping[str, Any], directory: Path) -> str:
    best = next((r for r in document["trials"] if r["trial"] == document["recommended"]), None)
    score, speedup = document["min_score"], document["min_speedup"]
    demands = [] if score is None else [f"a score of {score:g}"]
    demands += [] if speedup is None else [f"{speedup:g}x"]
    if demands:
        what = f"with at least {' and '.join(demands)}"
        which = "Best" if score is None else "Fastest"
    else:
        what = f"that keeps {_percent(document['keep'])} of the teacher's score"
        which = "Fastest"
    if best is None:
        return f"There is no model {what}."
    where = f"{directory}/{best['model']}"
    return f"{which} {what}: {best['speedup']:.2f}x with {best['score']:.3f}, {where}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _kind(outcome: Outcome) -> str:
    return outcome.state if outcome.reason is None else f"{outcome.state} ({outcome.reason})"

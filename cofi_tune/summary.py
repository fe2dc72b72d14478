"""What a search has found: the front as files, as a table, and where everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis import report
from analysis.contracts import crowded
from analysis.sentences import BESIDE
from analysis.words import percent
from cofi_tune.messages import DUPLICATE
from cofi_tune.on_disk import OnDisk

NO_FRONT: dict[str, Any] = {
    "task": "",
    "metric": "score",
    "trials": [],
    "dense": None,
    "recommended": None,
    "recommendation": "",
    "min_score": None,
    "min_speedup": None,
}
REPEATED = f"pruned ({DUPLICATE})"
"""Of `counts`: trials that were proposed, but not run again."""


def write(
    study: optuna.Study,
    tags: Mapping[str, str],
    output: Path,
    *,
    place: str | None = None,
    with_pages: bool = True,
) -> tuple[dict[str, Any], list[Path]]:
    """Write front and report of a study, as its database and its files have it.

    Args:
        study: which.
        tags: what all its runs have in common.
        output: of its search.
        place: what the user calls it; None: as above.
        with_pages: write `report.html` and `report.md` too.

    Returns:
        What `of` says of it, and the files.

    Raises:
        OSError: they cannot be written.
    """
    directory = output / study.study_name
    document, made = report.files(OnDisk(study, tags, directory), place or str(output), with_pages=with_pages)
    return of(document), report.write(made, directory)


def of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a search says at its end.

    Args:
        document: of `analysis.report.files`, about one study.

    Returns:
        Its first front, or one without trials; `study`, its name; `counts` of how its trials ended;
        `not_comparable`: trials that were measured elsewhere or otherwise.
    """
    [study] = document["studies"]
    first, *others = document["fronts"] or [NO_FRONT]
    ours = {row["trial"] for row in first["trials"]}
    elsewhere = {row["trial"] for front in others for row in front["trials"]} - ours
    return {
        **first,
        "study": study["name"],
        "counts": study["counts"],
        "not_comparable": sorted(elsewhere),
    }


def metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """The study in a few numbers; their names start with `study/`, apart from those of its trials.

    Args:
        found: what `of` returns.
    """
    rows, counts = found["trials"], found["counts"]
    repeated = counts.get(REPEATED, 0)
    numbers: dict[str, float] = {
        "num_finished": sum(counts.values()) - repeated - counts.get("running", 0),
        "num_duplicates": repeated,
        "num_complete": len(rows),
    }
    if rows:
        numbers |= {
            "num_on_front": sum(row["on_front"] for row in rows),
            "hypervolume": found["hypervolume"],
            "teacher_score": found["dense"]["score"],
            "best_score": max(row["score"] for row in rows),
            "best_speedup": max(row["speedup"] for row in rows),
        }
    return {f"study/{name}": value for name, value in numbers.items()}


def show(console: Console, document: Mapping[str, Any], directory: Path, place: str | None = None) -> None:
    """Print the finished trials, the front marked, and where everything is.

    Args:
        console: where to.
        document: what `of` returns; `comparison` of MLflow and `ui_command`, if there are any.
        directory: of the study, as the user named it.
        place: URL of the study's files, where the directory is a copy of some of them.
    """

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    rows = document["trials"]
    if rows:
        console.print()
        console.print(_table(document))
        say(document["recommendation"])
        if crowded(document["contract"]):
            say(BESIDE)
        say(f"Models: {place or directory}/trials/{document['study']}-<trial>/model")
    if document["not_comparable"]:
        say(f"Measured elsewhere or otherwise, so left out: {', '.join(document['not_comparable'])}")
    counts = ", ".join(f"{number} {kind}" for kind, number in document["counts"].items())
    ended = f"; ended by {document['ended_by']}" if document.get("ended_by") else ""
    say(f"Trials: {counts or 'none'}{ended}")
    if not rows:
        say(f"No trial gave a model. Tracebacks, where there are any: {directory}/trials/*/error.txt")
    if (directory / "report.html").is_file():
        say(f"Report: {directory}/report.html")
    if document.get("comparison"):
        if document.get("ui_command"):
            say(f"MLflow: {document['ui_command']}")
        say(f"Compare: {document['comparison']}")


def _table(document: Mapping[str, Any]) -> Table:
    dense_model, rows = document["dense"], document["trials"]
    scenarios = [*rows[0]["scenarios"]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    table.title = f"{document['task']}: {document['metric']} against speed; nobody beats * on both"
    speedups = (f"{scenario} speedup" for scenario in scenarios)
    for name in ("", "trial", "score", "of teacher", *speedups, "sparsity", "parameters"):
        table.add_column(name, justify="left" if name in ("", "trial") else "right")
    dense = [f"{dense_model['score']:.3f}", "100 %", *("1.00" for _ in scenarios), "0.000"]
    table.add_row("", "teacher", *dense, f"{dense_model['num_parameters']:,}")
    for row in rows:
        speeds = (f"{s['speedup']:.2f} [{s['low']:.2f}-{s['high']:.2f}]" for s in row["scenarios"].values())
        table.add_row(
            "*" if row["on_front"] else "",
            escape(row["trial"].removeprefix(f"{document['study']}-")),
            f"{row['score']:.3f}",
            percent(row["score_share"]),
            *(escape(speed) for speed in speeds),
            f"{row['sparsity']:.3f}",
            f"{row['num_parameters']:,}",
            style=None if row["on_front"] else "dim",
        )
    return table

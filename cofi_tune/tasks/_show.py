"""How the command prints tasks and data cards: tables on a terminal, aligned text elsewhere."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from cofi_tune import tasks
from cofi_tune.data.card import DataCard, SplitCard


def listing() -> list[dict[str, Any]]:
    """Every task: name, question, texts, classes, metrics."""
    rows = []
    for name in tasks.names():
        task = tasks.load(name)
        card = importlib.import_module(f"cofi_tune.tasks.{name}").__doc__ or ""
        rows.append(
            {
                "task": name,
                "question": card.split("\n", 1)[0],
                "texts": len(task.text_columns),
                "labels": list(task.labels) if task.labels else None,
                "metric": task.metric,
                "metrics": list(task.metrics),
            }
        )
    return rows


def print_listing() -> None:
    """Print the tasks, one a line."""
    rows = [
        [one["task"], one["metric"], len(one["labels"] or []) or "score", one["question"]]
        for one in listing()
    ]
    _print_table(["task", "metric", "classes", "question"], rows)


def print_card(card: DataCard) -> None:
    """Print a data card."""
    print(f"task     {card.task}")
    others = ", ".join(name for name in card.metrics if name != card.metric)
    print(f"metric   {card.metric}" + (f" (reported too: {others})" if others else ""))
    print(f"source   {card.source}")
    print(f"content  sha256 {card.content_hash}\n")
    _print_table(
        ["split", "rows", "labels", "empty", "seen in train"],
        [
            [name, split.rows, _labels(split), split.empty_texts, split.seen_in_train]
            for name, split in card.splits.items()
        ],
    )
    tokens = card.unit == "tokens"
    limit = f", cut at {card.max_length}" if tokens else "; --tokenizer counts tokens"
    print(f"\nlength of a row in {card.unit}{limit}")
    names = list(next(iter(card.splits.values())).lengths.percentiles)
    _print_table(
        ["split", "mean", *names, "cut"],
        [
            [
                name,
                f"{split.lengths.mean:.1f}",
                *split.lengths.percentiles.values(),
                "-" if split.truncated is None else split.truncated,
            ]
            for name, split in card.splits.items()
        ],
    )


def _labels(split: SplitCard) -> str:
    shown = [f"{label} {count:g}" for label, count in list(split.labels.items())[:10]]
    more = len(split.labels) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [[str(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[place]) for row in cells) for place in range(len(head))]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for name, right in zip(head, numeric, strict=True):
            table.add_column(name, justify="right" if right else "left")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    for row in [list(head), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  ".join(padded).rstrip())


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()

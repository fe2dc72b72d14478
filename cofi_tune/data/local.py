"""A task made from files of one's own: its classes are those that train names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cofi_tune.data.reader import NUMBER, DataError, Wanted, read_table
from cofi_tune.data.task import Task

MOST_CLASSES = 1000


def local_task(
    train_file: str | Path,
    text_columns: tuple[str, ...],
    label_column: str,
    name: str = "local",
    regression: bool = False,
    metric: str | None = None,
) -> Task:
    """Build the task that a training file describes.

    Labels are scores if asked for, or if all are numbers and one has a fractional part that is not
    zero. Otherwise they are classes: in numeric order if all are whole numbers, else in order of
    their characters.

    Args:
        train_file: .csv, .tsv, .jsonl or .parquet.
        text_columns: one name, or two for pairs.
        label_column: name of the labels' column.
        name: what the task is called in studies and reports.
        regression: labels are scores, whatever they look like.
        metric: the one to maximise; None: accuracy, or pearson for scores.

    Raises:
        DataError: the file is malformed, has one class only, or more than 1,000.
        ValueError: a name or metric that cannot be.
    """
    table = read_table(Path(train_file), Wanted(text_columns, label_column))
    labels = set(table.labels)
    if regression or _are_scores(labels):
        metrics: tuple[str, ...] = ("pearson", "spearman")
        classes = None
    else:
        classes = tuple(sorted(labels, key=_order(labels)))
        metrics = ("accuracy", "matthews", "f1") if len(classes) == 2 else ("accuracy", "matthews")
        if len(classes) < 2:
            raise DataError(f"{train_file}: every label is {classes[0]!r}; nothing to learn")
        if len(classes) > MOST_CLASSES:
            many = f"{len(classes)} different labels are too many classes"
            raise DataError(f"{train_file}: column {label_column}: {many}; scores? --regression")
    if metric is not None and metric not in metrics:
        raise ValueError(f"metric {metric} does not fit these labels; one of {', '.join(metrics)}")
    return Task(
        name=name,
        text_columns=text_columns,
        label_column=label_column,
        labels=classes,
        metric=metric or metrics[0],
        metrics=metrics,
    )


def _are_scores(labels: set[str]) -> bool:
    if not all(NUMBER.fullmatch(label) for label in labels):
        return False
    return any(not float(label).is_integer() for label in labels)


def _order(labels: set[str]) -> Callable[[str], tuple[int, str]]:
    if all(re.fullmatch(r"-?\d{1,18}", label, re.ASCII) for label in labels):
        return lambda label: (int(label), label)
    return lambda label: (0, label)

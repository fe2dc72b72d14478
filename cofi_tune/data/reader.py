"""Strict reading: what is wrong is said with its place, and no row is dropped or merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data.delimited import fill_from_csv, fill_from_tsv
from cofi_tune.data.table import DataError, Table, Wanted, shown
from cofi_tune.data.task import Rows, Task
from cofi_tune.data.typed import fill_from_jsonl, fill_from_parquet

__all__ = ["ENDINGS", "NUMBER", "DataError", "Table", "Wanted", "read_table", "to_rows"]

ENDINGS = (".tsv", ".csv", ".jsonl", ".parquet")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def read_table(path: Path, wanted: Wanted, columns: tuple[str, ...] | None = None) -> Table:
    """Read the wanted columns of a file; its ending says how.

    Args:
        path: a .tsv (no quoting), .csv, .jsonl or .parquet file.
        wanted: the columns to keep.
        columns: names of all columns of a .tsv file that has no header line.

    Raises:
        DataError: missing, empty or malformed; the message names file, line and column.
    """
    if path.suffix not in ENDINGS:
        raise DataError(f"{path}: a data file ends in {', '.join(ENDINGS)}")
    table = Table(str(path), wanted)
    try:
        with path.open("rb") as file:
            if path.suffix == ".tsv":
                fill_from_tsv(file, table, columns)
            elif path.suffix == ".csv":
                fill_from_csv(file, table)
            elif path.suffix == ".jsonl":
                fill_from_jsonl(file, table)
            else:
                fill_from_parquet(path, table)
    except OSError as error:
        problem = (error.strerror or str(error)).split("\n", 1)[0].lower()
        raise DataError(f"{path}: {problem}") from None
    if not table.labels:
        raise DataError(f"{path}:1: no rows")
    return table


def to_rows(task: Task, table: Table, spellings: Sequence[str] | None = None) -> Rows:
    """Rows of a table, its labels checked against the task.

    Args:
        task: says which labels there are.
        table: as a file spells them.
        spellings: of the classes in id order, where the file does not spell as the task does.

    Raises:
        DataError: a label is none of the classes, no finite number, or out of range.
    """
    if task.labels is None:
        return _score_rows(table, task.label_range)
    return _class_rows(table, spellings or task.labels)


def _class_rows(table: Table, spellings: Sequence[str]) -> Rows:
    ids = {spelling: place for place, spelling in enumerate(spellings)}
    labels = np.array([ids.get(label, -1) for label in table.labels], dtype=np.int64)
    unknown = np.flatnonzero(labels < 0).tolist()
    if unknown:
        expected = ", ".join(spellings[:10]) + (", ..." if len(spellings) > 10 else "")
        label = shown(table.labels[unknown[0]])
        raise table.label_fault(unknown, f"unknown label {label}; expected one of {expected}")
    return Rows(tuple(table.texts), labels)


def _score_rows(table: Table, label_range: tuple[float, float] | None) -> Rows:
    numeric = [NUMBER.fullmatch(label) is not None for label in table.labels]
    both = zip(table.labels, numeric, strict=True)
    exact = np.array([float(label) if is_number else 0.0 for label, is_number in both])
    with np.errstate(over="ignore"):
        scores: npt.NDArray[Any] = exact.astype(np.float32)
    wrong = np.flatnonzero(~(np.array(numeric) & np.isfinite(scores))).tolist()
    if wrong:
        raise table.label_fault(wrong, f"{shown(table.labels[wrong[0]])} is not a finite number")
    if label_range is not None:
        low, high = label_range
        outside = np.flatnonzero((exact < low) | (exact > high)).tolist()
        if outside:
            label = table.labels[outside[0]]
            raise table.label_fault(outside, f"score {label} is outside {low:g} to {high:g}")
    return Rows(tuple(table.texts), scores)

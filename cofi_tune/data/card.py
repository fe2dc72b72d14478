"""The data card: what is in a task's rows, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data.sources import Source, content_hash, read
from cofi_tune.data.task import Rows, Task

PERCENTILES = (50, 90, 95, 99)

Measured = tuple[npt.NDArray[Any], int | None]
"""Lengths of a split's rows, and how many were cut."""


@dataclass(frozen=True)
class Lengths:
    """How long the rows of a split are, in the card's unit."""

    mean: float
    percentiles: dict[str, int]
    """p50, p90, p95, p99: the shortest length that this share of rows does not exceed; and max."""


@dataclass(frozen=True)
class SplitCard:
    """One split."""

    rows: int
    labels: dict[str, float]
    """Rows of each class; of a regression `min`, `mean` and `max` of the scores."""
    empty_texts: int
    """Rows with a text that is empty or blank. They are legal, and they are kept."""
    seen_in_train: int
    """Rows whose texts stand in train too (in train itself: rows that repeat an earlier one)."""
    lengths: Lengths
    truncated: int | None
    """Rows that lose their end; None without a tokenizer."""


@dataclass(frozen=True)
class DataCard:
    """A task and its splits."""

    task: str
    metric: str
    metrics: tuple[str, ...]
    source: str
    content_hash: str
    unit: str
    """Of lengths: "tokens" (special ones included, at most `max_length`), or "words"."""
    max_length: int
    splits: dict[str, SplitCard]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        return asdict(self) | {"metrics": list(self.metrics)}


def describe(task: Task, source: Source, tokenizer: str | Path | None = None) -> DataCard:
    """Read a task and count.

    Args:
        task: what to describe.
        source: where its rows are.
        tokenizer: a directory or hub id; None: lengths are those of words between blanks.

    Raises:
        DataError: rows or tokenizer cannot be used.
    """
    splits = read(task, source)
    measured = _words(splits) if tokenizer is None else _tokens(task, splits, tokenizer)
    train_texts = set(splits["train"].texts)
    return DataCard(
        task=task.name,
        metric=task.metric,
        metrics=task.metrics,
        source=str(source),
        content_hash=content_hash(splits),
        unit="words" if tokenizer is None else "tokens",
        max_length=task.max_length,
        splits={
            name: SplitCard(
                rows=len(rows),
                labels=_labels(task, rows),
                empty_texts=sum(not all(text.strip() for text in texts) for texts in rows.texts),
                seen_in_train=(
                    len(rows) - len(train_texts)
                    if name == "train"
                    else sum(texts in train_texts for texts in rows.texts)
                ),
                lengths=_lengths(measured[name][0]),
                truncated=measured[name][1],
            )
            for name, rows in splits.items()
        },
    )


def _labels(task: Task, rows: Rows) -> dict[str, float]:
    if task.labels is None:
        scores = rows.labels.astype(np.float64)
        return {"min": scores.min(), "mean": round(scores.mean(), 4), "max": scores.max()}
    counts = np.bincount(rows.labels, minlength=task.num_labels).tolist()
    return dict(zip(task.labels, counts, strict=True))


def _words(splits: Mapping[str, Rows]) -> dict[str, Measured]:
    return {
        name: (np.array([sum(len(text.split()) for text in row) for row in rows.texts]), None)
        for name, rows in splits.items()
    }


def _tokens(task: Task, splits: Mapping[str, Rows], name: str | Path) -> dict[str, Measured]:
    from cofi_tune.data.encode import tokenise
    from cofi_tune.data.tokenizer import load

    tokenizer = load(name)
    measured: dict[str, Measured] = {}
    for split, rows in splits.items():
        encoded, truncated = tokenise(rows, tokenizer, task.max_length)
        measured[split] = (encoded.lengths, truncated)
    return measured


def _lengths(lengths: npt.NDArray[Any]) -> Lengths:
    at = np.percentile(lengths, PERCENTILES, method="inverted_cdf").astype(int).tolist()
    percentiles = {f"p{share}": value for share, value in zip(PERCENTILES, at, strict=True)}
    return Lengths(round(float(lengths.mean()), 2), percentiles | {"max": int(lengths.max())})

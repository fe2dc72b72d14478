"""What a task is: its columns, classes, metrics and budgets; and its rows. Plain data."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data.metrics import CLASSIFICATION, REGRESSION, compute

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """One split as read."""

    texts: tuple[tuple[str, ...], ...]
    """Rows x text columns."""
    labels: Array
    """int64 class ids, or float32 scores."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def take(self, indices: Sequence[int] | Array) -> Rows:
        """The rows at these positions, in this order."""
        places = np.asarray(indices, dtype=np.int64)
        return Rows(tuple(self.texts[place] for place in places.tolist()), self.labels[places])


@dataclass(frozen=True)
class TsvLayout:
    """The official TSV form: `<data dir>/<folder>/train.tsv` and one file for every dev split."""

    folder: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...] | None = None
    """How the files spell the classes, in id order; None: as the task does (or regression)."""
    columns: tuple[str, ...] | None = None
    """Names of all columns where the files have no header line; None: the first line has them."""


@dataclass(frozen=True)
class Task:
    """A data set and what is wanted on it. Named by its file in `cofi_tune/tasks/`."""

    name: str
    text_columns: tuple[str, ...]
    """One, or two for pairs, as the hub calls them."""
    label_column: str
    labels: tuple[str, ...] | None
    """Class names in id order; None: regression."""
    metric: str
    """The one a search maximises."""
    metrics: tuple[str, ...]
    """All that are reported, `metric` among them."""
    dev_splits: tuple[str, ...] = ("dev",)
    """The first is the one whose score is reported."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest score of a regression, both included."""
    max_length: int = 128
    """Tokens; longer rows are cut, and counted."""
    selection_fraction: float = 0.1
    """Of train, in (0, 1): the rows that choose between models."""
    selection_cap: int = 2000
    """Most rows of the selection split."""
    selection_seed: int = 0
    """The task's own; no trial changes it (D8)."""
    teacher_epochs: float = 5.0
    prune_epochs: float = 20.0
    random_teacher_epochs: float = 8.0
    """Epochs of a teacher that starts from random weights."""
    layout: TsvLayout | None = None
    """None: there is no official TSV form."""
    hub_config: str | None = None
    """Configuration of `nyu-mll/glue`; None: not on the hub."""
    generate: Callable[[], dict[str, Rows]] | None = field(default=None, compare=False, repr=False)
    """Makes "train" and every dev split, for a task that needs no files. Not kept in JSON."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a task."""
        kind = REGRESSION if self.labels is None else CLASSIFICATION
        _require(re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", self.name), "a plain lower-case name")
        _require(len(self.text_columns) in (1, 2), "one or two text columns")
        _require(self.label_column not in self.text_columns, "a label column apart from the texts")
        _require(self.labels is None or len(set(self.labels)) == len(self.labels) >= 2, "2+ labels")
        _require(set(self.metrics) <= set(kind), f"metrics from {', '.join(kind)}")
        _require("f1" not in self.metrics or self.num_labels == 2, "f1 with two classes only")
        _require(self.metric in self.metrics, "its metric among its metrics")
        _require(self.label_range is None or self.is_regression, "a range for regression only")
        _require(0 < self.selection_fraction < 1 and self.selection_cap >= 1, "a selection split")
        _require(self.max_length >= 8, "a max_length of at least 8 tokens")
        reserved = {"train", "selection"}
        _require(self.dev_splits and not reserved & set(self.dev_splits), "dev splits")

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores."""
        return self.labels is None

    @property
    def num_labels(self) -> int:
        """Width of the logits: classes, or 1 for regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split by name: "train", "selection", then the dev splits."""
        return ("train", "selection", *self.dev_splits)

    def score(self, logits: Array, labels: Array) -> dict[str, float]:
        """All of `metrics`; see `cofi_tune.data.metrics.compute` for ranges and errors.

        Args:
            logits: [rows, num_labels], finite.
            labels: [rows] class ids or scores.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_labels:
            raise ValueError(f"logits {logits.shape} do not fit the {self.num_labels} labels")
        return compute(self.metrics, logits, labels)

    def to_json(self) -> dict[str, Any]:
        """Everything but `generate`, as JSON knows it."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        del plain["generate"]
        if self.layout is not None:
            plain["layout"] = asdict(self.layout)
        return {name: _listed(value) for name, value in plain.items()}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Task:
        """The inverse of `to_json`; unknown or missing names are a TypeError."""
        values = {name: _tupled(value) for name, value in plain.items()}
        if plain.get("layout") is not None:
            layout = {name: _tupled(value) for name, value in plain["layout"].items()}
            values["layout"] = TsvLayout(**layout)
        return cls(**values)


def _require(holds: object, what: str) -> None:
    if not holds:
        raise ValueError(f"a task needs {what}")


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _listed(one) for name, one in value.items()}
    return list(value) if isinstance(value, tuple) else value

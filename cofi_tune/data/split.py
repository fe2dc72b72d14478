"""Which rows of train select models, and which are trained on. The task owns it (D7, D8)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cofi_tune.data.table import DataError
from cofi_tune.data.task import Rows, Task


def take_selection(task: Task, train: Rows) -> tuple[Rows, Rows]:
    """Divide train into what is trained on and what selects; the order of rows is kept in both.

    The same rows for every trial and every study: drawn by the task's own seed.

    Raises:
        DataError: train has fewer than two rows.
    """
    if len(train) < 2:
        raise DataError(f"{task.name}: train needs at least 2 rows, one of them for selection")
    wished = min(round(task.selection_fraction * len(train)), task.selection_cap)
    count = min(max(wished, 1), len(train) - 1)
    order = _permutation(task, len(train), stream=0)
    return train.take(np.sort(order[count:])), train.take(np.sort(order[:count]))


def limit(task: Task, train: Rows, max_train_samples: int | None) -> Rows:
    """A fixed part of train (what `take_selection` left), in order; a larger limit adds rows to it.

    Raises:
        ValueError: a limit below 1.
    """
    if max_train_samples is None or max_train_samples >= len(train):
        return train
    if max_train_samples < 1:
        raise ValueError(f"max_train_samples is {max_train_samples}; it must be at least 1")
    order = _permutation(task, len(train), stream=1)
    return train.take(np.sort(order[:max_train_samples]))


def _permutation(task: Task, count: int, stream: int) -> npt.NDArray[np.int64]:
    # By sorting raw bits, which numpy promises to keep; its Generator.permutation may change.
    bits = np.random.PCG64([task.selection_seed, stream]).random_raw(count)
    return np.argsort(bits, kind="stable")

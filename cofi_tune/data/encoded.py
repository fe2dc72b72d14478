"""An encoded task on disk: .npy arrays that every trial maps, meta.json, and the tokenizer.

R rows of a split, T tokens of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data.table import DataError
from cofi_tune.data.task import Task

Array = npt.NDArray[Any]

FORMAT = 1
"""Of the directory; part of its name's hash, so that another format is made anew."""


@dataclass(frozen=True)
class EncodedSplit:
    """The rows of one split, end to end."""

    input_ids: Array
    """int32 [T], special tokens included."""
    token_type_ids: Array
    """uint8 [T]: 1 in the second text of a pair, where the tokenizer makes a difference."""
    offsets: Array
    """int64 [R + 1]: row r is `offsets[r]:offsets[r + 1]`."""
    labels: Array
    """int64 class ids or float32 scores [R]."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    @property
    def lengths(self) -> Array:
        """Tokens of each row, int64 [R]."""
        return np.diff(self.offsets)


ARRAYS = ("input_ids", "token_type_ids", "offsets", "labels")


@dataclass(frozen=True)
class EncodedTask:
    """Everything a trial needs of a task."""

    task: Task
    splits: dict[str, EncodedSplit]
    """"train", "selection", then the dev splits; arrays are mapped and read-only."""
    truncated: dict[str, int]
    """Rows of each split that were longer than `task.max_length` and lost their end."""
    vocab_size: int
    pad_token_id: int
    content_hash: str
    """Of the rows that are encoded here, before tokenising: texts, labels, splits."""
    source: str
    directory: Path
    tokenizer_directory: Path

    def selection_split(self, selection: str) -> str:
        """The split that chooses weights: "selection" for "train" (D7), the first dev split for "dev"."""
        return "selection" if selection == "train" else self.task.dev_splits[0]


def open_encoded(directory: str | Path) -> EncodedTask:
    """Map an encoded task; nothing is tokenised, and no array is copied or writable.

    Raises:
        DataError: the directory holds none, or a torn one.
    """
    directory = Path(directory).absolute()
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']} instead of {FORMAT}")
        task = Task.from_json(meta["task"])
        return EncodedTask(
            task=task,
            splits={name: _open_split(directory, name) for name in task.splits},
            truncated=meta["truncated"],
            vocab_size=meta["vocab_size"],
            pad_token_id=meta["pad_token_id"],
            content_hash=meta["content"],
            source=meta["source"],
            directory=directory,
            tokenizer_directory=directory / "tokenizer",
        )
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        problem = f"no encoded task that can be opened ({reason})"
        raise DataError(f"{directory}: {problem}; delete it, and it is made again") from None


def save_split(directory: Path, name: str, split: EncodedSplit) -> None:
    """Write the arrays of a split."""
    for array in ARRAYS:
        np.save(directory / f"{name}.{array}.npy", getattr(split, array), allow_pickle=False)


def save_meta(directory: Path, meta: Mapping[str, Any]) -> None:
    """Write what is no array: `task source content truncated vocab_size pad_token_id`."""
    text = json.dumps({"format": FORMAT, **meta}, indent=1)
    (directory / "meta.json").write_text(text, encoding="utf-8")


def _open_split(directory: Path, name: str) -> EncodedSplit:
    arrays = (
        np.load(directory / f"{name}.{array}.npy", mmap_mode="r", allow_pickle=False) for array in ARRAYS
    )
    split = EncodedSplit(*arrays)
    num_tokens = len(split.input_ids)
    whole = len(split.token_type_ids) == num_tokens == split.offsets[-1]
    if not whole or len(split.offsets) != len(split.labels) + 1:
        raise ValueError(f"the arrays of {name} do not fit each other")
    return split

"""Tokenise a task once: packed without padding, found again by a hash of all that went in."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data import tokenizer as tokenizers
from cofi_tune.data.encoded import (
    FORMAT,
    EncodedSplit,
    EncodedTask,
    open_encoded,
    save_meta,
    save_split,
)
from cofi_tune.data.sources import Source, content_hash, read
from cofi_tune.data.split import limit
from cofi_tune.data.task import Rows, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Array = npt.NDArray[Any]

__all__ = ["EncodedSplit", "EncodedTask", "encode", "open_encoded", "tokenise"]

ROWS_AT_ONCE = 10_000


def encode(
    task: Task,
    source: Source,
    tokenizer: str | Path | None,
    cache_dir: str | Path,
    max_train_samples: int | None = None,
) -> EncodedTask:
    """Read a task and tokenise it, unless the same was done before.

    Any number of processes may do this at once with one `cache_dir`: each builds beside, and the
    first to finish gives the directory its name.

    Args:
        task: what to encode.
        source: where its rows are.
        tokenizer: a directory or a hub id; None: a vocabulary is trained on the train split.
        cache_dir: where directories of encoded tasks lie; made if need be.
        max_train_samples: a fixed part of train, taken after the selection split; None: all.

    Raises:
        DataError: the rows or the tokenizer cannot be used.
        ValueError: `max_train_samples` below 1.
    """
    splits = read(task, source)
    splits["train"] = limit(task, splits["train"], max_train_samples)
    content = content_hash(splits)
    key = [FORMAT, content, tokenizers.fingerprint(tokenizer), task.to_json()]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    directory = Path(cache_dir) / f"{task.name}-{name}"
    if directory.is_dir():
        return open_encoded(directory)
    building = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    building.mkdir(parents=True)
    try:
        meta = {"task": task.to_json(), "source": str(source), "content": content}
        _write(building, task, splits, tokenizer, meta)
        _publish(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_encoded(directory)


def tokenise(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[EncodedSplit, int]:
    """Tokenise rows; also says how many were cut down to `max_length` tokens.

    The longer text of a pair is cut first.
    """
    ids: list[Array] = []
    types: list[Array] = []
    lengths: list[int] = []
    num_truncated = 0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        texts = rows.texts[start : start + ROWS_AT_ONCE]
        encoded = _call(tokenizer, texts)
        long = [row for row, one in enumerate(encoded["input_ids"]) if len(one) > max_length]
        if long:
            cut = _call(tokenizer, [texts[row] for row in long], max_length)
            for name, values in encoded.items():
                for row, value in zip(long, cut[name], strict=True):
                    values[row] = value
            num_truncated += len(long)
        lengths.extend(len(one) for one in encoded["input_ids"])
        ids.append(_flat(encoded["input_ids"], np.int32))
        types.append(_flat(encoded["token_type_ids"], np.uint8))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    split = EncodedSplit(np.concatenate(ids), np.concatenate(types), offsets, rows.labels)
    return split, num_truncated


def _call(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, ...]],
    max_length: int | None = None,
) -> dict[str, list[list[int]]]:
    columns = [list(column) for column in zip(*texts, strict=True)]
    encoded = tokenizer(
        *columns,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=True,
        verbose=False,
    )
    return {name: encoded[name] for name in ("input_ids", "token_type_ids")}


def _flat(rows: list[list[int]], dtype: type[np.generic]) -> Array:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype)


def _write(
    directory: Path,
    task: Task,
    splits: dict[str, Rows],
    name: str | Path | None,
    meta: dict[str, Any],
) -> None:
    texts = (text for row in splits["train"].texts for text in row)
    tokenizer = tokenizers.train(texts) if name is None else tokenizers.load(name)
    # Saved before it is used: the first call writes its truncation into the tokenizer.
    tokenizer.save_pretrained(directory / "tokenizer")
    highest, truncated = 0, {}
    for split_name, rows in splits.items():
        split, truncated[split_name] = tokenise(rows, tokenizer, task.max_length)
        highest = max(highest, int(split.input_ids.max()))
        save_split(directory, split_name, split)
    counted = {
        "truncated": truncated,
        "vocab_size": max(len(tokenizer), highest + 1),
        "pad_token_id": tokenizer.pad_token_id,
    }
    save_meta(directory, meta | counted)


def _publish(building: Path, directory: Path) -> None:
    try:
        os.replace(building, directory)
    except OSError:
        if not directory.is_dir():
            raise
        # Another process was first; what it wrote is the same.

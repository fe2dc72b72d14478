"""Rows -> packed batches, made on the host before the step.

Axes: B rows, T positions, N real tokens end to end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cofi_tune.data.encode import EncodedSplit
from cofi_tune.modeling_cofi import Packing
from cofi_tune.ranks import ALONE, Ranks

WINDOW = 4
"""Batches that are sorted by length together: less padding inside attention, the one place that has any. Few,
since rows of like length may be alike otherwise, and batches of one kind teach slowly."""


@dataclass(frozen=True)
class Batch:
    """One worker's share of a batch, on the device."""

    ids_N: Tensor
    types_N: Tensor
    positions_N: Tensor
    packing: Packing
    labels_B: Tensor
    num_rows: int
    """Rows of the whole batch, all workers' shares together: what a mean over rows divides by."""
    num_tokens: int
    """Tokens of the whole batch."""
    rows_B: NDArray[np.int64]
    """Which rows of the split these are; on the host, as the next."""
    tokens_N: NDArray[np.int64]
    """Which tokens of the split."""


def collate(
    split: EncodedSplit, rows: NDArray[np.int64], device: torch.device, ranks: Ranks = ALONE, part: int = 0
) -> Batch:
    """The share of `rows` that belongs to this worker, packed.

    Args:
        split: whose rows.
        rows: of the whole batch.
        device: where the share goes.
        ranks: this worker's place, and in how many parts it takes its share.
        part: which of them, from 0.
    """
    lengths_all = split.offsets[rows + 1] - split.offsets[rows]
    mine = rows[ranks.rank + part * ranks.size :: ranks.shares]
    lengths_B = split.offsets[mine + 1] - split.offsets[mine]
    num_tokens, longest = int(lengths_B.sum()), int(lengths_B.max())
    first_B = np.cumsum(lengths_B) - lengths_B
    positions_N = np.arange(num_tokens) - np.repeat(first_B, lengths_B)
    tokens_N = positions_N + np.repeat(split.offsets[mine], lengths_B)
    padded = bool((lengths_B != longest).any())
    place_N = positions_N + np.repeat(np.arange(len(mine)) * longest, lengths_B) if padded else None
    mask_BT = np.arange(longest) < lengths_B[:, None] if padded else None
    on = functools.partial(on_device, device=device)
    return Batch(
        ids_N=on(split.input_ids[tokens_N].astype(np.int64)),
        types_N=on(split.token_type_ids[tokens_N].astype(np.int64)),
        positions_N=on(positions_N),
        packing=Packing(
            num_rows=len(mine),
            max_length=longest,
            position_N=None if place_N is None else on(place_N),
            first_B=on(first_B),
            key_mask_B11T=None if mask_BT is None else on(mask_BT)[:, None, None, :],
        ),
        labels_B=on(np.array(split.labels[mine])),
        num_rows=len(rows),
        num_tokens=int(lengths_all.sum()),
        rows_B=mine,
        tokens_N=tokens_N,
    )


def on_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """A copy of an array on a device, made without a wait of the host."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def epoch(
    split: EncodedSplit, batch_size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """One pass in batches of nearly `batch_size`: every row once, in an order drawn from `generator`."""
    rows = generator.permutation(len(split.labels))
    batches = np.array_split(rows, steps_per_epoch(len(rows), batch_size))
    for start in range(0, len(batches), WINDOW):
        window = batches[start : start + WINDOW]
        together = np.concatenate(window)
        by_length = together[np.argsort(split.lengths[together], kind="stable")]
        ends = np.cumsum([len(batch) for batch in window])[:-1]
        sorted_batches = np.split(by_length, ends)
        for index in generator.permutation(len(sorted_batches)):
            yield sorted_batches[index]


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Batches that cover `num_rows`."""
    return -(-num_rows // batch_size)


class RowStream:
    """Epoch after epoch, without end: the rows of one batch after the other, in an order that `seed` owns."""

    def __init__(self, split: EncodedSplit, batch_size: int, seed: int) -> None:
        self.split, self.batch_size = split, batch_size
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._begin()

    def __iter__(self) -> RowStream:
        """Itself."""
        return self

    def __next__(self) -> NDArray[np.int64]:
        """Rows of the next batch."""
        while True:
            rows = next(self._batches, None)
            if rows is not None:
                self._taken += 1
                return rows
            self._begin()

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON: the generator as this epoch began, and batches taken since."""
        return {"epoch": self._epoch_state, "taken": self._taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._generator.bit_generator.state = state["epoch"]
        self._begin()
        for _ in range(state["taken"]):
            next(self)

    def _begin(self) -> None:
        self._epoch_state: Any = self._generator.bit_generator.state
        self._batches = epoch(self.split, self.batch_size, self._generator)
        self._taken = 0


def by_length(split: EncodedSplit, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """All rows once, longest first: the cheapest order for evaluation."""
    order = np.argsort(-split.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]

"""What a teacher makes of the training rows, computed once: kept on disk, and gathered for a batch.

Logits are exact; hidden states, by far the larger part, are rounded to half precision.

Axes: B rows of a batch, R of the split, C classes, N real tokens, H hidden units.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from cofi_tune.config import Precision
from cofi_tune.data.batches import Batch, by_length, collate, on_device
from cofi_tune.data.encode import EncodedSplit
from cofi_tune.modeling_cofi import NO_GATES, CofiConfig, CofiForSequenceClassification, Encoded
from cofi_tune.process_memory import without_onednn
from cofi_tune.step import encode
from cofi_tune.teacher_files import LOGITS, Array, Part, find, layer_name, writing

ROWS_AT_ONCE = 32


class TooLarge(ValueError):  # noqa: N818
    """A hidden state that half precision does not hold."""


class KeptOutputs:
    """The teacher's outputs on the training rows, in place of the teacher: a guide of the training loop."""

    kind = "kept"

    def __init__(self, logits_RC: Array, layers: Mapping[int, Array]) -> None:
        """
        Args:
            logits_RC: of every training row.
            layers: outputs of those layers that are kept, [N, H], by their number from 0.
        """
        self.logits_RC, self.layers = logits_RC, layers

    def __call__(self, batch: Batch) -> Encoded:
        """The outputs for a batch of training rows; the host waits for no device."""
        logits_BC = on_device(self.logits_RC[batch.rows_B], batch.labels_B.device)
        return Encoded(logits_BC, States(self.layers, batch))


class States(Sequence[Tensor]):
    """Hidden states of a batch, each gathered when it is asked for: which those are, the method decides."""

    def __init__(self, layers: Mapping[int, Array], batch: Batch) -> None:
        self.layers, self.batch = layers, batch

    def __len__(self) -> int:
        """As many as the highest that is kept needs."""
        return max(self.layers, default=-2) + 2

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        """State `index` as a model gives it, float32 [N, H]: 0 is that of the embeddings, never kept."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        half_NH = self.layers[index - 1][self.batch.tokens_N]
        return on_device(half_NH, self.batch.labels_B.device).float()


def outputs_of(
    model: CofiForSequenceClassification,
    split: EncodedSplit,
    layers: Iterable[int],
    directory: Path,
    precision: Precision = "fp32",
) -> KeptOutputs:
    """A model's outputs on the rows of a split, made where they are not there yet.

    Args:
        model: a dense teacher.
        split: whose rows.
        layers: which layers' outputs to keep beside the logits, counted from 0.
        directory: of this model and split alone; made if need be.
        precision: of its products.

    Raises:
        TooLarge: half precision does not hold a state.
        OSError: the disk has no room.
    """
    parts = train_parts(model.config, split, layers)
    directory.mkdir(parents=True, exist_ok=True)
    missing = [part for part in parts if find(directory, part) is None]
    write(model, split, missing, directory, precision)
    return as_guide(found(directory, parts))


def found(directory: Path, parts: Sequence[Part]) -> dict[str, Array]:
    """Those of the parts that are there and whole, mapped, by name."""
    arrays = ((part.name, find(directory, part)) for part in parts)
    return {name: array for name, array in arrays if array is not None}


def train_parts(config: CofiConfig, split: EncodedSplit, layers: Iterable[int]) -> list[Part]:
    """Logits, and those layers' outputs, of a model on the rows of a split."""
    states = (len(split.input_ids), config.hidden_size)
    return [
        Part(LOGITS, (len(split), config.num_labels), np.float32),
        *(Part(layer_name(layer), states, np.float16) for layer in layers),
    ]


def write(
    model: CofiForSequenceClassification,
    split: EncodedSplit,
    parts: Sequence[Part],
    directory: Path,
    precision: Precision = "fp32",
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    """Make parts, all in one pass over the rows, longest first.

    Args:
        model: the teacher.
        split: whose rows.
        parts: of `train_parts`.
        directory: where they go.
        precision: of its products.
        meanwhile: called between batches; may raise, and nothing is left.

    Raises:
        TooLarge: half precision does not hold a state.
        OSError: the disk has no room.
    """
    if not parts:
        return
    model.eval()
    with contextlib.ExitStack() as stack, torch.no_grad(), without_onednn(precision):
        arrays = {part.name: stack.enter_context(writing(directory, part)) for part in parts}
        layers = [layer for layer in range(len(model.layers)) if layer_name(layer) in arrays]
        for rows in by_length(split, ROWS_AT_ONCE):
            batch = collate(split, rows, model.device)
            out = encode(model, batch, NO_GATES, bool(layers), precision)
            if LOGITS in arrays:
                arrays[LOGITS][rows] = out.logits_BC.cpu().numpy()
            for layer in layers:
                half_NH = out.hidden_states_NH[layer + 1].half()
                if not half_NH.isfinite().all():
                    raise TooLarge(f"a state of layer {layer} is beyond half precision")
                arrays[layer_name(layer)][batch.tokens_N] = half_NH.cpu().numpy()
            meanwhile()


def as_guide(arrays: Mapping[str, Array]) -> KeptOutputs:
    """The guide that stands in the teacher's place.

    Args:
        arrays: logits and layers, by the names of their parts.
    """
    layers = {int(name.rpartition("-")[2]): a for name, a in arrays.items() if name.startswith("layer-")}
    return KeptOutputs(arrays[LOGITS], layers)

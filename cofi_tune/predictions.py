"""What a model and its dense model say of every dev row: `predictions.safetensors`, a few bytes a row.

With it a report says how sure a score is, and whether two models can be told apart, without either model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cofi_tune.data.encode import EncodedTask

FILE = "predictions.safetensors"

Logits = Mapping[str, NDArray[np.float32]]


def save(directory: Path, data: EncodedTask, logits: Logits, dense_logits: Logits) -> None:
    """Write `<split>/labels`, `<split>/predicted` and `<split>/dense` of every dev split.

    Each is [rows]: class ids in as few bytes as they need, or float32 scores of a regression.

    Args:
        directory: of the trial; made if need be.
        data: whose dev rows they are.
        logits: of the model, by split: [rows, classes].
        dense_logits: of the dense model.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kind = np.dtype(np.float32) if data.task.is_regression else np.min_scalar_type(data.task.num_labels - 1)
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, values in logits.items():
        said = {"labels": np.asarray(data.splits[name].labels)}
        said |= {"predicted": _answers(values, data), "dense": _answers(dense_logits[name], data)}
        tensors |= {f"{name}/{what}": np.ascontiguousarray(rows.astype(kind)) for what, rows in said.items()}
    save_file(tensors, directory / FILE)


def _answers(logits: NDArray[np.float32], data: EncodedTask) -> NDArray[np.generic]:
    return logits[:, 0] if data.task.is_regression else logits.argmax(axis=1)

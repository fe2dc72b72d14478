"""A model's score on a task's rows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cofi_tune.data.batches import by_length, collate
from cofi_tune.data.encode import EncodedSplit
from cofi_tune.data.task import Task
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Gates
from cofi_tune.records import Stopped

BATCH_ROWS = 64


def predict(
    model: CofiForSequenceClassification, split: EncodedSplit, gates: Gates = NO_GATES
) -> NDArray[np.float32]:
    """Logits of every row, in the split's order: [rows, classes]."""
    was_training = model.training
    model.eval()
    logits = np.empty((len(split.labels), model.config.num_labels), dtype=np.float32)
    with torch.no_grad():
        for rows in by_length(split, BATCH_ROWS):
            batch = collate(split, rows, model.device)
            out = model.encode(batch.ids_N, batch.types_N, batch.positions_N, batch.packing, gates)
            logits[rows] = out.logits_BC.float().cpu().numpy()
    model.train(was_training)
    return logits


def score(
    model: CofiForSequenceClassification,
    task: Task,
    split: EncodedSplit,
    gates: Gates = NO_GATES,
) -> dict[str, float]:
    """Every metric of the task, by name.

    Raises:
        Stopped: an output is not finite; the weights are lost.
    """
    logits = predict(model, split, gates)
    if not np.isfinite(logits).all():
        raise Stopped("non_finite", "the model's outputs are not finite")
    return task.score(logits, np.asarray(split.labels))

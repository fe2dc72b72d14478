"""A model's score on a task's rows."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from cofi_tune.data.batches import by_length, collate
from cofi_tune.data.encode import EncodedSplit
from cofi_tune.data.task import Task
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Gates
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Stopped

BATCH_ROWS = 64


def predict(
    model: CofiForSequenceClassification, split: EncodedSplit, gates: Gates = NO_GATES, ranks: Ranks = ALONE
) -> NDArray[np.float32]:
    """Logits of every row, in the split's order: [rows, classes].

    Workers take turns at the batches, so that each row is seen once, and all get all logits.
    """
    was_training = model.training
    model.eval()
    logits = np.zeros((len(split.labels), model.config.num_labels), dtype=np.float32)
    with torch.no_grad():
        for rows in itertools.islice(by_length(split, BATCH_ROWS), ranks.rank, None, ranks.size):
            batch = collate(split, rows, model.device)
            out = model.encode(batch.ids_N, batch.types_N, batch.positions_N, batch.packing, gates)
            logits[rows] = out.logits_BC.float().cpu().numpy()
    model.train(was_training)
    # A sum of one worker's number and zeros: no digit of it changes.
    return logits if ranks.size == 1 else ranks.sum(torch.from_numpy(logits).to(model.device)).cpu().numpy()


def score(
    model: CofiForSequenceClassification,
    task: Task,
    split: EncodedSplit,
    gates: Gates = NO_GATES,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Every metric of the task, by name, on every worker.

    Raises:
        Stopped: an output is not finite; the weights are lost.
    """
    logits = predict(model, split, gates, ranks)
    if not np.isfinite(logits).all():
        raise Stopped("non_finite", "the model's outputs are not finite")
    return task.score(logits, np.asarray(split.labels))

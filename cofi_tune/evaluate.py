"""A model's score on a task's rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from cofi_tune.data.batches import by_length, collate
from cofi_tune.data.encode import EncodedSplit, EncodedTask
from cofi_tune.data.task import Task
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Gates
from cofi_tune.process_memory import without_onednn
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
    with torch.no_grad(), without_onednn():
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
    return task.score(_finite(predict(model, split, gates, ranks)), np.asarray(split.labels))


def predict_dev(
    model: CofiForSequenceClassification, data: EncodedTask, ranks: Ranks = ALONE
) -> dict[str, NDArray[np.float32]]:
    """Logits of every dev split by its name, on every worker.

    Raises:
        Stopped: an output is not finite; the weights are lost.
    """
    return {name: _finite(predict(model, data.splits[name], ranks=ranks)) for name in data.task.dev_splits}


def dev_scores(logits: Mapping[str, NDArray[np.float32]], data: EncodedTask) -> dict[str, float]:
    """Every metric on every dev split; the first split's under their plain names.

    Args:
        logits: of `predict_dev`.
        data: whose labels they are compared with.
    """
    scores: dict[str, float] = {}
    for number, (name, values) in enumerate(logits.items()):
        scored = data.task.score(values, np.asarray(data.splits[name].labels))
        scores |= {metric if number == 0 else f"{name}_{metric}": value for metric, value in scored.items()}
    return scores


def constant_score(data: EncodedTask) -> float:
    """What the best of all models scores that give every dev row the same answer; 0 for a regression."""
    task, labels = data.task, np.asarray(data.splits[data.task.dev_splits[0]].labels)
    if task.is_regression:
        return 0.0
    answers = np.eye(task.num_labels, dtype=np.float32)
    return max(task.score(np.tile(one, (len(labels), 1)), labels)[task.metric] for one in answers)


def _finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(logits).all():
        raise Stopped("non_finite", "the model's outputs are not finite")
    return logits

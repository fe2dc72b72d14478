"""Figures that others have published, to be shown beside ours and never among them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SOURCE = {
    "text": "README of princeton-nlp/CoFiPruning: the released models, scores on the dev rows",
    "contract": "BERT-base, one V100 of 32 GB, batches of 128, every row padded to 128 tokens",
}

DENSE = {"mnli": 0.848, "qnli": 0.915, "sst2": 0.931}
"""Scores of the BERT-base teachers, where figure 2 of Xia et al. (2022) gives them."""
RELEASED = {
    "mnli": ("accuracy", ((0.602, 2.1, 0.853), (0.943, 12.1, 0.806))),
    "qnli": ("accuracy", ((0.603, 2.1, 0.918), (0.945, 12.1, 0.861))),
    "sst2": ("accuracy", ((0.601, 2.1, 0.930), (0.945, 12.2, 0.904))),
    "rte": ("accuracy", ((0.602, 2.0, 0.726), (0.962, 12.8, 0.661))),
    "cola": ("matthews", ((0.604, 2.0, 0.604), (0.951, 12.3, 0.389))),
    "mrpc": ("accuracy", ((0.615, 2.0, 0.868), (0.949, 12.2, 0.836))),
}
"""By task: the metric, and (sparsity, speedup over BERT-base, score) of both models of a task."""
HUB_NAMES = {"mnli": "MNLI", "qnli": "QNLI", "sst2": "SST2", "rte": "RTE", "cola": "CoLA", "mrpc": "MRPC"}


def figures(tasks: Iterable[str]) -> list[dict[str, Any]]:
    """The published models of these tasks; none where nothing is published."""
    found = []
    for task in dict.fromkeys(tasks):
        if task not in RELEASED:
            continue
        metric, models = RELEASED[task]
        if task in DENSE:
            found.append(_row(task, "BERT-base", "dense", metric, 0.0, 1.0, DENSE[task]))
        for (sparsity, speedup, score), end in zip(models, ("s60", "s95"), strict=True):
            name = f"princeton-nlp/CoFi-{HUB_NAMES[task]}-{end}"
            found.append(_row(task, name, "cofi", metric, sparsity, speedup, score))
    return found


def _row(
    task: str, model: str, method: str, metric: str, sparsity: float, speedup: float, score: float
) -> dict[str, Any]:
    return {
        "task": task,
        "model": model,
        "method": method,
        "metric": metric,
        "sparsity": sparsity,
        "speedup": speedup,
        "score": score,
    }

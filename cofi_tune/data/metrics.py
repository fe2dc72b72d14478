"""The figures GLUE reports, by scikit-learn and scipy. B rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CLASSIFICATION = ("accuracy", "matthews", "f1")
REGRESSION = ("pearson", "spearman")

Array = npt.NDArray[Any]


def compute(names: Sequence[str], logits: Array, labels: Array) -> dict[str, float]:
    """Every named metric of a model's outputs.

    Args:
        names: all from `CLASSIFICATION` or all from `REGRESSION`.
        logits: [B, C] floats, all finite; C = 1 for regression.
        labels: [B] class ids, or scores.

    Returns:
        Fractions and correlations, not percentages: accuracy and f1 in [0, 1], the others in
        [-1, 1]. F1 is that of class 1. A correlation with a constant is undefined; it is 0 here.

    Raises:
        ValueError: shapes that do not fit, no rows, logits that are not finite.
    """
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels):
        raise ValueError(f"logits {logits.shape} do not fit labels {labels.shape}")
    if not len(labels):
        raise ValueError("no rows to score")
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:  # argmax would make a class of them
        raise ValueError(f"logits are not finite in {broken} of {len(logits)} rows")
    if set(names) <= set(REGRESSION):
        return {name: _correlation(name, logits[:, 0], labels) for name in names}
    return {name: _agreement(name, logits.argmax(axis=1), labels) for name in names}


def _agreement(name: str, predicted: Array, labels: Array) -> float:
    from sklearn import metrics

    if name == "accuracy":
        return float(metrics.accuracy_score(labels, predicted))
    if name == "matthews":
        return float(metrics.matthews_corrcoef(labels, predicted))
    if name == "f1":
        return float(metrics.f1_score(labels, predicted, pos_label=1, zero_division=0.0))
    raise ValueError(f"unknown metric {name!r}; metrics: {', '.join(CLASSIFICATION + REGRESSION)}")


def _correlation(name: str, predicted: Array, labels: Array) -> float:
    from scipy import stats

    predicted, labels = predicted.astype(np.float64), labels.astype(np.float64)
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    if name == "pearson":
        return float(stats.pearsonr(predicted, labels).statistic)
    return float(stats.spearmanr(predicted, labels).statistic)

"""How sure a front is: the same models scored on resampled rows, and timed with their error.

The bootstrap draws as many rows as there are, with replacement (Efron 1979). All models see the same draw,
so what makes rows hard for all of them cancels in their differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis import weighted
from cofi_tune.data.metrics import CLASSIFICATION, REGRESSION

Array = npt.NDArray[Any]
METRICS: dict[str, Any] = {
    "accuracy": weighted.accuracy,
    "matthews": weighted.matthews,
    "f1": weighted.f1,
    "pearson": weighted.pearson,
    "spearman": weighted.spearman,
}
BLOCK = 2_000_000
"""Weights held at a time: 16 MB."""
QUARTILES_APART = 1.349
"""Distance of a normal distribution's quartiles, in standard deviations."""
OF_A_MEDIAN = 1.2533
"""Standard error of a normal sample's median over that of its mean, sqrt(pi / 2)."""
SURE = 1.96
"""Standard deviations to each side that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Predictions:
    """What a model and the dense model made of the same rows."""

    labels: Array
    """[rows]: uint8 class ids, or float32 scores."""
    predicted: Array
    """[rows]: likewise, of the model."""
    dense: Array
    """[rows]: likewise, of the dense model."""


def read_predictions(content: bytes, split: str) -> Predictions:
    """Predictions from a safetensors file with `<split>/labels`, `<split>/predicted` and `<split>/dense`.

    Raises:
        ValueError: the file is damaged or lacks one of them, or they do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:  # a type numpy lacks is a KeyError
        why = " ".join(f"{error}".split())[:200]
        raise ValueError(f"the predictions are damaged ({why}); measure the model again") from error
    names = [f"{split}/{part}" for part in ("labels", "predicted", "dense")]
    lacking = [name for name in names if name not in tensors]
    if lacking:
        raise ValueError(f"the predictions lack {', '.join(lacking)}; measure the model again")
    found = Predictions(*(tensors[name] for name in names))
    labels, predicted, dense = found.labels, found.predicted, found.dense
    if labels.ndim != 1 or not len(labels) or not labels.shape == predicted.shape == dense.shape:
        shapes = ", ".join(str(list(part.shape)) for part in (labels, predicted, dense))
        raise ValueError(f"the predictions do not fit each other, or have no rows: {shapes}")
    if labels.dtype not in (np.uint8, np.float32) or not labels.dtype == predicted.dtype == dense.dtype:
        raise ValueError("the predictions are neither all uint8 nor all float32")
    if not all(np.isfinite(part).all() for part in (labels, predicted, dense)):
        raise ValueError("the predictions are not all finite")
    return found


def scores(metric: str, labels: Array, predicted_MN: Array, resamples: int, seed: int) -> Array:
    """The scores of M models on the same resamples of N rows.

    The resamples depend on the number of rows and the seed alone. So models may be scored in several calls
    and still be compared resample by resample, and fewer resamples are the first ones of more.

    Args:
        metric: a name from `cofi_tune.data.metrics`. F1 is that of class 1 against all others.
        labels: [N] class ids, or finite scores.
        predicted_MN: [M, N] likewise.
        resamples: how many, at least 1.
        seed: of the resamples.

    Returns:
        [M, resamples], float64; 0 where a score is undefined.

    Raises:
        ValueError: an unknown metric, no rows, shapes that do not fit, predictions that are not finite.
    """
    if metric not in METRICS:
        names = ", ".join(CLASSIFICATION + REGRESSION)
        raise ValueError(f"unknown metric {metric!r}; metrics: {names}")
    if predicted_MN.ndim != 2 or labels.shape != predicted_MN.shape[1:] or not len(labels):
        raise ValueError(
            f"predictions {predicted_MN.shape} do not fit labels {labels.shape}, or have no rows"
        )
    if not (np.isfinite(labels).all() and np.isfinite(predicted_MN).all()):
        raise ValueError("labels and predictions must be finite")
    assert resamples >= 1
    score = METRICS[metric](labels, predicted_MN)
    return np.concatenate([score(weights) for weights in row_weights(len(labels), resamples, seed)], axis=1)


def row_weights(num_rows: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each resample has each row: blocks of [resamples of the block, rows], float64."""
    generator = np.random.Generator(np.random.PCG64(seed))
    most = max(1, BLOCK // num_rows)
    for start in range(0, resamples, most):
        block = np.empty((min(most, resamples - start), num_rows))
        for weights in block:
            weights[:] = np.bincount(generator.integers(num_rows, size=num_rows), minlength=num_rows)
        yield block


def interval(samples_B: Array, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the resampled values: (low, high), the percentile interval."""
    low, high = np.quantile(samples_B, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def front_shares(scores_MB: Array, speedups_M: Array, speedup_errors_M: Array, seed: int) -> list[float]:
    """The share of resampled fronts on which each model lies.

    A resample has the scores of its rows, and speedups drawn anew around the measured ones. As in
    `analysis.pareto.front`, of equal models all stay on a front.

    Args:
        scores_MB: from `scores`.
        speedups_M: measured speedups, above 0.
        speedup_errors_M: standard errors of their natural logarithms; 0: known exactly.
        seed: of the speedups; may be that of the scores.

    Returns:
        [M] shares in [0, 1].
    """
    # A stream of its own: with one seed, rows and speedups would follow from the same bits.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1,))))
    noise_MB = np.asarray(speedup_errors_M)[:, None] * generator.standard_normal(scores_MB.shape)
    speeds_MB = np.log(speedups_M)[:, None] + noise_MB
    shares = []
    for score_B, speed_B in zip(scores_MB, speeds_MB, strict=True):
        as_good = (scores_MB >= score_B) & (speeds_MB >= speed_B)
        better = (scores_MB > score_B) | (speeds_MB > speed_B)
        shares.append(float(1 - (as_good & better).any(axis=0).mean()))
    return shares


def speedup_error(low: float, high: float, num_pairs: int) -> float:
    """The standard error of the natural logarithm of a median speedup, from the spread of its pairs.

    Normal theory: the quartiles of the logarithms give their standard deviation, and a median of n has
    sqrt(pi / 2) times the error of a mean. Only what varies from pair to pair within a run is in it: drifts
    from one run to another (clocks, neighbours, memory layout) are not.

    Args:
        low: first quartile of the paired ratios.
        high: third quartile.
        num_pairs: how many ratios.

    Raises:
        ValueError: the quartiles are not above 0 and in order, or there are no pairs.
    """
    if not 0 < low <= high < math.inf or num_pairs < 1:
        raise ValueError(f"no spread of speedups: quartiles {low} and {high} of {num_pairs} pairs")
    return math.log(high / low) / QUARTILES_APART * OF_A_MEDIAN / math.sqrt(num_pairs)


def seed_noise(scores_by_point: Sequence[Sequence[float]]) -> float | None:
    """The standard deviation of scores between seeds, pooled over the points that were run more than once.

    Args:
        scores_by_point: for each point the scores of its runs, which differ in their seed alone.

    Returns:
        In the score's unit; None if no point was run twice.
    """
    groups = [np.asarray(runs, dtype=np.float64) for runs in scores_by_point if len(runs) > 1]
    if not groups:
        return None
    squares = sum(float(((runs - runs.mean()) ** 2).sum()) for runs in groups)
    return math.sqrt(squares / sum(len(runs) - 1 for runs in groups))


def widened(low: float, score: float, high: float, noise: float) -> tuple[float, float]:
    """A 95 % interval with the noise between seeds in it: (low, high), the score between them.

    Both are taken as independent, so each side's length and 1.96 * `noise` add as squares.
    """
    below, above = max(0.0, score - low), max(0.0, high - score)
    return score - math.hypot(below, SURE * noise), score + math.hypot(above, SURE * noise)

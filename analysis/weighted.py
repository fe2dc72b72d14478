"""GLUE's figures of rows that count several times: many models on many resamples at once.

The definitions are those of `cofi_tune.data.metrics`. Each metric takes labels and predictions once and
returns a function of weights. Counts and ranks are exact in float64, so a figure is undefined, and 0, on
the very resamples on which it is there.

N rows, M models, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cofi_tune.data import metrics

Array = npt.NDArray[Any]
Weighted = Callable[[Array], Array]
"""Takes weights [B, N], float64: how often each resample has each row. Returns scores [M, B], float64."""
THIN = 1e-6
"""Share of the variance over all rows below which sums of squares are too coarse for a resample."""
CACHED = 160_000
"""Weights whose ranks are computed at a time: 1.3 MB, which a core keeps close."""


def accuracy(labels_N: Array, predicted_MN: Array) -> Weighted:
    """The share of rows whose class is right."""
    right_MN = (predicted_MN == labels_N).astype(np.float64)
    return lambda weights_BN: right_MN @ weights_BN.T / weights_BN.sum(axis=1)


def matthews(labels_N: Array, predicted_MN: Array) -> Weighted:
    """Matthews' correlation for any number of classes (Gorodkin 2004); 0 if either side is of one class."""
    classes = np.union1d(labels_N, predicted_MN)

    def of(weights_BN: Array) -> Array:
        rows_B = weights_BN.sum(axis=1)
        agreement_MB = rows_B * _counts(predicted_MN == labels_N, weights_BN)
        predicted_MB, labels_B = rows_B**2 + np.zeros_like(agreement_MB), rows_B**2
        for one in classes:
            share_MB = _counts(predicted_MN == one, weights_BN)
            share_B = _counts(labels_N == one, weights_BN)
            agreement_MB -= share_MB * share_B
            predicted_MB -= share_MB**2
            labels_B -= share_B**2
        return _ratio(agreement_MB, np.sqrt(predicted_MB) * np.sqrt(labels_B))

    return of


def f1(labels_N: Array, predicted_MN: Array) -> Weighted:
    """The harmonic mean of class 1's precision and recall; 0 if it is neither there nor predicted."""

    def of(weights_BN: Array) -> Array:
        hits_MB = _counts((predicted_MN == 1) & (labels_N == 1), weights_BN)
        either_MB = _counts(predicted_MN == 1, weights_BN) + _counts(labels_N == 1, weights_BN)
        return _ratio(2 * hits_MB, either_MB)

    return of


def pearson(labels_N: Array, predicted_MN: Array) -> Weighted:
    """The correlation; 0 if either side is constant.

    Resamples on which one side hardly varies are computed one by one.
    """
    x_MN, y_N = _standardised(predicted_MN), _standardised(labels_N)

    def of(weights_BN: Array) -> Array:
        means_BN = weights_BN / weights_BN.sum(axis=1, keepdims=True)
        mean_x_MB, mean_y_B = x_MN @ means_BN.T, y_N @ means_BN.T
        var_x_MB = (x_MN * x_MN) @ means_BN.T - mean_x_MB**2
        var_y_B = (y_N * y_N) @ means_BN.T - mean_y_B**2
        cov_MB = (x_MN * y_N) @ means_BN.T - mean_x_MB * mean_y_B
        clear_MB = (var_x_MB > THIN) & (var_y_B > THIN)
        found_MB = cov_MB / np.sqrt(np.where(clear_MB, var_x_MB * var_y_B, 1.0))
        for m, b in np.argwhere(~clear_MB):
            rows = np.repeat(np.arange(len(y_N)), weights_BN[b].astype(np.int64))
            one = metrics.compute(("pearson",), predicted_MN[m, rows, None], labels_N[rows])
            found_MB[m, b] = one["pearson"]
        return np.clip(found_MB, -1.0, 1.0)

    return of


def spearman(labels_N: Array, predicted_MN: Array) -> Weighted:
    """The correlation of ranks, equal values sharing their mean rank; 0 if either side is constant.

    Rows are sorted once. A resample moves their ranks, never their order.
    """
    sides = [_Sorted.of(values_N) for values_N in (labels_N, *predicted_MN)]

    def of(weights_BN: Array) -> Array:
        step = max(1, CACHED // len(labels_N))
        parts = [weights_BN[b : b + step].astype(np.int64) for b in range(0, len(weights_BN), step)]
        return np.concatenate([_rank_correlations(sides, part_BN) for part_BN in parts], axis=1)

    return of


def _rank_correlations(sides: list[_Sorted], times_BN: Array) -> Array:
    """Of the first side with each other: [others, B]."""
    labels, *others = sides
    ranks, var_y_B = labels.ranks(times_BN)
    weighted_BN = np.empty_like(times_BN)
    weighted_BN[:, labels.order] = ranks
    weighted_BN *= times_BN
    found_MB = np.zeros((len(others), len(times_BN)))
    for found_B, side in zip(found_MB, others, strict=True):
        ranks, var_x_B = side.ranks(times_BN)
        cov_B = np.vecdot(ranks, np.take(weighted_BN, side.order, axis=1)).astype(np.float64)
        found_B[:] = _ratio(cov_B, np.sqrt(var_x_B) * np.sqrt(var_y_B))
    return found_MB


@dataclass(frozen=True)
class _Sorted:
    """Rows in rising order of their values."""

    order: Array
    """[N] row numbers."""
    tied: Array
    """Places in the order whose value others have too."""
    first: Array
    """For each tied place the first one with its value."""
    last: Array

    @classmethod
    def of(cls, values_N: Array) -> _Sorted:
        order = np.argsort(values_N, kind="stable")
        rising = values_N[order]
        first, last = np.searchsorted(rising, rising, "left"), np.searchsorted(rising, rising, "right") - 1
        tied = np.flatnonzero(first < last)
        return cls(order, tied, first[tied], last[tied])

    def ranks(self, times_BN: Array) -> tuple[Array, Array]:
        """Ranks less their mean, in the order, [B, N], and the sum of their squares over all rows, [B].

        All times two: ranks of equal values may be halves, and sums of integers are exact and fast. A row's
        rank is the mean of the rows up to its value and those before it, plus a half.
        """
        times = np.take(times_BN, self.order, axis=1)
        up_to = times.cumsum(axis=1)
        ranks = 2 * up_to
        ranks -= times
        ranks[:, self.tied] = up_to[:, self.last] + up_to[:, self.first] - times[:, self.first]
        ranks -= up_to[:, -1:]
        times *= ranks
        return ranks, np.vecdot(times, ranks)


def _counts(rows: Array, weights_BN: Array) -> Array:
    return rows.astype(np.float64) @ weights_BN.T


def _standardised(values: Array) -> Array:
    """Float64 with mean 0 and variance 1 over the rows, the last axis; constants become about 0."""
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=-1, keepdims=True)
    spread = centred.std(axis=-1, keepdims=True)
    centred /= np.where(np.ptp(values, axis=-1, keepdims=True) > 0, spread, 1.0)
    return centred


def _ratio(above: Array, below: Array) -> Array:
    """The quotient, 0 where it is undefined."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

"""How sure a front is: what a search's trials say of every dev row, resampled.

A score's interval is that of other dev rows of the same kind; where the same point was tried under several
seeds, their spread widens it. Speedups have the error of their median. Only the models nearest to the front
are looked at, since the others hardly come to lie on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis import bootstrap, pareto
from analysis.bootstrap import Predictions
from analysis.runs import columns

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES, SEED = 1000, 0
MOST_MODELS = 100
CLOSE = 1e-5
"""Difference between a score and that of its predictions which rounding may make."""

Read = Callable[[str, str], Predictions | None]
"""The predictions of a trial, by study and id."""


@dataclass(frozen=True)
class Sureness:
    """What resampling says of the rows of one front."""

    about: dict[str, Any] | None = None
    dense: dict[str, Any] = field(default_factory=lambda: {"score_low": None, "score_high": None})
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    samples: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """Resampled scores of a row, all of the same resamples."""
    scores: Sequence[float] = ()
    speedups: Sequence[float] = ()
    errors: Sequence[float] = ()
    """Standard errors of the logarithms of `speedups`."""
    noise: float = 0.0
    """Standard deviation of a score between seeds; 0 where it is not known."""

    def of(self, i: int) -> dict[str, Any]:
        """Interval and front share of one row."""
        return self.rows.get(i, {"score_low": None, "score_high": None, "front_share": None})

    def neighbours(self, kept: Sequence[int]) -> list[dict[str, Any]]:
        """What tells the models of the front from the next faster ones.

        Args:
            kept: rows of the front, slowest first.
        """
        known = {*self.samples}
        return [self._pair(*pair) for pair in itertools.pairwise(kept) if {*pair} <= known]

    def _pair(self, better: int, faster: int) -> dict[str, Any]:
        low, high = bootstrap.interval(self.samples[better] - self.samples[faster])
        difference = self.scores[better] - self.scores[faster]
        low, high = bootstrap.widened(low, difference, high, self.noise * math.sqrt(2))
        ratio = self.speedups[faster] / self.speedups[better]
        spread = math.exp(bootstrap.SURE * math.hypot(self.errors[better], self.errors[faster]))
        return {
            "better": better,
            "faster": faster,
            "difference": difference,
            "low": low,
            "high": high,
            "distinguishable": low > 0 or high < 0,
            "speedup_ratio": ratio,
            "ratio_low": ratio / spread,
            "ratio_high": ratio * spread,
            "faster_for_sure": ratio / spread > 1,
        }


def nothing_known(frame: pd.DataFrame, speedups: Sequence[float]) -> Sureness:
    """For a front whose trials have no predictions."""
    return Sureness()


def resampled(metric: str, scenario: str, read: Read) -> Callable[[pd.DataFrame, Sequence[float]], Sureness]:
    """How sure the scores of a frame are.

    Args:
        metric: the score's name.
        scenario: whose speedups they are.
        read: the predictions of a trial, or None.
    """

    def known(frame: pd.DataFrame, speedups: Sequence[float]) -> Sureness:
        scores = [float(score) for score in frame["score"]]
        near = nearest(list(zip(scores, speedups, strict=True)), MOST_MODELS)
        said = {i: read(frame["study"].iloc[i], frame["trial"].iloc[i]) for i in near}
        told = _fitting(metric, {i: one for i, one in said.items() if one is not None}, scores)
        if not told:
            return Sureness()
        silent = [i for i in near if i not in told]
        found = _sureness(
            metric, told, silent, scores, speedups, errors_of(frame, scenario), *noise_of(frame)
        )
        assert found.about is not None
        found.about["left_out"] = [str(frame["trial"].iloc[i]) for i in silent]
        return found

    return known


def _fitting(metric: str, said: dict[int, Predictions], scores: Sequence[float]) -> dict[int, Predictions]:
    """Those that are of the same rows, and give the score that was measured."""
    if not said or metric not in bootstrap.METRICS:
        return {}
    labels = next(iter(said.values())).labels
    same = {i: one for i, one in said.items() if np.array_equal(one.labels, labels)}
    models = np.stack([one.predicted for one in same.values()])
    exact = bootstrap.METRICS[metric](labels, models)(np.ones((1, len(labels))))[:, 0]
    return {
        i: one for (i, one), score in zip(same.items(), exact, strict=True) if abs(score - scores[i]) < CLOSE
    }


def _sureness(
    metric: str,
    told: dict[int, Predictions],
    silent: Sequence[int],
    scores: Sequence[float],
    speedups: Sequence[float],
    errors: Sequence[float],
    noise: float | None,
    num_replicates: int,
) -> Sureness:
    first = next(iter(told.values()))
    models = np.stack([first.dense, *(said.predicted for said in told.values())])
    samples = bootstrap.scores(metric, first.labels, models, RESAMPLES, SEED)
    places = [*told]
    # Whose predictions are gone competes with the score that was measured.
    fixed = np.repeat(np.array([[scores[i]] for i in silent]).reshape(-1, 1), RESAMPLES, axis=1)
    competing = [*places, *silent]
    shares = bootstrap.front_shares(
        np.concatenate([samples[1:], fixed]),
        np.array([speedups[i] for i in competing]),
        np.array([errors[i] for i in competing]),
        SEED,
    )
    rows = {}
    for i, resamples, share in zip(places, samples[1:], shares, strict=False):
        low, high = bootstrap.widened(*_around(resamples, scores[i]), noise or 0.0)
        rows[i] = {"score_low": low, "score_high": high, "front_share": share}
    low, high = bootstrap.interval(samples[0])
    about = {
        "num_resamples": RESAMPLES,
        "num_rows": len(first.labels),
        "num_models": len(scores),
        "seed_noise": noise,
        "num_replicates": num_replicates,
    }
    by_row = dict(zip(places, samples[1:], strict=True))
    dense = {"score_low": low, "score_high": high}
    return Sureness(about, dense, rows, by_row, scores, speedups, errors, noise or 0.0)


def _around(samples: NDArray[np.float64], score: float) -> tuple[float, float, float]:
    low, high = bootstrap.interval(samples)
    return low, score, high


def nearest(points: Sequence[tuple[float, float]], most: int) -> list[int]:
    """The front, the front of what is left, and so on, up to `most` in all.

    Args:
        points: (score, speedup).
        most: how many in all.
    """
    left = list(range(len(points)))
    found: list[int] = []
    while left and len(found) < most:
        layer = [left[i] for i in pareto.front([points[i] for i in left])]
        found += layer
        gone = set(layer)
        left = [i for i in left if i not in gone]
    return sorted(found[:most])


def errors_of(frame: pd.DataFrame, scenario: str) -> list[float]:
    """The standard error of each log speedup; 0 where its spread was not kept."""
    names = [f"{scenario}/{name}" for name in ("speedup_low", "speedup_high", "num_pairs")]
    if not {*names} <= {*frame}:
        return [0.0] * len(frame)
    return [
        bootstrap.speedup_error(low, high, int(pairs)) if 0 < low <= high < math.inf and pairs > 0 else 0.0
        for low, high, pairs in zip(*(frame[name] for name in names), strict=True)
    ]


def noise_of(frame: pd.DataFrame) -> tuple[float | None, int]:
    """The spread of scores between seeds, and how many trials repeat a point under another seed."""
    given = [
        name
        for name in columns(frame, "param/")
        if name != "param/seed" and not name.startswith("param/log10_")
    ]
    if "param/seed" not in frame or not given:
        return None, 0
    filled = frame[given].astype(object).where(frame[given].notna(), None)
    groups: dict[tuple[Any, ...], dict[Any, float]] = {}
    for key, seed, score in zip(
        filled.itertuples(index=False, name=None), frame["param/seed"], frame["score"], strict=True
    ):
        groups.setdefault(key, {})[seed] = float(score)
    repeated = [[*by_seed.values()] for by_seed in groups.values() if len(by_seed) > 1]
    return bootstrap.seed_noise(repeated), sum(len(group) for group in repeated)

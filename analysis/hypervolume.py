"""How much a front covers, what each of its points adds, and which of them to take.

A point is (score, speedup), both finite and to be as large as possible. The hypervolume is the area between
the points and a reference that is worse than all of interest; what is not better than the reference in both
numbers adds nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

Pair = tuple[float, float]
"""(score, speedup)."""
ABOVE = 1e-9
"""Height over the chord, in units of the scaled axes, from which a point is no rounding error."""


def hypervolume(points: Sequence[Pair], reference: Pair) -> float:
    """The area that the points dominate, down to the reference: one sweep from the best score on."""
    area, reached = 0.0, reference[1]
    for score, speedup in sorted(points, reverse=True):
        if score > reference[0] and speedup > reached:
            area += (score - reference[0]) * (speedup - reached)
            reached = speedup
    return area


def contributions(points: Sequence[Pair], reference: Pair) -> list[float]:
    """The hypervolume lost without each point: 0 for a dominated one, and for each of several equal ones.

    A point of the front alone covers the rectangle between its two neighbours, less what the points that
    it alone dominates would cover of it.
    """
    better = [i for i, p in enumerate(points) if p[0] > reference[0] and p[1] > reference[1]]
    edge: list[int] = []  # the front without repetitions: scores fall, speedups rise
    behind: list[int] = []
    for i in sorted(better, key=lambda i: points[i], reverse=True):
        (behind if edge and points[i][1] <= points[edge[-1]][1] else edge).append(i)
    speedups = [points[i][1] for i in edge]
    hidden: list[list[Pair]] = [[] for _ in edge]
    for i in behind:  # if more of the front dominate it, it is outside of that rectangle
        hidden[bisect_left(speedups, points[i][1])].append(points[i])
    lost = [0.0] * len(points)
    for k, i in enumerate(edge):
        corner = (
            points[edge[k + 1]][0] if k + 1 < len(edge) else reference[0],
            points[edge[k - 1]][1] if k else reference[1],
        )
        lost[i] = max(0.0, hypervolume([points[i]], corner) - hypervolume(hidden[k], corner))
    return lost


def growth(points: Sequence[Pair], reference: Pair) -> list[float]:
    """The hypervolume after the first point, the first two, and so on: [number of points], never falling."""
    scores: list[float] = []  # the front so far: scores rise, speedups fall
    speedups: list[float] = []
    area, areas = 0.0, []
    for point in points:
        if point[0] > reference[0] and point[1] > reference[1]:
            area += _insert(scores, speedups, point, reference)
        areas.append(area)
    return areas


def _insert(scores: list[float], speedups: list[float], point: Pair, reference: Pair) -> float:
    """Put a point on a front, and off it what the point dominates; returns the area gained."""
    score, speedup = point
    at = bisect_left(scores, score)
    if at < len(scores) and speedups[at] >= speedup:
        return 0.0
    end = start = bisect_right(scores, score)
    right, floor, gained = score, speedups[end] if end < len(speedups) else reference[1], 0.0
    while start and speedups[start - 1] <= speedup:
        start -= 1
        gained += (right - scores[start]) * (speedup - floor)
        right, floor = scores[start], speedups[start]
    left = scores[start - 1] if start else reference[0]
    scores[start:end], speedups[start:end] = [score], [speedup]
    return gained + (right - left) * (speedup - floor)


def knee(points: Sequence[Pair]) -> int | None:
    """The index of the point of a front beyond which more of one number costs most of the other.

    It is the one furthest above the straight line between the front's two ends, both axes scaled to 0..1;
    speedups count in doublings. None with fewer than three distinct points, or if none is above the line.

    Args:
        points: none dominates another; speedups are above 0.
    """
    if len(set(points)) < 3:
        return None
    scores, doublings = [p[0] for p in points], [math.log2(p[1]) for p in points]
    least, slowest = min(scores), min(doublings)
    width, height = max(doublings) - slowest, max(scores) - least
    above = [(s - least) / height + (d - slowest) / width - 1 for s, d in zip(scores, doublings, strict=True)]
    highest = max(range(len(points)), key=above.__getitem__)
    return highest if above[highest] > ABOVE else None


def best(
    points: Sequence[Pair], min_score: float | None = None, min_speedup: float | None = None
) -> int | None:
    """The index of the point that serves a demand best.

    The fastest with at least `min_score`; the best score with at least `min_speedup`; with both demands the
    fastest that meets both. Between equals the other number decides, then the order. None if no point meets
    them.

    Raises:
        ValueError: nothing is demanded.
    """
    if min_score is None and min_speedup is None:
        raise ValueError("nothing is demanded: give min_score, min_speedup or both")
    least = (-math.inf if min_score is None else min_score, -math.inf if min_speedup is None else min_speedup)
    able = [i for i, p in enumerate(points) if p[0] >= least[0] and p[1] >= least[1]]
    by_score = min_score is None
    return max(able, key=lambda i: points[i] if by_score else points[i][::-1], default=None)

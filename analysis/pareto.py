"""The front: models that no other beats on both score and speed."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no point dominates, in the order given.

    A point dominates another if it is at least as good in both numbers and better in one; of equal points
    all stay. Both numbers are to be as large as possible, and finite.
    """
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    kept: list[int] = []
    best_second = float("-inf")
    for i in order:
        ties = bool(kept) and points[i] == points[kept[-1]]
        if points[i][1] > best_second or ties:
            kept.append(i)
            best_second = points[i][1]
    return sorted(kept)

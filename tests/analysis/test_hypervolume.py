"""Hypervolume, contributions and growth, against Optuna's own; knee and demands by eye."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna._hypervolume import compute_hypervolume
from optuna.visualization._hypervolume_history import _get_hypervolume_history_info

from analysis.hypervolume import Pair, best, contributions, growth, hypervolume, knee
from analysis.pareto import front

POINTS = st.lists(st.tuples(st.integers(-3, 6).map(lambda n: n / 7), st.integers(0, 9).map(lambda n: n / 3)))
"""Few values, so that ties and equal points are common; some are no better than the reference."""
REFERENCE = (0.0, 1.0)
EXAMPLES = settings(max_examples=250, deadline=None)


def study_of(points: list[Pair]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "maximize"])
    study.add_trials([optuna.create_trial(values=list(p)) for p in points])
    return study


def optunas(points: list[Pair]) -> float:
    inside = [p for p in points if p[0] >= REFERENCE[0] and p[1] >= REFERENCE[1]]
    return float(compute_hypervolume(-np.array(inside).reshape(-1, 2), -np.array(REFERENCE)))


@EXAMPLES
@given(POINTS)
def test_the_front_is_optunas(points: list[Pair]) -> None:
    assert front(points) == sorted(trial.number for trial in study_of(points).best_trials)


@EXAMPLES
@given(POINTS)
def test_the_hypervolume_is_optunas(points: list[Pair]) -> None:
    assert hypervolume(points, REFERENCE) == pytest.approx(optunas(points), abs=1e-12)


@EXAMPLES
@given(POINTS)
def test_a_contribution_is_what_optunas_hypervolume_loses(points: list[Pair]) -> None:
    whole = optunas(points)
    without = [whole - optunas(points[:i] + points[i + 1 :]) for i in range(len(points))]
    assert contributions(points, REFERENCE) == pytest.approx(without, abs=1e-12)


@EXAMPLES
@given(POINTS)
def test_the_growth_is_that_of_optunas_plot(points: list[Pair]) -> None:
    info = _get_hypervolume_history_info(study_of(points), np.array(REFERENCE))
    grown = growth(points, REFERENCE)
    assert grown == pytest.approx(info.values, abs=1e-12)
    assert grown == pytest.approx([optunas(points[: n + 1]) for n in range(len(points))], abs=1e-12)
    assert grown == sorted(grown)


def test_equal_and_dominated_points_add_exactly_nothing() -> None:
    points = [(0.3, 2.1), (0.3, 2.1), (0.2, 1.7), (0.1, 3.3), (0.1, 3.0), (-0.1, 9.0), (0.9, 1.0)]
    assert contributions(points, REFERENCE) == [0, 0, 0, pytest.approx(0.1 * (3.3 - 3.0)), 0, 0, 0]


def test_a_point_is_lost_only_down_to_what_stood_behind_it() -> None:
    assert contributions([(0.5, 3.0), (0.4, 2.0)], REFERENCE) == pytest.approx([1.0 - 0.4, 0.0])


def test_nothing_to_cover() -> None:
    assert (hypervolume([], REFERENCE), contributions([], REFERENCE), growth([], REFERENCE)) == (0.0, [], [])


@pytest.mark.parametrize("on_front", [True, False])
def test_ten_thousand_trials(on_front: bool) -> None:
    rng = random.Random(0)
    xs = [rng.random() for _ in range(10_000)]
    points = [(x, 3.0 - 2 * x if on_front else 1 + 3 * rng.random()) for x in xs]
    grown, lost = growth(points, REFERENCE), contributions(points, REFERENCE)
    assert grown[-1] == pytest.approx(hypervolume(points, REFERENCE)) == pytest.approx(optunas(points))
    assert sum(share > 0 for share in lost) == len(front(points))


def test_the_knee_is_where_the_front_bends() -> None:
    assert knee([(0.9, 1.0), (0.88, 4.0), (0.5, 5.0), (0.2, 8.0)]) == 1
    assert knee([(0.2, 8.0), (0.5, 5.0), (0.88, 4.0), (0.9, 1.0)]) == 2


def test_speedups_count_in_doublings() -> None:
    assert knee([(1.0, 1.0), (0.6, 4.0), (0.0, 16.0)]) == 1  # below the line if they did not


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(0.5, 2.0)],
        [(0.5, 2.0), (0.4, 3.0), (0.4, 3.0), (0.5, 2.0)],  # two points, twice
        [(0.9, 1.0), (0.6, 2.0), (0.3, 4.0), (0.0, 8.0)],  # a straight line
        [(0.9, 1.0), (0.2, 2.0), (0.0, 8.0)],  # bent inwards
    ],
)
def test_no_knee(points: list[Pair]) -> None:
    assert knee(points) is None


def test_the_best_for_a_demand() -> None:
    points = [(0.9, 1.0), (0.8, 2.0), (0.7, 4.0), (0.7, 4.0), (0.6, 4.0), (0.2, 9.0)]
    assert best(points, min_score=0.8) == 1
    assert best(points, min_score=0.6) == 2  # the better of the equally fast, the first of equals
    assert best(points, min_speedup=2.0) == 1
    assert best(points, min_speedup=2.0, min_score=0.5) == 2
    assert best(points, min_speedup=5.0, min_score=0.5) is None
    assert best([], min_score=0.0) is None
    with pytest.raises(ValueError, match="min_score, min_speedup"):
        best(points)


@EXAMPLES
@given(POINTS, st.integers(-3, 6).map(lambda n: n / 7), st.integers(0, 9).map(lambda n: n / 3))
def test_the_best_is_on_the_front(points: list[Pair], min_score: float, min_speedup: float) -> None:
    kept = front(points)
    for demands in ((min_score, None), (None, min_speedup), (min_score, min_speedup)):
        index = best(points, *demands)
        assert index is None or index in kept

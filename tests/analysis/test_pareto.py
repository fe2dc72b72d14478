"""The front, against Optuna's own and against what can be seen by eye."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import optuna
import pytest

from analysis import figure, pareto


@pytest.mark.parametrize("seed", range(30))
def test_same_front_as_optuna(seed: int) -> None:
    stream = np.random.default_rng(seed)
    # Few distinct values, so that ties in one number and in both occur.
    points = [tuple(map(float, point)) for point in stream.integers(0, 6, size=(stream.integers(1, 25), 2))]
    study = optuna.create_study(directions=["maximize", "maximize"])
    for point in points:
        study.add_trial(optuna.create_trial(values=point))
    assert pareto.front(points) == sorted(trial.number for trial in study.best_trials)


def test_no_points_no_front() -> None:
    assert pareto.front([]) == []


def test_picture_is_well_formed_and_says_what_it_shows() -> None:
    points = [(0.79, 2.0, True), (0.7, 6.0, True), (0.6, 5.0, False)]
    dots = [
        figure.Dot(f"s<&{i}", score, fast, fast, fast, kept) for i, (score, fast, kept) in enumerate(points)
    ]
    text = figure.front_svg(dots, 0.8, "cola", keep=0.95)
    root = ElementTree.fromstring(text)
    words = " ".join(node.text or "" for node in root.iter())
    assert "3 pruned models" in words
    assert "dense model scores 0.800" in words
    assert "nobody beats on both; 1 in grey" in words
    assert "prefers-color-scheme" in text
    assert "<script" not in text


def test_hostile_names_stay_text() -> None:
    hostile = '"><script>alert(1)</script>&'
    dot = figure.Dot(hostile, 0.5, 2.0, 1.9, 2.1, True)
    root = ElementTree.fromstring(figure.front_svg([dot], 0.8, hostile, score_name=hostile))
    assert not [node for node in root.iter() if node.tag.endswith("script")]


@pytest.mark.parametrize("scores", [(0.0, 0.0), (-0.2, 0.1)])
@pytest.mark.parametrize("speedup", [1.0, 0.5, 40.0])
def test_picture_of_degenerate_fronts(scores: tuple[float, float], speedup: float) -> None:
    dots = [figure.Dot("a", scores[0], speedup, speedup, speedup, True)]
    text = figure.front_svg(dots, scores[1], "one", keep=0.95)
    assert "nan" not in text
    ElementTree.fromstring(text)

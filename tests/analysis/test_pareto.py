"""The front, against Optuna's own and against what can be seen by eye."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import optuna
import pytest

from analysis import figure, pareto
from cofi_tune.records import Latency, Measurement


def measurement(score: float, speedup: float, device: str = "this one") -> Measurement:
    timings = [
        Latency(name, 4.0, 4.0 / speedup, speedup, 0.9 * speedup, 1.1 * speedup, 9, 32, 512)
        for name in ("throughput", "latency")
    ]
    return Measurement(
        score=score,
        speedup=speedup,
        scores={"matthews": score},
        teacher_scores={"matthews": 0.8},
        latencies=tuple(timings),
        sparsity=0.6,
        model_sparsity=0.4,
        num_parameters=1000,
        dense_num_parameters=2000,
        macs=10,
        dense_macs=20,
        mean_tokens=9,
        expected_sparsity=0.6,
        target_sparsity=0.6,
        seconds=1.0,
        contract={"device": "cpu", "device_name": device, "num_threads": 2},
    )


def summary(*points: tuple[float, float], name: str = "s") -> dict[str, object]:
    made = [
        pareto.Point(f"{name}-{i:04d}", measurement(*point), f"trials/{i}/model")
        for i, point in enumerate(points)
    ]
    return pareto.summary(made, study=name, task="cola", metric="matthews", scenario="throughput")


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
    assert summary()["trials"] == []
    assert summary()["teacher"] is None


def test_fastest_that_keeps_95_percent() -> None:
    found = summary((0.79, 2.0), (0.77, 3.0), (0.70, 6.0), (0.5, 1.0))
    assert found["fastest_keeping"] == "s-0001"
    assert [row["trial"] for row in found["trials"] if row["on_front"]] == ["s-0000", "s-0001", "s-0002"]
    assert found["trials"][0]["score_share"] == pytest.approx(0.9875)
    assert summary((0.5, 9.0))["fastest_keeping"] is None


def test_other_contracts_share_no_front() -> None:
    points = [
        pareto.Point("a", measurement(0.7, 2.0), "a"),
        pareto.Point("b", measurement(0.6, 3.0), "b"),
        pareto.Point("c", measurement(0.9, 9.0, device="a faster one"), "c"),
    ]
    found = pareto.summary(points, study="s", task="cola", metric="matthews", scenario="throughput")
    assert [row["trial"] for row in found["trials"]] == ["a", "b"]
    assert found["not_comparable"] == ["c"]


def test_summary_is_json_and_csv() -> None:
    found = summary((0.79, 2.0), (0.7, 6.0))
    assert json.loads(json.dumps(found)) == found
    rows = list(csv.DictReader(io.StringIO(pareto.to_csv(found))))
    assert [float(row["scenarios/latency/speedup"]) for row in rows] == [2.0, 6.0]


def test_picture_is_well_formed_and_says_what_it_shows() -> None:
    text = figure.of_summary(summary((0.79, 2.0), (0.7, 6.0), (0.6, 5.0), name="s<&\"'"))
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


def test_measurement_survives_json() -> None:
    one = measurement(0.5, 2.0)
    assert Measurement.from_json(json.loads(json.dumps(dataclasses.asdict(one)))) == one

"""What the parts tell each other: refused when impossible, the same after JSON."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from cofi_tune.records import (
    OBJECTIVES,
    SCENARIOS,
    InvalidPoint,
    Latency,
    LayerPlan,
    Measurement,
    PruningPlan,
    Stopped,
    encoder_macs,
    encoder_parameters,
)

PLAN = PruningPlan(
    hidden_size=8,
    num_heads=2,
    head_size=4,
    num_ffn=6,
    hidden=(0, 2, 7),
    layers=(LayerPlan((1,), (0, 5)), LayerPlan((), (3,)), LayerPlan((0, 1), ())),
)
LATENCY = Latency("throughput", 2.0, 0.5, 4.0, 3.9, 4.2, 11, 32, 320)


def measurement(**changes: Any) -> Measurement:
    values: dict[str, Any] = {
        "score": 0.81,
        "speedup": 4.0,
        "scores": {"matthews": 0.81, "accuracy": 0.9},
        "teacher_scores": {"matthews": 0.85},
        "latencies": (LATENCY, replace(LATENCY, scenario="latency", batch_size=1)),
        "sparsity": 0.9,
        "model_sparsity": 0.5,
        "num_parameters": 500,
        "dense_num_parameters": 1000,
        "macs": 100,
        "dense_macs": 900,
        "mean_tokens": 11,
        "expected_sparsity": 0.91,
        "target_sparsity": None,
        "seconds": 12.5,
        "contract": {"device": "cpu", "num_threads": 2, "teacher": None},
    }
    return Measurement(**{**values, **changes})


def test_plan_counts_by_hand() -> None:
    first = (3 * 3 * 4 + 3 * 4) + (3 * 4 + 3) + (2 * 3 * 2 + 2 + 3)
    second = 2 * 3 * 1 + 1 + 3
    third = (3 * 3 * 8 + 3 * 8) + (3 * 8 + 3)
    dense = 3 * ((3 * 8 * 8 + 3 * 8) + (8 * 8 + 8) + (2 * 8 * 6 + 6 + 8))
    assert PLAN.num_parameters == first + second + third
    assert PLAN.prunable_parameters == dense
    assert PLAN.sparsity == pytest.approx(1 - (first + second + third) / dense)


def test_plan_macs_by_hand() -> None:
    def macs(tokens: int) -> int:
        heads = 4 * 3 * 4 * tokens + 2 * tokens * tokens * 4
        return heads + 2 * heads + tokens * 2 * 3 * (2 + 1)

    assert [PLAN.macs(t) for t in (1, 5, 128)] == [macs(t) for t in (1, 5, 128)]


def test_bert_base_by_hand() -> None:
    assert encoder_parameters(768, 64, [(12, 3072)] * 12) == 85_017_600
    assert encoder_macs(128, 768, 64, [(12, 3072)] * 12) == 12 * 128 * (
        4 * 768**2 + 2 * 128 * 768 + 2 * 768 * 3072
    )
    assert encoder_parameters(768, 64, [(0, 0)] * 12) == encoder_macs(128, 768, 64, [(0, 0)] * 12) == 0


def test_plan_round_trip_and_print() -> None:
    assert PruningPlan.from_json(PLAN.to_json()) == PLAN
    assert json.loads(PLAN.to_json())["hidden"] == [0, 2, 7]
    assert str(PLAN).splitlines() == [
        f"hidden 3 of 8, sparsity {PLAN.sparsity:.4f}",
        "layer 0: heads 1 of 2, ffn 2 of 6",
        "layer 1: heads 0 of 2, ffn 1 of 6",
        "layer 2: heads 2 of 2, ffn 0 of 6",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": (0, 8)}, "hidden"),
        ({"hidden": (-1, 0)}, "hidden"),
        ({"hidden": (2, 1)}, "hidden"),
        ({"hidden": (1, 1)}, "hidden"),
        ({"layers": (LayerPlan((2,), ()),)}, "layer 0 heads"),
        ({"layers": (LayerPlan((), ()), LayerPlan((), (5, 6)))}, "layer 1 ffn"),
    ],
)
def test_impossible_indices_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAN, **change)


def test_a_plan_without_hidden_units_is_an_invalid_point() -> None:
    with pytest.raises(InvalidPoint, match="no hidden unit"):
        replace(PLAN, hidden=())
    assert issubclass(InvalidPoint, ValueError)


def test_measurement_round_trip() -> None:
    made = measurement()
    assert Measurement.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.latency("latency") == replace(LATENCY, scenario="latency", batch_size=1)
    assert made.latency("reference") is None


@pytest.mark.parametrize("name", ["score", "speedup"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_objectives_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidPoint, match=name):
        measurement(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("speedup", 0.0), ("speedup", -1.0), ("score", 1.1), ("score", 85.0)]
)
def test_impossible_objectives_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidPoint, match=f"{name} is {value}"):
        measurement(**{name: value})


@pytest.mark.parametrize("score", [-1.0, 0.0, 1.0])
def test_every_possible_score_is_taken(score: float) -> None:
    assert measurement(score=score).score == score


def test_names_that_others_rely_on() -> None:
    assert [(o.name, o.direction) for o in OBJECTIVES] == [("score", "maximize"), ("speedup", "maximize")]
    assert SCENARIOS[:2] == ("throughput", "latency")
    stopped = Stopped("target_not_reached", "expected 0.1")
    assert (stopped.reason, str(stopped)) == ("target_not_reached", "expected 0.1")

"""The figures of GLUE, against their definitions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cofi_tune import tasks
from cofi_tune.data.metrics import compute
from cofi_tune.data.task import Task

LABELS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def logits_of(classes: np.ndarray, num_labels: int = 2) -> np.ndarray:
    return np.eye(num_labels, dtype=np.float32)[classes]


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=50, deadline=None)
@given(rows=LABELS)
def test_two_classes_against_the_definitions(rows: list[tuple[bool, bool]]) -> None:
    labels, predicted = np.array(rows, dtype=np.int64).T
    found = compute(("accuracy", "matthews", "f1"), logits_of(predicted), labels)
    hit, miss = int((predicted & labels).sum()), int((~predicted & 1 & labels).sum())
    false, right = int((predicted & ~labels & 1).sum()), int(((predicted | labels) == 0).sum())
    assert found["accuracy"] == pytest.approx((hit + right) / len(rows))
    assert found["f1"] == pytest.approx(2 * hit / max(2 * hit + miss + false, 1))
    product = (hit + false) * (hit + miss) * (right + false) * (right + miss)
    matthews = (hit * right - false * miss) / product**0.5 if product else 0.0
    assert found["matthews"] == pytest.approx(matthews, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    scores=st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 50)), min_size=2, max_size=30, unique=True)
)
def test_correlations_against_the_definitions(scores: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(scores, dtype=np.float32).T
    found = compute(("pearson", "spearman"), predicted[:, None], labels)
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        assert found == {"pearson": 0.0, "spearman": 0.0}
        return
    ranks = [
        [(values < value).sum() + (values == value).sum() / 2 for value in values]
        for values in (predicted, labels)
    ]
    assert found["pearson"] == pytest.approx(np.corrcoef(predicted, labels)[0, 1], abs=1e-6)
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_constant_predictions_have_no_correlation_and_no_warning() -> None:
    labels = np.arange(5, dtype=np.float32)
    constant = compute(("pearson", "spearman"), np.full((5, 1), 0.1, dtype=np.float32), labels)
    assert constant == {"pearson": 0.0, "spearman": 0.0}
    always_yes = compute(("matthews", "f1"), logits_of(np.ones(4, dtype=int)), np.array([0, 1] * 2))
    assert always_yes == {"matthews": 0.0, "f1": pytest.approx(2 / 3)}
    always_no = compute(("matthews", "f1"), logits_of(np.zeros(4, dtype=int)), np.array([0, 1] * 2))
    assert always_no == {"matthews": 0.0, "f1": 0.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_have_no_score(bad: float) -> None:
    for name in ("cola", "stsb"):
        task = tasks.load(name)
        logits = np.zeros((3, task.num_labels), dtype=np.float32)
        logits[1, -1] = bad
        with pytest.raises(ValueError, match="not finite in 1 of 3 rows"):
            task.score(logits, np.array([0, 1, 1]))


def test_shapes_that_do_not_fit() -> None:
    cola = tasks.load("cola")
    for logits, labels in [
        (np.zeros((3, 1)), np.zeros(3)),
        (np.zeros((3, 2)), np.zeros(2)),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros(0)),
    ]:
        with pytest.raises(ValueError, match=r"do not fit|no rows"):
            cola.score(logits, labels)


def test_a_task_scores_all_its_metrics() -> None:
    found = tasks.load("mrpc").score(logits_of(np.array([1, 1, 0])), np.array([1, 0, 0]))
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    mnli = tasks.load("mnli").score(logits_of(np.array([2, 1, 0]), 3), np.array([2, 1, 1]))
    assert mnli == {"accuracy": pytest.approx(2 / 3)}
    cola = tasks.load("cola").score(logits_of(np.array([1, 0])), np.array([1, 0]))
    assert cola == {"matthews": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "../x"},
        {"name": "UPPER"},
        {"text_columns": ()},
        {"text_columns": ("a", "b", "c")},
        {"label_column": "sentence"},
        {"labels": ("one",)},
        {"labels": ("one", "one")},
        {"labels": ("a", "b", "c"), "metrics": ("matthews", "f1")},
        {"metric": "f1"},
        {"metrics": ("matthews", "pearson")},
        {"label_range": (0.0, 1.0)},
        {"selection_fraction": 0.0},
        {"selection_fraction": 1.0},
        {"max_length": 2},
        {"dev_splits": ()},
        {"dev_splits": ("train",)},
    ],
)
def test_what_cannot_be_a_task_is_refused(wrong: dict[str, object]) -> None:
    cola: Task = tasks.load("cola")
    with pytest.raises(ValueError, match="a task needs"):
        replace(cola, **wrong)  # type: ignore[arg-type]

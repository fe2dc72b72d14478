"""Runs as a table: types, names, and what hostile or old runs make of it."""

from __future__ import annotations

import json
import math

import pytest

from analysis import runs
from analysis.runs import Run


def run(number: int, params: dict[str, str] | None = None, state: str = "complete", **tags: str) -> Run:
    """A trial's run."""
    trial = f"s-{number:04d}"
    common = {"cofi.study": "s", "cofi.kind": "trial", "cofi.trial_id": trial, "cofi.state": state}
    searched = {"cofi.searched": json.dumps(sorted(params or {}))}
    metrics = (
        {"score": 0.5, "speedup": 2.0, "seconds": 3.0} if state == "complete" else {"train_seconds": 1.5}
    )
    return Run(f"id{number}", trial, params or {}, metrics, {**common, **searched, **tags})


def test_one_row_per_trial_in_the_order_of_proposals() -> None:
    own = Run("x", "s (study)", {}, {"num_complete": 2.0}, {"cofi.study": "s", "cofi.kind": "study"})
    foreign = Run("y", "someone else's", {}, {"score": 1.0}, {})
    frame = runs.table([run(2), own, run(0), foreign, run(1, state="fail")])
    assert list(frame["trial"]) == ["s-0000", "s-0001", "s-0002"]
    assert list(frame["state"]) == ["complete", "fail", "complete"]
    assert list(frame["seconds"]) == [3.0, 1.5, 3.0]
    assert math.isnan(frame["score"][1])


def test_no_runs_are_an_empty_table_with_its_columns() -> None:
    frame = runs.table([])
    assert frame.empty
    assert {"study", "trial", "state", "reason", "score", "speedup", "seconds", "searched"} <= set(frame)
    assert runs.searched(frame) == []


@pytest.mark.parametrize(
    ("texts", "dtype", "values"),
    [
        (["1", "2"], "Int64", [1, 2]),
        (["1", "2.5"], "Float64", [1.0, 2.5]),
        (["1e-5", "None"], "Float64", [1e-5, None]),
        (["True", "False"], "boolean", [True, False]),
        (["v4", "1"], "string", ["v4", "1"]),
        (["['a', 'b']", "None"], "string", ["['a', 'b']", None]),
        (["9" * 30, "1"], "Float64", [1e30, 1.0]),
        (["nan", "1"], "string", ["nan", "1"]),
        (["<b>1</b>", "2"], "string", ["<b>1</b>", "2"]),
        (["None", "None"], "string", [None, None]),
    ],
)
def test_settings_have_the_type_of_what_they_hold(texts: list[str], dtype: str, values: list[object]) -> None:
    frame = runs.table([run(number, {"p": text}) for number, text in enumerate(texts)])
    assert str(frame["param/p"].dtype) == dtype
    column = frame["param/p"]
    assert [None if gone else value for value, gone in zip(column, column.isna(), strict=True)] == values


def test_measured_columns_are_numbers_and_the_dense_models_are_called_so() -> None:
    one = run(0, **{"contract.device": "cpu"})
    metrics = {**one.metrics, "throughput/speedup": 2.0, "teacher/matthews": 0.6, "loss/layer": 0.1}
    frame = runs.table([Run(one.run_id, one.name, {}, metrics, one.tags), run(1)])
    assert list(frame["dense/matthews"].fillna(-1)) == [0.6, -1]
    assert frame["throughput/speedup"].dtype == "float64"
    assert frame["contract/device"][0] == "cpu"
    assert "loss/layer" not in frame


def test_what_was_searched_survives_a_broken_tag() -> None:
    frame = runs.table([run(0, {"a": "1"}), run(1, **{"cofi.searched": "[1, {"})])
    assert runs.searched(frame) == ["a"]


def test_a_study_without_its_own_run_is_told_by_its_trials() -> None:
    tags = {"cofi.min_score": "0.5", "cofi.reference_score": "nonsense"}
    [study] = runs.studies_of([run(0, **tags)])
    assert (study.number("min_score"), study.number("reference_score"), study.tag("task")) == (0.5, None, "")
    own = Run("x", "", {}, {}, {"cofi.study": "s", "cofi.kind": "study", "cofi.min_score": "0.7"})
    for order in ([own, run(0, **tags)], [run(0, **tags), own]):
        assert runs.studies_of(order)[0].number("min_score") == 0.7

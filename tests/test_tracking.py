"""MLflow: one run per trial whatever happens, and never a reason to end a search."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from cofi_tune.messages import Asked, Outcome
from cofi_tune.records import Latency, Measurement, Progress
from cofi_tune.tracking import Tracking

ASKED = Asked(
    "s-0000",
    params={"learning_rate_ratio": 10.0, "cofi/target_sparsity": 0.6},
    settings={"method": "cofi", "learning_rate": 1e-3, "cofi/units": ["head"]},
    logarithmic=frozenset({"learning_rate_ratio"}),
)
MEASURED = Outcome(
    "complete",
    measurement=Measurement(
        score=0.7,
        speedup=2.0,
        scores={"matthews": 0.7, "accuracy": 0.85},
        teacher_scores={"matthews": 0.8, "accuracy": 0.9},
        latencies=(Latency("throughput", 4.0, 2.0, 2.0, 1.9, 2.1, 9, 32, 512),),
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
        contract={"device_name": "a CPU"},
    ),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def complaints() -> list[str]:
    return []


def connect(uri: str, tmp_path: Path, complaints: list[str], study: str, uid: str = "uid") -> Tracking:
    return Tracking(
        uri, study, uid, {"cofi.task": "cola"}, tmp_path / "artifacts", tmp_path / "trials", complaints.append
    )


def progress(step: int) -> Progress:
    return Progress(step, 20, "prune", {"cofi/layer": 0.5, "loss": 0.7}, 1e-3, 1.0, 0.1, 0.2, None)


def runs_of(tracking: Tracking) -> list[mlflow.entities.Run]:
    return list(tracking.client.search_runs([tracking.experiment_id]))


def test_a_run_has_everything(database: str, tmp_path: Path, complaints: list[str]) -> None:
    (tmp_path / "trials" / "s-0000").mkdir(parents=True)
    (tmp_path / "trials" / "s-0000" / "plan.json").write_text("{}")
    tracking = connect(database, tmp_path, complaints, "everything")
    tracking.started(ASKED)
    tracking.heard("s-0000", progress(7))
    tracking.ended("s-0000", MEASURED)
    assert complaints == []
    [run] = runs_of(tracking)
    assert run.info.run_name == "s-0000"
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert tags["cofi.trial_id"] == "s-0000"
    assert {tags[name] for name in ("cofi.task", "cofi.study", "cofi.method", "cofi.state")} == {
        "cola",
        "everything",
        "cofi",
        "complete",
    }
    assert {"version.torch", "version.ray", "version.optuna", "version.mlflow", "cofi.version"} <= set(tags)
    assert "mlflow.parentRunId" not in tags
    assert run.data.params["cofi/target_sparsity"] == "0.6"
    assert run.data.params["log10_learning_rate_ratio"] == "1.0"
    assert run.data.params["learning_rate"] == "0.001"
    metrics = run.data.metrics
    assert metrics["score"] == 0.7
    assert metrics["score/accuracy"] == 0.85
    assert metrics["teacher/matthews"] == 0.8
    assert metrics["throughput/speedup_low"] == 1.9
    assert metrics["throughput/latency_ms"] == 2.0
    [point] = tracking.client.get_metric_history(run.info.run_id, "cofi/layer")
    assert (point.step, point.value) == (7, 0.5)
    assert [file.path for file in tracking.client.list_artifacts(run.info.run_id)] == ["plan.json"]


def test_told_twice_by_two_drivers_is_one_run(database: str, tmp_path: Path, complaints: list[str]) -> None:
    for _ in range(2):
        tracking = connect(database, tmp_path, complaints, "twice")
        tracking.started(ASKED)
        tracking.heard("s-0000", progress(7))
    tracking.ended("s-0000", Outcome.failed("non_finite", "a loss is nan"))
    tracking.catch_up(ASKED, Outcome.failed("non_finite", "a loss is nan"))
    tracking.summarise({"front.json": "{}"}, {"num_complete": 0})
    tracking.summarise({"front.json": "{}"}, {"num_complete": 0})
    assert complaints == []
    runs = {run.info.run_name: run for run in runs_of(tracking)}
    assert set(runs) == {"s-0000", "twice (study)"}
    assert len(runs_of(tracking)) == 2
    assert runs["s-0000"].info.status == "FAILED"
    assert runs["s-0000"].data.tags["cofi.reason"] == "non_finite"
    assert runs["twice (study)"].data.tags["cofi.kind"] == "study"


def test_another_study_of_that_name_is_another(database: str, tmp_path: Path, complaints: list[str]) -> None:
    for uid in ("one", "two"):
        tracking = connect(database, tmp_path, complaints, "namesake", uid)
        tracking.catch_up(ASKED, MEASURED)
    assert len(runs_of(tracking)) == 2


def test_what_was_missed_is_caught_up(database: str, tmp_path: Path, complaints: list[str]) -> None:
    tracking = connect(database, tmp_path, complaints, "missed")
    tracking.catch_up(ASKED, MEASURED)
    [run] = runs_of(tracking)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["speedup"] == 2.0
    address = tracking.comparison()
    assert address is not None
    assert address.startswith("http://127.0.0.1:5000/#/compare-runs?runs=%5B%22" + run.info.run_id)
    command = tracking.server_command()
    assert command is not None
    assert "--host 127.0.0.1" in command


def test_a_server_that_is_down_is_told_of_once(tmp_path: Path, complaints: list[str]) -> None:
    tracking = connect("http://me:secret@127.0.0.1:9", tmp_path, complaints, "down")
    tracking.started(ASKED)
    tracking.heard("s-0000", progress(1))
    tracking.ended("s-0000", MEASURED)
    [complaint] = complaints
    assert "the search goes on without it" in complaint
    assert "secret" not in complaint
    assert tracking.comparison() is None

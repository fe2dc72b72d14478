"""MLflow: one run per trial, whole, however often and from wherever it is written."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import mlflow
import pytest

from analysis import contracts
from cofi_tune import connection, timings
from cofi_tune.history import History
from cofi_tune.messages import INTERRUPTED, Asked, Outcome
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


def connect(uri: str, output: Path, study: str, uid: str = "uid") -> Tracking:
    return Tracking(uri, study, uid, {"cofi.task": "cola"}, output)


def progress(step: int) -> Progress:
    return Progress(step, 20, "prune", {"cofi/layer": 1 / step, "loss": 0.7}, 1e-3, 1.0, 0.1, 0.2, None)


def history(output: Path, study: str) -> History:
    return History(output / study / "trials" / "s-0000")


def runs_of(uri: str, study: str) -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    return list(client.search_runs([client.get_experiment_by_name(study).experiment_id]))


def curve(uri: str, run: mlflow.entities.Run, name: str) -> list[tuple[int, int, float]]:
    points = mlflow.MlflowClient(tracking_uri=uri).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.timestamp, point.value) for point in points)


def test_a_run_has_everything(database: str, tmp_path: Path) -> None:
    reports = history(tmp_path, "everything")
    (reports.path.parent / "plan.json").write_text("{}")
    tracking = connect(database, tmp_path, "everything")
    assert tracking.trial(ASKED)
    [run] = runs_of(database, "everything")
    assert (run.info.status, run.data.tags["cofi.state"]) == ("RUNNING", "running")
    reports.append(progress(7), 1234)
    assert tracking.trial(ASKED)
    assert tracking.trial(ASKED, MEASURED, ended_ms=99_000)
    [run] = runs_of(database, "everything")
    assert run.info.run_name == "s-0000"
    assert (run.info.status, run.info.end_time) == ("FINISHED", 99_000)
    tags = run.data.tags
    expected = {
        "cofi.trial_id": "s-0000",
        "cofi.study": "everything",
        "cofi.study_id": "uid",
        "cofi.task": "cola",
        "cofi.method": "cofi",
        "cofi.state": "complete",
        "cofi.whole": "complete",
        "cofi.device": "a CPU",
    }
    assert expected.items() <= tags.items()
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
    assert curve(database, run, "cofi/layer") == [(7, 1234, 1 / 7)]
    assert curve(database, run, "score") == [(0, 1234, 0.7)]
    client = mlflow.MlflowClient(tracking_uri=database)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["plan.json"]


def test_written_again_from_the_beginning_adds_nothing(database: str, tmp_path: Path) -> None:
    reports = history(tmp_path, "again")
    for step in range(1, 301):
        reports.append(progress(step), 1000 + step)
    assert connect(database, tmp_path, "again").trial(ASKED, MEASURED)
    [run] = runs_of(database, "again")
    client = mlflow.MlflowClient(tracking_uri=database)
    # As a driver leaves it that was killed before it could say that all is there.
    client.delete_tag(run.info.run_id, "cofi.whole")
    assert connect(database, tmp_path, "again").trial(ASKED, MEASURED)
    [again] = runs_of(database, "again")
    assert again.info.run_id == run.info.run_id
    for name in ("loss", "cofi/layer", "learning_rate"):
        assert [point[:2] for point in curve(database, again, name)] == [
            (step, 1000 + step) for step in range(1, 301)
        ]
    assert len(curve(database, again, "score")) == 1
    assert again.data.metrics == run.data.metrics
    assert not connect(database, tmp_path, "again").trial(ASKED, MEASURED)


def test_reports_that_are_heard_again_at_another_time_are_no_other_points(
    database: str, tmp_path: Path
) -> None:
    """The disk is lost with the history on it; what a bucket has of it ends before what MLflow has."""
    first, second = tmp_path / "first", tmp_path / "second"
    for step in (4, 7):
        history(first, "lost").append(progress(step), 1000 + step)
    connect(database, first, "lost").trial(ASKED)
    again = connect(database, second, "lost")
    for step in (4, 7, 10):
        history(second, "lost").append(progress(step), 2000 + step)
        again.trial(ASKED)
    again.trial(ASKED, MEASURED)
    [run] = runs_of(database, "lost")
    for name in ("loss", "cofi/layer", "train_seconds"):
        assert [point[:2] for point in curve(database, run, name)] == [(4, 1004), (7, 1007), (10, 2010)]
    assert len(curve(database, run, "score")) == 1


def test_the_end_of_a_trial_that_is_written_again_is_written_once(database: str, tmp_path: Path) -> None:
    for number, output in enumerate((tmp_path / "first", tmp_path / "second")):
        history(output, "twice").append(progress(4), 1000 + number)
        connect(database, output, "twice").trial(ASKED, MEASURED)
        [run] = runs_of(database, "twice")
        mlflow.MlflowClient(tracking_uri=database).delete_tag(run.info.run_id, "cofi.whole")
    assert curve(database, run, "score") == [(0, 1000, 0.7)]


def test_later_timings_are_written_to_a_run_that_is_over(database: str, tmp_path: Path) -> None:
    contract = {"device": "cpu", "num_threads": 1, "timed": "again"}
    directory = tmp_path / "timed" / "trials" / "s-0000"
    assert connect(database, tmp_path, "timed").trial(ASKED, MEASURED, 99_000)
    [before] = runs_of(database, "timed")
    for speedup in (3.0, 2.5):
        timing = timings.save(
            directory, contract, (Latency("latency", 1.0, 0.3, speedup, 2.0, 4.0, 9, 1, 25),)
        )
        assert connect(database, tmp_path, "timed").trial(ASKED, MEASURED, 99_000)
        assert not connect(database, tmp_path, "timed").trial(ASKED, MEASURED, 99_000)
        [run] = runs_of(database, "timed")
        assert before.data.metrics.items() <= run.data.metrics.items()
        name = f"{timing.contract_id}/latency/speedup"
        assert run.data.metrics[name] == speedup
        assert curve(database, run, name)[-1] == (0, timing.time_ms, speedup)
        kept = json.loads(run.data.tags[f"timing.{timing.contract_id}"])
        assert contracts.contract_id(kept) == timing.contract_id
        assert run.info.end_time == before.info.end_time


def test_two_drivers_and_another_end(database: str, tmp_path: Path) -> None:
    lost = Outcome.failed("non_finite", "a loss is nan")
    first, second = (connect(database, tmp_path, "twice") for _ in range(2))
    file = tmp_path / "front.json"
    file.write_text("{}")
    assert first.study_run()
    assert first.study_run([file], {"num_complete": 0})
    assert first.trial(ASKED)
    assert second.trial(ASKED, lost)
    assert first.trial(ASKED, lost)  # it could not know
    assert not first.trial(ASKED, lost)
    assert not second.study_run([file], {"num_complete": 0})
    file.write_text("{ }")
    assert second.study_run([file], {"num_complete": 1})
    found = runs_of(database, "twice")
    runs = {run.info.run_name: run for run in found}
    assert set(runs) == {"s-0000", "twice (study)"}
    assert len(found) == 2
    assert runs["s-0000"].info.status == "FAILED"
    assert runs["s-0000"].data.tags["cofi.reason"] == "non_finite"
    assert runs["twice (study)"].data.tags["cofi.kind"] == "study"
    assert runs["twice (study)"].data.metrics == {"num_complete": 1}


def test_threads_make_one_run_for_a_trial(database: str, tmp_path: Path) -> None:
    writers = [connect(database, tmp_path, "crowd") for _ in range(3)]
    threads = [threading.Thread(target=writer.trial, args=(ASKED, MEASURED)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [run] = runs_of(database, "crowd")
    assert run.info.status == "FINISHED"


def test_a_second_run_of_a_trial_goes(database: str, tmp_path: Path) -> None:
    tracking = connect(database, tmp_path, "slow")
    tracking.trial(ASKED, MEASURED)
    [run] = runs_of(database, "slow")
    client = mlflow.MlflowClient(tracking_uri=database)
    client.create_run(run.info.experiment_id, tags={"cofi.study_id": "uid", "cofi.trial_id": "s-0000"})
    assert not connect(database, tmp_path, "slow").trial(ASKED, MEASURED)
    assert [one.info.run_id for one in runs_of(database, "slow")] == [run.info.run_id]


def test_an_interrupted_trial_goes_on_in_its_run(database: str, tmp_path: Path) -> None:
    tracking = connect(database, tmp_path, "left")
    history(tmp_path, "left").append(progress(1), 1)
    tracking.trial(ASKED)
    tracking.trial(ASKED, Outcome.failed(INTERRUPTED, "the search was stopped"))
    [run] = runs_of(database, "left")
    tags = run.data.tags
    assert run.info.status == "KILLED"
    assert (tags["cofi.state"], tags["cofi.reason"]) == ("interrupted", "interrupted")
    assert "cofi.whole" not in tags
    again = connect(database, tmp_path, "left")
    history(tmp_path, "left").append(progress(2), 2)
    again.trial(ASKED)
    [run] = runs_of(database, "left")
    assert run.info.status == "RUNNING"
    assert (run.data.tags["cofi.state"], run.data.tags["cofi.reason"]) == ("running", "")
    again.trial(ASKED, MEASURED)
    [run] = runs_of(database, "left")
    assert (run.info.status, run.data.tags["cofi.whole"]) == ("FINISHED", "complete")
    assert [point[0] for point in curve(database, run, "loss")] == [1, 2]


def test_a_param_that_is_there_stays(database: str, tmp_path: Path) -> None:
    connect(database, tmp_path, "params").trial(ASKED)
    changed = Asked(ASKED.trial_id, ASKED.params, {**ASKED.settings, "learning_rate": 5.0, "new": 1})
    assert connect(database, tmp_path, "params").trial(changed, MEASURED)
    [run] = runs_of(database, "params")
    assert (run.data.params["learning_rate"], run.data.params["new"]) == ("0.001", "1")
    assert run.info.status == "FINISHED"


def test_a_deleted_run_is_made_anew(database: str, tmp_path: Path) -> None:
    tracking = connect(database, tmp_path, "deleted")
    history(tmp_path, "deleted").append(progress(1), 1)
    tracking.trial(ASKED)
    [run] = runs_of(database, "deleted")
    mlflow.MlflowClient(tracking_uri=database).delete_run(run.info.run_id)
    history(tmp_path, "deleted").append(progress(2), 2)
    assert tracking.trial(ASKED, MEASURED)
    [new] = runs_of(database, "deleted")
    assert new.info.run_id != run.info.run_id
    assert [point[0] for point in curve(database, new, "loss")] == [1, 2]


def test_a_deleted_experiment_is_named_with_its_remedy(database: str, tmp_path: Path) -> None:
    tracking = connect(database, tmp_path, "gone")
    tracking.trial(ASKED)
    client = mlflow.MlflowClient(tracking_uri=database)
    client.delete_experiment(tracking.experiment_id)
    number = tracking.experiment_id
    remedy = rf"TRACKING_URI=sqlite\S+ python -m mlflow experiments restore --experiment-id {number}$"
    with pytest.raises(connection.Unusable, match=remedy):
        tracking.trial(ASKED, MEASURED)
    client.restore_experiment(tracking.experiment_id)
    assert tracking.trial(ASKED, MEASURED)
    [run] = runs_of(database, "gone")
    assert run.info.status == "FINISHED"


def test_another_study_of_that_name_is_another(database: str, tmp_path: Path) -> None:
    for uid in ("one", "two"):
        assert connect(database, tmp_path, "namesake", uid).trial(ASKED, MEASURED)
    assert len(runs_of(database, "namesake")) == 2


def test_addresses(database: str, tmp_path: Path) -> None:
    tracking = connect(database, tmp_path, "addresses")
    assert tracking.comparison() is None
    tracking.trial(ASKED, MEASURED)
    tracking.study_run()
    [run] = [run for run in runs_of(database, "addresses") if run.data.tags["cofi.kind"] == "trial"]
    address = tracking.comparison()
    assert address is not None
    start = f"http://127.0.0.1:5000/#/compare-runs?runs=%5B%22{run.info.run_id}%22%5D&"
    assert address.startswith(start)
    assert not tracking.is_served
    server = connect("http://me:secret@127.0.0.1:9/", tmp_path, "addresses")
    server.runs = tracking.runs
    assert server.is_served
    assert (server.comparison() or "").startswith("http://127.0.0.1:9/#/compare-runs")


def test_a_look_finds_what_is_there_and_makes_nothing(database: str, tmp_path: Path) -> None:
    connect(database, tmp_path, "seen").trial(ASKED, MEASURED)
    seen, unseen = connect(database, tmp_path, "seen"), connect(database, tmp_path, "unseen")
    seen.look()
    unseen.look()
    assert seen.comparison() is not None
    assert unseen.comparison() is None
    assert mlflow.MlflowClient(tracking_uri=database).get_experiment_by_name("unseen") is None


def test_a_server_that_is_down_is_said_to_be(tmp_path: Path) -> None:
    tracking = connect("http://me:secret@127.0.0.1:9", tmp_path, "down")
    with pytest.raises(mlflow.MlflowException) as caught:
        tracking.trial(ASKED)
    assert connection.explain(caught.value, tracking.uri) == "http://127.0.0.1:9 does not answer"

"""MLflow's runs, read from its database and through its interface: the same, and which studies are meant."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis import runs, tracked
from cofi_tune import connection


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two studies of cola, the second made anew under its old name, one of rte, and somebody else's runs."""
    directory = tmp_path_factory.mktemp("mlflow")
    found = f"sqlite:///{directory}/mlflow.db"
    client = connection.connect(found)
    for started, name, uid, task in [
        (10, "cola-a", "1", "cola"),
        (20, "cola-b", "2", "cola"),
        (30, "cola-b", "3", "cola"),
        (5, "rte-a", "4", "rte"),
    ]:
        experiment = connection.experiment(client, name, (directory / "mlartifacts").as_uri())
        for number in range(2):
            trial(client, experiment, started + number, name, uid, task, number)
    other = client.create_experiment("somebody's")
    client.create_run(other, 99, {"cofi.something": "else"}, "theirs")
    return found


def trial(
    client: MlflowClient, experiment: str, started: int, name: str, uid: str, task: str, number: int
) -> None:
    tags = {"cofi.study": name, "cofi.study_id": uid, "cofi.task": task, "cofi.kind": "trial"}
    trial_id = f"{name}-{number:04d}"
    run = client.create_run(experiment, started, {**tags, "cofi.trial_id": trial_id}, trial_id)
    curve = [Metric("loss", 1 / step, 1000 + step, step) for step in range(1, 4)]
    final = [Metric("score", number / 3, 2000, 0), Metric("loss", 0.25, 1004, 4)]
    client.log_batch(run.info.run_id, metrics=[*curve, *curve[:1], *final], params=[])
    client.log_param(run.info.run_id, "cofi/target_sparsity", 0.1 + number)
    client.log_text(run.info.run_id, f"plan of {trial_id}", "plan.json")
    client.set_terminated(run.info.run_id, end_time=started + 1)


@pytest.fixture(params=["database", "interface"])
def source(request: pytest.FixtureRequest, uri: str) -> tracked.Database | tracked.Server:
    return tracked.Database(uri) if request.param == "database" else tracked.Server(uri)


def test_studies_and_which_is_meant(source: tracked.Database | tracked.Server) -> None:
    known = source.studies()
    assert [(s.name, s.uid, s.task, s.started_ms) for s in known] == [
        ("rte-a", "4", "rte", 6),
        ("cola-a", "1", "cola", 11),
        ("cola-b", "3", "cola", 31),
    ]
    assert [s.name for s in tracked.choose(known, [], None)] == ["cola-b"]
    assert [s.name for s in tracked.choose(known, [], "rte")] == ["rte-a"]
    assert [s.name for s in tracked.choose(known, ["rte-a", "cola-a", "rte-a"], None)] == ["rte-a", "cola-a"]
    with pytest.raises(
        ValueError, match=r"--study cola-c: .*did you mean cola-[ab]\?.*rte-a, cola-a, cola-b"
    ):
        tracked.choose(known, ["cola-c"], None)
    with pytest.raises(ValueError, match=r"--task mnli: no study of this task \(.*: cola, rte\)"):
        tracked.choose(known, [], "mnli")
    with pytest.raises(ValueError, match="none"):
        tracked.choose([], [], "mnli")


def test_runs_curves_and_artifacts(source: tracked.Database | tracked.Server) -> None:
    source.chosen = tracked.choose(source.studies(), ["cola-b"], None)
    found = sorted(source.runs(), key=lambda run: run.name)
    assert [run.name for run in found] == ["cola-b-0000", "cola-b-0001"]
    assert found[1].params == {"cofi/target_sparsity": "1.1"}
    assert found[1].metrics == {"score": 1 / 3, "loss": 0.25}
    assert found[1].tags["cofi.study_id"] == "3"
    curves = source.curves(found[:1])
    assert curves == {found[0].run_id: {"loss": [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]}}
    assert source.artifact(found[0], "plan.json") == b"plan of cola-b-0000"
    assert source.artifact(found[0], "nothing.json") is None


def test_both_ways_make_the_same_table(uri: str) -> None:
    tables = []
    for source in (tracked.Database(uri), tracked.Server(uri)):
        source.chosen = source.studies()
        tables.append(runs.table(source.runs()))
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 6


def test_a_deleted_run_is_gone(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as there, sqlite3.connect(uri.removeprefix("sqlite:///")) as here:
        here.backup(there)
    source = tracked.Database(f"sqlite:///{path}")
    source.chosen = source.studies()
    MlflowClient(source.uri).delete_run(source.runs()[0].run_id)
    assert len(source.runs()) == 5


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        tracked.connect(f"sqlite:///{tmp_path}/none.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\0" + b"x" * 500)
    with pytest.raises(ValueError, match="cannot be read"):
        tracked.connect(f"sqlite:///{tmp_path}/torn.db").studies()
    (tmp_path / "empty.db").touch()
    with pytest.raises(ValueError, match="cannot be read: no such table"):
        tracked.connect(f"sqlite:///{tmp_path}/empty.db").studies()
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9 does not answer.*--tracking-uri"):
        tracked.connect("http://me:secret@127.0.0.1:9").studies()


def test_reading_changes_nothing(uri: str) -> None:
    path = Path(uri.removeprefix("sqlite:///"))
    before = path.read_bytes(), sorted(p.name for p in path.parent.iterdir())
    source = tracked.connect(uri)
    source.chosen = source.studies()
    source.curves(source.runs())
    assert (path.read_bytes(), sorted(p.name for p in path.parent.iterdir())) == before

"""MLflow that is down, dies, hangs, is locked, deleted or old: a search goes on, and `sync` completes it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pytest

from cofi_tune import connection, outbox, sync

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
STEPS = 12
STATUS = ("FINISHED", "FINISHED", "FINISHED", "FAILED")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 3.0)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_SECONDS", 2.0)


def client_of(uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=uri)


def runs_of(uri: str, name: str) -> dict[str, mlflow.entities.Run]:
    """The runs by trial id; each trial has one."""
    client = client_of(uri)
    found = list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))
    runs = {run.data.tags["cofi.trial_id"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def check(uri: str, name: str, trials: int) -> dict[str, mlflow.entities.Run]:
    """Every trial once, over, with its params, its whole curve and its measurement."""
    runs = runs_of(uri, name)
    assert sorted(runs) == [f"{name} (study)", *(f"{name}-{number:04d}" for number in range(trials))]
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "FAILED"}
    for number in range(trials):
        run = runs[f"{name}-{number:04d}"]
        assert run.info.status == STATUS[number % 4]
        assert run.data.tags["cofi.whole"]
        assert {"sparsity", "batch_size"} <= set(run.data.params)
        assert ("score" in run.data.metrics) == (run.info.status == "FINISHED")
        for metric in ("loss", "cofi/layer", "learning_rate"):
            points = client_of(uri).get_metric_history(run.info.run_id, metric)
            assert sorted(point.step for point in points) == [*range(1, STEPS + 1)]
    return runs


def synced(output: Path, name: str, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    capsys.readouterr()
    status = sync.main(["--output", str(output), "--name", name, *more])
    return status, "".join(capsys.readouterr())


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_server_down_at_the_start_and_killed_midway(
    simulated: ModuleType, server: Any, tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before_kill: dict[str, str] = {}

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 6):
            until(lambda: len(said) == 1)
            server.start()
            until(lambda: len(said) == 2)
        if (trial, step) == (3, 6):
            until(lambda: "s-0003" in runs_of(server.uri, "s"))
            before_kill.update({name: run.info.run_id for name, run in runs_of(server.uri, "s").items()})
            server.kill()

    simulated.search(tmp_path, "s", 6, server.uri, said.append, before)
    assert [line.split(" (")[0] for line in said[:3]] == [
        "MLflow cannot be written",
        "MLflow is back; what it missed is written",
        "MLflow cannot be written",
    ]
    assert f"({server.uri} does not answer)" in said[0]
    command = f"python -m cofi_tune.sync --output {tmp_path} --name s"
    assert said[3:] == [
        f"MLflow lacks s-0003, s-0004, s-0005 and 1 more; to write it when MLflow is there: {command}"
    ]
    status, text = synced(tmp_path, "s", capsys)
    assert (status, text) == (
        4,
        f"error: s: MLflow cannot be written ({server.uri} does not answer); run this again later\n",
    )
    server.start()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        capture_output=True,
        env=ENVIRONMENT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "s: 3 written, 3 were there already\n"), done.stderr
    runs = check(server.uri, "s", 6)
    assert before_kill == {name: runs[name].info.run_id for name in before_kill}
    assert sorted(before_kill) == ["s-0000", "s-0001", "s-0002", "s-0003"]
    assert synced(tmp_path, "s", capsys) == (0, "s: 0 written, 6 were there already\n")


def test_hanging_server_does_not_slow_a_search(
    simulated: ModuleType,
    server: Any,
    tmp_path: Path,
    said: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    server.start()
    times: list[float] = []

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 1):
            until(lambda: "s-0000" in runs_of(server.uri, "s"))
            server.signal(signal.SIGSTOP)
        if step == 1:
            times.append(time.monotonic())
        if (trial, step) == (7, STEPS):
            until(lambda: len(said) == 1)
            server.signal(signal.SIGCONT)
            until(lambda: len(said) == 2)

    try:
        simulated.search(tmp_path, "s", 8, server.uri, said.append, before)
    finally:
        server.signal(signal.SIGCONT)
    assert times[7] - times[1] < 3
    assert said[1] == "MLflow is back; what it missed is written"
    assert synced(tmp_path, "s", capsys)[0] == 0
    check(server.uri, "s", 8)


def test_two_searches_into_the_same_fresh_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    script = Path(__file__).with_name("simulated.py")
    names = ("one", "two", "three")
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), name, "4", uri],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            text=True,
        )
        for name in names
    ]
    outputs = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    assert outputs == ["", "", ""]
    for name in names:
        check(uri, name, 4)
    assert not list(tmp_path.glob("mlflow.db.*.new"))


def test_killed_while_it_makes_the_database(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    command = f"from cofi_tune import connection; connection.connect('sqlite:///{database}')"
    killed = subprocess.Popen([sys.executable, "-c", command], env=ENVIRONMENT)
    until(lambda: bool(list(tmp_path.glob("mlflow.db.*.new"))))
    time.sleep(0.2)
    killed.kill()
    killed.wait()
    assert not database.exists()
    connection.connect(f"sqlite:///{database}").search_experiments()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_database_locked_for_30_seconds(
    simulated: ModuleType, tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "mlflow.db"
    free = threading.Event()

    def hold() -> None:
        holder = sqlite3.connect(database, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        time.sleep(30)
        holder.execute("ROLLBACK")
        holder.close()
        free.set()

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 1):
            until(database.exists)
            threading.Thread(target=hold).start()
        if (trial, step) == (5, STEPS):
            free.wait(60)

    simulated.search(tmp_path, "s", 6, f"sqlite:///{database}", said.append, before)
    assert Counter(line.split(" (")[0] for line in said) == {
        "MLflow cannot be written": 1,
        "MLflow is back; what it missed is written": 1,
    }
    assert "locked" in said[0]
    check(f"sqlite:///{database}", "s", 6)
    assert synced(tmp_path, "s", capsys) == (0, "s: 0 written, 6 were there already\n")


def remedy(line: str) -> list[str]:
    """The command that a line names, as a person would paste it into a shell."""
    found = re.search(r"(MLFLOW_TRACKING_URI=\S+ )?python -m mlflow [^)]+", line)
    assert found is not None, line
    return ["env", *shlex.split(found[0].replace("python", sys.executable, 1))]


def test_deleted_experiment(
    simulated: ModuleType, tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def before(trial: int, step: int) -> None:
        if (trial, step) == (2, 1):
            until(
                lambda: (
                    (tmp_path / "mlflow.db").exists()
                    and client_of(uri).get_experiment_by_name("s") is not None
                )
            )
            until(lambda: "s-0001" in runs_of(uri, "s"))
            client = client_of(uri)
            client.delete_experiment(client.get_experiment_by_name("s").experiment_id)
        if (trial, step) == (3, STEPS):
            until(lambda: bool(said))

    simulated.search(tmp_path, "s", 4, uri, said.append, before)
    assert "the experiment 's' was deleted; to restore it: " in said[0]
    assert "the search goes on" in said[0]
    status, text = synced(tmp_path, "s", capsys)
    assert status == 4
    assert remedy(text.strip()) == remedy(said[0])
    subprocess.run(remedy(said[0]), check=True, capture_output=True)
    assert synced(tmp_path, "s", capsys)[0] == 0
    check(uri, "s", 4)


OLDER = """
import sys, sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
engine = sqlalchemy.create_engine(sys.argv[1])
Base.metadata.create_all(engine)
config = _get_alembic_config(sys.argv[1])
[head] = ScriptDirectory.from_config(config).get_revisions("heads")
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.upgrade(config, head.down_revision)
"""


def test_database_of_an_older_version_is_migrated(
    simulated: ModuleType, tmp_path: Path, said: list[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    subprocess.run([sys.executable, "-c", OLDER, uri], check=True, capture_output=True)
    simulated.search(tmp_path, "s", 4, uri, said.append)
    assert said == []
    check(uri, "s", 4)


def test_schema_that_mlflow_refuses(
    simulated: ModuleType, tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    # Made by another process, since this one's MLflow keeps what it has opened.
    make = f"from cofi_tune import connection; connection.connect({uri!r})"
    subprocess.run([sys.executable, "-c", make], check=True, env=ENVIRONMENT)

    def stamp(revision: str) -> str:
        with sqlite3.connect(database) as file:
            [before] = file.execute("SELECT version_num FROM alembic_version").fetchone()
            file.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        return str(before)

    head = stamp("451aebb31d03")
    simulated.search(tmp_path, "s", 4, uri, said.append)
    assert f"is of another version; after a backup: python -m mlflow db upgrade {uri}" in said[0]
    assert said[-1].startswith("MLflow lacks s-0000")
    assert synced(tmp_path, "s", capsys)[0] == 4
    stamp(head)
    assert synced(tmp_path, "s", capsys) == (0, "s: 4 written, 0 were there already\n")
    check(uri, "s", 4)

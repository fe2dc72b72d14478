"""An MLflow database that is made twice at once, locked, deleted from or of another version."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cofi_tune import connection

pytestmark = pytest.mark.faults

Synced = Callable[[], tuple[int, str]]


@pytest.mark.long
def test_two_searches_into_the_same_fresh_database(simulated: ModuleType, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    names = ("one", "two", "three")
    simulated.run_together(tmp_path, names, uri)
    assert not list(tmp_path.glob("mlflow.db.*.new*"))


def test_killed_while_it_makes_the_database(simulated: ModuleType, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    command = f"from cofi_tune import connection; connection.connect('sqlite:///{database}')"
    killed = subprocess.Popen([sys.executable, "-c", command], env=simulated.ENVIRONMENT)
    simulated.until(lambda: bool(list(tmp_path.glob("mlflow.db.*.new*"))))
    time.sleep(0.2)
    killed.kill()
    killed.wait()
    assert not database.exists()
    connection.connect(f"sqlite:///{database}").search_experiments()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.long
def test_database_locked_for_30_seconds(
    simulated: ModuleType, tmp_path: Path, said: list[str], synced: Synced
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
            simulated.until(database.exists)
            threading.Thread(target=hold).start()
        if (trial, step) == (5, simulated.STEPS):
            free.wait(300)

    simulated.search(tmp_path, "s", 6, f"sqlite:///{database}", said.append, before)
    assert Counter(line.split(" (")[0] for line in said) == {
        "MLflow cannot be written": 1,
        "MLflow is back; what it missed is written": 1,
    }
    assert "locked" in said[0]
    simulated.check(f"sqlite:///{database}", "s", 6)
    assert synced() == (0, "s: 0 written, 6 were there already\n")


def remedy(line: str) -> list[str]:
    """The command that a line names, as a person would paste it into a shell."""
    found = re.search(r"(MLFLOW_TRACKING_URI=\S+ )?python -m mlflow [^)]+", line)
    assert found is not None, line
    return ["env", *shlex.split(found[0].replace("python", sys.executable, 1))]


@pytest.mark.long
def test_deleted_experiment(simulated: ModuleType, tmp_path: Path, said: list[str], synced: Synced) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def before(trial: int, step: int) -> None:
        if (trial, step) == (2, 1):
            simulated.until(
                lambda: (
                    (tmp_path / "mlflow.db").exists()
                    and simulated.client_of(uri).get_experiment_by_name("s") is not None
                )
            )
            simulated.until(lambda: "s-0001" in simulated.runs_of(uri, "s"))
            client = simulated.client_of(uri)
            client.delete_experiment(client.get_experiment_by_name("s").experiment_id)
        if (trial, step) == (3, simulated.STEPS):
            simulated.until(lambda: bool(said))

    simulated.search(tmp_path, "s", 4, uri, said.append, before)
    assert "the experiment 's' was deleted; to restore it: " in said[0]
    assert "the search goes on" in said[0]
    status, text = synced()
    assert status == 4
    assert remedy(text.strip()) == remedy(said[0])
    subprocess.run(remedy(said[0]), check=True, capture_output=True)
    assert synced()[0] == 0
    simulated.check(uri, "s", 4)


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


@pytest.mark.long
def test_database_of_an_older_version_is_migrated(
    simulated: ModuleType, tmp_path: Path, said: list[str]
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    subprocess.run([sys.executable, "-c", OLDER, uri], check=True, capture_output=True)
    simulated.search(tmp_path, "s", 4, uri, said.append)
    assert said == []
    simulated.check(uri, "s", 4)


@pytest.mark.long
def test_schema_that_mlflow_refuses(
    simulated: ModuleType, tmp_path: Path, said: list[str], synced: Synced
) -> None:
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    # Made by another process, since this one's MLflow keeps what it has opened.
    make = f"from cofi_tune import connection; connection.connect({uri!r})"
    subprocess.run([sys.executable, "-c", make], check=True, env=simulated.ENVIRONMENT)

    def stamp(revision: str) -> str:
        with sqlite3.connect(database) as file:
            [before] = file.execute("SELECT version_num FROM alembic_version").fetchone()
            file.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        return str(before)

    head = stamp("451aebb31d03")
    simulated.search(tmp_path, "s", 4, uri, said.append)
    assert f"is of another version; after a backup: python -m mlflow db upgrade {uri}" in said[0]
    assert said[-1].startswith("MLflow lacks s-0000")
    assert synced()[0] == 4
    stamp(head)
    assert synced() == (0, "s: 4 written, 0 were there already\n")
    simulated.check(uri, "s", 4)

"""The way into MLflow: makes its database once, and says in one line what to do where it cannot be used.

Importing MLflow takes seconds, so it is imported when something is to be written, and not before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from cofi_tune.database import making, sqlite_file
from cofi_tune.passwords import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is down is noticed within seconds; whoever writes tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
LONGEST_LINE = 300
ARTIFACTS = "mlartifacts"
"""Directory of an output, beside its database."""
OUTDATED = {"RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "INVALID_PARAMETER_VALUE"}
"""How MLflow calls a run or an experiment that was deleted."""


class Unusable(Exception):  # noqa: N818
    """MLflow answers and a person has to do something; the text says what."""


def connect(uri: str, artifacts: Path | None = None) -> MlflowClient:
    """A client; a SQLite database is made first, if there is none.

    Args:
        uri: of a server or of a database.
        artifacts: where those of a database lie that is beside them.

    Raises:
        Exception: MLflow's clients, drivers and servers have one each; `explain` puts it in a line.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401

    # What they log of an error they also raise.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with making(uri) as path:
        if path is not None and (not path.exists() or path.stat().st_size == 0):
            _create(path)
        elif (
            path is not None
            and artifacts is not None
            and path.parent.absolute() == artifacts.parent.absolute()
        ):
            _at_home(path, artifacts.absolute().as_uri())
        return _client(uri)


def experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """The id of an experiment, made if need be.

    Args:
        client: of `connect`.
        name: of the experiment.
        artifacts: URI of where its artifacts go; None: the server knows.

    Raises:
        Unusable: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage != "active":
        uri = shlex.quote(without_password(client.tracking_uri))
        raise Unusable(
            f"the experiment {name!r} was deleted; to restore it: MLFLOW_TRACKING_URI={uri} "
            f"python -m mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    return str(found.experiment_id)


def outdated(error: BaseException) -> bool:
    """Whether MLflow means that something is not there, or not as the caller thought."""
    return getattr(error, "error_code", None) in OUTDATED


def explain(error: BaseException, uri: str) -> str:
    """What went wrong, in one line, without passwords.

    Args:
        error: whatever was raised.
        uri: what was to be used.
    """
    text = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
    if isinstance(error, Unusable):
        return text
    if text.startswith("API request to") and "failed with exception" in text:
        return f"{without_password(uri)} does not answer"
    if "file is not a database" in text or "disk image is malformed" in text:
        return f"{without_password(uri)} is damaged; move its file away, and all is written again"
    return without_password(text)[:LONGEST_LINE]


def absolute(uri: str) -> str:
    """The same place from wherever it is used: a SQLite file named from the root."""
    path = sqlite_file(uri)
    if path is None or path.is_absolute():
        return uri
    return make_url(uri).set(database=str(path.absolute())).render_as_string(hide_password=False)


def _at_home(path: Path, here: str) -> None:
    """Point a database that was moved or copied to the artifacts beside it.

    MLflow keeps whole addresses, and would go on writing where the copy came from.
    """
    import sqlite3

    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        try:
            places = database.execute("select distinct artifact_location from experiments").fetchall()
        except sqlite3.DatabaseError:
            return  # the client says what is wrong with it
        for (there,) in places:
            if there != here and str(there).startswith("file:") and str(there).endswith(f"/{ARTIFACTS}"):
                database.execute(
                    "update experiments set artifact_location = ? where artifact_location = ?", (here, there)
                )
                database.execute(
                    "update runs set artifact_uri = ? || substr(artifact_uri, ?) "
                    "where substr(artifact_uri, 1, ?) = ?",
                    (here, len(there) + 1, len(there) + 1, f"{there}/"),
                )


def _client(uri: str) -> MlflowClient:
    import mlflow

    try:
        return mlflow.MlflowClient(tracking_uri=uri)
    except mlflow.MlflowException as error:
        if "out-of-date database schema" not in str(error):
            raise
        plain = shlex.quote(without_password(uri))
        raise Unusable(
            f"its database {plain} is of another version; after a backup: python -m mlflow db upgrade {plain}"
        ) from error


def _create(path: Path) -> None:
    """Make the database beside its place: whoever kills this leaves no half of one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left in path.parent.glob(f"{path.name}.*.new*"):
        left.unlink()
    # A name of its own: MLflow keeps an engine for each that it has seen.
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
    store = SqlAlchemyStore(f"sqlite:///{beside}", (path.parent / "mlruns").absolute().as_uri())
    store.engine.dispose()
    beside.replace(path)

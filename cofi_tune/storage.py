"""The database of studies: made, opened and brought up to date, by one process at a time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from cofi_tune import database
from cofi_tune.database import making
from cofi_tune.passwords import without_password

OUTAGE_SECONDS = 60.0
"""How long a search waits for a database that has answered before: one that is started anew, say."""
RETRY_SECONDS = 1.0


def fresh_name(name: str, output: Path, storage: str) -> str:
    """The first of `name`, `<name>-2`, `<name>-3`, ... that no study has; its directory is made.

    Args:
        name: of the study.
        output: where the directories of studies are.
        storage: URL of the database.
    """
    taken = {study.study_name for study in optuna.get_all_study_summaries(open_storage(storage))}
    for number in itertools.count(1):
        candidate = name if number == 1 else f"{name}-{number}"
        if candidate not in taken:
            # Made here, so that of two searches that start at once each has its own.
            with contextlib.suppress(FileExistsError):
                (output / candidate).mkdir(parents=True)
                return candidate
    raise AssertionError


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """A database of studies, made, or brought to this Optuna's tables, by one process at a time.

    One that cannot be reached later is waited for; here it is an error at once.

    Raises:
        OSError: it cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    engine: dict[str, Any] = {"pool_pre_ping": True}  # sees that a server was started anew
    if url.startswith("sqlite"):
        # A second command on the same file waits instead of failing with "database is locked".
        engine = {"connect_args": {"timeout": 60}}
    elif database.is_postgresql(url):
        engine["connect_args"] = database.CONNECT
    with database_errors(), making(url):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=engine, skip_compatibility_check=True)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
        sqlalchemy.event.listen(storage.engine, "do_connect", _Patience())
        return storage


class _Patience:
    """Connects as soon as that is possible again; not for ever, and an outage is waited for once."""

    def __init__(self) -> None:
        self.gone_since: float | None = None

    def __call__(self, dialect: Any, record: Any, args: Any, more: Any) -> Any:
        while True:
            try:
                made = dialect.connect(*args, **more)
            except dialect.loaded_dbapi.OperationalError:
                now = time.monotonic()
                self.gone_since = now if self.gone_since is None else self.gone_since
                if now - self.gone_since >= OUTAGE_SECONDS:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                self.gone_since = None
                return made


@contextlib.contextmanager
def only_driver_anywhere(url: str, name: str, uid: str) -> Iterator[None]:
    """One driver at a time on all machines that use a PostgreSQL database; see `lock.py` for one machine.

    Args:
        url: of the database.
        name: of the study.
        uid: the study's own id.

    Raises:
        OSError: the database cannot be used.
        ValueError: another driver works on the study.
    """
    with contextlib.ExitStack() as closing:
        with database_errors():
            ours = closing.enter_context(database.held(url, uid))
        if not ours:
            raise ValueError(
                f"a search named {name} is running already, on another machine or from another directory; "
                "wait for it, end it, or give this one another --name"
            )
        yield


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Whatever is wrong with a database, in one line."""
    try:
        yield
    except (
        SQLAlchemyError,
        CommandError,
        optuna.exceptions.StorageInternalError,
        ImportError,
    ) as error:
        # What Optuna says of a failed commit is a guess.
        told = (error.__cause__ or error) if isinstance(error, optuna.exceptions.OptunaError) else error
        line = (str(told).strip().splitlines() or [type(told).__name__])[0]
        raise OSError(f"the study's database (--storage) cannot be used: {without_password(line)}") from error

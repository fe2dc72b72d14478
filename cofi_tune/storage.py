"""The database of studies: made, opened and brought up to date, by one process at a time."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import optuna
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from cofi_tune.database import making


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

    Raises:
        OSError: it cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # A second command on the same file waits instead of failing with "database is locked".
    engine = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    with database_errors(), making(url):
        storage = optuna.storages.RDBStorage(url, engine_kwargs=engine, skip_compatibility_check=True)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()
        return storage


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
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(f"the study's database (--storage) cannot be used: {line}") from error

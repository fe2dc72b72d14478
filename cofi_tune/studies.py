"""The studies that lie under an output, and the MLflow that each of them is written to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import SQLAlchemyError

from cofi_tune import connection, fields
from cofi_tune.data.names import closest
from cofi_tune.outbox import default_storage, default_tracking
from cofi_tune.storage import open_storage
from cofi_tune.tracking import Tracking


class Unreachable(Exception):  # noqa: N818
    """The database of the studies or MLflow cannot be used; the text says why."""


def in_database(output: Path, storage: str | None) -> dict[str, optuna.Study]:
    """Every study of a database that a search made, by name.

    Args:
        output: of the searches.
        storage: URL of the database; None: the one in the output.

    Raises:
        Unreachable: the database cannot be used.
        ValueError: there is none.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None and not (output / "optuna.db").is_file():
        raise ValueError(f"--output {output}: no search was made here (no optuna.db); or give --storage")
    url = storage or default_storage(output)
    try:
        opened = open_storage(url)
        found = [
            optuna.load_study(study_name=known.study_name, storage=opened)
            for known in opened.get_all_studies()
        ]
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        line = connection.explain(error, url)
        raise Unreachable(f"the studies' database (--storage) cannot be used: {line}") from error
    return {study.study_name: study for study in found if "uid" in study.user_attrs}


def of_output(ours: Mapping[str, optuna.Study], output: Path) -> list[optuna.Study]:
    """Those whose files are in the output: a database may be shared by searches with other ones."""
    return [study for study in ours.values() if (output / study.study_name).is_dir()]


def named(ours: Mapping[str, optuna.Study], output: Path, name: str) -> optuna.Study:
    """The study of that name.

    Raises:
        ValueError: there is none, or its files are not in the output.
    """
    if name not in ours:
        nearest = closest(name, ours)
        hint = f"did you mean {nearest}? " if nearest else ""
        raise ValueError(f"unknown study {name!r}; {hint}studies: {', '.join(ours) or 'none'}")
    if not (output / name).is_dir():
        raise ValueError(
            f"--output {output}: the study {name} has its files elsewhere; give its own --output"
        )
    return ours[name]


def last_start(study: optuna.Study) -> datetime:
    """When its latest trial started; long ago if none has."""
    starts = (trial.datetime_start for trial in study.get_trials(deepcopy=False))
    return max((start for start in starts if start is not None), default=datetime.min)


def tracking(study: optuna.Study, output: Path, given: str | None) -> Tracking:
    """The way to a study's MLflow.

    Args:
        study: which.
        output: of its search.
        given: URI to use instead of the one that the study remembers.

    Raises:
        ValueError: its MLflow wants a password, which is not kept.
    """
    remembered: dict[str, Any] = study.user_attrs.get("tracking") or {}
    if given is None and remembered.get("password"):
        raise ValueError(
            f"{study.study_name}: its MLflow ({remembered['uri']}) wants a password, which is not kept; "
            "give the whole --tracking-uri"
        )
    uri = given or remembered.get("uri") or default_tracking(output)
    tags = remembered.get("tags") or fields.versions()
    return Tracking(uri, study.study_name, study.user_attrs["uid"], tags, output)

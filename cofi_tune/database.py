"""Databases that a search makes: by one process at a time, since two at once break each other's work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from cofi_tune.lock import exclusive


@contextlib.contextmanager
def making(url: str) -> Iterator[Path | None]:
    """Alone while a SQLite database may be made or migrated.

    Args:
        url: of a database or a server.

    Yields:
        The database's file; None where there is none, and nothing is locked.
    """
    path = sqlite_file(url)
    if path is None or not path.parent.is_dir():
        yield path  # without a directory it cannot be made, as whoever tries will say
        return
    with exclusive(path.with_name(f"{path.name}.lock")):
        yield path


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None for any other, and for a server."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    in_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if in_file else None

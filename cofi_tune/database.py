"""Databases that a search makes and drives: by one process at a time, as two break each other's work.

A file is locked beside it. PostgreSQL has locks of its own, which hold for all machines, and end with the
connection of whoever held them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from cofi_tune.lock import exclusive

CONNECT = {"connect_timeout": 10}
"""Of PostgreSQL: a machine that does not answer is noticed."""
SPACE = "cofi_tune"
"""Sets our locks in a database apart from others'."""
NOTICE_SECONDS = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
"""Of the server: it frees the locks of a machine that is gone after a minute, by default after two hours."""


@contextlib.contextmanager
def making(url: str) -> Iterator[Path | None]:
    """Alone while a database may be made or migrated.

    Args:
        url: of a database or a server.

    Yields:
        The file of an SQLite database; None for any other, and for a server. What is neither SQLite nor
        PostgreSQL is not locked.

    Raises:
        ImportError: there is no driver for it; says what to install.
        SQLAlchemyError: PostgreSQL cannot be used.
    """
    path = sqlite_file(url)
    if is_postgresql(url):
        with _session(url) as session:
            session.execute(text("select pg_advisory_lock(hashtext(:space), 0)"), {"space": SPACE})
            yield None
    elif path is None or not path.parent.is_dir():
        yield path  # without a directory it cannot be made, as whoever tries will say
    else:
        with exclusive(path.with_name(f"{path.name}.lock")):
            yield path


@contextlib.contextmanager
def held(url: str, name: str) -> Iterator[bool]:
    """A lock in PostgreSQL, until the end or that of the connection.

    Args:
        url: of a database.
        name: of what is locked.

    Yields:
        Whether it is ours; True for other databases, which are not locked.
    """
    if not is_postgresql(url):
        yield True
        return
    with _session(url) as session:
        for setting, value in NOTICE_SECONDS.items():
            session.execute(text(f"set {setting} = {value}"))
        lock = {"space": SPACE, "name": name}
        asked = text("select pg_try_advisory_lock(hashtext(:space), hashtext(:name))")
        ours = bool(session.execute(asked, lock).scalar())
        try:
            yield ours
        finally:
            # What a connection held is free some time after its end: whoever comes next would be refused.
            if ours:
                freed = text("select pg_advisory_unlock(hashtext(:space), hashtext(:name))")
                with contextlib.suppress(SQLAlchemyError):
                    session.execute(freed, lock)


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None for any other, and for a server."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    in_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if in_file else None


def is_postgresql(url: str) -> bool:
    """Whether a URL is that of a PostgreSQL database."""
    try:
        return make_url(url).get_backend_name() == "postgresql"
    except ArgumentError:
        return False


@contextlib.contextmanager
def _session(url: str) -> Iterator[Connection]:
    """A connection of its own, outside of any transaction: what it locks is free when it ends."""
    try:
        engine = create_engine(url, poolclass=NullPool, connect_args=CONNECT, isolation_level="AUTOCOMMIT")
    except ImportError as error:
        raise ImportError(
            f"PostgreSQL needs {error.name or 'a driver'}: pip install 'cofi-tune[postgresql]'"
        ) from error
    with engine.connect() as session:
        yield session

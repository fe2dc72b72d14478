"""What the fault tests share: a simulated search, and real servers that can be killed: MLflow, PostgreSQL."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy

from cofi_tune import outbox, sync


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated", Path(__file__).with_name("simulated.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """`mlflow server` on a port of its own, in a process group of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.directory}/server.db"]
        command += ["--artifacts-destination", str(self.directory / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                env={**os.environ, **quiet},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            assert self.process.poll() is None, (self.directory / "server.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    directory = tmp_path / "server"
    directory.mkdir()
    made = Server(directory, free_port())
    try:
        yield made
    finally:
        made.kill()


class Postgres:
    """A PostgreSQL server on a port of its own; as root, whom it refuses, of another user."""

    def __init__(self, directory: Path, programs: Path, port: int) -> None:
        self.directory, self.programs, self.port = directory, programs, port
        self.password = secrets.token_urlsafe(12)
        self.user: dict[str, str | int | list[str]] = {}
        if os.geteuid() == 0:
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(directory, "postgres", "postgres")
        secret = directory / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # in a directory that is its user's alone
        self._run(
            "initdb", "--auth", "scram-sha-256", "--username", "cofi", f"--pwfile={secret}", "--no-sync"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.numbers = itertools.count()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, "--pgdata", self.directory / "data", *arguments],
            **self._place(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def _place(self) -> dict[str, Any]:
        return {**self.user, "cwd": self.directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self.port),
            "fsync": "off",
            "max_connections": "60",
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", *flags],
                **self._place(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(sqlalchemy.exc.OperationalError):
                return self.execute("select 1")
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        """At once, as if it had crashed: connections are cut."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None

    def url(self, database: str = "postgres", password: str | None = None) -> str:
        return f"postgresql://cofi:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        engine = sqlalchemy.create_engine(
            self.url(), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))

    def fresh(self) -> str:
        """URL of a new database."""
        name = f"fresh{next(self.numbers)}"
        self.execute(f"create database {name}")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """Debian keeps them off the path, in one directory for each version."""
    found = shutil.which("postgres") or max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)
    if found is None:
        remedy = "PostgreSQL is needed: apt-get install postgresql"
        assert not os.environ.get("CI"), remedy
        pytest.skip(remedy)
    return Path(found).resolve().parent


@pytest.fixture(scope="session")
def postgres(postgres_programs: Path, free_port: Callable[[], int]) -> Iterator[Postgres]:
    # Not below pytest's own directory, into which its user may not look.
    with tempfile.TemporaryDirectory(prefix="cofi-postgres-") as directory:
        made = Postgres(Path(directory), postgres_programs, free_port())
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def running(postgres: Postgres) -> Iterator[Postgres]:
    """The server, for tests that stop it."""
    yield postgres
    if postgres.process is None:
        postgres.start()


@pytest.fixture
def said() -> list[str]:
    """What the user is told."""
    return []


@pytest.fixture(autouse=True)
def _waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long for a server that answers, on however slow a machine; not so long for one that is away."""
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 300.0)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_SECONDS", 2.0)


@pytest.fixture
def synced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """The sync command for the study `s`: its status and what it said."""

    def command() -> tuple[int, str]:
        capsys.readouterr()
        status = sync.main(["--output", str(tmp_path), "--name", "s"])
        return status, "".join(capsys.readouterr())

    return command

"""What the fault tests share: a simulated search and a real MLflow server that can be killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

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

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
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
        deadline = time.monotonic() + 120
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
def server(tmp_path: Path) -> Iterator[Server]:
    directory = tmp_path / "server"
    directory.mkdir()
    made = Server(directory)
    try:
        yield made
    finally:
        made.kill()


@pytest.fixture
def said() -> list[str]:
    """What the user is told."""
    return []


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 3.0)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_SECONDS", 2.0)


@pytest.fixture
def synced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[int, str]]:
    """The sync command for the study `s`: its status and what it said."""

    def command() -> tuple[int, str]:
        capsys.readouterr()
        status = sync.main(["--output", str(tmp_path), "--name", "s"])
        return status, "".join(capsys.readouterr())

    return command

"""MLflow's server for one person at this machine: a child that ends with its parent.

`mlflow ui` by itself starts 15 processes, most of them for jobs that nobody here gives it; this is two.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cofi_tune import ctrl_c
from cofi_tune.passwords import without_password

HOST = "127.0.0.1"
NAMES = "127.0.0.1:*,localhost:*"
"""What a browser may call it. MLflow's default takes every name that begins as a private address does, such
as 10.example.com, which a stranger may point at this machine; and MLflow's assistant runs commands."""
FIRST_PORT, LAST_PORT = 5000, 65535
PORTS_TRIED = 100
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.2
LAST_LINES = 5


class Ended(Exception):  # noqa: N818
    """The server ended by itself; the text is the last it said."""


@dataclass(frozen=True)
class Server:
    """MLflow's server while it runs."""

    port: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]

    @property
    def address(self) -> str:
        """Of its first page, without a slash at the end."""
        return f"http://{HOST}:{self.port}"

    def until_it_answers(self) -> None:
        """Wait.

        Raises:
            Ended: it ended before.
        """
        while not _answers(self.port):
            if self.process.poll() is not None:
                raise Ended(self._last_lines())
            time.sleep(POLL_SECONDS)

    def until_it_ends(self) -> None:
        """Wait.

        Raises:
            Ended: always, since nobody ends it but us.
        """
        self.process.wait()
        raise Ended(self._last_lines())

    def _last_lines(self) -> str:
        self.log.seek(0)
        text = without_password(self.log.read().decode(errors="replace"))
        lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        return "\n".join([f"MLflow's server ended with {self.process.returncode}", *lines])


@contextlib.contextmanager
def serving(uri: str, artifacts: Path, port: int) -> Iterator[Server]:
    """A server for a database; nothing of it is left behind.

    Args:
        uri: of the database.
        artifacts: where those of experiments go that are made in the browser.
        port: a free one.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--allowed-hosts", NAMES, "--uvicorn-opts", "--no-access-log"]
    # Runs name their files, which lie here; nothing is uploaded.
    command += ["--no-serve-artifacts", "--default-artifact-root", artifacts.absolute().as_uri()]
    # A user's settings for another server could open this one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    # Other users of the machine see commands, and no environments: the address may have a password.
    own = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    process = None
    with tempfile.TemporaryFile() as log:
        try:
            with ctrl_c.held_back():
                process = subprocess.Popen(
                    command,
                    env=kept | own,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            yield Server(port, process, log)
        finally:
            if process is not None:
                _end(process)


def free_port(asked: int | None) -> int:
    """The port that was asked for, or the first free one from 5000 on.

    Raises:
        ValueError: there is none, or that one is taken.
    """
    if asked is not None:
        why = _taken(asked)
        if why is not None:
            raise ValueError(f"--port {asked}: {why}; give another one, or none for the next that is free")
        return asked
    for port in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED):
        if _taken(port) is None:
            return port
    raise ValueError(f"the {PORTS_TRIED} ports from {FIRST_PORT} on are taken; give a free one with --port")


def _taken(port: int) -> str | None:
    """Why the port cannot be used; None if it can."""
    with socket.socket() as attempt:
        # As the server will: a connection that was closed a moment ago does not count.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((HOST, port))
            attempt.listen()
        except OSError as error:
            return str(error.strerror)
    return None


def _answers(port: int) -> bool:
    asking = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        asking.request("GET", "/health")
        return asking.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asking.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End everything in its group: MLflow's own process, and the one that serves."""
    try:
        _signal(process, signal.SIGTERM)
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)

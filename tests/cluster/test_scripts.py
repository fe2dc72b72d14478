"""The scripts of nodes and pods, run as they are, with homes and ports of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CLUSTER = Path(__file__).parents[2] / "cluster"


def run(script: Path, *words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script with a home directory of its own, and this Python first on its path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(script), *words],
        env={"PATH": path, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("words", [(), ("azure",), ("aws", "gcp")], ids=["none", "wrong", "two"])
def test_the_watcher_says_how_it_is_started(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(CLUSTER / "start_spot_watcher.sh", *words, home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "usage: start_spot_watcher.sh aws|gcp\n")
    assert list(tmp_path.iterdir()) == []


def test_setup_says_how_it_is_started(tmp_path: Path) -> None:
    done = run(CLUSTER / "setup.sh", "azure", home=tmp_path)
    assert (done.returncode, done.stderr) == (2, "usage: setup.sh [aws|gcp]\n")


def test_setup_without_a_token_says_how_to_make_one(tmp_path: Path) -> None:
    done = run(CLUSTER / "setup.sh", home=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "`ray get-auth-token --generate`" in line


@pytest.fixture
def server() -> Iterator[Callable[[dict[str, str]], int]]:
    """Starts a server on loopback that has these pages, and nothing else; its port."""
    started = []

    def serve(pages: dict[str, str]) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path in pages else 404)
                self.end_headers()
                self.wfile.write(pages.get(self.path, "").encode())

            def log_message(self, *_: Any) -> None:
                pass

        started.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, args=(0.02,), daemon=True).start()
        return started[-1].server_port

    yield serve
    for one in started:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(
    "pages",
    [
        {},
        {"/health": "OK"},
        {"/health": "healthy", "/version": "3.10.0"},
        {"/health": "OK", "/version": "<html>"},
    ],
    ids=["nothing", "no version", "another health", "another version"],
)
def test_another_server_is_not_taken_for_mlflow(server: Any, pages: dict[str, str], tmp_path: Path) -> None:
    port = server(pages)
    done = run(CLUSTER / "start_mlflow.sh", home=tmp_path, MLFLOW_PORT=str(port))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"port {port} is taken by something that is not MLflow" in line
    assert not (tmp_path / "mlflow").exists()


def test_mlflow_that_runs_is_enough(server: Any, tmp_path: Path) -> None:
    port = server({"/health": "OK", "/version": "3.10.0"})
    done = run(
        CLUSTER / "start_mlflow.sh", home=tmp_path, MLFLOW_PORT=str(port), http_proxy="http://127.0.0.1:9"
    )
    assert (done.returncode, done.stdout) == (0, f"MLflow is there already: http://127.0.0.1:{port}\n")


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    """The pod's script where nothing real is started: a search that says what it was given, and no MLflow."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cofi_tune").mkdir()
    (tmp_path / "cluster" / "start_mlflow.sh").write_text("exit 0\n")
    (tmp_path / "cofi_tune" / "search.py").write_text(
        "import os, pathlib\n"
        "print(pathlib.Path('/proc/self/cmdline').read_text().replace('\\0', ' '))\n"
        "print(os.environ.get('PGPASSWORD'), os.environ.get('COFI_STORAGE'))\n"
    )
    return Path(shutil.copy(CLUSTER / "search_in_pod.sh", tmp_path / "cluster"))


@pytest.mark.parametrize(
    ("storage", "shown", "password"),
    [
        ("postgresql://me:geheim@db/s", "postgresql://me@db/s", "geheim"),
        ("postgresql://me:ge%40h%2F%25eim@db:5433/s", "postgresql://me@db:5433/s", "ge@h/%eim"),
        (
            "postgresql+psycopg://me@db/s?password=geheim&sslmode=require",
            "postgresql+psycopg://me@db/s?sslmode=require",
            "geheim",
        ),
        ("postgresql://me@db/s", "postgresql://me@db/s", "None"),
        ("sqlite:////data/s.db", "sqlite:////data/s.db", "None"),
    ],
)
def test_the_password_is_not_in_the_command(pod: Path, storage: str, shown: str, password: str) -> None:
    done = run(pod, "--task", "a task", home=pod.parent, COFI_STORAGE=storage)
    command, environment = done.stdout.splitlines()
    assert f"--storage {shown} --tracking-uri http://127.0.0.1:5000 --task a task" in command
    assert "geheim" not in command
    assert environment == f"{password} None"


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("", "COFI_STORAGE: is not set"),
        ("geheim", "COFI_STORAGE is no address of a database"),
        ("postgresql://me:geheim@db:port/s", "COFI_STORAGE is no address of a database"),
        ("mysql://me:geheim@db/s", "must be of PostgreSQL"),
    ],
)
def test_an_address_that_cannot_be_used(pod: Path, storage: str, words: str) -> None:
    done = run(pod, home=pod.parent, COFI_STORAGE=storage)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert words in line
    assert "geheim" not in line

"""The ui command: a server for one's own browser, gone when the command ends; errors in a line."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import parse_qs

import psutil
import pytest

from cofi_tune import ctrl_c, optuna_study, server, sync, ui
from cofi_tune.messages import Outcome
from cofi_tune.outbox import default_storage

ROOT = Path(__file__).parents[1]
Ui = Callable[..., tuple[int, str]]


def studied(output: Path, name: str, **tracked: object) -> None:
    """A study with a trial that failed."""
    (output / name).mkdir()
    study = optuna_study.open_study(default_storage(output), name, {"task": "t"})
    if tracked:
        study.set_user_attr("tracking", {"password": False, "tags": {}, **tracked})
    trial = study.ask()
    trial.set_user_attr("settings", {"method": "cofi"})
    failed = Outcome.failed("out_of_memory", "too big")
    trial.set_user_attr("outcome", asdict(failed))
    directory = output / name / "trials" / optuna_study.trial_id_of(name, trial.number)
    directory.mkdir(parents=True)
    (directory / "error.txt").write_text("too big, in many lines")
    optuna_study.tell(study, trial, failed)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies in the output's own MLflow, and others that are not."""
    made = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        studied(made, name)
        assert sync.main(["--output", str(made), "--name", name]) == 0
    studied(made, "unwritten")
    studied(made, "away", uri="http://127.0.0.1:9")
    studied(made, "secret", uri="http://host", password=True)
    return made


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Ui:
    def command(*flags: str) -> tuple[int, str]:
        try:
            status = ui.main(flags)
        except SystemExit as left:
            status = int(left.code or 0)
        return status, "".join(capsys.readouterr())

    return command


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def ask(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    """A GET by nobody's proxy, with headers of its own."""
    asking = http.client.HTTPConnection(address.removeprefix("http://"), timeout=300)
    asking.request("GET", path, headers=headers)
    answer = asking.getresponse()
    return answer.status, answer.read()


def test_a_browser_of_this_machine_sees_runs_and_artifacts_until_the_command_ends(output: Path) -> None:
    command = [sys.executable, "-m", "cofi_tune.ui", "--output", str(output), "--name", "second"]
    # Settings of a server elsewhere, which open it to everybody.
    elsewhere = {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true", "MLFLOW_STATIC_PREFIX": "/x"}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | elsewhere, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line.strip())
                if line.startswith("Ctrl-C"):
                    break
            children = psutil.Process(process.pid).children(recursive=True)
            start = next(i for i, line in enumerate(said) if line.startswith("MLflow: "))
            address = said[start].removeprefix("MLflow: ").partition("/#/")[0]
            pages = dict(line.split(": ", 1) for line in said[start + 1 : -1])
            assert [*pages] == ["second", "secret", "away", "unwritten", "first"]
            assert pages["second"].startswith(f"{address}/#/compare-runs?runs=")
            assert pages["first"].startswith(f"{address}/#/compare-runs?runs=")
            assert pages["unwritten"].endswith(f"python -m cofi_tune.sync --output {output} --name unwritten")
            assert pages["away"] == "its MLflow is another one (http://127.0.0.1:9); --name away shows it"
            assert pages["secret"].startswith("its MLflow is another one")

            [run] = json.loads(parse_qs(pages["second"].partition("?")[2])["runs"][0])
            listed = json.loads(ask(address, f"/api/2.0/mlflow/artifacts/list?run_id={run}")[1])
            assert [file["path"] for file in listed["files"]] == ["error.txt"]
            found = ask(address, f"/get-artifact?run_id={run}&path=error.txt")
            assert found == (200, b"too big, in many lines")
            assert ask(address, "/")[0] == 200
            for name in ("example.com", "10.example.com"):
                assert ask(address, "/", Host=name)[0] == 403
            sockets = [one for child in children for one in child.net_connections()]
            listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
            assert listening == {"127.0.0.1"}
            assert len(children) == 2
        finally:
            process.terminate()
        assert process.wait(300) == 0
    assert not any(child.is_running() for child in children)


def test_an_interruption_before_it_answers_leaves_nothing(
    output: Path, shown: Ui, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made = psutil.Process().children(), []

    def interrupted(port: int) -> bool:
        made.extend(child for child in psutil.Process().children() if child not in before)
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "_answers", interrupted)
    status, text = shown("--output", str(output), "--name", "first")
    assert (status, text.splitlines()[-1]) == (130, "error: interrupted")
    [child] = made
    assert not child.is_running()


def test_who_does_not_listen_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.1)
    deaf = "import os, signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); os.fork(); print(); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-uc", deaf], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"\n", b"\n"]
        server._end(process)
        assert process.returncode == -signal.SIGKILL
        assert process.stdout.read() == b""  # nobody holds it any more


def test_a_signal_waits_until_a_new_process_is_known() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    done = []

    def make() -> None:
        with ctrl_c.held_back():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        make()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.long
def test_a_server_that_ends_is_quoted(output: Path, shown: Ui, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken() as port:
        monkeypatch.setattr(server, "free_port", lambda asked: port)  # taken since
        monkeypatch.setattr(server, "_answers", lambda port: False)
        status, text = shown("--output", str(output), "--name", "first")
    assert status == 4
    assert "error: MLflow's server ended with" in text
    assert "address already in use" in text
    assert "Traceback" not in text


def test_ports(output: Path, shown: Ui, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken() as port:
        monkeypatch.setattr(server, "FIRST_PORT", port)
        assert server.free_port(None) > port
        status, text = shown("--output", str(output), "--name", "first", "--port", str(port))
        assert status == 2
        assert text.startswith(f"error: --port {port}: Address already in use; give another one, or none")
        monkeypatch.setattr(server, "PORTS_TRIED", 1)
        with pytest.raises(ValueError, match="give a free one"):
            server.free_port(None)
    for wrong in ("0", "65536", "http", "-1"):
        assert shown("--port", wrong)[0] == 2


def test_usage(output: Path, tmp_path: Path, shown: Ui) -> None:
    status, text = shown("--output", str(tmp_path))
    assert status == 2
    assert text == f"error: --output {tmp_path}: no search was made here (no optuna.db); or give --storage\n"
    status, text = shown("--output", str(output), "--name", "frist")
    assert status == 2
    assert "did you mean first?" in text
    status, text = shown("--output", str(output), "--name", "secret")
    assert status == 2
    assert "wants a password" in text
    status, text = shown("--output", str(output), "--tracking-uri", f"sqlite:///{tmp_path}/no.db")
    assert status == 2
    assert text == f"error: MLflow has no database {tmp_path}/no.db; correct --tracking-uri\n"
    studied(tmp_path, "early")
    status, text = shown("--output", str(tmp_path))
    assert status == 2
    assert text.endswith(f"mlflow.db; run python -m cofi_tune.sync --output {tmp_path} --name early\n")
    assert not (tmp_path / "mlflow.db").exists()


def test_databases_that_cannot_be_used(output: Path, tmp_path: Path, shown: Ui) -> None:
    status, text = shown("--output", str(output), "--name", "away")
    assert (status, text) == (4, "error: MLflow cannot be used: http://127.0.0.1:9 does not answer\n")
    damaged, old = tmp_path / "damaged.db", tmp_path / "old.db"
    damaged.write_text("no database " * 100)
    status, text = shown("--output", str(output), "--tracking-uri", f"sqlite:///{damaged}")
    assert status == 4
    assert "is damaged; move its file away" in text
    old.write_bytes((output / "mlflow.db").read_bytes())
    with contextlib.closing(sqlite3.connect(old)) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()
    status, text = shown("--output", str(output), "--tracking-uri", f"sqlite:///{old}")
    assert status == 4
    assert "python -m mlflow db upgrade" in text
    assert text.count("\n") == 1

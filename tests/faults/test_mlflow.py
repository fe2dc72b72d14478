"""MLflow that is down, dies or hangs, and drivers that die: a search goes on, and `sync` completes it."""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cofi_tune import sync

pytestmark = pytest.mark.faults

Synced = Callable[[], tuple[int, str]]


def test_server_down_at_the_start_and_killed_midway(
    simulated: ModuleType, server: Any, tmp_path: Path, said: list[str], synced: Synced
) -> None:
    before_kill: dict[str, str] = {}

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 6):
            simulated.until(lambda: len(said) == 1)
            server.start()
            simulated.until(lambda: len(said) == 2)
        if (trial, step) == (3, 6):
            simulated.until(lambda: "s-0003" in simulated.runs_of(server.uri, "s"))
            before_kill.update(
                {name: run.info.run_id for name, run in simulated.runs_of(server.uri, "s").items()}
            )
            server.kill()

    simulated.search(tmp_path, "s", 6, server.uri, said.append, before)
    assert [line.split(" (")[0] for line in said[:3]] == [
        "MLflow cannot be written",
        "MLflow is back; what it missed is written",
        "MLflow cannot be written",
    ]
    assert f"({server.uri} does not answer)" in said[0]
    command = f"python -m cofi_tune.sync --output {tmp_path} --name s"
    assert said[3:] == [
        f"MLflow lacks s-0003, s-0004, s-0005 and 1 more; to write it when MLflow is there: {command}"
    ]
    status, text = synced()
    assert (status, text) == (
        4,
        f"error: s: MLflow cannot be written ({server.uri} does not answer); run this again later\n",
    )
    server.start()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        capture_output=True,
        env=simulated.ENVIRONMENT,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "s: 3 written, 3 were there already\n"), done.stderr
    runs = simulated.check(server.uri, "s", 6)
    assert before_kill == {name: runs[name].info.run_id for name in before_kill}
    assert sorted(before_kill) == ["s (study)", "s-0000", "s-0001", "s-0002", "s-0003"]
    assert synced() == (0, "s: 0 written, 6 were there already\n")
    # As if it had died before it could say that it had all of a trial.
    run_id = runs["s-0002"].info.run_id
    simulated.client_of(server.uri).delete_tag(run_id, "cofi.whole")
    assert synced() == (0, "s: 1 written, 5 were there already\n")
    simulated.check(server.uri, "s", 6)


@pytest.mark.long
def test_nothing_waits_for_a_server_that_hangs(
    simulated: ModuleType,
    server: Any,
    tmp_path: Path,
    said: list[str],
    synced: Synced,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.start()
    lines_meanwhile: list[int] = []

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 1):
            simulated.until(lambda: "s-0000" in simulated.runs_of(server.uri, "s"))
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
            server.signal(signal.SIGSTOP)
        if (trial, step) == (7, simulated.STEPS):
            lines_meanwhile.append(len(said))
            simulated.until(lambda: len(said) == 1)
            server.signal(signal.SIGCONT)
            monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
            simulated.until(lambda: len(said) == 2)

    try:
        simulated.search(tmp_path, "s", 8, server.uri, said.append, before)
    finally:
        server.signal(signal.SIGCONT)
    assert lines_meanwhile == [0], "six trials were over before one answer had failed to come"
    assert said[1] == "MLflow is back; what it missed is written"
    assert synced()[0] == 0
    simulated.check(server.uri, "s", 8)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_driver_killed_again_and_again(
    simulated: ModuleType, tmp_path: Path, synced: Synced, seed: int
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    chance = random.Random(seed)
    script = str(Path(simulated.__file__ or ""))
    kills = 0
    while True:
        driver = subprocess.Popen(
            [sys.executable, script, str(tmp_path), "s", "5", uri, "0.04"], env=simulated.ENVIRONMENT
        )
        if kills < 4:
            reports = tmp_path / "s" / "trials"
            before = sum(path.stat().st_size for path in reports.rglob("history.jsonl"))
            # From the moment when this one is at work, unless it is done sooner.
            while driver.poll() is None:
                now = sum(path.stat().st_size for path in reports.rglob("history.jsonl"))
                if now > before:
                    break
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.8))
            driver.kill()
        if driver.wait() == 0:
            break
        kills += 1
        if kills == 2:
            assert synced()[0] == 0
    assert kills >= 3
    assert synced() == (0, "s: 0 written, 5 were there already\n")
    simulated.check(uri, "s", 5)


def test_sync_beside_a_search(simulated: ModuleType, tmp_path: Path, said: list[str], synced: Synced) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    over = threading.Event()
    statuses: list[int] = []

    def beside() -> None:
        while not over.is_set():
            statuses.append(sync.main(["--output", str(tmp_path), "--name", "s"]))

    thread = threading.Thread(target=beside)

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 1):
            thread.start()
        time.sleep(0.03)

    try:
        simulated.search(tmp_path, "s", 8, uri, said.append, before)
    finally:
        over.set()
        thread.join()
    assert set(statuses) == {0}
    assert said == []
    assert synced() == (0, "s: 0 written, 8 were there already\n")
    simulated.check(uri, "s", 8)

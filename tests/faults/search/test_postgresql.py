"""Whole searches with study and MLflow in PostgreSQL: killed anywhere, nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

SECRET = "s3cr/tw:rd"
MOST_KILLS = 3


@pytest.fixture
def search(search: Any, running: Any) -> Any:
    """A new study in databases of its own, the password of which is kept out of the command."""
    search.storage, search.tracking_uri = running.fresh(), running.fresh()
    plain = [url.replace(f":{running.password}", "") for url in (search.storage, search.tracking_uri)]
    search.flags = ["--storage", plain[0], "--tracking-uri", plain[1]]
    search.environment = {"PGPASSWORD": running.password}
    return search


def same(search: Any, undisturbed: Any) -> None:
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()
    assert not list(search.output.glob("*.db")), "nothing is in SQLite"


@pytest.mark.long
def test_driver_killed_at_random_until_done(search: Any, undisturbed: Any) -> None:
    stream = random.Random(0)
    kills = 0
    while True:
        process = search.start()
        try:
            text = process.communicate(timeout=stream.uniform(10, 22) if kills < MOST_KILLS else 600)[0]
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            text = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
        kills += 1
    assert kills > 0
    same(search, undisturbed)


POINTS = [
    {"at": "cofi_tune.proposals:Proposals._ask", "when": "after"},
    {"at": "cofi_tune.proposals:Proposals._start", "when": "after"},
    {"at": "cofi_tune.optuna_study:tell", "when": "before"},
    {"at": "cofi_tune.optuna_study:tell", "when": "after"},
]
"""Between any two of them something is committed."""


def test_driver_killed_at_each_commit_point_in_turn(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    search.environment["COFI_TEST_NO_RAY"] = "1"
    search.killed_in_turn(POINTS, tmp_path)
    search.run()
    same(search, undisturbed)


@pytest.mark.long
def test_two_searches_at_once_in_fresh_databases(search: Any) -> None:
    search.trials = 1
    search.environment["COFI_TEST_NO_RAY"] = "1"
    both = [search.start(), search.start("--name", "t")]
    texts = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert not any("MLflow" in line and "cannot" in line for text in texts for line in text.splitlines())
    search.check()


def test_server_that_is_started_anew_is_waited_for(search: Any, undisturbed: Any, running: Any) -> None:
    process = search.start()
    text = search.until(process, "trial 0000 prune")
    running.stop()
    threading.Timer(8, running.start).start()
    text += process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    assert "Traceback (most" not in text
    same(search, undisturbed)


def test_server_that_stays_away_ends_the_search_in_words(
    search: Any, undisturbed: Any, running: Any, tmp_path: Path
) -> None:
    search.environment["COFI_TEST_NO_RAY"] = "1"
    search.constants = {"cofi_tune.storage:OUTAGE_SECONDS": 3}
    process = search.start()
    search.until(process, "trial 0000 prune")
    running.stop()
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 4, text
    assert "the study's database (--storage) cannot be used" in text
    assert "Traceback (most" not in text
    running.start()
    search.constants = {}
    search.run()
    same(search, undisturbed)


def test_another_machine_with_another_output_is_refused(search: Any, tmp_path: Path) -> None:
    """It knows nothing of the first one's lock on its disk; the database does."""
    search.environment["COFI_TEST_NO_RAY"] = "1"
    first = search.start()
    search.until(first, "trial 0000 starts")
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second one looks
    elsewhere = ["--output", str(tmp_path / "elsewhere")]
    second = search.run(*elsewhere, status=2)
    assert "a search named s is running already" in second
    first.send_signal(signal.SIGKILL)
    first.communicate()


def test_wrong_password_costs_a_line_and_is_not_said(search: Any, running: Any) -> None:
    search.environment["COFI_TEST_NO_RAY"] = "1"
    text = search.run("--storage", running.url("postgres", SECRET), status=4)
    assert "error: the study's database (--storage) cannot be used: " in text
    assert "password authentication failed" in text
    assert SECRET not in text


def test_password_that_would_be_taken_apart_is_refused_and_not_shown(search: Any, running: Any) -> None:
    search.environment["COFI_TEST_NO_RAY"] = "1"
    for flag in ("--storage", "--tracking-uri"):
        text = search.run(flag, running.url("postgres", "hid@den"), status=2)
        assert f"{flag}: an @ in a user's name or password is written %40" in text
        assert "hid" not in text
        assert "den@" not in text

"""SIGKILL of anything, at any time: the same command goes on, and loses and doubles nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cofi_tune import checkpoint

pytestmark = pytest.mark.faults

MOST_KILLS = 3
"""Of one search; then it is left alone, so that slow machines come to an end too."""


def test_killed_worker_goes_on_from_its_checkpoint(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    search.faults = [
        {"at": "cofi_tune.loop:Training._train", "nth": 40, "do": "kill", "once": str(tmp_path / "1")},
        {"at": "cofi_tune.checkpoint:save", "nth": 2, "do": "kill", "once": str(tmp_path / "2")},
        {
            "at": "cofi_tune.checkpoint:save",
            "nth": 1,
            "when": "after",
            "do": "kill",
            "once": str(tmp_path / "3"),
        },
    ]
    text = search.run()
    assert "it goes on from its last checkpoint" in text
    assert all((tmp_path / name).exists() for name in "123")
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()


def test_worker_that_dies_at_the_same_place_is_given_up_and_others_go_on(search: Any) -> None:
    search.flags = ["--checkpoint-seconds", "1000"]
    search.faults = [{"at": "cofi_tune.loop:Training._train", "nth": 5, "do": "kill"}]
    text = search.run(status=5)
    assert search.reasons() == ["lost", "lost"]
    assert "died 2 times in a row after step 0" in text
    search.check()


@pytest.mark.parametrize("seed", range(5))
def test_driver_killed_at_random_until_done(search: Any, undisturbed: Any, seed: int) -> None:
    """Nobody's clean-up runs: what the driver, its Ray and its workers leave, the next run finds and ends."""
    stream = random.Random(seed)
    texts: list[str] = []
    while True:
        process = search.start()
        try:
            text = process.communicate(timeout=stream.uniform(7, 20) if len(texts) < MOST_KILLS else 240)[0]
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            text = process.communicate()[0]
        texts.append(text)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, text
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial), texts
    assert search.front() == undisturbed.front()


POINTS = [
    ("cofi_tune.proposals:Proposals._ask", "after"),
    ("cofi_tune.proposals:Proposals._start", "before"),
    ("cofi_tune.proposals:Proposals._start", "after"),
    ("cofi_tune.optuna_study:tell", "before"),
    ("cofi_tune.optuna_study:tell", "after"),
    ("cofi_tune.tidy:Tidy.ended", "after"),
    ("cofi_tune.study:_sum_up", "before"),
    ("analysis.report:files", "after"),
    ("analysis.report:write", "after"),
    ("cofi_tune.checkpoint:_write", "after"),
    ("cofi_tune.checkpoint:save", "after"),
    ("cofi_tune.predictions:save", "after"),
    ("cofi_tune.compress:save", "before"),
    ("cofi_tune.compress:save", "after"),
]
"""Between any two of them something of value is written."""


@pytest.mark.parametrize(("at", "when"), POINTS)
def test_driver_killed_at_each_commit_point(
    search: Any, undisturbed: Any, tmp_path: Path, at: str, when: str
) -> None:
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.faults = [{"at": at, "when": when, "do": "kill", "once": str(tmp_path / "once")}]
    process = search.start()
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "once").exists()
    search.run()
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()


def test_killed_rank_brings_the_group_back(search: Any, tmp_path: Path) -> None:
    search.trials = 1
    search.flags = ["--workers-per-trial", "2"]
    search.faults = [
        {"at": "cofi_tune.loop:Training._train", "nth": 40, "do": "kill", "once": str(tmp_path / "1")}
    ]
    text = search.run()
    assert (tmp_path / "1").exists()
    assert "it goes on from its last checkpoint" in text
    search.check()
    assert search.reasons() == [None]
    [attempts] = (search.output / "s" / "trials").glob("*/attempts.json")
    assert '"steps": [0, ' in attempts.read_text(), "the second attempt began at a checkpoint"
    assert '"steps": [0, 0' not in attempts.read_text()


def test_raylet_killed_loses_nothing(search: Any, undisturbed: Any) -> None:
    import psutil

    process = search.start()
    search.until(process, "trial 0000 prune")
    [raylet] = [
        child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "raylet"
    ]
    raylet.kill()
    text = process.communicate(timeout=120)[0]
    assert "Traceback (most" not in text
    search.run()
    search.check()
    assert search.front() == undisturbed.front()


@pytest.mark.parametrize("words", ["of space", "task grammar", "going on"])
def test_sigterm_before_the_first_trial_is_an_interruption_too(search: Any, words: str) -> None:
    """While modules load, data and teacher are looked for, Ray starts."""
    if words == "going on":
        first = search.start()
        search.until(first, "trial 0000 starts")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    process = search.start()
    search.until(process, words)
    time.sleep(1.5 if words == "going on" else 0)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 130, text
    assert "python -m cofi_tune.search --task grammar" in text
    assert "Traceback (most" not in text
    search.no_process_is_left()


def test_interrupted_once_saves_and_twice_leaves(search: Any, undisturbed: Any) -> None:
    process = search.start()
    search.until(process, "trial 0000 prune")
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    text = process.communicate(timeout=60)[0]
    assert time.monotonic() - asked < 30
    assert process.returncode == 130, text
    assert "stopping on SIGTERM" in text
    assert "python -m cofi_tune.search --task grammar" in text
    assert "Traceback (most" not in text
    directory = search.output / "s" / "trials" / "s-0000" / checkpoint.DIRECTORY
    assert checkpoint.latest_step(directory) > 0
    assert not (search.output / "s" / "trials" / "s-0001").exists()
    search.no_process_is_left()

    search.faults = [{"at": "cofi_tune.loop:Training._train", "nth": 20, "do": "hang"}]
    process = search.start()
    search.until(process, "trial 0000 starts")
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    text = process.communicate(timeout=60)[0]
    assert time.monotonic() - asked < 15
    assert process.returncode == 130, text
    assert "Traceback (most" not in text

    search.faults = []
    search.run()
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)

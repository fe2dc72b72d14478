"""SIGKILL of anything, at any time: the same command goes on, and loses and doubles nothing."""

from __future__ import annotations

import json
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


@pytest.mark.long
def test_worker_that_dies_at_the_same_place_is_given_up_and_others_go_on(search: Any) -> None:
    search.flags = ["--checkpoint-seconds", "1000"]
    search.faults = [{"at": "cofi_tune.loop:Training._train", "nth": 5, "do": "kill"}]
    text = search.run(status=5)
    assert search.reasons() == ["lost", "lost"]
    assert "died 2 times in a row after step 0" in text
    search.check()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_driver_killed_at_random_until_done(search: Any, undisturbed: Any, seed: int) -> None:
    """Nobody's clean-up runs: what the driver, its Ray and its workers leave, the next run finds and ends."""
    stream = random.Random(seed)
    texts: list[str] = []
    while True:
        process = search.start()
        try:
            text = process.communicate(timeout=stream.uniform(7, 20) if len(texts) < MOST_KILLS else 600)[0]
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
    ("cofi_tune.checkpoint:_write", "after"),
    ("cofi_tune.checkpoint:save", "after"),
    ("cofi_tune.predictions:save", "after"),
    ("cofi_tune.compress:save", "before"),
    ("cofi_tune.compress:save", "after"),
    ("cofi_tune.optuna_study:tell", "before"),
    ("cofi_tune.optuna_study:tell", "after"),
    ("cofi_tune.tidy:Tidy.ended", "after"),
    ("cofi_tune.study:_sum_up", "before"),
    ("analysis.report:files", "after"),
    ("analysis.report:write", "after"),
]
"""Of a search, in their order. Between any two of them something of value is written."""


def test_driver_killed_at_every_commit_point_in_turn(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.killed_in_turn([{"at": at, "when": when} for at, when in POINTS], tmp_path)
    search.run()
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()


@pytest.mark.long
def test_killed_rank_brings_the_group_back(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    """The first time with the report on its way that the checkpoint already lies behind."""
    search.trials = 1
    search.flags = ["--workers-per-trial", "2", "--checkpoint-seconds", "0"]
    saved = {"at": "cofi_tune.checkpoint:save", "when": "after", "do": "kill", "once": str(tmp_path / "1")}
    trained = {"at": "cofi_tune.loop:Training._train", "nth": 40, "do": "kill", "once": str(tmp_path / "2")}
    search.faults = [saved, trained]
    text = search.run()
    assert all((tmp_path / name).exists() for name in "12")
    assert "it goes on from its last checkpoint" in text
    search.check()
    assert search.reasons() == [None]
    [attempts] = (search.output / "s" / "trials").glob("*/attempts.json")
    [first, *others] = [step for step, _ in json.loads(attempts.read_text())["attempts"]]
    assert first == 0
    assert others, "there was a second attempt"
    assert min(others) > 0, "which began at a checkpoint"
    steps = [[step for step, _, _ in one.curve(0)] for one in (search, undisturbed)]
    assert others[0] in steps[1], "that of a step which was reported"
    assert steps[0] == steps[1], "each report once, in order"


@pytest.mark.long
@pytest.mark.parametrize("words", ["trial 0000 starts", "trial 0000 prune"])
def test_raylet_killed_loses_nothing(search: Any, undisturbed: Any, words: str) -> None:
    """While a trial waits for its process, which never comes, and while one runs."""

    process = search.start()
    search.until(process, words)
    [raylet] = search.find("raylet/raylet")
    raylet.kill()
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 4, text
    assert "the same command goes on" in text
    assert "Traceback (most" not in text
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.run()
    search.check()
    assert search.front() == undisturbed.front()


@pytest.mark.long
@pytest.mark.parametrize("words", ["of space", "task grammar", "going on"])
def test_sigterm_before_the_first_trial_is_an_interruption_too(search: Any, words: str) -> None:
    """While modules load, data and teacher are looked for, Ray starts."""
    if words == "going on":
        first = search.start()
        search.until(first, "trial 0000 starts")
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=600)
    process = search.start()
    search.until(process, words)
    time.sleep(1.5 if words == "going on" else 0)
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 130, text
    assert "python -m cofi_tune.search --task grammar" in text
    assert "Traceback (most" not in text
    search.no_process_is_left()


@pytest.mark.long
def test_sigterm_to_all_processes_is_an_interruption_too(search: Any, undisturbed: Any) -> None:
    """As batch systems send it: Ray dies of it, and the driver must not wait for it."""
    process = search.start()
    search.until(process, "trial 0000 prune")
    os.killpg(process.pid, signal.SIGTERM)
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 130, text
    assert "python -m cofi_tune.search --task grammar" in text
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.run()
    search.check()
    assert search.front() == undisturbed.front()


@pytest.mark.long
def test_interrupted_once_saves_and_twice_leaves(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    process = search.start()
    search.until(process, "trial 0000 prune")
    process.send_signal(signal.SIGTERM)
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 130, text
    assert "stopping on SIGTERM" in text
    assert "python -m cofi_tune.search --task grammar" in text
    assert "Traceback (most" not in text
    directory = search.output / "s" / "trials" / "s-0000" / checkpoint.DIRECTORY
    assert checkpoint.latest_step(directory) > 0
    assert not (search.output / "s" / "trials" / "s-0001").exists()
    search.no_process_is_left()

    # The trial never answers, and its time to do so never ends: the second Ctrl-C waits for neither.
    hangs = tmp_path / "hangs"
    search.constants = {"cofi_tune.interruption:GRACE_SECONDS": 3600}
    search.faults = [{"at": "cofi_tune.loop:Training._train", "nth": 20, "do": "hang", "once": str(hangs)}]
    process = search.start()
    search.until(process, "trial 0000 starts")
    deadline = time.monotonic() + 300
    while not hangs.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    search.until(process, "stopping on SIGINT")
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 130, text
    assert "Traceback (most" not in text

    search.faults, search.constants = [], {}
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.run()
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)

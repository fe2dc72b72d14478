"""A process that was ended for lack of memory is named as that; a second time is the trial's end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

from cofi_tune.budget import Budget
from cofi_tune.memory import REMEDY
from cofi_tune.memory_kills import ActorManager, describe_kill
from cofi_tune.messages import Outcome
from cofi_tune.proposals import Proposals
from cofi_tune.worker import Job, attempt
from cofi_tune.worker_groups import GroupSweeper

RAYS = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, ID: 5)"
    " was 9.41GB used / 23.54GB limit (0.245065)\nOOM kill reason: Memory usage 6170882048B exceeded ...\n"
)
SAID = "its process was ended for lack of memory (the machine had 10.1 of 25.3 GB in use)"
DIED = "The actor died unexpectedly before finishing this task."


def test_rays_report_becomes_half_a_line() -> None:
    assert describe_kill(RAYS) == SAID
    assert describe_kill("the node running low on memory") == "its process was ended for lack of memory"
    assert describe_kill(DIED) is None


class Watcher:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.ends: list[tuple[str, Outcome]] = []

    def started(self, asked: Any) -> None: ...

    def heard(self, *heard: Any) -> None: ...

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        self.said.append((trial_id, text))

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        self.ends.append((trial_id, outcome))


def asked(trial_id: str, watcher: Watcher, room: Any = None) -> Proposals:
    study = optuna.create_study(study_name="s", directions=["maximize"] * 2)
    study.set_user_attr("purpose", {})
    proposals = Proposals(
        study,
        lambda draw: {"x": draw.suggest_float("x", 0, 1)},
        lambda own_id, proposal, link: (None, dict(proposal), ""),
        lambda number: optuna.samplers.RandomSampler(seed=number),
        Budget(8, None, None, 8),
        [watcher],
        room=room,
    )
    assert isinstance(proposals.suggest(trial_id), dict)
    return proposals


def test_first_kill_is_a_line_and_the_second_the_end() -> None:
    watcher = Watcher()
    proposals = asked("t", watcher)
    proposals.suggest("u")
    assert proposals.recovered("t", DIED) is None
    assert proposals.recovered("t", RAYS) is None
    assert proposals.recovered("u", RAYS) is None
    assert watcher.said == [
        ("s-0000", "a process of it died; it goes on from its last checkpoint"),
        ("s-0000", f"{SAID}; it resumes from its last checkpoint"),
        ("s-0001", f"{SAID}; it resumes from its last checkpoint"),
    ]
    outcome = proposals.recovered("t", RAYS)
    assert outcome is not None
    assert watcher.ends == [("s-0000", outcome)]
    assert (outcome.state, outcome.reason) == ("fail", "out_of_memory")
    assert REMEDY in outcome.message
    assert [*proposals.running] == ["u"], "the other goes on"
    assert proposals.recovered("t", RAYS) is None, "it is over"


def test_no_trial_is_proposed_while_there_is_no_memory_for_it() -> None:
    class Room:
        def admits(self, running: int) -> bool:
            return running < 1

        def lower(self, running: int) -> None:
            lowered.append(running)

    lowered: list[int] = []

    proposals = asked("t", Watcher(), Room())
    assert proposals.suggest("u") is None
    assert len(proposals.study.trials) == 1
    proposals.recovered("t", DIED)
    assert lowered == []
    proposals.recovered("t", RAYS)
    assert lowered == [1]


def test_what_the_driver_has_ended_is_not_tried_again(tmp_path: Path, study_job: Any) -> None:
    class Trial:
        trial_id, error_file, config = "t", str(tmp_path / "error.txt"), {"job": study_job}

    heard: list[str] = []
    ends = [None, Outcome.failed("out_of_memory", "no more")]
    sweeper = GroupSweeper(lambda trial_id, error: (heard.append(error), ends.pop(0))[1])
    (tmp_path / "error.txt").write_text(f"Failure # 1 (occurred at noon)\n{DIED}\n")
    sweeper.on_trial_recover(1, [], Trial())
    assert Trial.config["job"].given_up is None
    with (tmp_path / "error.txt").open("a") as file:
        file.write(f"Failure # 2 (occurred at one)\n{RAYS}\n")
    sweeper.on_trial_recover(2, [], Trial())
    given_up = attempt(Trial.config["job"])
    assert given_up is not None
    assert given_up.reason == "out_of_memory"
    assert [DIED in error for error in heard] == [True, False], "each with its own words"


@pytest.fixture
def study_job(tmp_path: Path) -> Job:
    from cofi_tune.config import Setup, TrialConfig

    setup = Setup(data=tmp_path, teacher=tmp_path, output=tmp_path, stop_file=tmp_path / ".stop")
    return Job("s-0000", TrialConfig(), setup)


def test_tune_takes_such_a_death_for_one_of_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Exception] = []
    parent = ActorManager.__mro__[1]
    monkeypatch.setattr(parent, "_actor_task_failed", lambda self, task, error: seen.append(error))
    manager = object.__new__(ActorManager)
    other = RayActorError(error_msg=DIED)
    for error in (OutOfMemoryError(RAYS), other):
        manager._actor_task_failed(None, error)
    assert isinstance(seen[0], RayActorError)
    assert str(seen[0]) == RAYS
    assert seen[1] is other

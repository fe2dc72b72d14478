"""Checkpoints: a run goes on from one as if it had never stopped, and never from a damaged or foreign one."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cofi_tune import checkpoint, methods
from cofi_tune.checkpoint import State
from cofi_tune.config import TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.ranks import Ranks

MakeModel = Callable[..., CofiForSequenceClassification]
IDENTITY = {"trial": {"seed": 0, "options": {"target_sparsity": 0.5}}, "data": "abc"}
OPTIONS = {"target_sparsity": 0.5, "mask_travel": 20.0, "warmup_fraction": 0.5, "recover_fraction": 0.4}


def state(step: int = 7) -> State:
    tensors = {"student/w": torch.randn(3, 2), "rank0/cpu": torch.get_rng_state(), "method/l": torch.ones(())}
    return State(step, tensors, {"phase": 1, "best_score": -float("inf"), "rows": {"taken": 3}})


def equal(one: State, other: State) -> bool:
    same = one.tensors.keys() == other.tensors.keys()
    return (
        same
        and (one.step, one.values) == (other.step, other.values)
        and all(torch.equal(one.tensors[k], other.tensors[k]) for k in one.tensors)
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = state()
    checkpoint.save(tmp_path / "c", written, IDENTITY)
    read = checkpoint.latest(tmp_path / "c", IDENTITY)
    assert read is not None
    assert equal(read, written)
    assert checkpoint.latest_step(tmp_path / "c") == 7
    assert checkpoint.latest(tmp_path / "none", IDENTITY) is None
    assert checkpoint.latest_step(tmp_path / "none") == 0


def test_two_stay_and_the_newest_is_by_step_not_by_clock(tmp_path: Path) -> None:
    for step in (90, 100, 1000):
        checkpoint.save(tmp_path, state(step), IDENTITY)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000100", "step-000001000"]
    os.utime(tmp_path / "step-000001000", (1, 1))
    read = checkpoint.latest(tmp_path, IDENTITY)
    assert read is not None
    assert read.step == 1000


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.VALUES, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", [flip, halve, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_one_is_set_aside_and_the_one_before_is_taken(
    tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    good = state(5)
    checkpoint.save(tmp_path, good, IDENTITY)
    checkpoint.save(tmp_path, state(9), IDENTITY)
    damage(tmp_path / "step-000000009" / name)
    with pytest.warns(UserWarning, match="step-000000009 is set aside"):
        read = checkpoint.latest(tmp_path, IDENTITY)
    assert read is not None
    assert equal(read, good)
    assert (tmp_path / "set-aside-step-000000009").is_dir()
    damage(tmp_path / "step-000000005" / name)
    with pytest.warns(UserWarning, match="step-000000005 is set aside"):
        assert checkpoint.latest(tmp_path, IDENTITY) is None


def test_a_manifest_torn_anywhere_is_none(tmp_path: Path) -> None:
    made = checkpoint.save(tmp_path / "whole", state(), IDENTITY)
    whole = (made / checkpoint.MANIFEST).read_bytes()
    for length in range(len(whole)):
        (made / checkpoint.MANIFEST).write_bytes(whole[:length])
        with pytest.raises(checkpoint.Unusable):
            checkpoint.load(made, IDENTITY)


def test_one_of_another_run_is_refused_naming_what_differs(tmp_path: Path) -> None:
    other = json.loads(json.dumps(IDENTITY))
    other["trial"]["options"]["target_sparsity"] = 0.6
    checkpoint.save(tmp_path, state(), IDENTITY)
    with pytest.warns(UserWarning, match=r"another run: trial\.options\.target_sparsity differ"):
        assert checkpoint.latest(tmp_path, other) is None


def test_a_half_written_one_is_not_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(5), IDENTITY)
    shutil.copytree(tmp_path / "step-000000005", tmp_path / ".new-left")
    assert checkpoint.latest_step(tmp_path) == 5


class Trap:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.touched,))


def test_no_pickle_is_ever_read(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    made = checkpoint.save(tmp_path / "c", state(), IDENTITY)
    for name in (checkpoint.TENSORS, checkpoint.VALUES, checkpoint.MANIFEST, "extra.pt"):
        torch.save(Trap(touched), made / name)
        with pytest.raises(checkpoint.Unusable):
            checkpoint.load(made, IDENTITY)
    with pytest.warns(UserWarning, match="set aside"):
        assert checkpoint.latest(tmp_path / "c", IDENTITY) is None
    assert not touched.exists()


def test_no_room_leaves_the_last_one_whole(tmp_path: Path) -> None:
    good = state(5)
    checkpoint.save(tmp_path, good, IDENTITY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the number is what counts
            checkpoint.save(tmp_path, state(9), IDENTITY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]
    read = checkpoint.latest(tmp_path, IDENTITY)
    assert read is not None
    assert equal(read, good)


@pytest.fixture
def new(toy: EncodedTask, make_model: MakeModel, trained_state: dict[str, Tensor]) -> Callable[..., Training]:
    """Trainings of one configuration, with dropout, so that every random stream counts."""

    def make(parts: int = 1, method: str = "cofi", **options: Any) -> Training:
        def copy(dropout: float) -> CofiForSequenceClassification:
            model = make_model(layers=2, dropout=dropout)
            model.load_state_dict(trained_state)
            return model

        trial = TrialConfig(
            method=method, options={**OPTIONS, **options} if method == "cofi" else {}, epochs=6, seed=3
        )
        student = copy(0.1)
        torch.manual_seed(0)
        attached = methods.load(method)(trial, student, 4)
        guide = copy(0.0) if attached.uses_teacher else None
        return Training(student, attached, guide, toy, trial, ranks=Ranks(parts=parts))

    return make


def losses_after(training: Training, from_step: int) -> list[tuple[int, dict[str, float], float | None]]:
    return [(p.step, dict(p.losses), p.selection_score) for p in training.run() if p.step > from_step]


@pytest.mark.parametrize("stop", [1, 7, 12, 14, 15, 19, 24])
@pytest.mark.parametrize("matching", ["v4", "v6"])
def test_a_resumed_run_is_the_uninterrupted_run_to_the_bit(
    new: Callable[..., Training], tmp_path: Path, stop: int, matching: str
) -> None:
    whole = new(layer_matching=matching)
    expected = losses_after(whole, stop)
    broken = new(layer_matching=matching)
    steps = broken.steps()
    for _ in range(stop):
        next(steps)
    checkpoint.save(tmp_path, broken.state(), IDENTITY)
    del steps, broken
    torch.manual_seed(99)
    resumed = new(layer_matching=matching)
    torch.manual_seed(98)
    read = checkpoint.latest(tmp_path, IDENTITY)
    assert read is not None
    resumed.restore(read)
    assert losses_after(resumed, stop) == expected
    assert resumed.method.plan == whole.method.plan is not None
    ours, theirs = resumed.student.state_dict(), whole.student.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert resumed.student.config.to_dict() == whole.student.config.to_dict()


def test_every_method_resumes(new: Callable[..., Training]) -> None:
    for name in methods.names():
        whole, broken, resumed = (new(method=name) for _ in range(3))
        torch.manual_seed(5)
        expected = losses_after(whole, 9)
        torch.manual_seed(5)
        steps = broken.steps()
        for _ in range(9):
            next(steps)
        resumed.restore(broken.state())
        assert losses_after(resumed, 9) == expected, name

"""A run whose student shrinks while it is pruned: on one worker, on two, and across a checkpoint."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from cofi_tune import checkpoint, compress, methods
from cofi_tune.components.hard_concrete import LOG_ALPHA_LIMIT
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.encoded import EncodedTask, open_encoded
from cofi_tune.loop import Training
from cofi_tune.methods.cofi import Cofi
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.ranks import Ranks
from cofi_tune.records import Progress

OPTIONS = {"target_sparsity": 0.5, "mask_learning_rate": 1e-3, "recover_fraction": 0.3}
CLOSING_STEPS, LATER = 3.0, 6
FIRST, SECOND = CLOSING_STEPS + 1, LATER + CLOSING_STEPS + 1
"""Steps after which units are gone that are closed from the start, and after LATER."""


@pytest.fixture
def new(
    toy: EncodedTask, trained_state: dict[str, Tensor], make_model: Callable[..., Any], monkeypatch: Any
) -> Callable[..., Training]:
    """Trainings of one configuration, with dropout, in which gates settle within three steps."""
    monkeypatch.setattr(Cofi, "closing_steps", CLOSING_STEPS)

    def make(**more: Any) -> Training:
        student = make_model(layers=2, dropout=0.1)
        student.load_state_dict(trained_state)
        return training_of(student, toy, **more)

    return make


def training_of(student: CofiForSequenceClassification, data: EncodedTask, **more: Any) -> Training:
    """One whose teacher is as its student; an attention sublayer and some units are closed."""
    teacher = CofiForSequenceClassification(student.config)
    teacher.load_state_dict(student.state_dict())
    trial = TrialConfig(options=OPTIONS, epochs=6, learning_rate=1e-3)
    torch.manual_seed(0)
    training = Training(student, methods.load("cofi")(trial, student, 4), teacher.eval(), data, trial, **more)
    close(training, "mha", 1)
    close(training, "hidden", 9)
    return training


def close(training: Training, unit: str, *places: int) -> None:
    training.method.gates.log_alpha[unit].data[list(places)] = -LOG_ALPHA_LIMIT


def steps_of(training: Training) -> Iterator[Progress | None]:
    """Some more units close in the midst of it."""
    for progress in training.steps():
        if training.step == LATER:
            training.method.gates.log_alpha["intermediate"].data[:, :16] = -LOG_ALPHA_LIMIT
        yield progress


def sizes_of(training: Training) -> list[int]:
    """Parameters of the student, before the first and after every step."""
    return [
        training.student.num_parameters(),
        *(training.student.num_parameters() for _ in steps_of(training)),
    ]


def test_it_becomes_smaller_as_units_settle(new: Callable[..., Training]) -> None:
    training = new()
    prune = training.phases[0].num_steps
    sizes = sizes_of(training)
    smaller = [step for step, size in enumerate(sizes) if step and size < sizes[step - 1]]
    assert smaller == [FIRST, SECOND, prune + 1]
    plan = training.method.plan
    assert plan is not None
    assert (plan.hidden_size, plan.num_heads, plan.num_ffn) == (32, 4, 48)
    assert 9 not in plan.hidden
    assert plan.layers[1].heads == ()
    assert plan.sparsity >= 0.5
    config = training.student.config
    assert config.hidden_size == len(plan.hidden)
    assert config.ffn_per_layer == [len(p.ffn) for p in plan.layers]


def test_it_need_not(new: Callable[..., Training]) -> None:
    curves, sizes = [], []
    for shrink in (True, False):
        training = new(shrink=shrink)
        curve = []
        for progress in steps_of(training):
            curve.append(None if progress is None else dict(progress.losses))
            sizes.append(training.student.num_parameters())
        curves.append(curve)
    first = int(FIRST)
    assert curves[0][:first] == curves[1][:first]
    assert curves[0] != curves[1]
    assert len(set(sizes[: len(curves[0])])) == 4
    assert len(set(sizes[len(curves[0]) :])) == 2


@pytest.mark.parametrize("stop", [FIRST - 1, FIRST, FIRST + 1, SECOND, SECOND + 2, 20])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(
    new: Callable[..., Training], tmp_path: Path, stop: float
) -> None:
    def losses(training: Training) -> list[tuple[int, dict[str, float], float | None]]:
        reports = [p for p in steps_of(training) if p is not None]
        return [(p.step, dict(p.losses), p.selection_score) for p in reports if p.step > stop]

    whole = new()
    expected = losses(whole)
    broken = new()
    steps = steps_of(broken)
    for _ in range(int(stop)):
        next(steps)
    checkpoint.save(tmp_path, broken.state(), {})
    resumed = new()
    torch.manual_seed(98)
    read = checkpoint.latest(tmp_path, {})
    assert read is not None
    resumed.restore(read)
    assert resumed.student.num_parameters() == broken.student.num_parameters()
    assert losses(resumed) == expected
    assert resumed.method.plan == whole.method.plan is not None
    ours, theirs = resumed.student.state_dict(), whole.student.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_of_one_that_shrinks_is_none_of_one_that_does_not(
    toy_on_disk: EncodedTask, tmp_path: Path
) -> None:
    trial = TrialConfig(options=OPTIONS)
    setups = [Setup(data=tmp_path, teacher=tmp_path, output=tmp_path, shrink=s) for s in (True, False)]
    ours, other = (compress.identity(trial, setup, toy_on_disk) for setup in setups)
    assert ours != other


def test_two_workers_shrink_alike(
    toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path
) -> None:
    teacher.save_pretrained(tmp_path / "teacher")
    torch.multiprocessing.start_processes(
        _one_of_two, (toy_on_disk.directory, tmp_path), nprocs=2, start_method="forkserver"
    )
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert len(set(first.split())) == 4
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _one_of_two(rank: int, data: Path, output: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{output}/meeting", rank=rank, world_size=2)
    Cofi.closing_steps = CLOSING_STEPS  # type: ignore[assignment, method-assign]
    student = CofiForSequenceClassification.from_pretrained(output / "teacher")
    training = training_of(student, open_encoded(data), ranks=Ranks(rank, 2))
    (output / f"{rank}.txt").write_text(" ".join(map(str, sizes_of(training))))
    torch.save(training.student.state_dict(), output / f"{rank}.pt")
    distributed.destroy_process_group()

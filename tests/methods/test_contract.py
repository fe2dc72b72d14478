"""What every file in `cofi_tune/methods/` keeps, whoever adds one."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cofi_tune import evaluate, methods
from cofi_tune.config import TrialConfig
from cofi_tune.data.batches import RowStream, collate
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.methods import Method
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Gates
from cofi_tune.ranks import ALONE
from cofi_tune.step import Step, encode

MakeModel = Callable[..., CofiForSequenceClassification]

FILES = sorted(path.stem for path in Path(methods.__file__).parent.glob("*.py") if path.stem != "__init__")
STEPS_PER_EPOCH = 4
every_method = pytest.mark.parametrize("name", FILES)


def trial_of(name: str, **options: Any) -> TrialConfig:
    """Three steps. Options that a method insists on are numbers here, and small: little is asked of it."""
    fields = methods.load(name).Config.model_fields
    needed = {option: 0.01 for option, field in fields.items() if field.is_required()}
    return TrialConfig(
        method=name, options={**needed, **options}, epochs=3 / STEPS_PER_EPOCH, learning_rate=1e-3
    )


def attach(name: str, student: CofiForSequenceClassification, **options: Any) -> Method:
    trial = trial_of(name, **options)
    return methods.load(name)(trial, student, STEPS_PER_EPOCH)


@pytest.fixture
def train(
    make_model: MakeModel, teacher: CofiForSequenceClassification, toy: EncodedTask
) -> Callable[[str], tuple[Training, list[Any]]]:
    """Runs a method from attachment to its finished model."""

    def run(name: str) -> tuple[Training, list[Any]]:
        student = make_model(layers=2, seed=3)
        method = attach(name, student)
        guide = teacher if method.uses_teacher else None
        training = Training(student, method, guide, toy, method.trial)
        return training, list(training.run())

    return run


def test_every_file_is_a_method() -> None:
    assert methods.names() == FILES
    assert {"cofi", "dense"} <= set(FILES)
    for name in FILES:
        assert issubclass(methods.load(name), Method)
        assert methods.load(name) is not Method
        assert methods.load(name).Config.model_config["extra"] == "forbid"


def test_an_unknown_method_meets_its_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'coffi'; did you mean 'cofi'\? known are .*dense"):
        methods.load("coffi")


@every_method
def test_an_unknown_option_is_named(name: str, make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="no_such_option: unknown"):
        attach(name, make_model(layers=2), no_such_option=1)


@every_method
def test_three_steps_from_attachment_to_the_end(
    name: str, train: Callable[[str], tuple[Training, list[Any]]], toy: EncodedTask
) -> None:
    training, reports = train(name)
    assert training.step == training.num_steps == reports[-1].step == 3
    for progress in reports:
        terms = set(progress.losses) - {"loss"}
        assert terms
        assert all(term.startswith(f"{name}/") for term in terms)
        assert all(math.isfinite(value) for value in progress.losses.values())
    logits = evaluate.predict(training.student, toy.splits["dev"])
    assert torch.from_numpy(logits).isfinite().all()
    plan = training.method.plan
    if plan is not None:
        assert plan.num_parameters == sum(
            p.numel()
            for m in training.student.layers.modules()
            if isinstance(m, torch.nn.Linear)
            for p in m.parameters()
        )


@every_method
def test_gradients_reach_every_parameter_that_wants_one(
    name: str, make_model: MakeModel, teacher: CofiForSequenceClassification, toy: EncodedTask
) -> None:
    student = make_model(layers=2, seed=3).train()
    method = attach(name, student)
    rows = RowStream(toy.splits["train"], 32, seed=0)
    for phase in method.phases():
        student = method.enter(phase, student)
        batch = collate(toy.splits["train"], next(rows), student.device)
        taught = encode(teacher, batch, Gates(), with_hidden_states=True) if method.uses_teacher else None
        step = Step(student, method, ALONE)
        step.zero_grad()
        torch.stack(list(step(batch, taught, 0).values())).sum().backward()
        wanting = {n: p for n, p in step.named_parameters() if p.requires_grad}
        assert wanting
        for parameter_name, parameter in wanting.items():
            assert parameter.grad is not None, f"{phase.name}: {parameter_name}"
            assert parameter.grad.isfinite().all(), f"{phase.name}: {parameter_name}"
        own = {id(p) for group in method.parameter_groups() for p in group["params"]}
        assert own <= {id(p) for p in wanting.values()}
        moved = {n for n, p in wanting.items() if (p.grad != 0).any()}
        assert {"student.classifier.weight", "student.pooler.weight"} <= moved


@every_method
def test_the_finished_model_saves_and_loads(
    name: str, train: Callable[[str], tuple[Training, list[Any]]], toy: EncodedTask, tmp_path: Path
) -> None:
    student = train(name)[0].student
    student.save_pretrained(tmp_path)
    loaded = CofiForSequenceClassification.from_pretrained(tmp_path)
    ours, theirs = (evaluate.predict(model, toy.splits["dev"]) for model in (student, loaded))
    torch.testing.assert_close(torch.from_numpy(theirs), torch.from_numpy(ours), atol=1e-6, rtol=1e-6)


@every_method
def test_the_finished_model_takes_lengths_it_never_saw(
    name: str, train: Callable[[str], tuple[Training, list[Any]]], toy: EncodedTask
) -> None:
    student = train(name)[0].student
    longest = int(toy.splits["train"].lengths.max())
    for length in (1, longest + 1, 128):
        with torch.no_grad():
            logits = student(torch.full((2, length), 9)).logits
        assert logits.shape == (2, 2)
        assert logits.isfinite().all()

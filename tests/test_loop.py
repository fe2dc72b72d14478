"""The loop: the same again with the same seed, the best weights at the end, and a word when it breaks."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cofi_tune import evaluate, loop
from cofi_tune.config import Strict, TrialConfig
from cofi_tune.data.batches import Batch
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.methods import Method, Phase, load
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates, classification_loss
from cofi_tune.ranks import Ranks
from cofi_tune.records import Progress, Stopped

MakeModel = Callable[..., CofiForSequenceClassification]


class Config(Strict):
    """No options."""


class Plain(Method):
    """The label loss, through the phases that a test asks for; notes what the loop does to it."""

    Config = Config
    uses_teacher = False

    def __init__(self, phases: list[Phase], student: CofiForSequenceClassification, **trial: Any) -> None:
        super().__init__(TrialConfig(**trial), student, steps_per_epoch=4)
        self.asked = phases
        self.extra = nn.Parameter(torch.tensor(1.0))
        self.calls: list[str] = []
        self.steps: list[int] = []

    def phases(self) -> list[Phase]:
        return self.asked

    def enter(self, phase: Phase, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        self.calls.append(f"enter {phase.name}")
        return student

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.extra], "lr": 0.125}]

    def before_forward(self, step: int, again: bool = False) -> Gates:
        self.steps.append(step)
        return Gates()

    def losses(
        self, student: Encoded, teacher: Encoded | None, batch: Batch, step: int, ranks: Ranks
    ) -> dict[str, Tensor]:
        return {
            "plain/label": classification_loss(student.logits_BC, batch.labels_B),
            "plain/extra": self.extra * 3,
        }

    def after_step(self) -> None:
        self.calls.append("after")

    def finish(self, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        self.calls.append("finish")
        return student


def plain(
    make_model: MakeModel, data: EncodedTask, *phases: Phase, dropout: float = 0.0, **trial: Any
) -> tuple[Training, Plain]:
    student = make_model(layers=2, dropout=dropout)
    method = Plain(list(phases), student, **trial)
    return Training(student, method, None, data, method.trial), method


def cofi_curve(
    make_model: MakeModel, teacher: CofiForSequenceClassification, data: EncodedTask, seed: int
) -> list[dict[str, float]]:
    """Every loss term of a whole run of CoFi with dropout."""
    options = {"target_sparsity": 0.01, "mask_travel": 6.0, "layer_matching": "v6"}
    trial = TrialConfig(options=options, epochs=5, learning_rate=1e-3, seed=seed)
    student = make_model(layers=2, seed=7, dropout=0.1)
    torch.manual_seed(seed)
    training = Training(student, load("cofi")(trial, student, 4), teacher, data, trial)
    return [dict(progress.losses) for progress in training.run()]


def test_same_seed_twice_is_the_same_curve(
    make_model: MakeModel, teacher: CofiForSequenceClassification, toy: EncodedTask
) -> None:
    first, again, other = (cofi_curve(make_model, teacher, toy, seed) for seed in (3, 3, 4))
    assert len(first) == 19
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_order_belongs_to_the_trials_seed(make_model: MakeModel, toy: EncodedTask) -> None:
    def curve(seed: int, global_seed: int) -> list[float]:
        torch.manual_seed(global_seed)
        training, _ = plain(make_model, toy, Phase("a", 8, 1e-3), seed=seed)
        return [progress.losses["loss"] for progress in training.run()]

    assert curve(0, 1) == curve(0, 2) != curve(1, 1)


def test_phases_in_order_and_every_hook(make_model: MakeModel, toy: EncodedTask) -> None:
    training, method = plain(make_model, toy, Phase("a", 3, 1e-3), Phase("b", 2, 1e-3))
    reports = list(training.run())
    assert method.calls == ["enter a", *["after"] * 3, "enter b", *["after"] * 2, "finish"]
    assert method.steps == [0, 1, 2, 0, 1]
    assert [p.phase for p in reports] == ["a", "a", "a", "b", "b"]
    assert [p.step for p in reports] == [1, 2, 3, 4, 5]
    assert {p.num_steps for p in reports} == {5}
    assert not training.student.training
    assert all(b.seconds >= a.seconds > 0 for a, b in itertools.pairwise(reports))


def test_losses_are_means_since_the_last_report(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(reports: int) -> list[dict[str, float]]:
        monkeypatch.setattr(loop, "REPORTS", reports)
        training, _ = plain(make_model, toy, Phase("a", 8, 1e-3))
        return [dict(p.losses) for p in training.run()]

    each, second = losses(8), losses(4)
    assert (len(each), len(second)) == (8, 4)
    for part, mean in zip([each[i : i + 2] for i in (0, 2, 4, 6)], second, strict=True):
        for name in ("plain/label", "plain/extra", "loss"):
            assert mean[name] == pytest.approx(sum(p[name] for p in part) / 2, rel=1e-5)
        assert mean["loss"] == pytest.approx(mean["plain/label"] + mean["plain/extra"])


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (7, 7), (40, 20), (100, 20), (130, 20)])
def test_number_of_reports(make_model: MakeModel, toy: EncodedTask, steps: int, expected: int) -> None:
    training, _ = plain(make_model, toy, Phase("a", steps, 1e-4), batch_size=4)
    reports = list(training.run())
    assert len(reports) == expected
    assert reports[-1].step == steps
    assert {p.selection_score for p in reports} == {None}, "a score would choose nothing"


@pytest.mark.parametrize(("steps", "times"), [(1, 1), (16, 1), (31, 1), (32, 2), (50, 3), (64, 4), (90, 4)])
def test_the_best_is_looked_for_evenly_and_no_more_often_than_it_informs(
    make_model: MakeModel, toy: EncodedTask, steps: int, times: int
) -> None:
    training, _ = plain(make_model, toy, Phase("a", steps, 1e-4, select_best=True), batch_size=4)
    assert len(training.selection) == 64
    scored = [p.step for p in training.run() if p.selection_score is not None]
    assert scored == [math.ceil(steps * (i + 1) / times) for i in range(times)]


def rates(make_model: MakeModel, toy: EncodedTask, phase: Phase) -> list[float]:
    training, _ = plain(make_model, toy, phase)
    return [p.learning_rate for p in training.run()]


def test_learning_rate_schedules(make_model: MakeModel, toy: EncodedTask) -> None:
    assert rates(make_model, toy, Phase("a", 5, 0.01)) == pytest.approx([0.01, 0.008, 0.006, 0.004, 0.002])
    assert rates(make_model, toy, Phase("a", 4, 0.01, schedule="constant")) == [0.01] * 4
    warm = rates(make_model, toy, Phase("a", 8, 0.01, warmup_fraction=0.5))
    assert warm == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.0075, 0.005, 0.0025])


def test_each_phase_starts_its_rate_anew(make_model: MakeModel, toy: EncodedTask) -> None:
    training, method = plain(make_model, toy, Phase("a", 2, 0.01), Phase("b", 2, 0.1))
    assert [p.learning_rate for p in training.run()] == pytest.approx([0.01, 0.005, 0.1, 0.05])
    # The method's own group keeps its own rate: Adam moves it by that, downhill, at every step.
    assert method.extra.item() == pytest.approx(1 - 4 * 0.125, abs=1e-4)


class Scripted:
    """Stands for `evaluate.score`: gives the scores of a script, and keeps the weights that it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores: Iterator[float] = iter(scores)
        self.weights: list[Tensor] = []

    def __call__(self, model: nn.Module, *rest: object, **more: object) -> dict[str, float]:
        self.weights.append(model.classifier.weight.detach().clone())
        return {"accuracy": next(self.scores)}


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((0.1, 0.9, 0.3, 0.2), 1),
        ((0.4, 0.1, 0.1, 0.5), 3),
        ((0.5, 0.1, 0.5, 0.1), 2),
        ((-1.0, -2.0, -3.0, -4.0), 0),
    ],
)
def test_the_best_selection_is_put_back(
    make_model: MakeModel,
    toy: EncodedTask,
    monkeypatch: pytest.MonkeyPatch,
    scores: tuple[float, ...],
    best: int,
) -> None:
    scripted = Scripted(*scores)
    monkeypatch.setattr(evaluate, "score", scripted)
    training, _ = plain(make_model, toy, Phase("a", 8, 1e-2, select_best=True))
    reported = [p.selection_score for p in training.run() if p.selection_score is not None]
    assert tuple(reported) == scores
    assert [torch.equal(training.student.classifier.weight, w) for w in scripted.weights].index(True) == best


def test_without_selection_the_last_weights_stay(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = Scripted()
    monkeypatch.setattr(evaluate, "score", scripted)
    training, _ = plain(make_model, toy, Phase("a", 8, 1e-2))
    weights = [training.student.classifier.weight.detach().clone() for _ in training.run()]
    assert torch.equal(training.student.classifier.weight, weights[-1])
    assert scripted.weights == [], "nobody asked for a score"


@pytest.mark.parametrize("steps", [3, 30, 90])
@pytest.mark.parametrize("select_best", [True, False])
def test_a_loss_that_is_not_finite_ends_the_run(
    make_model: MakeModel, toy: EncodedTask, steps: int, select_best: bool
) -> None:
    training, _ = plain(make_model, toy, Phase("a", steps, 1e20, select_best=select_best))
    with pytest.raises(Stopped, match="not finite") as stopped:
        list(training.run())
    assert stopped.value.reason == "non_finite"
    assert training.step < max(4, steps)


def test_gradients_of_the_model_are_clipped(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []

    def spy(parameters: list[Tensor], limit: float) -> Tensor:
        norm = original(parameters, limit)
        grads = [p.grad for p in parameters if p.grad is not None]
        norms.append(torch.stack([g.norm() for g in grads]).norm().item())
        assert len(grads) == len(list(training.student.parameters()))
        return norm

    original = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", spy)
    training, _ = plain(make_model, toy, Phase("a", 3, 1e-3), clip_norm=0.01)
    list(training.run())
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


def test_the_teacher_teaches_and_stays_as_it_is(make_model: MakeModel, toy: EncodedTask) -> None:
    teacher = make_model(layers=2, dropout=0.5).train()
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    trial = TrialConfig(options={"target_sparsity": 0.01}, epochs=1)
    student = make_model(layers=2)
    list(Training(student, load("cofi")(trial, student, 4), teacher, toy, trial).run())
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in teacher.state_dict().items())


def test_training_learns(make_model: MakeModel, toy: EncodedTask) -> None:
    trial = TrialConfig(method="dense", epochs=6, learning_rate=3e-3)
    student = make_model(layers=2, seed=7)
    training = Training(student, load("dense")(trial, student, 4), None, toy, trial)
    reports: list[Progress] = list(training.run())
    assert reports[-1].losses["dense/label"] < 0.5 * reports[0].losses["dense/label"]
    assert evaluate.score(training.student, toy.task, toy.splits["dev"])["accuracy"] > 0.9

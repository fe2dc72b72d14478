"""CoFi on the toy task: it reaches its target, or says that it cannot; and every phase does its part."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cofi_tune import evaluate
from cofi_tune.components import distillation, lagrangian
from cofi_tune.components.gates import UNITS, Unit
from cofi_tune.config import TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.methods import Phase
from cofi_tune.methods.cofi import Cofi
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Gates
from cofi_tune.records import Progress, Stopped

MakeModel = Callable[..., CofiForSequenceClassification]
Run = Callable[..., Training]

SUBSETS: list[tuple[Unit, ...]] = [s for size in range(1, 6) for s in itertools.combinations(UNITS, size)]


@pytest.fixture
def new(toy: EncodedTask, make_model: MakeModel, trained_state: dict[str, Tensor]) -> Run:
    """A training of CoFi whose student and teacher have learned the toy task."""

    def copy() -> CofiForSequenceClassification:
        model = make_model(layers=2)
        model.load_state_dict(trained_state)
        return model

    def make(epochs: float = 16, trial: dict[str, Any] | None = None, **options: Any) -> Training:
        config = TrialConfig(
            options={"target_sparsity": 0.8, **options},
            epochs=epochs,
            **{"learning_rate": 1e-3, **(trial or {})},
        )
        torch.manual_seed(0)
        student = copy()
        return Training(student, Cofi(config, student, 4), copy(), toy, config)

    return make


def linear_parameters(model: CofiForSequenceClassification) -> int:
    maps = [m for m in model.layers.modules() if isinstance(m, nn.Linear)]
    return sum(p.numel() for linear in maps for p in linear.parameters())


def of_phase(reports: list[Progress], phase: str) -> list[Progress]:
    return [progress for progress in reports if progress.phase == phase]


@pytest.mark.parametrize(
    ("units", "target"), [(UNITS, 0.8), (("head", "intermediate"), 0.6), (("hidden",), 0.5)], ids=str
)
def test_it_reaches_its_target(new: Run, toy: EncodedTask, units: tuple[Unit, ...], target: float) -> None:
    training = new(units=units, target_sparsity=target)
    dense = linear_parameters(training.student)
    reports = list(training.run())
    plan = training.method.plan
    assert plan is not None
    assert target <= plan.sparsity < target + 0.15
    assert plan.sparsity == 1 - linear_parameters(training.student) / dense
    assert evaluate.score(training.student, toy.task, toy.splits["dev"])["accuracy"] > 0.9
    assert training.num_steps == 64
    pruning = of_phase(reports, "prune")
    assert pruning[-1].expected_sparsity is not None
    assert pruning[-1].expected_sparsity >= target - 0.02
    targets = [progress.target_sparsity for progress in pruning]
    assert targets == sorted(targets)
    assert targets[-1] == pytest.approx(target)
    assert targets[0] < target / 2
    assert {progress.expected_sparsity for progress in of_phase(reports, "recover")} == {plan.sparsity}


def test_gates_that_move_too_slowly_are_told_and_stopped(new: Run) -> None:
    training = new(epochs=4, mask_learning_rate=0.01)
    with pytest.warns(UserWarning, match="the target will not be reached"), pytest.raises(Stopped) as stopped:
        list(training.run())
    assert stopped.value.reason == "target_not_reached"
    assert "target 0.800" in str(stopped.value)
    assert training.method.plan is None


def test_gates_that_are_fast_enough_are_not_warned_of(new: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training = new(epochs=16)
        training.method.enter(training.phases[0], training.student)


@pytest.mark.parametrize("units", SUBSETS, ids="-".join)
def test_every_subset_of_units(new: Run, toy: EncodedTask, units: tuple[Unit, ...]) -> None:
    """Gates that are closed for the most part already, a few steps, the cut and the recovery."""
    training = new(epochs=1.5, units=units, target_sparsity=0.15, mask_learning_rate=1e-3)
    for a in training.method.gates.log_alpha.values():
        a.data.fill_(2.0).view(-1)[::2].fill_(-4.0)
    with pytest.warns(UserWarning, match="will not be reached"):
        reports = list(training.run())
    plan, config = training.method.plan, training.student.config
    assert plan is not None
    assert plan.sparsity >= 0.15
    assert (config.hidden_size < 32) == ("hidden" in units)
    if not {"head", "mha"} & set(units):
        assert config.heads_per_layer == [4, 4]
    if not {"intermediate", "ffn"} & set(units):
        assert config.ffn_per_layer == [48, 48]
    assert {progress.phase for progress in reports} == {"prune", "recover"}
    assert torch.from_numpy(evaluate.predict(training.student, toy.splits["dev"])).isfinite().all()


def test_units_are_known_and_at_least_one(new: Run) -> None:
    with pytest.raises(ValueError, match=r"units\.0: .*'hidden'"):
        new(units=("heads",))
    with pytest.raises(ValueError, match="units: "):
        new(units=())


@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, float("nan")])
def test_impossible_targets_are_refused(new: Run, target: float) -> None:
    with pytest.raises(ValueError, match="target_sparsity: "):
        new(target_sparsity=target)


def test_a_cut_model_is_not_pruned_again(new: Run) -> None:
    training = new()
    training.student.config.ffn_per_layer = [48, 47]
    with pytest.raises(ValueError, match="already cut"):
        Cofi(training.trial, training.student, 4)


def test_finetuning_comes_first_and_without_gates(new: Run) -> None:
    training = new(epochs=2, trial={"finetune_epochs": 1.0}, target_sparsity=0.01, layer_matching="v3")
    before = {n: a.detach().clone() for n, a in training.method.gates.log_alpha.items()}
    reports = training.run()
    for progress in itertools.islice(reports, 4):
        assert progress.phase == "finetune"
        assert set(progress.losses) == {"cofi/prediction", "cofi/layer", "loss"}
        assert progress.expected_sparsity == progress.target_sparsity == 0.0
        assert training.method.before_forward(0) == Gates()
    assert all(torch.equal(before[n], a) for n, a in training.method.gates.log_alpha.items())
    progress = next(reports)
    assert progress.phase == "prune"
    assert "cofi/lagrangian" in progress.losses
    assert all(g is not None for g in training.method.before_forward(0))
    assert any(not torch.equal(before[n], a) for n, a in training.method.gates.log_alpha.items())


def test_recovery_trains_the_cut_model(new: Run) -> None:
    training = new(recover_fraction=0.4, recover_learning_rate_ratio=0.5)
    weights: list[dict[str, Tensor]] = []
    sizes: list[int] = []
    for progress in training.run():
        sizes.append(linear_parameters(training.student))
        if progress.phase == "recover":
            assert set(progress.losses) == {"cofi/prediction", "cofi/layer", "loss"}
            assert progress.learning_rate <= 0.5e-3
            assert training.method.before_forward(0) == Gates()
            weights.append({n: w.detach().clone() for n, w in training.student.named_parameters()})
    plan = training.method.plan
    assert plan is not None
    assert sizes[-1] == plan.num_parameters < sizes[0] == plan.prunable_parameters
    moved = {name for name, first in weights[0].items() if not torch.equal(first, weights[-1][name])}
    assert {"classifier.weight", "pooler.weight"} <= moved
    assert any(name.startswith("layers.") for name in moved)
    assert not any(name.startswith("embeddings.") for name in moved)


def test_the_cut_changes_no_prediction_and_no_layer_loss(new: Run, toy: EncodedTask) -> None:
    """Entering recovery, the small model answers as the masked one did, through the transform too."""
    training = new()
    method, student = training.method, training.student
    for progress in training.run():
        student = training.student
        if progress.phase == "prune" and progress.step == training.phases[0].num_steps:
            break
    plan, gates = method.gates.decide(0.8)
    masked = evaluate.predict(student, toy.splits["dev"], gates)
    wide = method.matching.transform
    small = method.enter(training.phases[1], student)
    assert method.plan == plan
    torch.testing.assert_close(
        torch.from_numpy(evaluate.predict(small, toy.splits["dev"])),
        torch.from_numpy(masked),
        atol=1e-5,
        rtol=1e-5,
    )
    x = torch.randn(5, 32)
    x[:, [i for i in range(32) if i not in plan.hidden]] = 0
    torch.testing.assert_close(
        method.matching.transform(x[:, list(plan.hidden)]), wide(x), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("freeze", [True, False])
def test_embeddings_are_frozen_if_asked(new: Run, freeze: bool) -> None:
    training = new(epochs=2, target_sparsity=0.01, freeze_embeddings=freeze)
    before = training.student.embeddings.word.weight.detach().clone()
    for progress in training.run():
        if progress.phase == "prune":
            assert torch.equal(training.student.embeddings.word.weight, before) == freeze


def test_a_regression_learns_from_its_labels(toy_regression: EncodedTask, make_model: MakeModel) -> None:
    """The KL of one logit is 0: without the label loss the head would stay where it was."""
    student, teacher = make_model(layers=2, num_labels=1, seed=3), make_model(layers=2, num_labels=1)
    config = TrialConfig(options={"target_sparsity": 0.01}, epochs=6, learning_rate=3e-3)
    before = student.classifier.weight.detach().clone()
    training = Training(student, Cofi(config, student, 4), teacher, toy_regression, config)
    reports = list(training.run())
    assert all({"cofi/label", "cofi/layer"} <= set(progress.losses) for progress in reports)
    assert all("cofi/prediction" not in progress.losses for progress in reports)
    assert reports[-1].losses["cofi/label"] < 0.5 * reports[0].losses["cofi/label"]
    assert (training.student.classifier.weight - before).abs().max() > 1e-3


def test_weights_of_the_losses(new: Run) -> None:
    """The same first step under other weights."""

    def terms(**options: Any) -> dict[str, float]:
        return dict(next(new(epochs=4, **options).run()).losses)

    half = terms(layer_mix=0.5, label_weight=0.2, layer_matching="v3")
    most = terms(layer_mix=0.9, layer_matching="v3")
    off = terms(layer_mix=0.9, layer_matching="off")
    none = terms(layer_mix=0.0, label_weight=0.4)
    assert set(half) == {"cofi/prediction", "cofi/layer", "cofi/label", "cofi/lagrangian", "loss"}
    assert set(most) == {"cofi/prediction", "cofi/layer", "cofi/lagrangian", "loss"}
    assert set(off) == {"cofi/prediction", "cofi/lagrangian", "loss"}
    assert set(none) == {"cofi/prediction", "cofi/label", "cofi/lagrangian", "loss"}
    assert half["cofi/layer"] / 0.5 == pytest.approx(most["cofi/layer"] / 0.9, rel=1e-5)
    assert half["cofi/prediction"] / 0.5 == pytest.approx(most["cofi/prediction"] / 0.1, rel=1e-5)
    # Without layers to match nothing is mixed.
    assert off["cofi/prediction"] == pytest.approx(none["cofi/prediction"], rel=1e-5)
    assert off["cofi/prediction"] == pytest.approx(half["cofi/prediction"] / 0.5, rel=1e-5)
    assert none["cofi/label"] == pytest.approx(2 * half["cofi/label"], rel=1e-5)
    assert half["loss"] == pytest.approx(sum(v for n, v in half.items() if n != "loss"), rel=1e-5)


def test_multipliers_ascend_and_masks_descend(new: Run, toy: EncodedTask) -> None:
    """Two steps of the Lagrangian alone, far below the target."""
    training = new(mask_learning_rate=0.125, multiplier_ratio=2.0)
    method, phase = training.method, training.phases[0]
    method.enter(phase, training.student)
    optimizer = training._new_optimizer(phase)
    start = method.gates.expected_sparsity().item()
    for _ in range(2):
        optimizer.zero_grad()
        sparsity, target = method.gates.expected_sparsity(), method.options.target_sparsity
        lagrangian.penalty(sparsity, target, method.lambda_1, method.lambda_2).backward()
        optimizer.step()
        method.after_step()
    assert method.lambda_1.item() == pytest.approx(-0.5, rel=1e-2)
    assert method.lambda_2.item() == pytest.approx(0.5, rel=1e-2)
    assert method.gates.expected_sparsity().item() > start
    assert all(a.max() < 4.6 for a in method.gates.log_alpha.values())


def test_gates_are_clamped_after_every_step(new: Run) -> None:
    training = new(mask_learning_rate=50.0)
    next(training.run())
    for a in training.method.gates.log_alpha.values():
        assert a.abs().max().item() == pytest.approx(4.60517, abs=1e-4)


def test_rates_and_steps_follow_their_options(new: Run) -> None:
    method = new(
        epochs=30, warmup_fraction=0.25, mask_travel=20.0, multiplier_ratio=3.0, recover_fraction=0.2
    ).method
    assert method.phases() == [
        Phase("prune", 96, 1e-3, hands_on=True),
        Phase("recover", 24, 1e-3, select_best=True),
    ]
    assert method.warmup_steps == 24
    assert method.mask_learning_rate == pytest.approx(20 / 24)
    method.enter(method.phases()[0], new().student)
    assert [g["lr"] for g in method.parameter_groups() if "lr" in g] == pytest.approx([20 / 24, 60 / 24])
    assert new(mask_learning_rate=0.3).method.mask_learning_rate == 0.3


def matched_layers(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch, seed: int
) -> list[Any]:
    """Which teacher layers v6 compares, step after step."""
    drawn: list[Any] = []
    original = distillation.random_teacher_layers

    def spy(num_layers: int, uniform: list[float]) -> tuple[int, ...]:
        drawn.append(original(num_layers, uniform))
        return drawn[-1]

    monkeypatch.setattr(distillation, "random_teacher_layers", spy)
    student, teacher = make_model(layers=8), make_model(layers=8, seed=1)
    config = TrialConfig(options={"target_sparsity": 0.01, "layer_matching": "v6"}, epochs=2.5, seed=seed)
    list(Training(student, Cofi(config, student, 4), teacher, toy, config).run())
    monkeypatch.undo()
    return drawn


def test_v6_draws_anew_at_every_step_from_its_own_stream(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    first = matched_layers(make_model, toy, monkeypatch, seed=0)
    torch.manual_seed(2)
    assert matched_layers(make_model, toy, monkeypatch, seed=0) == first
    assert matched_layers(make_model, toy, monkeypatch, seed=1) != first
    assert len(first) == 10
    assert len(set(first)) > 3
    assert all(i in (2 * n, 2 * n + 1) for layers in first for n, i in enumerate(layers))


def test_layers_that_are_gone_are_matched_by_nothing(new: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    original = distillation.layer_loss

    def spy(student: Tensor, teacher: Tensor, transform: Any, live: Tensor, *rest: Any) -> Tensor:
        seen.append(live.clone())
        return original(student, teacher, transform, live, *rest)

    monkeypatch.setattr(distillation, "layer_loss", spy)
    training = new(epochs=2, target_sparsity=0.4, mask_learning_rate=1e-3)
    for unit in ("mha", "ffn"):
        training.method.gates.log_alpha[unit].data[0] = -100.0
    training.method.gates.clamp_ = lambda: None  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match="will not be reached"):
        list(training.run())
    assert len(seen) == 8
    assert all(live.tolist() == [False, True] for live in seen)

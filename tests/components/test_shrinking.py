"""The student becomes smaller while it trains, and nothing that is computed or remembered changes."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cofi_tune import bookkeeping
from cofi_tune.components import hard_concrete, shrinking, surgery
from cofi_tune.components.gates import UNITS, LearnedGates
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.components.layer_matching import LayerMatching
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates, Packing
from cofi_tune.records import LayerPlan, PruningPlan

MakeModel = Callable[..., CofiForSequenceClassification]
CPU = torch.device("cpu")
SIZES = Sizes(num_layers=3, num_heads=4, head_size=8, hidden_size=32, num_ffn=48)
slow = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)

Tokens = tuple[Tensor, Tensor, Tensor, Packing]
Tolerance = Callable[[CofiForSequenceClassification, Gates, Tokens], float]


@pytest.fixture(scope="module")
def models(make_model: MakeModel) -> dict[torch.dtype, CofiForSequenceClassification]:
    return {dtype: make_model(layers=3).to(dtype) for dtype in (torch.float32, torch.float64)}


@st.composite
def chains(draw: st.DrawFn) -> list[PruningPlan]:
    """Plans of which each is a part of the one before; sublayers and layers go, too."""
    plan = surgery.plan(Gates(), SIZES)
    found = []
    for _ in range(draw(st.integers(1, 3))):
        generator = torch.Generator().manual_seed(draw(seeds))
        shares = [draw(st.sampled_from([0.0, 0.3, 0.7, 1.0])) for _ in range(2 * SIZES.num_layers)]

        def some(
            units: tuple[int, ...], share: float, generator: torch.Generator = generator
        ) -> tuple[int, ...]:
            kept = torch.rand(len(units), generator=generator) < share
            return tuple(u for u, k in zip(units, kept.tolist(), strict=True) if k)

        hidden = some(plan.hidden, draw(st.sampled_from([0.2, 0.8, 1.0]))) or plan.hidden[:2]
        layers = tuple(
            LayerPlan(some(p.heads, shares[2 * n]), some(p.ffn, shares[2 * n + 1]))
            for n, p in enumerate(plan.layers)
        )
        plan = PruningPlan(32, 4, 8, 48, hidden, layers)
        found.append(plan)
    return found


def masks(plan: PruningPlan) -> Gates:
    """1 where the plan keeps a unit."""
    gates = LearnedGates(UNITS, SIZES, 0.5, 0, CPU)
    gates.keep(plan)
    return Gates(*[mask.double() for _, mask in gates.named_masks()])


def random_gates(seed: int, plan: PruningPlan, dtype: torch.dtype) -> tuple[Gates, Gates]:
    """A draw of the dense encoder's gates, closed outside the plan; and as the student takes it."""
    drawn = LearnedGates(UNITS, SIZES, 0.5, 0, CPU)
    drawn.keep(plan)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for mask in masks(plan):
        assert mask is not None
        gate = torch.rand(mask.shape, generator=generator, dtype=torch.float64).clamp(0.2, 1)
        gate[torch.rand(mask.shape, generator=generator) < 0.15] = 0
        values.append((gate * mask).to(dtype))
    if not values[0].any():
        values[0][plan.hidden[0]] = 0.5
    return Gates(*values), drawn.present.narrow(Gates(*values))


@slow
@given(chain=chains(), seed=seeds)
def test_it_computes_the_same_under_every_draw(
    models: dict[torch.dtype, CofiForSequenceClassification],
    tokens: Tokens,
    tolerance: Tolerance,
    chain: list[PruningPlan],
    seed: int,
) -> None:
    """And cutting twice is cutting once; and the end of pruning is the same from both."""
    for dtype, model in models.items():
        gates, student = LearnedGates(UNITS, SIZES, 0.5, 0, CPU), model
        for plan in chain:
            student, _ = shrinking.shrink(student, plan, gates)
        at_once = surgery.cut(model, chain[-1])
        assert all(torch.equal(w, at_once.state_dict()[n]) for n, w in student.state_dict().items())
        wide, narrow = random_gates(seed, chain[-1], dtype)
        with torch.no_grad():
            masked = model.encode(*tokens, wide, with_hidden_states=True)
            small = student.encode(*tokens, narrow, with_hidden_states=True)
        atol = tolerance(model, wide, tokens)
        close = {"atol": atol, "rtol": atol}
        torch.testing.assert_close(small.logits_BC, masked.logits_BC, **close)
        for ours, theirs in zip(small.hidden_states_NH, masked.hidden_states_NH, strict=True):
            torch.testing.assert_close(ours, theirs[:, list(chain[-1].hidden)], **close)
        last = surgery.plan(wide, SIZES)
        one = surgery.cut(model, last, wide)
        other = surgery.cut(student, last, wide, chain[-1])
        assert all(torch.equal(w, other.state_dict()[n]) for n, w in one.state_dict().items())


def spread(gates: LearnedGates, seed: int) -> None:
    """Log alphas everywhere, ties at both ends included."""
    generator = torch.Generator().manual_seed(seed)
    for a in gates.log_alpha.values():
        a.data.copy_(torch.randn(a.shape, generator=generator) * 4)
    gates.clamp_()


def closing(gates: LearnedGates) -> PruningPlan:
    """What the deterministic gates keep, and at least one hidden unit."""
    found = gates.at_evaluation()
    assert found.hidden_H is not None
    if not found.hidden_H.any():
        found.hidden_H[0] = 1
    return surgery.plan(found, SIZES)


@slow
@given(seed=seeds, target=st.floats(0.05, 0.95))
def test_counts_decisions_and_draws_do_not_change(seed: int, target: float) -> None:
    gates = LearnedGates(UNITS, SIZES, 0.5, seed, CPU)
    spread(gates, seed)
    before, evaluated = float(gates.expected_sparsity().detach()), gates.at_evaluation()
    twin = copy.deepcopy(gates)
    twin.stream = torch.Generator().manual_seed(seed)
    gates.stream.manual_seed(seed)
    plan = closing(gates)
    gates.keep(plan)
    assert float(gates.expected_sparsity().detach()) == pytest.approx(before, abs=1e-7)
    narrow = gates.present.narrow(gates.at_evaluation())
    for ours, theirs in zip(narrow, gates.present.narrow(evaluated), strict=True):
        assert torch.equal(ours, theirs)
    for _ in range(2):
        for ours, theirs in zip(gates.sample(), gates.present.narrow(twin.sample()), strict=True):
            assert torch.equal(ours, theirs)
    decided, values = gates.decide(target)
    assert set(decided.hidden) <= set(plan.hidden)
    assert all(set(d.ffn) <= set(p.ffn) for d, p in zip(decided.layers, plan.layers, strict=True))
    assert all(set(d.heads) <= set(p.heads) for d, p in zip(decided.layers, plan.layers, strict=True))
    assert surgery.plan(values, SIZES) == decided
    assert decided.sparsity >= min(target, plan.sparsity) - 1e-9
    if target >= plan.sparsity:
        assert decided == twin.decide(target)[0]


def test_what_is_gone_learns_no_more_and_is_never_opened() -> None:
    gates = LearnedGates(UNITS, SIZES, 0.5, 0, CPU)
    spread(gates, 1)
    plan = closing(gates)
    gates.keep(plan)
    for a in gates.log_alpha.values():
        a.data.fill_(hard_concrete.LOG_ALPHA_LIMIT)
    drawn = gates.sample()
    assert drawn.hidden_H is not None
    assert drawn.mha_L is not None
    assert drawn.intermediate_LF is not None
    assert len(drawn.hidden_H) == len(plan.hidden)
    assert [bool(g) for g in drawn.mha_L] == [bool(p.heads) for p in plan.layers]
    beyond = [row[len(p.ffn) :] for row, p in zip(drawn.intermediate_LF, plan.layers, strict=True)]
    assert not any(row.any() for row in beyond)
    assert drawn.intermediate_LF.any()
    (sum(g.sum() for g in drawn if g is not None) + gates.expected_sparsity()).backward()
    for unit, present in gates.named_masks():
        grad = gates.log_alpha[unit].grad
        assert grad is not None
        assert not grad[~present].any()
    assert surgery.plan(gates.at_evaluation(), SIZES) == plan


@slow
@given(chain=chains(), seed=seeds)
def test_the_optimizer_goes_on_as_if_nothing_were_gone(
    make_model: MakeModel, tokens: Tokens, chain: list[PruningPlan], seed: int
) -> None:
    """Steps of the masked student and of the smaller one are the same on what is left, gates included."""
    runs = []
    for shrinks in (False, True):
        torch.manual_seed(0)
        student, gates = make_model(layers=3).double(), LearnedGates(UNITS, SIZES, 0.5, 0, CPU).double()
        matching = LayerMatching("v4", 3, 32, 0, CPU).double()
        optimizer = new_optimizer(student, gates, matching)
        for number, plan in enumerate([surgery.plan(Gates(), SIZES), *chain]):
            if shrinks and number:
                before = parameters(student, gates, matching)
                student, moments = shrinking.shrink(student, plan, gates, matching)
                old, optimizer = optimizer, new_optimizer(student, gates, matching)
                bookkeeping.carry_over(old, before, optimizer, parameters(student, gates, matching), moments)
            elif number:
                gates.keep(plan)
                for unit, present in gates.named_masks():
                    optimizer.state[gates.log_alpha[unit]]["exp_avg"].mul_(present)
            for step in range(2):
                wide, narrow = random_gates(seed + 2 * number + step, plan, torch.float64)
                out = student.encode(*tokens, narrow if shrinks else wide, with_hidden_states=True)
                optimizer.zero_grad(set_to_none=True)
                (loss(out, matching) + gates.expected_sparsity()).backward()
                optimizer.step()
        runs.append((student, gates, matching))
    (wide_student, wide_gates, wide_matching), (small, small_gates, small_matching) = runs
    expected = surgery.cut(wide_student, chain[-1]).state_dict()
    for name, weight in small.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-8, rtol=1e-8, msg=name)
    for unit, a in wide_gates.log_alpha.items():
        torch.testing.assert_close(small_gates.log_alpha[unit], a)
    kept = wide_matching.transform.weight[:, list(chain[-1].hidden)]
    torch.testing.assert_close(small_matching.transform.weight, kept, atol=1e-8, rtol=1e-8)


def loss(out: Encoded, matching: LayerMatching) -> Tensor:
    states = torch.stack([matching.transform(state).square().mean() for state in out.hidden_states_NH])
    return out.logits_BC.square().mean() + states.sum()


def parameters(
    student: CofiForSequenceClassification, gates: LearnedGates, matching: LayerMatching
) -> dict[str, torch.nn.Parameter]:
    named = {"student": student, "gates": gates, "matching": matching}
    return {n: p for prefix, module in named.items() for n, p in module.named_parameters(prefix=prefix)}


def new_optimizer(
    student: CofiForSequenceClassification, gates: LearnedGates, matching: LayerMatching
) -> torch.optim.Optimizer:
    every = parameters(student, gates, matching).values()
    # With a larger epsilon gradients that are 0 but for rounding make no steps.
    return torch.optim.AdamW([*every], lr=1e-2, weight_decay=0.0, eps=1e-4)


@pytest.mark.parametrize("unit", UNITS)
def test_kinds_without_gates_are_never_gone(make_model: MakeModel, tokens: Tokens, unit: str) -> None:
    gates = LearnedGates([unit], SIZES, 0.5, 0, CPU)  # type: ignore[list-item]
    gates.log_alpha[unit].data.fill_(2.0).view(-1)[::2] = -4.0
    plan = surgery.plan(gates.at_evaluation(), SIZES)
    student, _ = shrinking.shrink(make_model(layers=3), plan, gates)
    assert (len(plan.hidden) < 32) == (unit == "hidden")
    with torch.no_grad():
        assert student.encode(*tokens, gates.sample()).logits_BC.isfinite().all()

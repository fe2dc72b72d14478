"""The cut model computes what the masked one did, and is as small as its plan says."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cofi_tune.components import surgery
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Gates, Packing
from cofi_tune.records import InvalidPoint, PruningPlan

MakeModel = Callable[..., CofiForSequenceClassification]
Tokens = tuple[Tensor, Tensor, Tensor, Packing]
Tolerance = Callable[[CofiForSequenceClassification, Gates, Tokens], float]

SIZES = Sizes(num_layers=3, num_heads=4, head_size=8, hidden_size=32, num_ffn=48)
SHAPES = {"hidden_H": (32,), "head_LA": (3, 4), "mha_L": (3,), "intermediate_LF": (3, 48), "ffn_L": (3,)}
TYPES = (torch.float32, torch.float64)
both_types = pytest.mark.parametrize("dtype", TYPES, ids=str)


@pytest.fixture(scope="module")
def models(make_model: MakeModel) -> dict[torch.dtype, CofiForSequenceClassification]:
    return {dtype: make_model(layers=3).to(dtype) for dtype in TYPES}


def to(gates: Gates, dtype: torch.dtype) -> Gates:
    return Gates(*[None if g is None else g.to(dtype) for g in gates])


def check_equal(
    model: CofiForSequenceClassification, gates: Gates, tokens: Tokens, tolerance: Tolerance
) -> CofiForSequenceClassification:
    """Cut, compare logits and every hidden state, and return the cut model."""
    gates = to(gates, model.dtype)
    plan = surgery.plan(gates, SIZES)
    small = surgery.cut(model, plan, gates)
    with torch.no_grad():
        masked = model.encode(*tokens, gates, with_hidden_states=True)
        cut = small.encode(*tokens, with_hidden_states=True)
    atol = tolerance(model, gates, tokens)
    close = {"atol": atol, "rtol": atol}
    torch.testing.assert_close(cut.logits_BC, masked.logits_BC, **close)
    for theirs, ours in zip(masked.hidden_states_NH, cut.hidden_states_NH, strict=True):
        torch.testing.assert_close(ours, theirs[:, list(plan.hidden)], **close)
    return small


def draw_gates(seed: int, kinds: list[bool], open_share: list[float], soft: bool) -> Gates:
    """Gates of some kinds, each open with its share; at least one hidden unit stays."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, Tensor] = {}
    for name, wanted, share in zip(SHAPES, kinds, open_share, strict=True):
        gate = (torch.rand(SHAPES[name], generator=generator, dtype=torch.float64) < share).double()
        if soft:
            gate *= torch.rand(gate.shape, generator=generator, dtype=torch.float64).clamp(min=1e-3)
        if name == "hidden_H" and not gate.any():
            gate[seed % len(gate)] = 0.5
        if wanted:
            values[name] = gate
    return Gates(**values)


@st.composite
def some_gates(draw: st.DrawFn) -> Gates:
    kinds = draw(st.lists(st.booleans(), min_size=5, max_size=5).filter(any))
    shares = st.sampled_from([0.0, 0.03, 0.1, 0.3, 0.6, 0.9, 1.0])
    open_share = draw(st.lists(shares, min_size=5, max_size=5))
    return draw_gates(draw(st.integers(0, 2**32 - 1)), kinds, open_share, soft=draw(st.booleans()))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(gates=some_gates())
@example(gates=Gates(hidden_H=torch.eye(32, dtype=torch.float64)[[7, 30]].sum(dim=0)))
def test_cut_equals_masked(
    models: dict[torch.dtype, CofiForSequenceClassification],
    tokens: Tokens,
    tolerance: Tolerance,
    gates: Gates,
) -> None:
    for model in models.values():
        check_equal(model, gates, tokens, tolerance)


def layers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


def fine(kind: str, closed_layers: list[int], value: float = 0.7) -> Gates:
    """Every unit of some layers closed, while the gate of their sublayer is open."""
    gate = ones(*SHAPES[kind]) * value
    gate[closed_layers] = 0
    return Gates(**{kind: gate, "mha_L" if kind == "head_LA" else "ffn_L": layers(0.9, 0.8, 1.0)})


def hidden(*kept: int) -> Gates:
    gate = ones(32) * 0
    gate[list(kept)] = layers(*[0.4 + 0.1 * i for i in range(len(kept))])
    return Gates(hidden_H=gate)


def one_head() -> Gates:
    gate = ones(3, 4) * 0
    gate[1, 2] = 0.6
    return Gates(head_LA=gate)


EDGES: dict[str, tuple[Gates, list[int], list[int]]] = {
    "nothing pruned": (Gates(*[ones(*shape) for shape in SHAPES.values()]), [4, 4, 4], [48, 48, 48]),
    "no gate at all": (Gates(), [4, 4, 4], [48, 48, 48]),
    "every gate soft, nothing pruned": (Gates(*[ones(*s) * 0.3 for s in SHAPES.values()]), [4] * 3, [48] * 3),
    "an attention sublayer gone": (Gates(mha_L=layers(0.9, 0, 1)), [4, 0, 4], [48, 48, 48]),
    "an FFN sublayer gone": (Gates(ffn_L=layers(0, 0.5, 1)), [4, 4, 4], [0, 48, 48]),
    "a whole layer gone": (Gates(mha_L=layers(1, 0, 1), ffn_L=layers(1, 0, 1)), [4, 0, 4], [48, 0, 48]),
    "every attention sublayer gone": (Gates(mha_L=layers(0, 0, 0)), [0, 0, 0], [48, 48, 48]),
    "every sublayer gone": (Gates(mha_L=layers(0, 0, 0), ffn_L=layers(0, 0, 0)), [0, 0, 0], [0, 0, 0]),
    "every sublayer gone, hidden pruned": (
        Gates(hidden(1, 5, 8).hidden_H, mha_L=layers(0, 0, 0), ffn_L=layers(0, 0, 0)),
        [0, 0, 0],
        [0, 0, 0],
    ),
    "all heads closed but the gate open": (fine("head_LA", [0]), [0, 4, 4], [48, 48, 48]),
    "all heads of all layers closed but the gates open": (fine("head_LA", [0, 1, 2]), [0] * 3, [48] * 3),
    "all FFN units closed but the gate open": (fine("intermediate_LF", [1]), [4, 4, 4], [48, 0, 48]),
    "all FFN units of all layers closed, gates open": (fine("intermediate_LF", [0, 1, 2]), [4] * 3, [0] * 3),
    "one hidden unit left": (hidden(7), [4, 4, 4], [48, 48, 48]),
    "two hidden units left": (hidden(7, 31), [4, 4, 4], [48, 48, 48]),
    "one head left": (one_head(), [0, 1, 0], [48, 48, 48]),
}


@both_types
@pytest.mark.parametrize("name", EDGES)
def test_edges(
    models: dict[torch.dtype, CofiForSequenceClassification],
    tokens: Tokens,
    tolerance: Tolerance,
    name: str,
    dtype: torch.dtype,
) -> None:
    gates, heads, units = EDGES[name]
    small = check_equal(models[dtype], gates, tokens, tolerance)
    assert small.config.heads_per_layer == heads
    assert small.config.ffn_per_layer == units
    for layer, num_heads, num_units in zip(small.layers, heads, units, strict=True):
        assert (layer.attention is None) == (num_heads == 0)
        assert (layer.ffn is None) == (num_units == 0)


def test_nothing_pruned_is_the_same_model(
    models: dict[torch.dtype, CofiForSequenceClassification], tokens: Tokens
) -> None:
    model = models[torch.float32]
    small = surgery.cut(model, surgery.plan(Gates(), SIZES))
    for name, weight in model.state_dict().items():
        assert torch.equal(small.state_dict()[name], weight), name


def test_cut_changes_nothing_of_the_original(make_model: MakeModel) -> None:
    model = make_model(layers=3, dropout=0.1).double().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    gates = draw_gates(1, [True] * 5, [0.5] * 5, soft=True)
    small = surgery.cut(model, surgery.plan(gates, SIZES), gates)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert model.config.hidden_size == 32
    assert model.config.heads_per_layer == [4, 4, 4]
    assert small.training
    assert small.dtype == torch.float64
    assert all(parameter.requires_grad for parameter in small.parameters())


def linear_parameters(model: CofiForSequenceClassification) -> int:
    maps = [m for m in model.layers.modules() if isinstance(m, torch.nn.Linear)]
    return sum(p.numel() for linear in maps for p in linear.parameters())


def counted_macs(model: CofiForSequenceClassification, length: int) -> int:
    """By torch's own counter, which knows matrix products only: layers, then pooler and classifier."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.ones(1, length, dtype=torch.long))
    head = 32 * len(model.pooler.weight[0]) + model.config.num_labels * 32
    return counter.get_total_flops() // 2 - head


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("length", [1, 13])
def test_plan_counts_what_is_there(make_model: MakeModel, seed: int, length: int) -> None:
    model = make_model(layers=3, attention="eager")
    share = [0.5, 0.5, 0.6, 0.3, 0.6] if seed else [1.0] * 5
    gates = draw_gates(seed, [True] * 5, share, soft=True)
    plan = surgery.plan(gates, SIZES)
    small = surgery.cut(model, plan, to(gates, torch.float32))
    assert plan.num_parameters == linear_parameters(small)
    assert plan.prunable_parameters == linear_parameters(model) == SIZES.prunable_parameters
    assert plan.sparsity == 1 - linear_parameters(small) / linear_parameters(model)
    assert (plan.sparsity == 0) == (seed == 0)
    assert plan.macs(length) == counted_macs(small, length)


@pytest.mark.parametrize("name", EDGES)
def test_plan_counts_the_edges_too(make_model: MakeModel, name: str) -> None:
    model, gates = make_model(layers=3, attention="eager"), to(EDGES[name][0], torch.float32)
    plan = surgery.plan(gates, SIZES)
    small = surgery.cut(model, plan, gates)
    assert plan.num_parameters == linear_parameters(small)
    assert plan.macs(5) == counted_macs(small, 5)


@given(gates=some_gates())
@settings(max_examples=50, deadline=None)
def test_plan_round_trip_and_print(gates: Gates) -> None:
    plan = surgery.plan(gates, SIZES)
    assert PruningPlan.from_json(plan.to_json()) == plan
    first, *lines = str(plan).splitlines()
    assert first == f"hidden {len(plan.hidden)} of 32, sparsity {plan.sparsity:.4f}"
    assert lines == [
        f"layer {n}: heads {len(p.heads)} of 4, ffn {len(p.ffn)} of 48" for n, p in enumerate(plan.layers)
    ]


def test_a_closed_sublayer_keeps_no_units() -> None:
    gates = Gates(
        head_LA=ones(3, 4), mha_L=layers(1, 0, 1), intermediate_LF=ones(3, 48), ffn_L=layers(0, 1, 1)
    )
    plan = surgery.plan(gates, SIZES)
    assert [len(p.heads) for p in plan.layers] == [4, 0, 4]
    assert [len(p.ffn) for p in plan.layers] == [0, 48, 48]


def test_no_hidden_unit_is_an_invalid_point() -> None:
    with pytest.raises(InvalidPoint, match="no hidden unit is left"):
        surgery.plan(Gates(hidden_H=ones(32) * 0), SIZES)


@pytest.mark.parametrize(
    "sizes", [Sizes(2, 4, 8, 32, 48), Sizes(3, 2, 16, 32, 48), Sizes(3, 4, 8, 40, 48), Sizes(3, 4, 8, 32, 47)]
)
def test_a_plan_of_other_sizes_is_refused(make_model: MakeModel, sizes: Sizes) -> None:
    with pytest.raises(ValueError, match="other sizes"):
        surgery.cut(make_model(layers=3), surgery.plan(Gates(), sizes))


def test_a_cut_model_is_not_cut_again_by_the_old_plan(make_model: MakeModel) -> None:
    gates = to(draw_gates(0, [True] * 5, [0.5] * 5, soft=False), torch.float32)
    plan = surgery.plan(gates, SIZES)
    small = surgery.cut(make_model(layers=3), plan, gates)
    with pytest.raises(ValueError, match=r"other sizes|already cut"):
        surgery.cut(small, plan)

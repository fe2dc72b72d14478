"""All gates of an encoder: their stream, their expectation, and what is decided in the end."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cofi_tune.components import hard_concrete, surgery
from cofi_tune.components.gates import UNITS, LearnedGates, Unit, live_layers
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import Gates

SIZES = Sizes(num_layers=4, num_heads=4, head_size=8, hidden_size=64, num_ffn=96)
CPU = torch.device("cpu")
SUBSETS: list[tuple[Unit, ...]] = [s for size in range(1, 6) for s in itertools.combinations(UNITS, size)]


def new_gates(units: Sequence[Unit] = UNITS, seed: int = 0, drop: float = 0.5) -> LearnedGates:
    return LearnedGates(units, SIZES, drop, seed, CPU)


def scatter(gates: LearnedGates, seed: int, centre: float = 0.0, spread: float = 2.0) -> LearnedGates:
    """Gates somewhere in the middle of training."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in gates.log_alpha.values():
        parameter.data.normal_(centre, spread, generator=generator)
    gates.clamp_()
    return gates


def flat(gates: Gates) -> Tensor:
    return torch.cat([g.detach().flatten() for g in gates if g is not None])


def test_shapes_and_start() -> None:
    gates = new_gates(drop=0.2)
    drawn = gates.sample()
    shapes = {name: tuple(g.shape) for name, g in zip(drawn._fields, drawn, strict=True) if g is not None}
    assert shapes == {
        "hidden_H": (64,),
        "head_LA": (4, 4),
        "mha_L": (4,),
        "intermediate_LF": (4, 96),
        "ffn_L": (4,),
    }
    limit = hard_concrete.LOG_ALPHA_LIMIT
    for unit, a in gates.log_alpha.items():
        assert a.abs().max() <= limit
        expected = 1.3863 if unit == "intermediate" else limit
        assert a.mean().item() == pytest.approx(expected, abs=0.02)


def test_gates_of_no_kind_are_none() -> None:
    drawn = new_gates(("ffn", "head")).sample()
    assert [g is None for g in drawn] == [True, False, True, True, False]


def test_stream_belongs_to_the_seed_alone() -> None:
    first, again, other = new_gates(seed=3), new_gates(seed=3), new_gates(seed=4)
    torch.manual_seed(1)
    one = [flat(first.sample()) for _ in range(3)]
    torch.manual_seed(99)
    torch.rand(1000)
    two = [flat(again.sample()) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], flat(other.sample()))


def test_sampling_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    gates = new_gates()
    gates.sample()
    gates.at_evaluation()
    assert torch.equal(torch.rand(4), expected)


def test_samples_agree_with_their_probability() -> None:
    gates = scatter(new_gates(), 1)
    open_ = torch.stack([(flat(gates.sample()) > 0).double() for _ in range(800)]).mean(0)
    torch.testing.assert_close(open_, flat(gates.probability_open()).double(), atol=0.06, rtol=0)
    assert (open_ - flat(gates.probability_open())).mean().abs() < 2e-3


def test_sampled_gates_carry_gradients_to_every_kind() -> None:
    gates = scatter(new_gates(), 2)
    for _ in range(20):  # a draw may clip every gate of a kind
        torch.cat([g.flatten() for g in gates.sample() if g is not None]).sum().backward()
    for unit, a in gates.log_alpha.items():
        assert a.grad is not None, unit
        assert (a.grad > 0).any(), unit


@pytest.mark.parametrize("seed", range(4))
def test_expected_sparsity_is_near_what_samples_realise(seed: int) -> None:
    """Heads and FFN units that are closed one by one; a sublayer's own bias is all that differs."""
    gates = scatter(new_gates(), seed)
    expected = gates.expected_sparsity().item()
    realised = torch.tensor([surgery.plan(gates.sample(), SIZES).sparsity for _ in range(300)])
    assert realised.mean().item() == pytest.approx(expected, abs=0.015)


def test_expected_sparsity_at_the_start_is_small() -> None:
    assert 0 < new_gates().expected_sparsity().item() < 0.2
    assert new_gates(drop=0.01).expected_sparsity().item() < 0.03


def most_sparse(units: Sequence[Unit]) -> float:
    """What the gates can reach at all."""
    gates = new_gates(units)
    for a in gates.log_alpha.values():
        a.data.fill_(-hard_concrete.LOG_ALPHA_LIMIT)
    return gates.expected_sparsity().item()


@pytest.mark.parametrize("units", SUBSETS, ids="-".join)
@pytest.mark.parametrize("share", [0.5, 0.85])
def test_decide_reaches_its_target(units: tuple[Unit, ...], share: float) -> None:
    gates, target = scatter(new_gates(units), 0, centre=2.0), share * most_sparse(units)
    plan, decided = gates.decide(target)
    assert plan.sparsity >= target
    assert plan == surgery.plan(decided, SIZES)
    for unit, ours in zip(UNITS, decided, strict=True):
        if ours is not None:
            soft = hard_concrete.evaluation_value(gates.log_alpha[unit])
            assert torch.equal(ours[ours != 0], soft[ours != 0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("target", [0.3, 0.6, 0.8, 0.95])
def test_decide_goes_not_far_beyond_its_target(seed: int, target: float) -> None:
    gates = scatter(new_gates(("hidden", "head", "intermediate")), seed, centre=3.0)
    plan, _ = gates.decide(target)
    # The largest single step is a head (1/64 of the heads of four layers) or a hidden unit.
    assert target <= plan.sparsity < target + 0.03


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("target", [0.5, 0.7, 0.85, 0.95])
def test_no_sublayer_is_closed_for_a_small_rest(seed: int, target: float) -> None:
    """In two layers a sublayer is a sixth or a third of all, and the last one takes everything with it."""
    sizes = Sizes(num_layers=2, num_heads=2, head_size=64, hidden_size=128, num_ffn=512)
    gates = scatter(LearnedGates(UNITS, sizes, 0.5, seed, CPU), seed, centre=1.0)
    plan, decided = gates.decide(target)
    assert target <= plan.sparsity < target + 0.09, "a head is a twelfth of the encoder"
    assert plan == surgery.plan(decided, sizes)


@pytest.mark.parametrize("target", [0.1, 0.5])
def test_decide_opens_again_what_the_target_does_not_ask_for(target: float) -> None:
    gates = scatter(new_gates(("hidden", "head", "intermediate")), 0, centre=-1.0)
    by_themselves = surgery.plan(gates.at_evaluation(), SIZES)
    plan, _ = gates.decide(target)
    assert by_themselves.sparsity > 0.6
    assert target <= plan.sparsity < target + 0.03
    assert set(by_themselves.hidden) < set(plan.hidden)


def test_decide_leaves_decided_gates_alone() -> None:
    gates = new_gates(("head", "intermediate"))
    generator = torch.Generator().manual_seed(0)
    for a in gates.log_alpha.values():
        closed = torch.rand(a.shape, generator=generator) < 0.5
        a.data.copy_(torch.where(closed, -4.6, 4.6))
    by_themselves = surgery.plan(gates.at_evaluation(), SIZES)
    plan, decided = gates.decide(by_themselves.sparsity)
    assert plan == by_themselves
    assert torch.equal(flat(decided), flat(gates.at_evaluation()))


def test_decide_closes_the_least_open_first() -> None:
    gates = scatter(new_gates(("intermediate",)), 0, centre=3.0)
    _, decided = gates.decide(0.3)
    assert decided.intermediate_LF is not None
    for a, gate in zip(gates.log_alpha["intermediate"], decided.intermediate_LF, strict=True):
        assert a[gate == 0].max() <= a[gate != 0].min()


def test_evaluation_follows_the_rules_of_its_kinds() -> None:
    gates = scatter(new_gates(), 7)
    values, a = gates.at_evaluation(), gates.log_alpha
    assert values.mha_L is not None
    assert values.head_LA is not None
    assert torch.equal(values.mha_L, hard_concrete.deterministic_single(a["mha"].detach()))
    assert torch.equal(values.head_LA, hard_concrete.deterministic(a["head"].detach()))
    assert not values.head_LA.requires_grad


def test_live_layers_need_one_open_sublayer() -> None:
    heads = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5], [0.0, 0.0]])
    mha = torch.tensor([1.0, 1.0, 0.0, 0.0])
    units = torch.tensor([[0.0], [0.3], [0.0], [1.0]])
    ffn = torch.tensor([1.0, 0.2, 1.0, 0.0])
    every = live_layers(Gates(head_LA=heads, mha_L=mha, intermediate_LF=units, ffn_L=ffn), 4, CPU)
    assert every.tolist() == [True, True, False, False]
    assert live_layers(Gates(), 4, CPU).tolist() == [True] * 4
    # FFN sublayers that nothing gates keep their layers alive.
    assert live_layers(Gates(head_LA=heads, mha_L=mha), 4, CPU).tolist() == [True] * 4
    assert live_layers(Gates(mha_L=mha, ffn_L=ffn), 4, CPU).tolist() == [True, True, True, False]

"""When a closed unit goes: not before it has had the time to come back, and never more than is asked for."""

import pytest
import torch

from cofi_tune.components.gates import UNITS, LearnedGates
from cofi_tune.components.hard_concrete import LOG_ALPHA_LIMIT
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.components.settling import Settling

SIZES = Sizes(num_layers=3, num_heads=4, head_size=8, hidden_size=32, num_ffn=48)
LASTING = 10


@pytest.fixture
def gates() -> LearnedGates:
    """All wide open."""
    made = LearnedGates(UNITS, SIZES, 0.5, 0, torch.device("cpu"))
    for a in made.log_alpha.values():
        a.data.fill_(LOG_ALPHA_LIMIT)
    return made


def close(gates: LearnedGates, unit: str, layer: int, *units: int, to: float = -LOG_ALPHA_LIMIT) -> None:
    gates.log_alpha[unit].data[layer, list(units)] = to


def test_a_unit_goes_once_it_was_closed_for_long_enough(gates: LearnedGates) -> None:
    settling = Settling(gates)
    assert settling.look(gates, 0, LASTING, 0.9) is None
    close(gates, "intermediate", 1, *range(30))
    assert settling.look(gates, 5, LASTING, 0.9) is None
    assert settling.look(gates, 14, LASTING, 0.9) is None
    plan = settling.look(gates, 15, LASTING, 0.9)
    assert plan is not None
    # Evaluation opens as many as are expected to be open by chance.
    assert len(plan.layers[1].ffn) in (18, 19, 20)
    assert set(range(30, 48)) <= set(plan.layers[1].ffn)
    assert [len(p.ffn) for p in (plan.layers[0], plan.layers[2])] == [48, 48]
    gates.keep(plan)
    assert settling.look(gates, 16, LASTING, 0.9) is None


def test_a_unit_that_came_back_starts_anew(gates: LearnedGates) -> None:
    settling = Settling(gates)
    close(gates, "head", 0, 0, 1)
    settling.look(gates, 0, LASTING, 0.9)
    close(gates, "head", 0, 0, 1, to=LOG_ALPHA_LIMIT)
    settling.look(gates, 5, LASTING, 0.9)
    close(gates, "head", 0, 0, 1)
    settling.look(gates, 6, LASTING, 0.9)
    assert settling.look(gates, 15, LASTING, 0.9) is None
    plan = settling.look(gates, 16, LASTING, 0.9)
    assert plan is not None
    assert plan.layers[0].heads == (2, 3)


def test_a_sublayer_goes_with_its_own_gate(gates: LearnedGates) -> None:
    settling = Settling(gates)
    gates.log_alpha["mha"].data[2] = -LOG_ALPHA_LIMIT
    settling.look(gates, 0, LASTING, 0.9)
    plan = settling.look(gates, LASTING, LASTING, 0.9)
    assert plan is not None
    assert [len(p.heads) for p in plan.layers] == [4, 4, 0]


def test_never_more_than_the_target_and_the_oldest_first(gates: LearnedGates) -> None:
    settling = Settling(gates)
    gates.log_alpha["ffn"].data[0] = -LOG_ALPHA_LIMIT
    settling.look(gates, 0, LASTING, 0.3)
    gates.log_alpha["mha"].data[1] = -LOG_ALPHA_LIMIT
    settling.look(gates, 5, LASTING, 0.3)
    plan = settling.look(gates, 30, LASTING, 0.32)
    assert plan is not None
    assert [len(p.ffn) for p in plan.layers] == [0, 48, 48]
    assert [len(p.heads) for p in plan.layers] == [4, 4, 4]
    assert plan.sparsity <= 0.32


def test_nothing_goes_while_gates_are_beyond_the_target(gates: LearnedGates) -> None:
    settling = Settling(gates)
    gates.log_alpha["ffn"].data[0] = -LOG_ALPHA_LIMIT
    for step in range(0, 50, 10):
        assert settling.look(gates, step, LASTING, 0.1) is None
    assert settling.look(gates, 50, LASTING, 0.3) is not None


def test_what_is_too_little_waits(gates: LearnedGates) -> None:
    settling = Settling(gates)
    close(gates, "intermediate", 1, 0, 1, 2, 3)
    for step in range(0, 50, 10):
        assert settling.look(gates, step, LASTING, 0.9) is None
    close(gates, "intermediate", 0, *range(20))
    settling.look(gates, 50, LASTING, 0.9)
    plan = settling.look(gates, 60, LASTING, 0.9)
    assert plan is not None
    assert len(plan.layers[1].ffn) < 48
    assert len(plan.layers[0].ffn) < 40

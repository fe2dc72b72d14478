"""Gates against their closed forms, against their own draws, and against a recorded table."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from cofi_tune.components import hard_concrete as hc

TABLE = {  # log alpha: P(z > 0), P(z = 1), E[z], soft value at evaluation
    -4.61: (0.047, 0.002, 0.013, 0.004),
    -2.0: (0.401, 0.026, 0.143, 0.083),
    -1.6: (0.50, None, None, 0.128),
    -1.0: (0.645, 0.069, 0.292, 0.231),
    0.0: (0.832, 0.168, 0.500, 0.500),
    1.0: (0.931, 0.356, 0.707, 0.769),
    2.0: (0.973, 0.599, 0.857, 0.917),
    4.61: (0.998, 0.953, 0.987, 0.996),
}
every_log_alpha = pytest.mark.parametrize("log_alpha", TABLE)


def draw(log_alpha: float, count: int = 200_000) -> Tensor:
    parameters = torch.full((count,), log_alpha, dtype=torch.float64)
    return hc.sample(parameters, hc.uniform_like(parameters, torch.Generator().manual_seed(0)))


def density(gate: float, log_alpha: float) -> float:
    """Of the stretched concrete variable (Louizos et al., 2018, equation 24) inside (0, 1)."""
    s = (gate - hc.LOW) / (hc.HIGH - hc.LOW)
    logit = hc.TEMPERATURE * math.log(s / (1 - s)) - log_alpha
    sigmoid = 1 / (1 + math.exp(-logit))
    return hc.TEMPERATURE * sigmoid * (1 - sigmoid) / (s * (1 - s)) / (hc.HIGH - hc.LOW)


@every_log_alpha
def test_draws_agree_with_the_table(log_alpha: float) -> None:
    gates = draw(log_alpha)
    some, all_of_it, mean, _ = TABLE[log_alpha]
    assert 0 <= gates.min() <= gates.max() <= 1
    assert (gates > 0).double().mean().item() == pytest.approx(some, abs=4e-3)
    if all_of_it is not None:
        assert (gates == 1).double().mean().item() == pytest.approx(all_of_it, abs=4e-3)
        assert gates.mean().item() == pytest.approx(mean, abs=4e-3)


@every_log_alpha
def test_probability_open_is_the_integral_of_the_density(log_alpha: float) -> None:
    inside = integrate.quad(density, 0, 1, args=(log_alpha,))[0]
    # P(z = 1) has the closed form of P(z > 0), mirrored: P(z_a = 1) = P(z_-a = 0).
    at_one = 1 - hc.probability_open(torch.tensor(-log_alpha, dtype=torch.float64)).item()
    ours = hc.probability_open(torch.tensor(log_alpha, dtype=torch.float64)).item()
    assert ours == pytest.approx(inside + at_one, abs=1e-9)
    assert ours == pytest.approx(TABLE[log_alpha][0], abs=1.1e-3)


@every_log_alpha
def test_soft_value_at_evaluation(log_alpha: float) -> None:
    value = hc.evaluation_value(torch.tensor(log_alpha)).item()
    assert value == pytest.approx(TABLE[log_alpha][3], abs=6e-4)


def test_probability_open_stays_off_the_ends() -> None:
    probability = hc.probability_open(torch.tensor([-100.0, 100.0], dtype=torch.float64))
    assert probability.tolist() == pytest.approx([1e-6, 1 - 1e-6], abs=1e-12)


@pytest.mark.parametrize("temperature", [0.3, 2 / 3, 1.5])
def test_probability_open_at_other_temperatures(temperature: float) -> None:
    parameters = torch.full((200_000,), -0.5, dtype=torch.float64)
    uniform = hc.uniform_like(parameters, torch.Generator().manual_seed(1))
    drawn = (hc.sample(parameters, uniform, temperature) > 0).double().mean().item()
    assert hc.probability_open(parameters[0], temperature).item() == pytest.approx(drawn, abs=4e-3)


def test_a_draw_by_hand() -> None:
    u, a = 0.7, 0.4
    stretched = 1.2 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + a) * 1.5)) - 0.1
    assert hc.sample(torch.tensor([a]), torch.tensor([u])).item() == pytest.approx(stretched, abs=1e-6)


def test_a_draw_has_a_gradient_inside_and_none_at_the_ends() -> None:
    log_alpha = torch.zeros(3, requires_grad=True)
    gates = hc.sample(log_alpha, torch.tensor([0.001, 0.5, 0.999]))
    gates.sum().backward()
    assert gates.tolist() == [0.0, 0.5, 1.0]
    assert log_alpha.grad is not None
    assert log_alpha.grad[0] == log_alpha.grad[2] == 0
    assert log_alpha.grad[1].item() == pytest.approx(1.2 * 0.25 * 1.5)


def test_uniform_draws_stay_off_the_ends() -> None:
    draws = hc.uniform_like(torch.zeros(100_000), torch.Generator().manual_seed(0))
    assert draws.min() >= hc.EPSILON / 2
    assert draws.max() < 1
    assert draws.mean().item() == pytest.approx(0.5, abs=5e-3)


def naive_deterministic(log_alpha: list[float]) -> list[float]:
    """The rule written out, one unit after the other."""
    open_ = [min(max(1 / (1 + math.exp(-a - 2 / 3 * math.log(11))), 1e-6), 1 - 1e-6) for a in log_alpha]
    values = [1 / (1 + math.exp(-0.8 * a * 1.5)) for a in log_alpha]
    for index in sorted(range(len(values)), key=values.__getitem__)[: round(len(values) - sum(open_))]:
        values[index] = 0.0
    return values


@pytest.mark.parametrize("seed", range(5))
def test_deterministic_rule_for_groups(seed: int) -> None:
    log_alpha = torch.randn(6, 37, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    ours = hc.deterministic(log_alpha)
    expected = [naive_deterministic(row) for row in log_alpha.tolist()]
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)
    assert (ours == 0).any()
    assert (ours > 0).any()


def test_deterministic_rule_closes_by_count_not_by_threshold() -> None:
    # All alike and each open with 0.832: 17 of 100 go although none is below any threshold.
    gates = hc.deterministic(torch.zeros(100))
    assert (gates == 0).sum() == 17
    assert gates[gates > 0].tolist() == pytest.approx([0.5] * 83)


@pytest.mark.parametrize(("size", "closed"), [(12, 0), (768, 2), (3072, 6)])
def test_fully_open_groups_lose_what_rounding_takes(size: int, closed: int) -> None:
    gates = hc.deterministic(torch.full((size,), hc.LOG_ALPHA_LIMIT))
    assert (gates == 0).sum() == closed


def test_single_units_close_below_one_half() -> None:
    gates = hc.deterministic_single(torch.tensor([-4.6, -1.61, -1.59, 0.0, 4.6]))
    assert (gates == 0).tolist() == [True, True, False, False, False]
    assert gates[2].item() == pytest.approx(0.129, abs=1e-3)
    assert gates[4].item() == pytest.approx(0.996, abs=1e-3)


def test_clamp_works_in_place_and_in_silence() -> None:
    parameter = torch.nn.Parameter(torch.tensor([-9.0, -4.0, 0.0, 9.0]))
    hc.clamp_(parameter)
    limit = math.log(100)
    assert parameter.tolist() == pytest.approx([-limit, -4.0, 0.0, limit])
    assert parameter.requires_grad
    assert parameter.grad_fn is None

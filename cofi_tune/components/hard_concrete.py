"""Hard-concrete gates (Louizos et al., 2018): sample, probability of being open, value at evaluation.

`log_alpha` is the free parameter of a gate, any shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOW, HIGH = -0.1, 1.1
"""The stretched interval (gamma, zeta)."""
EPSILON = 1e-6
TEMPERATURE = 2 / 3
LOG_ALPHA_LIMIT = math.log(100.0)
"""Gates are clamped to +-this after every step."""
EVALUATION_SLOPE = 0.8
"""The "magical number" of Wang et al. (2020) that the reference inherits."""


def sample(log_alpha: Tensor, uniform: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """One draw in [0, 1] for each gate, differentiable in `log_alpha`.

    Args:
        log_alpha: parameters.
        uniform: draws in (EPSILON, 1 - EPSILON), same shape.
        temperature: beta; lower is closer to 0/1.
    """
    noise = torch.log(uniform) - torch.log1p(-uniform)
    stretched = torch.sigmoid((noise + log_alpha) / temperature) * (HIGH - LOW) + LOW
    return stretched.clamp(0, 1)


def uniform_like(log_alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Draws for `sample`, from the stream that owns the masks."""
    draw = torch.rand(log_alpha.shape, generator=generator, device=log_alpha.device, dtype=log_alpha.dtype)
    return draw * (1 - 2 * EPSILON) + EPSILON


def probability_open(log_alpha: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """P(gate > 0), within [1e-6, 1 - 1e-6]."""
    shift = temperature * math.log(-LOW / HIGH)
    return torch.sigmoid(log_alpha - shift).clamp(EPSILON, 1 - EPSILON)


def evaluation_value(log_alpha: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The value in (0, 1) of a gate that stays open at evaluation."""
    return torch.sigmoid(EVALUATION_SLOPE * log_alpha / temperature)


def deterministic(
    log_alpha: Tensor, temperature: float = TEMPERATURE, present: Tensor | None = None
) -> Tensor:
    """Gates at evaluation for groups of units, [..., n]: as many are closed as are expected to be.

    Of each group of n the round(n - sum of P(open)) gates with the smallest value are 0, the others keep
    their soft value.

    Args:
        log_alpha: parameters.
        temperature: beta.
        present: booleans; the others are closed first and in any case, whatever they are worth.
    """
    value = evaluation_value(log_alpha, temperature)
    if present is not None:
        value = value * present
    size = log_alpha.shape[-1]
    num_closed = torch.round(size - probability_open(log_alpha, temperature).sum(-1, keepdim=True))
    rank = value.argsort(dim=-1, stable=True).argsort(dim=-1)
    return torch.where(rank < num_closed, 0.0, value)


def deterministic_single(
    log_alpha: Tensor, temperature: float = TEMPERATURE, present: Tensor | None = None
) -> Tensor:
    """Gates at evaluation for units on their own (a whole sublayer): closed below P(open) = 1/2.

    Those not `present` are closed.
    """
    value = evaluation_value(log_alpha, temperature)
    if present is not None:
        value = value * present
    return torch.where(probability_open(log_alpha, temperature) < 0.5, 0.0, value)


def clamp_(log_alpha: Tensor) -> None:
    """Keep parameters where their gradient lives, in place (after every optimizer step)."""
    with torch.no_grad():
        log_alpha.clamp_(-LOG_ALPHA_LIMIT, LOG_ALPHA_LIMIT)

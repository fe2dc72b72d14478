"""A sparsity constraint as a two-player game (Xia et al., 2022, section 3.2).

Axes: L layers, A heads, H hidden units, F FFN units. Every argument may be None: that kind is not pruned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cofi_tune.modeling_cofi import CofiConfig, Gates
from cofi_tune.records import encoder_parameters


@dataclass(frozen=True)
class Sizes:
    """What is being pruned."""

    num_layers: int
    num_heads: int
    head_size: int
    hidden_size: int
    num_ffn: int

    @classmethod
    def of(cls, config: CofiConfig) -> Sizes:
        """The sizes of a dense encoder (all layers alike)."""
        heads, units = set(config.heads_per_layer or []), set(config.ffn_per_layer or [])
        if len(heads) != 1 or len(units) != 1:
            raise ValueError("the model is already cut: its layers differ in size; give a dense model")
        return cls(config.num_hidden_layers, heads.pop(), config.head_size, config.hidden_size, units.pop())

    @property
    def prunable_parameters(self) -> int:
        """M: weights and biases of the layers' linear maps."""
        layers = [(self.num_heads, self.num_ffn)] * self.num_layers
        return encoder_parameters(self.hidden_size, self.head_size, layers)


def expected_parameters(probability: Gates, sizes: Sizes, count: str = "exact") -> Tensor:
    """Expected number of parameters left, units taken as independent; factored, O(number of units).

    Args:
        probability: P(open) of every pruned unit; at least one kind.
        sizes: the dense sizes.
        count: "exact" counts weights and biases as the cut model has them, so that all gates open give M.
            "reference" is the reference implementation's count, which leaves out FFN biases, rounds
            parameters per FFN unit down and takes F = 4H in M; kept so that its numbers
            stay comparable.

    Returns:
        A scalar. A sublayer whose own gate is open is counted as existing.
    """
    given = next(p for p in probability if p is not None)
    one_L = given.new_ones(sizes.num_layers)
    mha_L = one_L if probability.mha_L is None else probability.mha_L
    ffn_L = one_L if probability.ffn_L is None else probability.ffn_L
    heads_L = one_L * sizes.num_heads if probability.head_LA is None else probability.head_LA.sum(-1)
    units_L = (
        one_L * sizes.num_ffn if probability.intermediate_LF is None else probability.intermediate_LF.sum(-1)
    )
    full = sizes.hidden_size
    hidden = given.new_tensor(float(full)) if probability.hidden_H is None else probability.hidden_H.sum()
    heads, units = (mha_L * heads_L).sum(), (ffn_L * units_L).sum()
    if count == "reference":
        per_head = 4 * full * sizes.head_size + 4 * sizes.head_size
        if probability.hidden_H is None:
            per_unit = (2 * full * sizes.num_ffn + full + 4 * full) // sizes.num_ffn
            return per_head * heads + per_unit * units
        return hidden * heads * (per_head / full) + 2 * hidden * units
    if count != "exact":
        raise ValueError(f"unknown count {count!r}: exact or reference")
    attention = heads * (4 * hidden * sizes.head_size + 3 * sizes.head_size) + mha_L.sum() * hidden
    return attention + units * (2 * hidden + 1) + ffn_L.sum() * hidden


def expected_sparsity(probability: Gates, sizes: Sizes, count: str = "exact") -> Tensor:
    """1 - expected parameters / M."""
    prunable = sizes.prunable_parameters
    if count == "reference":
        prunable += sizes.num_layers * (4 * sizes.hidden_size - sizes.num_ffn)
    return 1 - expected_parameters(probability, sizes, count) / prunable


def penalty(sparsity: Tensor, target_sparsity: float, lambda_1: Tensor, lambda_2: Tensor) -> Tensor:
    """lambda_1 (s - t) + lambda_2 (s - t)^2: minimised over gates, maximised over the multipliers."""
    gap = sparsity - target_sparsity
    return lambda_1 * gap + lambda_2 * gap.square()


def scheduled_sparsity(
    step: int, warmup_steps: int, target_sparsity: float, schedule: str, start: float = 0.0
) -> float:
    """The target at `step` of pruning, rising from `start` to `target_sparsity` over `warmup_steps`.

    "linear" is the reference's; "cubic" (Zhu and Gupta, 2017, arXiv:1710.01878) rises early, leaving time to
    recover; "cosine" starts and ends gently.
    """
    done = min(1.0, step / warmup_steps) if warmup_steps > 0 else 1.0
    rise = target_sparsity - start
    match schedule:
        case "linear":
            return start + rise * done
        case "cubic":
            return start + rise * (1 - (1 - done) ** 3)
        case "cosine":
            return start + rise * (1 - math.cos(math.pi * done)) / 2
    raise ValueError(f"unknown sparsity schedule {schedule!r}: linear, cubic or cosine")


def new_multipliers(device: torch.device) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """lambda_1 and lambda_2, unconstrained, both 0 at the start."""
    zero = torch.zeros((), device=device)
    return torch.nn.Parameter(zero.clone()), torch.nn.Parameter(zero.clone())

"""The learned gates of an encoder, all kinds together: what CoFi and its relatives train beside the weights.

Axes: L layers, A heads, H hidden units, F FFN units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from cofi_tune.components import hard_concrete, lagrangian, surgery
from cofi_tune.modeling_cofi import Gates
from cofi_tune.records import PruningPlan

Unit = Literal["hidden", "head", "mha", "intermediate", "ffn"]
UNITS: tuple[Unit, ...] = ("hidden", "head", "mha", "intermediate", "ffn")
"""Residual dimensions, heads, attention sublayers, FFN units, FFN sublayers: in the order of `Gates`."""
SINGLE = ("mha", "ffn")
"""Units that stand alone in their layer: decided one by one, not as a group."""


class LearnedGates(nn.Module):
    """Hard-concrete gates on any kinds of unit, with a random stream of their own."""

    def __init__(
        self,
        units: Sequence[Unit],
        sizes: lagrangian.Sizes,
        initial_drop_rate: float,
        seed: int,
        device: torch.device,
    ) -> None:
        """Start open, FFN units half-way.

        Args:
            units: the kinds to gate.
            sizes: of the dense encoder.
            initial_drop_rate: of FFN units, in (0, 1); the reference starts every other kind open.
            seed: of the draws and of the initial jitter.
            device: where the gates live.
        """
        super().__init__()
        self.sizes = sizes
        keep = 1 - initial_drop_rate
        host = torch.Generator().manual_seed(seed)
        self.log_alpha = nn.ParameterDict()
        for unit in units:
            mean = math.log(keep / (1 - keep)) if unit == "intermediate" else hard_concrete.LOG_ALPHA_LIMIT
            start = torch.empty(_shape(unit, sizes)).normal_(mean, 0.01, generator=host)
            hard_concrete.clamp_(start)
            self.log_alpha[unit] = nn.Parameter(start.to(device))
        self.stream = torch.Generator(device=device).manual_seed(seed)
        self._noise: dict[str, Tensor] = {}

    def sample(self, again: bool = False) -> Gates:
        """One draw of every gate; `again`: with the noise of the last one."""
        if not again:
            self._noise = {
                unit: hard_concrete.uniform_like(a, self.stream) for unit, a in self.log_alpha.items()
            }
        drawn = {unit: hard_concrete.sample(a, self._noise[unit]) for unit, a in self.log_alpha.items()}
        return Gates(*[drawn.get(unit) for unit in UNITS])

    def probability_open(self) -> Gates:
        """P(open) of every gate."""
        return self._map(hard_concrete.probability_open)

    def expected_sparsity(self) -> Tensor:
        """A scalar, differentiable in the gates."""
        return lagrangian.expected_sparsity(self.probability_open(), self.sizes)

    def at_evaluation(self, shift: float = 0.0) -> Gates:
        """Deterministic gates, with `shift` taken off every log alpha."""
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            for unit, a in self.log_alpha.items():
                single = unit in SINGLE
                rule = hard_concrete.deterministic_single if single else hard_concrete.deterministic
                values[unit] = rule(a - shift)
        return Gates(*[values.get(unit) for unit in UNITS])

    def decide(self, target_sparsity: float) -> tuple[PruningPlan, Gates]:
        """What stays, and the values of the gates that do: sparsity is the target, as near as units allow.

        Departure from the paper, where it is whatever the gates give by themselves, short of the expected
        one or far beyond while gates are undecided: one shift of all log alphas closes, or opens again, just
        as many gates as leave at least `target_sparsity` removed.
        """
        kept = self.at_evaluation(self._shift_for(target_sparsity))
        with torch.no_grad():
            values = self._map(hard_concrete.evaluation_value)
        gates = Gates(*[_where_open(k, v) for k, v in zip(kept, values, strict=True)])
        return surgery.plan(gates, self.sizes), gates

    def clamp_(self) -> None:
        """Keep every log alpha where its gradient lives."""
        for parameter in self.log_alpha.values():
            hard_concrete.clamp_(parameter)

    def _shift_for(self, target_sparsity: float) -> float:
        """The smallest shift with at least the target's sparsity; sparsity never falls as it grows."""
        low, high = -2 * hard_concrete.LOG_ALPHA_LIMIT, 2 * hard_concrete.LOG_ALPHA_LIMIT
        for _ in range(24):
            middle = (low + high) / 2
            reached = self._sparsity_at(middle) >= target_sparsity
            low, high = (low, middle) if reached else (middle, high)
        return high

    def _sparsity_at(self, shift: float) -> float:
        gates = self.at_evaluation(shift)
        if gates.hidden_H is not None and not gates.hidden_H.any():
            return 1.0
        return surgery.plan(gates, self.sizes).sparsity

    def _map(self, function: _GateFunction) -> Gates:
        a = self.log_alpha
        return Gates(*[function(a[unit]) if unit in a else None for unit in UNITS])


class _GateFunction(Protocol):
    def __call__(self, log_alpha: Tensor, /) -> Tensor: ...


def live_layers(gates: Gates, num_layers: int, device: torch.device) -> Tensor:
    """Layers with at least one sublayer open: [L] booleans, without reading back."""
    one_L = torch.ones(num_layers, dtype=torch.bool, device=device)

    def alive(fine: Tensor | None, coarse_L: Tensor | None) -> Tensor:
        some_L = one_L if fine is None else (fine != 0).any(-1)
        return some_L if coarse_L is None else some_L & (coarse_L != 0)

    return alive(gates.head_LA, gates.mha_L) | alive(gates.intermediate_LF, gates.ffn_L)


def _where_open(kept: Tensor | None, value: Tensor | None) -> Tensor | None:
    return None if kept is None or value is None else torch.where(kept != 0, value, 0.0)


def _shape(unit: Unit, sizes: lagrangian.Sizes) -> tuple[int, ...]:
    shapes: dict[Unit, tuple[int, ...]] = {
        "hidden": (sizes.hidden_size,),
        "head": (sizes.num_layers, sizes.num_heads),
        "mha": (sizes.num_layers,),
        "intermediate": (sizes.num_layers, sizes.num_ffn),
        "ffn": (sizes.num_layers,),
    }
    return shapes[unit]

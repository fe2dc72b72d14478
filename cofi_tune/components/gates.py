"""The learned gates of an encoder, all kinds together: what CoFi and its relatives train beside the weights.

Axes: L layers, A heads, H hidden units, F FFN units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from cofi_tune.components import hard_concrete, lagrangian, surgery
from cofi_tune.components.present import Present
from cofi_tune.modeling_cofi import Gates
from cofi_tune.records import PruningPlan

Unit = Literal["hidden", "head", "mha", "intermediate", "ffn"]
UNITS: tuple[Unit, ...] = ("hidden", "head", "mha", "intermediate", "ffn")
"""Residual dimensions, heads, attention sublayers, FFN units, FFN sublayers: in the order of `Gates`."""
SINGLE = ("mha", "ffn")
"""Units that stand alone in their layer: decided one by one, not as a group."""
JUMP = 0.02
"""Sparsity beyond a target that one gate may take along, if another choice comes nearer."""


class LearnedGates(nn.Module):
    """Hard-concrete gates on any kinds of unit, with a random stream of their own.

    Of units that are gone from the student the gates stay as they were: no gradient reaches them and no draw
    opens them, but they go on counting in the expected sparsity, which therefore does not jump, and noise is
    drawn for them, so that the draws of the others do not depend on what is gone.
    """

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
        self.present = Present(surgery.plan(Gates(), sizes), device)
        self.stream = torch.Generator(device=device).manual_seed(seed)
        self._noise: dict[str, Tensor] = {}

    def sample(self, again: bool = False) -> Gates:
        """One draw of every gate of the student; `again`: with the noise of the last one."""
        if not again:
            self._noise = {
                unit: hard_concrete.uniform_like(a, self.stream) for unit, a in self.log_alpha.items()
            }
        drawn = {unit: hard_concrete.sample(a, self._noise[unit]) for unit, a in self.log_alpha.items()}
        return self.present.narrow(Gates(*[drawn.get(unit) for unit in UNITS]))

    def keep(self, plan: PruningPlan) -> None:
        """Follow a student that has only these units left."""
        self.present = Present(plan, self.present.hidden_H.device)

    def probability_open(self) -> Gates:
        """P(open) of every gate of the dense encoder."""

        def probability(log_alpha: Tensor, present: Tensor) -> Tensor:
            free = torch.where(present, log_alpha, log_alpha.detach())
            return hard_concrete.probability_open(free)

        return self._map(probability)

    def expected_sparsity(self) -> Tensor:
        """A scalar, differentiable in the gates."""
        return lagrangian.expected_sparsity(self.probability_open(), self.sizes)

    @torch.no_grad()
    def reached_sparsity(self) -> float:
        """The expected one, or that of what is gone for good where it is more: nothing brings that back."""
        return max(float(self.expected_sparsity()), self.present.plan.sparsity)

    def at_evaluation(self, shift: float = 0.0, of_sublayers: float | None = None) -> Gates:
        """Deterministic gates of the dense encoder, with `shift` taken off every log alpha.

        Args:
            shift: positive closes gates.
            of_sublayers: the same for gates of whole sublayers; None: as the others.
        """
        for_single = shift if of_sublayers is None else of_sublayers

        def group(log_alpha: Tensor, present: Tensor) -> Tensor:
            return hard_concrete.deterministic(log_alpha - shift, present=present)

        def single(log_alpha: Tensor, present: Tensor) -> Tensor:
            return hard_concrete.deterministic_single(log_alpha - for_single, present=present)

        with torch.no_grad():
            return self._map(group, single)

    def decide(self, target_sparsity: float) -> tuple[PruningPlan, Gates]:
        """What stays, and the values of the gates that do: sparsity is the target, as near as units allow.

        Departure from the paper, where it is whatever the gates give by themselves, short of the expected
        one or far beyond while gates are undecided: one shift of all log alphas closes, or opens again, just
        as many gates as leave at least `target_sparsity` removed. What is gone already stays closed. Where
        the last one is that of a whole sublayer and takes far more, sublayers stay as they were before it,
        and the others go on closing: a small encoder may have nothing left otherwise.
        """
        below, shift = self._shift_for(target_sparsity)
        kept, sparsity = self.at_evaluation(shift), self._sparsity_at(shift)
        if sparsity > target_sparsity + JUMP:
            _, finer = self._shift_for(target_sparsity, below)
            if target_sparsity <= self._sparsity_at(finer, below) < sparsity:
                kept = self.at_evaluation(finer, below)
        with torch.no_grad():
            values = self._map(lambda log_alpha, present: hard_concrete.evaluation_value(log_alpha))
        gates = Gates(*[_where_open(k, v) for k, v in zip(kept, values, strict=True)])
        return surgery.plan(gates, self.sizes), gates

    def clamp_(self) -> None:
        """Keep every log alpha where its gradient lives."""
        for parameter in self.log_alpha.values():
            hard_concrete.clamp_(parameter)

    def _shift_for(self, target_sparsity: float, of_sublayers: float | None = None) -> tuple[float, float]:
        """A shift just too small for the target's sparsity, and the smallest that is not: none lowers it."""
        low, high = -2 * hard_concrete.LOG_ALPHA_LIMIT, 2 * hard_concrete.LOG_ALPHA_LIMIT
        for _ in range(24):
            middle = (low + high) / 2
            reached = self._sparsity_at(middle, of_sublayers) >= target_sparsity
            low, high = (low, middle) if reached else (middle, high)
        return low, high

    def _sparsity_at(self, shift: float, of_sublayers: float | None = None) -> float:
        gates = self.at_evaluation(shift, of_sublayers)
        if gates.hidden_H is not None and not gates.hidden_H.any():
            return 1.0
        return surgery.plan(gates, self.sizes).sparsity

    def named_masks(self) -> Iterator[tuple[Unit, Tensor]]:
        """Which units of the dense encoder are there, for every kind that has gates."""
        for unit, present in zip(UNITS, self.present.masks, strict=True):
            if unit in self.log_alpha:
                assert present is not None
                yield unit, present

    def _map(self, group: _GateFunction, single: _GateFunction | None = None) -> Gates:
        """A function of log alpha and of what is present, for every kind of gate; `single` for sublayers'."""
        values: dict[str, Tensor] = {}
        for unit, present in self.named_masks():
            function = single if single and unit in SINGLE else group
            values[unit] = function(self.log_alpha[unit], present)
        return Gates(*[values.get(unit) for unit in UNITS])


class _GateFunction(Protocol):
    def __call__(self, log_alpha: Tensor, present: Tensor, /) -> Tensor: ...


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

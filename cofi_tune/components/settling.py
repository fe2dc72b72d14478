"""When a closed unit is gone for good: the rule by which a student may become smaller while it trains."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cofi_tune.components import surgery
from cofi_tune.components.gates import UNITS, LearnedGates
from cofi_tune.components.sparsity_watch import BEYOND_TOLERANCE
from cofi_tune.modeling_cofi import Gates
from cofi_tune.records import PruningPlan

NEVER = 2**62
WORTH_A_CUT = 0.03
"""Share of the student's parameters, as it is, that a cut removes at least."""


class Settling(nn.Module):
    """Remembers since when each gate is closed, as far as anybody looked.

    A gate is closed while it is so at evaluation and in more than half of the draws. One that has been for as
    long as a wide open one takes to close has had the time to come back, and did not. What is beyond the
    target is left for it to come back to: nothing goes while the expected sparsity is well above, when gates
    are about to open again; and of settled units the oldest go first, never more than the target asks for.
    """

    def __init__(self, gates: LearnedGates) -> None:
        super().__init__()
        for unit, log_alpha in gates.log_alpha.items():
            self.register_buffer(unit, torch.full_like(log_alpha, NEVER, dtype=torch.int64))

    @torch.no_grad()
    def look(
        self, gates: LearnedGates, step: int, lasting: float, target_sparsity: float
    ) -> PruningPlan | None:
        """What is to stay of the student, in units of the dense encoder; None: it is not worth a cut.

        Args:
            gates: as they are at `step`.
            step: of the phase; each look at a later one.
            lasting: steps over which a gate has to be found closed before its unit goes.
            target_sparsity: of the end of pruning.

        Reads from the device.
        """
        since = self._since(gates, step)
        if gates.expected_sparsity() > target_sparsity + BEYOND_TOLERANCE:
            return None
        ages = torch.cat([seen.flatten() for seen in since.values()]).unique()
        for latest in ages[ages <= step - lasting].flip(0).tolist():
            stays = {unit: (seen > latest).float() for unit, seen in since.items()}
            found = surgery.plan(Gates(*[stays.get(unit) for unit in UNITS]), gates.sizes)
            if found.sparsity <= target_sparsity:
                most = (1 - WORTH_A_CUT) * gates.present.plan.num_parameters
                return found if found.num_parameters <= most else None
        return None

    def _since(self, gates: LearnedGates, step: int) -> dict[str, Tensor]:
        """The look at which each gate was first found closed, of those in a row up to this; on the host."""
        since: dict[str, Tensor] = {}
        likely = gates.probability_open()
        for unit, value, probability in zip(UNITS, gates.at_evaluation(), likely, strict=True):
            if value is not None and probability is not None:
                before = getattr(self, unit)
                closed = (value == 0) & (probability < 0.5)
                before.copy_(torch.where(closed, before.clamp(max=step), NEVER))
                since[unit] = before.cpu()
        return since

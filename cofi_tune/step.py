"""One forward pass of student and method on a packed batch: what is differentiated, and wrapped by DDP."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from cofi_tune.config import Precision
from cofi_tune.data.batches import Batch
from cofi_tune.methods import Method
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Encoded, Gates
from cofi_tune.precision import computing
from cofi_tune.ranks import Ranks


class Guide(Protocol):
    """Whoever says what the teacher makes of a batch of training rows."""

    kind: str
    """In one word, for the record."""

    def __call__(self, batch: Batch) -> Encoded:
        """Logits, and the hidden states that the method asks for."""


class LiveTeacher:
    """The teacher itself, run on every batch."""

    kind = "live"

    def __init__(
        self, model: CofiForSequenceClassification, with_hidden_states: bool, precision: Precision = "fp32"
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.with_hidden_states, self.precision = with_hidden_states, precision

    def __call__(self, batch: Batch) -> Encoded:
        """One forward pass."""
        with torch.no_grad():
            return encode(self.model, batch, NO_GATES, self.with_hidden_states, self.precision)


class Step(nn.Module):
    """One forward pass of student and method: what DDP wraps."""

    def __init__(
        self,
        student: CofiForSequenceClassification,
        method: Method,
        ranks: Ranks,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.student, self.method, self.ranks, self.precision = student, method, ranks, precision

    def forward(
        self, batch: Batch, teacher: Encoded | None, step: int, again: bool = False
    ) -> dict[str, Tensor]:
        """Named losses of a share of a batch; `again`: not the first of this step."""
        gates = self.method.before_forward(step, again)
        out = encode(self.student, batch, gates, self.method.uses_hidden_states, self.precision)
        # Of the losses, too, only products of matrices (a transform of states) are not in fp32.
        with computing(self.precision, self.student.device):
            return self.method.losses(out, teacher, batch, step, self.ranks)


def encode(
    model: CofiForSequenceClassification,
    batch: Batch,
    gates: Gates,
    with_hidden_states: bool,
    precision: Precision = "fp32",
) -> Encoded:
    """A model on a packed batch; logits and states are fp32 whatever the precision of its products."""
    with computing(precision, model.device):
        out = model.encode(
            batch.ids_N, batch.types_N, batch.positions_N, batch.packing, gates, with_hidden_states
        )
    return out if precision == "fp32" else out._replace(logits_BC=out.logits_BC.float())

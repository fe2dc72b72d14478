"""No compression: plain fine-tuning on the labels. The null method, the teacher's recipe, the baseline.

Helps: always, as what the others are measured against. Breaks: never; compresses nothing.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from cofi_tune.config import Strict
from cofi_tune.data.batches import Batch
from cofi_tune.methods import Method, Phase
from cofi_tune.modeling_cofi import Encoded, classification_loss
from cofi_tune.ranks import Ranks


class Config(Strict):
    """Options of plain fine-tuning."""

    warmup_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""


class Dense(Method):
    """Fine-tune, and ship the model as it is."""

    Config = Config
    uses_teacher = False

    def phases(self) -> list[Phase]:
        """One phase, with the checkpoint that scores best on the selection rows kept."""
        steps = max(1, round(self.trial.epochs * self.steps_per_epoch))
        return [
            Phase(
                "finetune",
                steps,
                self.trial.learning_rate,
                warmup_fraction=self.options.warmup_fraction,
                select_best=True,
            )
        ]

    def losses(
        self, student: Encoded, teacher: Encoded | None, batch: Batch, step: int, ranks: Ranks
    ) -> dict[str, Tensor]:
        """The label loss."""
        share = len(batch.labels_B) / batch.num_rows
        return {"dense/label": classification_loss(student.logits_BC, batch.labels_B) * share}


METHOD = Dense

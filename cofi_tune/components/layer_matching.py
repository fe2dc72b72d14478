"""The layer loss with what it remembers: the transform of the student's states, and v6's random stream.

Axes: L student layers, N tokens, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cofi_tune.components import distillation
from cofi_tune.modeling_cofi import Encoded
from cofi_tune.ranks import Ranks


class LayerMatching(nn.Module):
    """Compares chosen teacher layers with the student's, through a linear map that starts as the identity."""

    def __init__(
        self, version: str, num_layers: int, hidden_size: int, seed: int, device: torch.device
    ) -> None:
        """
        Args:
            version: `v3`, `v4` or `v6`, see `distillation.layer_loss`.
            num_layers: of the teacher.
            hidden_size: of the teacher, and of the student until it is cut.
            seed: of v6's draws.
            device: where the transform lives.
        """
        super().__init__()
        self.version, self.num_layers, self.hidden_size = version, num_layers, hidden_size
        self.hidden = tuple(range(hidden_size))
        """Units of the dense student that are there."""
        self.teacher_layers = distillation.teacher_layers(num_layers)
        self.candidates = tuple(range(num_layers)) if version == "v6" else self.teacher_layers
        """Layers of the teacher that may ever be compared."""
        self.transform = nn.Linear(hidden_size, hidden_size, device=device)
        nn.init.eye_(self.transform.weight)
        nn.init.zeros_(self.transform.bias)
        self.stream = np.random.Generator(np.random.PCG64(seed))

    def draw(self) -> None:
        """v6 compares other layers at every step."""
        if self.version == "v6":
            uniform = self.stream.random(len(self.teacher_layers)).tolist()
            self.teacher_layers = distillation.random_teacher_layers(self.num_layers, uniform)

    def loss(
        self, student: Encoded, teacher: Encoded, live_L: Tensor, num_tokens: int, ranks: Ranks
    ) -> Tensor:
        """See `distillation.layer_loss`. A batch that comes in parts is matched part by part."""
        return distillation.layer_loss(
            torch.stack([*student.hidden_states_NH[1:]]),
            torch.stack([teacher.hidden_states_NH[i + 1] for i in self.teacher_layers]),
            self.transform,
            live_L,
            self.version,
            num_tokens,
            ranks.sum,
        )

    def narrow(self, hidden: Sequence[int]) -> None:
        """Follow a student that keeps only these hidden units of the dense one; may be called again."""
        wide, place = self.transform, {unit: number for number, unit in enumerate(self.hidden)}
        index = torch.tensor([place[unit] for unit in hidden], device=wide.weight.device)
        self.hidden = tuple(hidden)
        # Weights of its own would be drawn in vain.
        self.transform = nn.utils.skip_init(
            nn.Linear, len(hidden), self.hidden_size, device=wide.weight.device, dtype=wide.weight.dtype
        )
        self.transform.weight.data.copy_(wide.weight.data[:, index])
        self.transform.bias.data.copy_(wide.bias.data)

    def stream_state(self) -> Any:
        """Where v6's stream stands, as JSON."""
        return self.stream.bit_generator.state

    def restore_stream(self, state: Any) -> None:
        """The inverse of `stream_state`."""
        self.stream.bit_generator.state = state

"""What the student still has of the dense encoder, while gates and counts go on in the dense one's units.

Axes: L layers, A heads, H hidden units, F FFN units; h, a and f: those that are still there (a, f of the
layer that has most).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cofi_tune.modeling_cofi import Gates
from cofi_tune.records import PruningPlan


class Present(nn.Module):
    """A part of the dense encoder, as masks and as indices on the device."""

    hidden_H: Tensor
    head_LA: Tensor
    mha_L: Tensor
    intermediate_LF: Tensor
    ffn_L: Tensor
    place_h: Tensor
    place_La: Tensor
    place_Lf: Tensor

    def __init__(self, plan: PruningPlan, device: torch.device) -> None:
        """
        Args:
            plan: what is there, in units of the dense encoder.
            device: where gates live.
        """
        super().__init__()
        self.plan = plan
        self.is_all = plan == plan.dense
        heads, units = [p.heads for p in plan.layers], [p.ffn for p in plan.layers]
        tensors = {
            "hidden_H": _mask([plan.hidden], plan.hidden_size)[0],
            "head_LA": _mask(heads, plan.num_heads),
            "mha_L": torch.tensor([bool(row) for row in heads]),
            "intermediate_LF": _mask(units, plan.num_ffn),
            "ffn_L": torch.tensor([bool(row) for row in units]),
            "place_h": torch.tensor(plan.hidden),
            "place_La": _padded(heads),
            "place_Lf": _padded(units),
        }
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.to(device), persistent=False)

    @property
    def masks(self) -> Gates:
        """Booleans in the dense encoder's shapes."""
        return Gates(self.hidden_H, self.head_LA, self.mha_L, self.intermediate_LF, self.ffn_L)

    def narrow(self, gates: Gates) -> Gates:
        """The dense encoder's gates as the student takes them; those of units that are gone are closed.

        A row has the units of its layer first, zeros after them.
        """
        if self.is_all:
            return gates
        return Gates(
            hidden_H=None if gates.hidden_H is None else gates.hidden_H.index_select(0, self.place_h),
            head_LA=_rows(gates.head_LA, self.place_La),
            mha_L=None if gates.mha_L is None else gates.mha_L * self.mha_L,
            intermediate_LF=_rows(gates.intermediate_LF, self.place_Lf),
            ffn_L=None if gates.ffn_L is None else gates.ffn_L * self.ffn_L,
        )


def _rows(gates_LX: Tensor | None, place_Lx: Tensor) -> Tensor | None:
    if gates_LX is None:
        return None
    return gates_LX.gather(1, place_Lx.clamp(min=0)) * (place_Lx >= 0)


def _mask(rows: Sequence[Sequence[int]], size: int) -> Tensor:
    mask = torch.zeros(len(rows), size, dtype=torch.bool)
    for row, kept in zip(mask, rows, strict=True):
        row[list(kept)] = True
    return mask


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """One row of indices for each, -1 after its end."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[-1] * (longest - len(row))] for row in rows], dtype=torch.long)

"""In what numbers a model computes while it trains: fp32, or bf16 where products of matrices are concerned.

With "bf16" the products of student and teacher run in bfloat16 (torch's autocast), in training and in the
evaluations that choose weights. Weights, gates, norms, residual streams, Lagrangian, losses, gradients and
moments stay in fp32, and so does everything after training: what is scored, timed and shipped is fp32.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cofi_tune.config import Precision

if TYPE_CHECKING:
    import torch


def resolve(asked: Precision, device: str) -> Precision:
    """What `asked` comes to on a device: "auto" is "bf16" on GPUs that compute in it, else "fp32".

    Args:
        asked: "fp32", "bf16" or "auto".
        device: where the training runs, seen from this process.

    Raises:
        ValueError: "bf16" is asked of a GPU that has none.
    """
    import torch

    if asked == "fp32" or (asked == "auto" and torch.device(device).type == "cpu"):
        return "fp32"
    if torch.device(device).type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    if asked == "auto":
        return "fp32"
    raise ValueError(
        f"--precision bf16: {torch.cuda.get_device_name(device)} does not compute in bfloat16; give fp32"
    )


def computing(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Inside, products of matrices run in this precision; nothing changes for "fp32".

    Args:
        precision: as `resolve` gives it.
        device: of the model.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    import torch

    assert precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16)

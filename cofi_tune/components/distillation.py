"""What the student learns from the teacher: its predictions and, layer by layer, its states.

Nothing here reads a value back from the device: the choice of layers stays a tensor.

Axes: N real tokens, H hidden, B rows, C classes, L student layers, M matched teacher layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATCHINGS = ("off", "v3", "v4", "v6")


def prediction_loss(student_BC: Tensor, teacher_BC: Tensor, temperature: float, num_rows: float) -> Tensor:
    """T^2 KL(teacher || student) of softened predictions, summed over rows / `num_rows`.

    `num_rows` is that of the global batch, so that shares of a batch on several workers add up.
    """
    student = F.log_softmax(student_BC / temperature, dim=-1)
    teacher = F.log_softmax(teacher_BC / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * (temperature**2 / num_rows)


def teacher_layers(num_layers: int) -> tuple[int, ...]:
    """The teacher's layers to match, from 0: for 12 layers 2, 5, 8, 11; every layer where there are few."""
    count = min(4, num_layers)
    return tuple(-(-num_layers * (i + 1) // count) - 1 for i in range(count))


def random_teacher_layers(num_layers: int, uniform: Sequence[float]) -> tuple[int, ...]:
    """One layer from each of the windows that `teacher_layers` closes (RAIL-KD; the reference's v6).

    Departure: the reference's first window always gives its last layer; here all draw.
    """
    ends = teacher_layers(num_layers)
    starts = (0, *(end + 1 for end in ends[:-1]))
    return tuple(a + int(u * (b + 1 - a)) for a, b, u in zip(starts, ends, uniform, strict=True))


def layer_loss(
    student_LNH: Tensor,
    teacher_MNH: Tensor,
    transform: nn.Linear | Callable[[Tensor], Tensor],
    live_L: Tensor,
    matching: str,
    num_tokens: float,
    reduce_sum: Callable[[Tensor], Tensor] = lambda distances: distances,
) -> Tensor:
    """Sum over matched pairs of the mean squared error between teacher and transformed student states.

    Args:
        student_LNH: outputs of the student's layers on real tokens.
        teacher_MNH: outputs of the chosen teacher layers, lowest first.
        transform: W, applied to the student's states.
        live_L: which student layers exist (MHA or FFN open).
        matching: "v3" takes the nearest student layer for each teacher layer; "v4" and "v6" take, from the
            top down, the nearest that exists and lies strictly below the last one taken, and skip a teacher
            layer for which none is left.
        num_tokens: real tokens of the global batch.
        reduce_sum: sums distances over workers, so that all match alike.

    Distances are taken without gradient; only the chosen pairs carry one, which is the same gradient.
    """
    num_values = num_tokens * teacher_MNH.shape[-1]
    with torch.no_grad():
        distance_ML = reduce_sum(_squared_distances(transform(student_LNH), teacher_MNH))
        chosen_M, found_M = match_layers(distance_ML, live_L, ordered=matching != "v3")
    matched_MNH = transform(student_LNH.index_select(0, chosen_M))
    squared_M = (matched_MNH - teacher_MNH).square().flatten(1).sum(1)
    return torch.where(found_M, squared_M, 0.0).sum() / num_values


def match_layers(distance_ML: Tensor, live_L: Tensor, ordered: bool) -> tuple[Tensor, Tensor]:
    """For each teacher layer the student layer to compare it with, and whether there is one.

    Returns:
        Indices [M] into L, and a boolean [M]. With `ordered` False: plain nearest, pruned layers allowed.
    """
    if not ordered:
        return distance_ML.argmin(1), torch.ones_like(distance_ML[:, 0], dtype=torch.bool)
    number_L = torch.arange(distance_ML.shape[1], device=distance_ML.device)
    last = torch.full_like(number_L[0], distance_ML.shape[1])
    chosen, found = [], []
    for distance_L in distance_ML.flip(0):
        candidate_L = live_L & (number_L < last)
        nearest = torch.where(candidate_L, distance_L, torch.inf).argmin()
        exists = candidate_L.any()
        last = torch.where(exists, nearest, last)
        chosen.append(nearest)
        found.append(exists)
    return torch.stack(chosen[::-1]), torch.stack(found[::-1])


def _squared_distances(student_LNH: Tensor, teacher_MNH: Tensor) -> Tensor:
    """Sums of squared differences [M, L], a teacher layer at a time: [M, L, N, H] would not fit, and a pair
    at a time keeps a GPU waiting for its host.
    """
    return torch.stack([(student_LNH - t).square_().sum((1, 2)) for t in teacher_MNH.unbind(0)])

"""This process's place among the workers of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Ranks(NamedTuple):
    """`rank` of `size` workers that share every batch; one worker needs no process group."""

    rank: int = 0
    size: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the workers, on every worker, in place."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor


ALONE = Ranks()

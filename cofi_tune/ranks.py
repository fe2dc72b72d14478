"""This process's place among the workers of a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Ranks(NamedTuple):
    """`rank` of `size` workers that share every batch; one worker needs no process group."""

    rank: int = 0
    size: int = 1
    parts: int = 1
    """In how many parts, one after the other, each worker takes its share: less memory, the same batch."""

    @property
    def shares(self) -> int:
        """Parts of a batch, those of all workers together."""
        return self.size * self.parts

    def sum(self, tensor: Tensor) -> Tensor:
        """`tensor` summed over the workers, on every worker, in place."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor, device: torch.device) -> list[Tensor]:
        """The workers' tensors of one shape, in order, on the CPU of every worker.

        Args:
            tensor: this worker's, on the CPU.
            device: where the process group exchanges tensors.
        """
        if self.size == 1:
            return [tensor]
        import torch
        from torch import distributed

        mine = tensor.to(device)
        every = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(every, mine)
        return [one.cpu() for one in every]


ALONE = Ranks()

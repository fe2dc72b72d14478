"""How the workers of a trial find each other: the first listens on its node's address, and on no other.

Ray Train's own way has torch open the meeting point, which then listens on every interface of the machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import timedelta

from ray.train.backend import Backend
from ray.train.torch import TorchConfig

from cofi_tune.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""Of one exchange; long before that, a trial that stands still is ended by its watchdog."""


class NoMeeting(Backend):
    """Ray Train starts the workers, and leaves the rest to `joined`."""

    share_cuda_visible_devices = True


class OwnMeeting(TorchConfig):
    """Torch's configuration, without the process group of Ray Train."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train makes of it."""
        return NoMeeting


@contextlib.contextmanager
def joined(ranks: Ranks, device: str) -> Iterator[None]:
    """Inside, `torch.distributed` connects the workers of a trial; one alone needs nothing.

    Args:
        ranks: this worker's place.
        device: of this worker; "cpu" or "cuda:N".
    """
    if ranks.size == 1:
        yield
        return
    import ray
    import torch
    from ray.train.collective import broadcast_from_rank_zero
    from torch import distributed

    listener = socket.create_server((ray.util.get_node_ip_address(), 0)) if ranks.rank == 0 else None
    host, port = broadcast_from_rank_zero(listener.getsockname()[:2] if listener else None)
    store = distributed.TCPStore(
        host,
        port,
        ranks.size,
        is_master=listener is not None,
        timeout=TIMEOUT,
        wait_for_workers=False,
        # The store closes it.
        master_listen_fd=listener.detach() if listener else None,
    )
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=ranks.rank, world_size=ranks.size, timeout=TIMEOUT
    )
    yield
    # Not after an error: a worker that is gone would be waited for.
    distributed.destroy_process_group()

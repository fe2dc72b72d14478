"""What this machine has, and whether a search fits on it: asked before anything heavy is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple


class Machine(NamedTuple):
    """What may be used here."""

    cpus: int
    gpus: int


class Share(NamedTuple):
    """What a search takes of a machine."""

    workers_per_trial: int
    """0: a trial runs in one process of its own."""
    cpus_per_worker: int
    gpus_per_worker: float
    concurrency: int
    """0: as many as a cluster holds, known once the search has joined it."""

    @property
    def workers(self) -> int:
        """Processes that train at one time."""
        return self.concurrency * max(1, self.workers_per_trial)


def this_machine() -> Machine:
    """CPUs that this process may run on, and GPUs that torch can use."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    return Machine(cpus, _num_gpus() if _torch_has_cuda() else 0)


def check_device(device: str) -> None:
    """Refuse a `--device` that is none, or that this machine has not.

    Raises:
        ValueError: says which there are.
    """
    if device == "cpu":
        return
    wanted = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if wanted is None:
        raise ValueError(f"--device {device}: give cpu, cuda or cuda:N")
    gpus = this_machine().gpus
    if not gpus:
        raise ValueError(f"--device {device}: this machine has no GPU that torch can use; leave it out")
    if int(wanted[1] or 0) >= gpus:
        raise ValueError(f"--device {device}: the last GPU of this machine is cuda:{gpus - 1}")


def share(
    machine: Machine,
    *,
    cluster: bool,
    workers_per_trial: int | None,
    cpus_per_worker: int | None,
    gpus_per_worker: float | None,
    concurrency: int | None,
) -> Share:
    """What the user asked for, the rest filled in: all GPUs where there are any, else one trial on all CPUs.

    Args:
        machine: this one.
        cluster: trials run on a Ray cluster, whose size is not known yet.
        workers_per_trial: None: 1 with a GPU or a cluster, else 0.
        cpus_per_worker: None: an equal share of the CPUs.
        gpus_per_worker: None: 1 with a GPU or a cluster, else 0.
        concurrency: trials at one time; None: as many as the GPUs or the cluster hold, 1 on a CPU.

    Raises:
        ValueError: this machine, or any, cannot give that, which Ray would wait for without a word.
    """
    gpus = gpus_per_worker if gpus_per_worker is not None else float(cluster or machine.gpus > 0)
    workers = workers_per_trial if workers_per_trial is not None else int(cluster or gpus > 0)
    _refuse_fraction(gpus, workers)
    if concurrency is None and cluster:
        concurrency = 0
    elif concurrency is None:
        on_gpus = workers_on_gpus(machine.gpus, gpus) // max(1, workers) if gpus else 1
        concurrency = max(1, on_gpus)
    if cpus_per_worker is None:
        cpus_per_worker = max(1, machine.cpus // (concurrency * max(1, workers))) if not cluster else 1
    asked = Share(workers, cpus_per_worker, gpus, concurrency)
    if not cluster:
        _refuse_impossible(machine, asked)
    return asked


def workers_on_gpus(gpus: int, each: float) -> int:
    """How many workers hold `each` of `gpus` GPUs, as Ray counts: a part of a GPU lies on one GPU.

    Args:
        gpus: of a machine.
        each: 1, 2 ..., or a part of one, of which Ray keeps four digits.
    """
    return int(gpus // each) if each >= 1 else gpus * int(1 / each + 1e-6)


def _refuse_fraction(gpus: float, workers: int) -> None:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError(
            f"--gpus-per-worker {gpus:g}: above 1, Ray gives whole GPUs; give {int(gpus)} or {int(gpus) + 1}"
        )
    if 0 < gpus < 0.01:
        raise ValueError(f"--gpus-per-worker {gpus:g}: that many workers fit on no GPU; give 0.01 or more")
    if 0 < gpus < 1 and workers > 1:
        raise ValueError(
            f"--gpus-per-worker {gpus:g} x --workers-per-trial {workers}: workers of one trial exchange "
            "gradients by NCCL, which wants a GPU for each; give --gpus-per-worker 1 or --workers-per-trial 1"
        )


def _refuse_impossible(machine: Machine, asked: Share) -> None:
    product = f"--concurrency {asked.concurrency} x --workers-per-trial {asked.workers_per_trial}"
    if asked.workers_per_trial == 0:
        product = f"--concurrency {asked.concurrency}"
    gpus = asked.workers * asked.gpus_per_worker
    each = asked.gpus_per_worker
    if each and asked.workers > workers_on_gpus(machine.gpus, each):
        has = f"{machine.gpus} that torch can use" if machine.gpus else "none that torch can use"
        raise ValueError(
            f"{product} x --gpus-per-worker {asked.gpus_per_worker:g} needs {gpus:g} GPUs, this machine has "
            f"{has}; lower one of them, or give --address of a Ray cluster"
        )
    cpus = asked.workers * asked.cpus_per_worker
    if cpus > machine.cpus:
        raise ValueError(
            f"{product} x --cpus-per-worker {asked.cpus_per_worker} needs {cpus} CPUs, this machine has "
            f"{machine.cpus}; lower one of them, or give --address of a Ray cluster"
        )


def _num_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = ctypes.c_uint(0)
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    if visible is None:
        return int(count.value)
    named = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    return min(len(named), int(count.value))


def _torch_has_cuda() -> bool:
    """Whether torch was built for GPUs, without the seconds that importing it takes."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    with contextlib.suppress(OSError):
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
        return re.search(r"^cuda\b.*=\s*['\"]", text, re.MULTILINE) is not None
    return False

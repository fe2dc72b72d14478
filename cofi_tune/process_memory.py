"""The memory of this process: how much it holds, and what keeps it from growing.

oneDNN caches a primitive for each number of tokens that it has not met before, up to 1,024, in the midst of
what a step allocates; glibc (2.36) hardly reuses what such a piece has split. So models train and are scored
without oneDNN, which they use for GELU alone, and glibc maps large tensors apart from its heap.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""As malloc.h numbers them."""
TRIM_THRESHOLD_BYTES, MMAP_THRESHOLD_BYTES = 2**30, 2**25
"""The most that glibc takes as a threshold of mmap; with a low one a step spends its time on page faults."""
MIB = 2**20


@functools.cache
def set_thresholds() -> None:
    """Let glibc keep what a step frees for the next one, and map what is larger than any activation."""
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def free_memory() -> None:
    """Give back what the last trial in this process held: to the GPU, and to the system."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if library := _glibc():
        library.malloc_trim(0)  # of every arena: each trial has run in a thread, and an arena, of its own


@contextlib.contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    """Inside, PyTorch uses oneDNN or does not; the flag is the process's, so never hold this over a `yield`.

    Args:
        enabled: whether it does.
    """
    from torch.backends import mkldnn

    before = mkldnn.enabled
    mkldnn.enabled = enabled  # type: ignore[assignment]
    try:
        yield
    finally:
        mkldnn.enabled = before


@contextlib.contextmanager
def without_onednn(precision: str = "fp32") -> Iterator[None]:
    """Inside, models compute in fp32 without oneDNN; see `onednn`.

    In bf16 it stays, for CPUs multiply matrices by it: there its own limit of 1,024 primitives bounds what a
    process grows by, and `free_memory` what a trial leaves. So it does on ARM, whose fp32 products use it.

    Args:
        precision: of the forward passes; bf16 by autocast is seen here, too.
    """
    import torch

    off = precision == "fp32" and not torch.is_autocast_enabled("cpu") and _is_x86()
    with onednn(False) if off else contextlib.nullcontext():
        yield


def resident_mib() -> dict[str, float]:
    """What this process holds in memory now, and the most that it has held: `rss_mib`, `peak_rss_mib`."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        kib = dict(words[:2] for words in map(str.split, lines) if len(words) == 3)
        return {"rss_mib": int(kib["VmRSS:"]) / 1024, "peak_rss_mib": int(kib["VmHWM:"]) / 1024}
    except (OSError, KeyError):
        import psutil

        now = psutil.Process().memory_info()
        peak_mib = getattr(now, "peak_wset", 0) / MIB or _most_mib()
        return {"rss_mib": now.rss / MIB, "peak_rss_mib": peak_mib}


def _most_mib() -> float:
    """What a Unix without /proc says of this process's peak; Linux counts it in KiB."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 if sys.platform == "linux" else MIB)


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None

"""What memory a trial needs, what is free, and whether one more trial may start."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from cofi_tune.config import StudyConfig

GB = 10**9
PYTHON_BYTES, CUDA_BYTES = 900 * 10**6, 2 * GB
"""A process with torch, transformers and Ray loaded, before it has a model (800 MB, measured); room for the
libraries and the context of CUDA beside it, which were not measured."""
TRAIN_BYTES = 1200 * 10**6
"""Of a trial's processes that wait for its Ray Train workers: trainable, controller, queues, cleaners.
Measured: 1,040 MB that are each one's own, and pages that they share."""
FLOAT_BYTES = 4
WEIGHT_COPIES = 10
"""Student, gradients, Adam's two moments; a copy of as many while a checkpoint is written; the best weights,
the teacher."""
HIDDEN_COPIES, UNIT_COPIES, SCORE_COPIES = 20, 3, 3
"""What a backward pass keeps of a token in a layer, in its hidden size and its FFN units, and of a pair of
tokens in a head; counted with `saved_tensors_hooks`."""
KILL_SHARE = "RAY_memory_usage_threshold"
LOOK_SECONDS = 2.0
REMEDY = (
    "lower --concurrency, give the space a smaller batch_size, lower --workers-per-trial, or take a machine "
    "with more memory"
)


def worker_bytes(config: StudyConfig, teacher: Path, lengths: NDArray[np.int64], batch_size: int) -> int:
    """Most host memory that one training process of a trial takes: an upper bound, not a forecast.

    Args:
        config: of the study.
        teacher: directory of the dense model.
        lengths: of the rows that a trial trains on, in tokens.
        batch_size: of all workers of a trial together.
    """
    weights = sum(path.stat().st_size for path in teacher.glob("*.safetensors")) * WEIGHT_COPIES
    if config.device != "cpu":  # activations, and all weights but a checkpoint's copy, are on the GPU
        return PYTHON_BYTES + CUDA_BYTES + weights
    model = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    share = -(-batch_size // max(1, config.workers_per_trial))
    longest = np.sort(lengths)[-share:]  # batches hold rows of like length
    layers = 1 + len(model["heads_per_layer"])  # in a backward pass one layer is there twice
    hidden, units = model["hidden_size"], max(model["ffn_per_layer"])
    tokens = int(longest.sum()) * (HIDDEN_COPIES * hidden + UNIT_COPIES * units)
    scores = share * int(longest[-1]) ** 2 * max(model["heads_per_layer"]) * SCORE_COPIES
    return PYTHON_BYTES + weights + FLOAT_BYTES * layers * (tokens + scores)


def trial_bytes(config: StudyConfig, each_worker: int) -> int:
    """Of all processes of a trial, given what one training process takes."""
    workers = config.workers_per_trial
    return workers * each_worker + TRAIN_BYTES if workers else each_worker


def free_bytes() -> int:
    """What more may be used on this machine, or in this container, before Ray ends a process."""
    # Ray's own figures, of a cgroup (v1 or v2) where there is one: it is Ray that ends processes by them.
    from ray._common.utils import get_system_memory
    from ray._private.utils import get_used_memory

    most = float(os.environ.get(KILL_SHARE, 0.95)) * get_system_memory()
    return max(0, min(int(most) - get_used_memory(), psutil.virtual_memory().available))


def held_bytes() -> int:
    """What this process's Ray workers use: part of it is the running trials', the rest the next one takes."""
    held = 0
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0]
            if title.startswith("ray::") and not title.endswith("Agent"):  # which stay, whatever runs
                memory = process.memory_info()
                held += memory.rss - getattr(memory, "shared", 0)
        except (psutil.Error, IndexError):  # it has just ended
            continue
    return held


class Room:
    """Whether there is memory for one more trial: asked before each starts."""

    def __init__(
        self,
        need_bytes: int,
        concurrency: int,
        note: Callable[[str], None],
        usable_bytes: Callable[[], int] = lambda: free_bytes() + held_bytes(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            need_bytes: of a trial.
            concurrency: trials at a time that were asked for.
            note: told, once for each number, that fewer run.
            usable_bytes: what all trials together may use.
            clock: seconds.
        """
        self.need_bytes, self.concurrency, self.note = need_bytes, concurrency, note
        self.usable_bytes, self.clock = usable_bytes, clock
        self._usable, self._looked = 0, -LOOK_SECONDS
        self._most = concurrency
        self._told: set[int] = set()

    def lower(self, running: int) -> None:
        """So many trials were too many: one of them was ended for lack of memory."""
        self._most = max(1, min(self._most, running - 1))

    def admits(self, running: int) -> bool:
        """Whether a trial may start beside those that run; one always may."""
        if self.clock() - self._looked >= LOOK_SECONDS:
            self._usable, self._looked = self.usable_bytes(), self.clock()
        if running >= self._most:
            return False
        fit = self._usable // self.need_bytes
        if running < fit:
            return True
        if fit not in self._told:
            self._told.add(fit)
            self.note(shortage(fit, self.concurrency, self.need_bytes, self._usable))
        return running == 0


def shortage(fit: int, concurrency: int, need_bytes: int, usable_bytes: int) -> str:
    """That fewer trials run at a time than were asked for, or that not even one fits."""
    figures = f"needs about {need_bytes / GB:.1f} GB, and there are {usable_bytes / GB:.1f} GB for trials"
    if fit < 1:
        return f"a trial {figures}: it is tried all the same and may be ended; {REMEDY}"
    return f"trials at a time: {fit} instead of {concurrency}: each {figures}"

"""The teacher's outputs, computed once for a task: which of them, within what budget, and by whom.

The first trial that needs a part makes it, where it runs; the others of the machine wait for it and map the
same files. Logits are exact; hidden states, by far the larger part, are rounded to half precision.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cofi_tune import evaluate, teacher
from cofi_tune.config import Precision, Setup, TeacherCache
from cofi_tune.data.encode import EncodedTask
from cofi_tune.lock import exclusive
from cofi_tune.methods import Method
from cofi_tune.modeling_cofi import CofiConfig
from cofi_tune.precision import resolve
from cofi_tune.predictions import Logits
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import INTERRUPTED, Note, Stopped
from cofi_tune.sizes import as_text
from cofi_tune.teacher_files import Array, Part, clear, find, sizes, writing
from cofi_tune.teacher_outputs import KeptOutputs, TooLarge, as_guide, found, train_parts, write
from cofi_tune.upkeep import Upkeep

FORMAT = 1
"""Of what the files hold; part of the directory's name, so that another format is made anew."""
DISK_SHARE = 0.5
"""Of the room that is free on the disk, for what is still to be made."""
TOO_LARGE = "states-too-large"
"""A file that says that half precision does not hold this teacher's states."""


class Kept(NamedTuple):
    """What a trial need not ask the teacher itself."""

    guide: KeptOutputs | None = None
    """All that the method asks about training rows; None: the teacher has to run in every step."""
    dev_logits: Logits | None = None
    """Of every dev split, as the teacher is scored."""


def prepare(
    setup: Setup, data: EncodedTask, method: Method, ranks: Ranks = ALONE, upkeep: Upkeep | None = None
) -> Kept:
    """What is kept of a trial's teacher: found, or made now.

    Args:
        setup: of the trial; says where outputs are kept, and how many bytes of them.
        data: the encoded task.
        method: says what it asks of the teacher.
        ranks: this worker's place; all workers of a trial go on with the same.
        upkeep: what happens meanwhile.

    Raises:
        Stopped: on request, on every worker.
    """
    if setup.teacher_cache is None:
        return Kept()
    kept, stopped = Kept(), None
    try:
        kept = _Entry(setup, setup.teacher_cache, data, upkeep or Upkeep()).kept(method)
    except Stopped as error:
        stopped = error
    except OSError as error:
        # A full disk, a directory that may not be written: the trial itself does not depend on it.
        where = f"{error.filename}: " if error.filename else ""
        warnings.warn(f"the teacher runs in every step: {where}{error.strerror or error}", stacklevel=2)
    if ranks.size > 1:
        own = torch.tensor([stopped is None, kept.guide is not None, kept.dev_logits is not None])
        every = torch.stack(ranks.gather(own.float(), torch.device(setup.device))).bool()
        go_on, guided, scored = every.all(0).tolist()
        kept = Kept(kept.guide if guided else None, kept.dev_logits if scored else None)
        if not go_on:
            stopped = stopped or Stopped(INTERRUPTED, "stopped on request before the first step")
    if stopped is not None:
        raise stopped
    return kept


def shortage(parts: Sequence[Part], there: Mapping[str, int], budget_bytes: int, free_bytes: int) -> str:
    """Why parts are not kept; "" if they may be.

    Args:
        parts: that are wanted.
        there: bytes of the parts that are on the disk, wanted or not, by name.
        budget_bytes: for all of them together.
        free_bytes: on the disk.
    """
    more = sum(part.num_bytes for part in parts if part.name not in there)
    total = sum(there.values()) + more
    if total > budget_bytes:
        return f"its outputs would take {as_text(total)}, --teacher-cache allows {as_text(budget_bytes)}"
    if more > DISK_SHARE * free_bytes:
        return f"its outputs would take {as_text(more)}, and the disk has {as_text(free_bytes)} left"
    return ""


class _Entry:
    """The outputs of one teacher on one task: a directory."""

    def __init__(self, setup: Setup, cache: TeacherCache, data: EncodedTask, upkeep: Upkeep) -> None:
        self.setup, self.data, self.upkeep, self.budget_bytes = setup, data, upkeep, cache.num_bytes
        self.precision = resolve(setup.precision, setup.device)
        self.config = CofiConfig.from_pretrained(setup.teacher)
        self.made_from = _made_from(setup, data, self.precision)
        digest = hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]
        self.directory = cache.directory / f"{data.task.name}-{digest}"

    def kept(self, method: Method) -> Kept:
        splits = [(name, self.data.splits[name]) for name in self.data.task.dev_splits]
        scores = [
            Part(_dev(name), (len(split), self.config.num_labels), np.float32) for name, split in splits
        ]
        asked: list[Part] = []
        if method.uses_teacher:
            asked = train_parts(self.config, self.data.splits["train"], method.teacher_layers)
        if not self._affords([*scores, *asked], bool(method.teacher_layers)):
            asked = []
            if not self._affords(scores, False, say=False):
                return Kept()
        try:
            arrays = self._arrays([*scores, *asked])
        except TooLarge:
            (self.directory / TOO_LARGE).touch()
            return self.kept(method)
        if arrays is None:
            return Kept()
        return Kept(as_guide(arrays) if asked else None, {name: arrays[_dev(name)] for name, _ in splits})

    def _affords(self, parts: Sequence[Part], states: bool, say: bool = True) -> bool:
        if not parts:
            return False
        free = shutil.disk_usage(_nearest(self.directory)).free
        why = shortage(parts, sizes(self.directory), self.budget_bytes, free)
        if states and (self.directory / TOO_LARGE).exists():
            why = "half precision does not hold its hidden states"
        if why and say:
            warnings.warn(f"the teacher runs in every step: {why}", stacklevel=5)
        return not why

    def _arrays(self, parts: Sequence[Part]) -> dict[str, Array] | None:
        """Map the parts; those that are not there, or not whole, are made. None: the disk loses them."""
        began = time.perf_counter()
        arrays, said = found(self.directory, parts), "found"
        if len(arrays) < len(parts):
            lock = self.directory.with_name(f".{self.directory.name}.lock")
            with exclusive(lock, meanwhile=self._meanwhile):
                made = self._make(parts)
            arrays = found(self.directory, parts)
            if len(arrays) < len(parts):
                warnings.warn(
                    f"the teacher runs in every step: what was written to {self.directory} is not there, or "
                    "is not what was written",
                    stacklevel=4,
                )
                return None
            seconds = time.perf_counter() - began
            said = f"made in {seconds:.1f} s" if made else f"found after {seconds:.1f} s of waiting"
        size = as_text(sum(part.num_bytes for part in parts))
        text = f"outputs of the teacher, once for all trials: {size}, {said}, in {self.directory}"
        warnings.warn(text, Note, stacklevel=4)
        return arrays

    def _make(self, parts: Sequence[Part]) -> bool:
        """Make what is still missing, if anything is; nobody else is at it."""
        self.directory.mkdir(exist_ok=True)
        clear(self.directory)
        (self.directory / "made_from.json").write_text(json.dumps(self.made_from, indent=2))
        missing = {part.name: part for part in parts if find(self.directory, part) is None}
        if not missing:
            return False
        if damaged := sorted(missing.keys() & sizes(self.directory).keys()):
            text = f"outputs of the teacher in {self.directory}: not as they were written, made again: "
            warnings.warn(text + ", ".join(damaged), stacklevel=5)
        device = torch.device(self.setup.device)
        # Who makes the outputs must draw the same dropout afterwards as who finds them.
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
            model = teacher.load(self.setup.teacher, self.setup.device)
            scored = [name for name in self.data.task.dev_splits if _dev(name) in missing]
            logits = evaluate.predict_dev(model, self.data) if scored else {}
            for name in scored:
                with writing(self.directory, missing.pop(_dev(name))) as array:
                    array[:] = logits[name]
            train = self.data.splits["train"]
            write(model, train, [*missing.values()], self.directory, self.precision, self._meanwhile)
        return True

    def _meanwhile(self) -> None:
        self.upkeep.beat()
        if self.upkeep.stop_requested():
            raise Stopped(INTERRUPTED, "stopped on request before the first step")


def _dev(split: str) -> str:
    return f"dev.{split}"


def _made_from(setup: Setup, data: EncodedTask, precision: Precision) -> dict[str, Any]:
    """What the outputs depend on: the weights themselves, whatever the directory is called."""
    weights = hashlib.sha256()
    for path in sorted((*setup.teacher.glob("*.safetensors"), setup.teacher / "config.json")):
        with path.open("rb") as file:
            weights.update(hashlib.file_digest(file, "sha256").digest())
    return {
        "format": FORMAT,
        "teacher": setup.teacher.name,
        "weights": weights.hexdigest(),
        "data": data.content_hash,
        "tokens": data.directory.name,
        "precision": precision,
        "device": torch.device(setup.device).type,
    }


def _nearest(path: Path) -> Path:
    """The path, or the nearest directory above it that exists."""
    return path if path.is_dir() else _nearest(path.parent)

"""Checkpoints of a run on disk: safetensors and JSON under a manifest of hashes; never a pickle.

    <directory>/step-000000120/state.safetensors   weights, gates, multipliers, optimizer, random streams
                              /state.json          where the run stands
                              /manifest.json       sha256 of both, and what the run is: written last
               /set-aside-step-000000240/          torn, changed on disk, or another run's

A checkpoint is written beside and renamed, so that one of that name is whole unless the disk says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

DIRECTORY = "checkpoints"
"""Beside a run's results."""
LINK = "link"
"""Beside it: the state that the next link of a chain begins with, in the same form."""
FORMAT = 1
KEPT = 2
"""Checkpoints of a run that stay: the newest, and one to fall back to."""
TENSORS, VALUES, MANIFEST = "state.safetensors", "state.json", "manifest.json"
NAME = "step-{:09d}"


@dataclass(frozen=True)
class State:
    """Everything a run needs to go on as if it had not stopped."""

    step: int
    tensors: Mapping[str, Tensor]
    """On the CPU."""
    values: Mapping[str, Any]
    """JSON values."""


class Unusable(ValueError):  # noqa: N818
    """A checkpoint that must not be used, and why."""


def save(directory: Path, state: State, identity: Mapping[str, Any]) -> Path:
    """Write a checkpoint and remove those older than the last but one.

    Args:
        directory: of all checkpoints of the run.
        state: where it stands.
        identity: what the run is, JSON values; `latest` gives a state only to the same run.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=directory))
    try:
        _save_tensors(state.tensors, beside / TENSORS)
        _write(beside / VALUES, {"step": state.step, **state.values})
        hashes = {name: _sha256(beside / name) for name in (TENSORS, VALUES)}
        _write(beside / MANIFEST, {"format": FORMAT, "files": hashes, "identity": dict(identity)})
        for path in (beside / TENSORS, beside):
            _sync(path)
        made = directory / NAME.format(state.step)
        if made.exists():  # of an attempt that came as far
            shutil.rmtree(made)
        os.replace(beside, made)
        _sync(directory)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for old in _found(directory)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return made


def latest(directory: Path, identity: Mapping[str, Any]) -> State | None:
    """The newest state that is whole and of this run; None: start from the beginning.

    What cannot be used is renamed, with a warning that says why, and the one before it is tried.
    """
    for path in _found(directory):
        try:
            return load(path, identity)
        except Unusable as error:
            aside = path.with_name(f"set-aside-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warnings.warn(f"checkpoint {path} is set aside: {error}", stacklevel=2)
    return None


def latest_step(directory: Path) -> int:
    """Step of the newest checkpoint, by its name alone; 0 if there is none."""
    return next((int(path.name.removeprefix("step-")) for path in _found(directory)), 0)


def load(path: Path, identity: Mapping[str, Any]) -> State:
    """One checkpoint, checked.

    Raises:
        Unusable: torn, changed since it was written, or of another run; says what.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise Unusable(f"its format is {manifest['format']}, this version reads {FORMAT}")
        for name in (TENSORS, VALUES):
            if _sha256(path / name) != manifest["files"][name]:
                raise Unusable(f"{name} is not what was written (sha256 differs)")
        other = _differences(manifest["identity"], json.loads(json.dumps(dict(identity))))
        if other:
            raise Unusable(f"it is of another run: {', '.join(other)} differ")
        values = json.loads((path / VALUES).read_text(encoding="utf-8"))
        return State(values.pop("step"), load_file(path / TENSORS), values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, Unusable):
            raise
        raise Unusable(f"{type(error).__name__}: {error}".splitlines()[0]) from None


def discard(directory: Path) -> None:
    """Remove all checkpoints of a run that is over."""
    shutil.rmtree(directory, ignore_errors=True)


def _found(directory: Path) -> list[Path]:
    """Checkpoints, newest first: by step, never by the clock."""
    found = directory.glob("step-*") if directory.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(r"step-\d{9,}", path.name)), reverse=True)


def _differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Dotted names of what is not the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = sorted(ours.keys() | theirs.keys())
        return [d for n in names for d in _differences(ours.get(n), theirs.get(n), f"{name}.{n}".strip("."))]
    return [] if ours == theirs else [name]


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # hides the operating system's errors in its text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

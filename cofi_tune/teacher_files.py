"""Outputs of a teacher on disk: arrays that all processes of a machine map, and share.

    <directory>/logits.<crc32>.npy         of the training rows, float32 [R, C]
                layer-02.<crc32>.npy       a layer's outputs, counted from 0, row after row, float16 [N, H]
                dev.<split>.<crc32>.npy    logits of a dev split, as scored: float32 [R, C]

A file is written beside and renamed, so that one of that name is whole unless the disk says otherwise, which
its checksum tells.

Axes: R rows, C classes, N real tokens, H hidden units.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LOGITS = "logits"
HEADER_BYTES = 128
"""Of a file, before its values."""
CHUNK_BYTES = 2**24


class Part(NamedTuple):
    """One file, by what is in it."""

    name: str
    shape: tuple[int, int]
    dtype: type[np.generic]

    @property
    def num_bytes(self) -> int:
        """Of its values."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


def layer_name(layer: int) -> str:
    """Of the part that holds a layer's outputs; layers count from 0."""
    return f"layer-{layer:02d}"


def find(directory: Path, part: Part) -> Array | None:
    """A part that is there and whole, mapped and read-only; None if there is none."""
    for path in sorted(directory.glob(f"{part.name}.????????.npy")):
        with contextlib.suppress(OSError, EOFError, ValueError):
            if path.name != _named(part, path):
                continue
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if (array.shape, array.dtype) == (part.shape, part.dtype):
                return np.asarray(array)
    return None


def sizes(directory: Path) -> dict[str, int]:
    """Bytes of values in the parts that are there, whole or not, by name."""
    ending = len(".12345678.npy")
    paths = directory.glob("[!.]*.????????.npy")
    return {path.name[:-ending]: path.stat().st_size - HEADER_BYTES for path in paths}


@contextlib.contextmanager
def writing(directory: Path, part: Part) -> Iterator[Array]:
    """Yields the array to fill; it is there, under its name, once the block has ended well.

    Raises:
        OSError: the disk has no room for it.
    """
    beside = directory / f".new-{part.name}-{uuid.uuid4().hex[:8]}.npy"
    try:
        array = np.lib.format.open_memmap(beside, mode="w+", dtype=part.dtype, shape=part.shape)  # type: ignore[no-untyped-call]
        with beside.open("r+b") as file:
            # Else a full disk would show as a signal that ends the process. Apple's systems lack it.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, beside.stat().st_size)
            yield array
            array.flush()
            os.fsync(file.fileno())
        named = directory / _named(part, beside)
        for other in directory.glob(f"{part.name}.????????.npy"):  # what was not whole
            other.unlink()
        os.replace(beside, named)
    finally:
        beside.unlink(missing_ok=True)


def clear(directory: Path) -> None:
    """Remove what a writer that was killed has left; for whoever alone may write."""
    for path in directory.glob(".new-*"):
        path.unlink(missing_ok=True)


def _named(part: Part, path: Path) -> str:
    """What a file of this content is called."""
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return f"{part.name}.{checksum:08x}.npy"

"""Files of a teacher's outputs: whole and under their name, or not there."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cofi_tune.teacher_files import Part, clear, find, sizes, writing

PART = Part("layer-07", (9, 4), np.float16)


def written(directory: Path) -> Path:
    with writing(directory, PART) as array:
        array[:] = np.arange(36).reshape(9, 4)
    [path] = directory.iterdir()
    return path


def test_what_is_written_is_found_and_cannot_be_changed(tmp_path: Path) -> None:
    path = written(tmp_path)
    array = find(tmp_path, PART)
    assert array is not None
    assert (array == np.arange(36).reshape(9, 4)).all()
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    assert sizes(tmp_path) == {PART.name: PART.num_bytes}
    assert (PART.num_bytes, path.stat().st_size) == (72, 200)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": lambda text: text[:-1] + bytes([text[-1] ^ 1]),
    "its end": lambda text: text[:-1],
    "its half": lambda text: text[: len(text) // 2],
    "all": lambda text: b"",
    "longer": lambda text: text + b"0",
    "header": lambda text: b"0" + text[1:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_not_found_but_written_again(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = written(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert find(tmp_path, PART) is None
    assert written(tmp_path) == path
    assert find(tmp_path, PART) is not None


@pytest.mark.parametrize("other", [PART._replace(shape=(8, 4)), PART._replace(dtype=np.float32)])
def test_what_is_of_another_shape_is_not_found(tmp_path: Path, other: Part) -> None:
    written(tmp_path)
    assert find(tmp_path, other) is None
    assert find(tmp_path, PART._replace(name="layer-0")) is None


@pytest.fixture
def no_room() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_a_file_that_does_not_fit_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="large") as raised,
        writing(tmp_path, PART._replace(shape=(900, 4))) as array,
    ):
        array[:] = 1
    assert raised.value.errno == errno.EFBIG
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / ".new-layer-07-12345678.npy").write_bytes(b"half")
    assert find(tmp_path, PART) is not None
    clear(tmp_path)
    assert [*tmp_path.iterdir()] == [path]

"""Files of one's own: the classes are those that train names."""

import json
from pathlib import Path
from typing import Any

import pytest

from cofi_tune.data.local import local_task
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source, read


def write_rows(path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...]) -> Path:
    lines = (json.dumps(dict(zip(columns, row, strict=True))) for row in rows)
    path.write_text("\n".join(lines))
    return path


def test_own_files(tmp_path: Path) -> None:
    columns = ("a", "b", "label")
    train = [(f"one {n}", f"two {n}", n % 3 * 5) for n in range(30)]
    train_file = write_rows(tmp_path / "train.jsonl", train, columns)
    dev_file = write_rows(tmp_path / "dev.jsonl", train[:6], columns)
    task = local_task(train_file, ("a", "b"), "label", name="mine")
    assert task.labels == ("0", "5", "10")  # by number, not by character
    assert (task.name, task.metric, task.metrics) == ("mine", "accuracy", ("accuracy", "matthews"))
    splits = read(task, Source.files(train_file, dev_file))
    assert splits["dev"].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert splits["dev"].texts[0] == ("one 0", "two 0")
    assert len(splits["train"]) + len(splits["selection"]) == 30
    write_rows(dev_file, [("x", "y", 7)], columns)
    expected = r"dev\.jsonl:1: column label: unknown label '7'; expected one of 0, 5, 10$"
    with pytest.raises(DataError, match=expected):
        read(task, Source.files(train_file, dev_file))


@pytest.mark.parametrize(
    ("labels", "regression", "expected"),
    [
        (["b", "a"], False, ("a", "b")),
        (["1", "0"], False, ("0", "1")),
        (["1.0", "2.0"], False, ("1.0", "2.0")),
        ([True, False], False, ("false", "true")),
        (["1.5", "2"], False, None),
        ([0.5, 2], False, None),
        ([1, 2], True, None),
        (["1.5", "x"], False, ("1.5", "x")),
    ],
)
def test_own_labels(
    tmp_path: Path, labels: list[Any], regression: bool, expected: tuple[str, ...] | None
) -> None:
    rows = [(f"row {n}", label) for n, label in enumerate(labels * 5)]
    train_file = write_rows(tmp_path / "train.jsonl", rows, ("text", "label"))
    task = local_task(train_file, ("text",), "label", regression=regression)
    assert task.labels == expected
    assert task.metric == ("pearson" if expected is None else "accuracy")
    read(task, Source.files(train_file, train_file))


def test_own_labels_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_rows(path, [("a", "x"), ("b", "x")], ("text", "label"))
    with pytest.raises(DataError, match="every label is 'x'; nothing to learn"):
        local_task(path, ("text",), "label")
    write_rows(path, [("a", n) for n in range(1001)], ("text", "label"))
    with pytest.raises(DataError, match=r"1001 different labels are too many classes; .*regression"):
        local_task(path, ("text",), "label")
    write_rows(path, [("a", "x"), ("b", "y")], ("text", "label"))
    assert local_task(path, ("text",), "label", metric="matthews").metric == "matthews"
    with pytest.raises(ValueError, match="pearson does not fit"):
        local_task(path, ("text",), "label", metric="pearson")
    with pytest.raises(ValueError, match="name"):
        local_task(path, ("text",), "label", name="../x")

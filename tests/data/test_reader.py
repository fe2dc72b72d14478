"""The strict reader: what is legal comes back unchanged, what is not is named with its place."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cofi_tune.data.reader import DataError, Table, Wanted, read_table, to_rows
from cofi_tune.data.task import Task

WANTED = Wanted(("sentence",), "label")
CLASSES = Task(
    name="toy",
    text_columns=("sentence",),
    label_column="label",
    labels=("no", "yes"),
    metric="accuracy",
    metrics=("accuracy",),
)
SCORES = Task(
    name="toy",
    text_columns=("sentence",),
    label_column="label",
    labels=None,
    metric="pearson",
    metrics=("pearson",),
    label_range=(0.0, 5.0),
)
UNICODE_BREAKS = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
LETTERS = st.characters(exclude_characters="\t\n\0", exclude_categories=["Cs"])
TEXTS = st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=8)
ROUND_TRIP = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, content: bytes, columns: tuple[str, ...] | None = None) -> Table:
    path.write_bytes(content)
    return read_table(path, WANTED, columns)


@ROUND_TRIP
@given(texts=TEXTS, bom=st.booleans(), crlf=st.booleans(), final_newline=st.booleans())
@example(texts=['"', 'He said "no', "''", UNICODE_BREAKS], bom=True, crlf=True, final_newline=False)
@example(texts=["", " ", "\r", "a\rb", "\ufeff"], bom=False, crlf=True, final_newline=True)
def test_tsv_round_trip(tmp_path: Path, texts: list[str], bom: bool, crlf: bool, final_newline: bool) -> None:
    end = "\r\n" if crlf else "\n"
    lines = ["sentence\tlabel", *(f"{text}\t{row}" for row, text in enumerate(texts))]
    content = end.join(lines) + (end if final_newline else "")
    table = read(tmp_path / "a.tsv", content.encode("utf-8-sig" if bom else "utf-8"))
    assert table.texts == [(text,) for text in texts]
    assert table.labels == [str(row) for row in range(len(texts))]
    assert table.lines == list(range(2, len(texts) + 2))


@ROUND_TRIP
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
@example(texts=['a "b", c', "two\r\nlines", "\r", UNICODE_BREAKS, ""])
def test_csv_round_trip(tmp_path: Path, texts: list[str]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([["sentence", "label"], *([text, row] for row, text in enumerate(texts))])
    writer.writerow(["last", "x"])
    table = read(tmp_path / "a.csv", out.getvalue().encode("utf-8-sig"))
    assert table.texts == [*((text,) for text in texts), ("last",)]
    assert table.lines[-1] == 2 + len(texts) + sum(text.count("\n") for text in texts)


@ROUND_TRIP
@given(texts=TEXTS, escape=st.booleans())
@example(texts=["two\nlines\tand a tab", UNICODE_BREAKS], escape=False)
def test_jsonl_round_trip(tmp_path: Path, texts: list[str], escape: bool) -> None:
    rows = [
        json.dumps({"label": row, "sentence": text, "other": None}, ensure_ascii=escape)
        for row, text in enumerate(texts)
    ]
    table = read(tmp_path / "a.jsonl", "\n".join(rows).encode())
    assert table.texts == [(text,) for text in texts]
    assert table.labels == [str(row) for row in range(len(texts))]


def test_parquet_round_trip(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    texts = ["plain", 'quote "', "two\nlines", UNICODE_BREAKS, ""]
    path = tmp_path / "split=train.parquet"
    pq.write_table(pa.table({"label": range(5), "idx": range(5), "sentence": texts}), path)
    table = read_table(path, WANTED)
    assert table.texts == [(text,) for text in texts]
    assert table.labels == ["0", "1", "2", "3", "4"]


def test_a_quotation_mark_does_not_merge_rows(tmp_path: Path) -> None:
    content = b'sentence\tlabel\n"a\t1\nb\t0\nc"\t1\n"d"\t0\n'
    assert read(tmp_path / "a.tsv", content).texts == [('"a',), ("b",), ('c"',), ('"d"',)]


def test_columns_are_found_by_name_and_others_ignored(tmp_path: Path) -> None:
    table = read(tmp_path / "a.tsv", b"label\tx\tsentence\n1\t?\ta\n")
    assert (table.texts, table.labels, table.label_place) == ([("a",)], ["1"], 1)
    table = read(tmp_path / "a.tsv", b"src\t0\t*\ta\n", ("source", "label", "mark", "sentence"))
    assert (table.texts, table.labels, table.lines) == ([("a",)], ["0"], [1])


TSV = b"sentence\tlabel\n"


def rows_of(tmp_path: Path, task: Task, labels: list[str]) -> np.ndarray:
    lines = "".join(f"a\t{label}\n" for label in labels)
    return to_rows(task, read(tmp_path / "a.tsv", TSV + lines.encode())).labels


def test_class_labels(tmp_path: Path) -> None:
    ids = rows_of(tmp_path, CLASSES, ["yes", "no", "yes"])
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 0, 1]


@pytest.mark.parametrize("label", ["-1", "", "Yes", "yes ", "-", "1.0"])
def test_unknown_labels(tmp_path: Path, label: str) -> None:
    expected = f"a.tsv:3: column 2 (label): unknown label {label!r}; expected one of no, yes"
    with pytest.raises(DataError, match=re.escape(expected) + "$"):
        rows_of(tmp_path, CLASSES, ["yes", label])


def test_many_wrong_labels_are_counted(tmp_path: Path) -> None:
    expected = r"a\.tsv:3: .* \(7 such rows, at lines 3, 4, 5, 6, 7, \.\.\.\)$"
    with pytest.raises(DataError, match=expected):
        rows_of(tmp_path, CLASSES, ["yes", *"abcdefg"])


def test_scores(tmp_path: Path) -> None:
    scores = rows_of(tmp_path, SCORES, ["0", "5.000", "3.80", "1e-1", "+.5"])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.float32([0, 5, 3.8, 0.1, 0.5]))


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        *((label, f"{label!r} is not a finite number") for label in ("nan", "inf", "-inf", "1e99")),
        *((label, f"{label!r} is not a finite number") for label in ("", "x", "1_0", " 1", "١")),
        *((label, f"score {label} is outside 0 to 5") for label in ("-0.1", "5.001", "6")),
    ],
)
def test_wrong_scores(tmp_path: Path, label: str, problem: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"a.tsv:3: column 2 (label): {problem}") + "$"):
        rows_of(tmp_path, SCORES, ["1", label])

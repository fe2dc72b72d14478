"""Where rows come from, and which of them select."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cofi_tune import tasks
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source, content_hash, read
from cofi_tune.data.split import limit, take_selection
from cofi_tune.data.task import Rows, Task

PAIRS = Task(
    name="pairs",
    text_columns=("a", "b"),
    label_column="label",
    labels=("no", "yes"),
    metric="accuracy",
    metrics=("accuracy",),
)


def numbered(count: int) -> Rows:
    return Rows(tuple((f"sentence {row}",) for row in range(count)), np.arange(count, dtype=np.int64) % 2)


def write_cola(folder: Path, rows: int = 40) -> None:
    (folder / "CoLA").mkdir(parents=True)
    for name in ("train", "dev"):
        lines = (f"gj04\t{row % 2}\t\t{name} sentence {row}\n" for row in range(rows))
        (folder / "CoLA" / f"{name}.tsv").write_text("".join(lines))


# -- the selection split ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(count=st.integers(2, 300), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_selection_and_train_divide_the_rows_and_keep_their_order(
    count: int, fraction: float, seed: int
) -> None:
    task = replace(PAIRS, selection_fraction=fraction, selection_seed=seed)
    rows = numbered(count)
    train, selection = take_selection(task, rows)
    assert sorted(train.texts + selection.texts) == sorted(rows.texts)
    assert 1 <= len(selection) < count
    for part in (train, selection):
        places = [rows.texts.index(text) for text in part.texts]
        assert places == sorted(places)
        np.testing.assert_array_equal(part.labels, rows.labels[places])


def test_selection_is_the_tasks_own_and_never_changes() -> None:
    _, selection = take_selection(PAIRS, numbered(100))
    expected = [2, 3, 11, 13, 20, 48, 53, 59, 62, 92]
    np.random.seed(3)  # no global generator has a say
    _, again = take_selection(PAIRS, numbered(100))
    assert [int(text.split()[1]) for (text,) in selection.texts] == expected
    assert again.texts == selection.texts
    _, other = take_selection(replace(PAIRS, selection_seed=1), numbered(100))
    assert other.texts != selection.texts


def test_selection_is_capped() -> None:
    train, selection = take_selection(PAIRS, numbered(30_000))
    assert (len(train), len(selection)) == (28_000, 2_000)
    with pytest.raises(DataError, match="at least 2 rows"):
        take_selection(PAIRS, numbered(1))


def test_a_larger_limit_adds_rows_to_a_smaller_one() -> None:
    rows = numbered(50)
    small, large = limit(PAIRS, rows, 10), limit(PAIRS, rows, 20)
    assert len(small) == 10
    assert set(small.texts) < set(large.texts) < set(rows.texts)
    assert limit(PAIRS, rows, None) is rows
    assert limit(PAIRS, rows, 50) is rows
    with pytest.raises(ValueError, match="at least 1"):
        limit(PAIRS, rows, 0)


# -- directories --------------------------------------------------------------------------------


def test_official_cola(tmp_path: Path) -> None:
    write_cola(tmp_path)
    splits = read(tasks.load("cola"), Source.directory(tmp_path))
    assert {name: len(rows) for name, rows in splits.items()} == {
        "train": 36,
        "selection": 4,
        "dev": 40,
    }
    assert splits["dev"].texts[1] == ("dev sentence 1",)
    assert splits["dev"].labels.tolist() == [0, 1] * 20
    assert not set(splits["train"].texts) & set(splits["selection"].texts)


def test_official_mnli_takes_the_gold_label_of_both_dev_sets(tmp_path: Path) -> None:
    (tmp_path / "MNLI").mkdir()
    before = ["index", "promptID", "pairID", "genre", "binary1", "binary2", "parse1", "parse2"]
    labels = ("entailment", "neutral", "contradiction")
    for name, votes in (("train", 1), ("dev_matched", 5), ("dev_mismatched", 5)):
        head = [*before, "sentence1", "sentence2", *(f"label{n}" for n in range(votes))]
        lines = ["\t".join([*head, "gold_label"])]
        for row in range(9):
            gold = labels[row % 3]
            fields = ["x"] * 8 + [f"{name} {row}", "so", *["neutral"] * votes, gold]
            lines.append("\t".join(fields))
        (tmp_path / "MNLI" / f"{name}.tsv").write_text("\n".join(lines))
    splits = read(tasks.load("mnli"), Source.directory(tmp_path))
    assert list(splits) == ["train", "selection", "dev_matched", "dev_mismatched"]
    assert splits["dev_mismatched"].labels.tolist() == [0, 1, 2] * 3
    assert splits["dev_matched"].texts[4] == ("dev_matched 4", "so")
    broken = tmp_path / "MNLI" / "dev_matched.tsv"
    broken.write_text(broken.read_text().replace("neutral\tneutral\n", "neutral\t-\n", 1))
    expected = r"dev_matched\.tsv:3: column 16 \(gold_label\): unknown label '-'; expected one of"
    with pytest.raises(DataError, match=expected):
        read(tasks.load("mnli"), Source.directory(tmp_path))


def test_official_mrpc_has_a_byte_order_mark_and_quotation_marks(tmp_path: Path) -> None:
    (tmp_path / "MRPC").mkdir()
    head = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = [f'{row % 2}\t{row}\t{row}\t"One {row}\ttwo" {row}' for row in range(10)]
    for name in ("train", "dev"):
        content = "\r\n".join([head, *rows]).encode("utf-8-sig")
        (tmp_path / "MRPC" / f"{name}.tsv").write_bytes(content)
    dev = read(tasks.load("mrpc"), Source.directory(tmp_path))["dev"]
    assert dev.texts[3] == ('"One 3', 'two" 3')
    assert dev.labels.tolist() == [0, 1] * 5


def test_directories_that_do_not_do(tmp_path: Path) -> None:
    cola = tasks.load("cola")
    with pytest.raises(DataError, match=r"/CoLA: no such directory; --data-dir is the one with"):
        read(cola, Source.directory(tmp_path))
    (tmp_path / "CoLA").mkdir()
    with pytest.raises(DataError, match=r"/CoLA/train\.tsv: no such file"):
        read(cola, Source.directory(tmp_path))
    for name in ("train", "dev"):
        (tmp_path / "CoLA" / f"{name}.tsv").write_text("gj04\t1\t\tFine.\n" * 5)
    with pytest.raises(DataError, match="every row of train has the same label"):
        read(cola, Source.directory(tmp_path))
    with pytest.raises(DataError, match="cola cannot be generated; give --data-dir"):
        read(cola, Source.generated())
    with pytest.raises(DataError, match="grammar is not on the hub"):
        read(tasks.load("grammar"), Source.hub())


def test_a_source_is_plain_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in (
        Source.hub(),
        Source.generated(),
        Source.directory("glue"),
        Source.files("a.csv", "b.csv"),
    ):
        assert Source.from_json(json.loads(json.dumps(source.to_json()))) == source
    assert Source.directory("glue").data_dir == str(tmp_path / "glue")


# -- the content hash ---------------------------------------------------------------------------


def test_content_hash_is_stable_and_sees_every_change() -> None:
    rows = Rows((("a", "b"), ("c", "")), np.array([0, 1], dtype=np.int64))
    encoded = b"dev 2 <i8\n" + bytes(8) + bytes([1]) + bytes(7)
    for text in (b"a", b"b", b"c", b""):
        encoded += len(text).to_bytes(8, "little") + text
    known = hashlib.sha256(encoded).hexdigest()
    assert content_hash({"dev": rows}) == known
    others = [
        {"train": rows},
        {"dev": Rows((("a", "b"), ("c", "d")), rows.labels)},
        {"dev": Rows((("ab", ""), ("c", "")), rows.labels)},
        {"dev": Rows(rows.texts, rows.labels[::-1])},
        {"dev": Rows(rows.texts, rows.labels.astype(np.float32))},
        {"dev": rows.take([1, 0])},
        {"dev": rows, "test": rows},
    ]
    hashes = {content_hash(other) for other in others}
    assert len(hashes) == len(others)
    assert known not in hashes

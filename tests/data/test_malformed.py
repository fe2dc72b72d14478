"""Malformed files: each is refused in one line that names the place."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cofi_tune.data.reader import DataError, Table, Wanted, read_table

WANTED = Wanted(("sentence",), "label")


def read(path: Path, content: bytes) -> Table:
    path.write_bytes(content)
    return read_table(path, WANTED)


TSV = b"sentence\tlabel\n"
MALFORMED = [
    ("a.tsv", b"", "a.tsv:1: empty, where a header line should be"),
    ("a.tsv", b"\n", "a.tsv:1: empty, where a header line should be"),
    ("a.tsv", b"\xef\xbb\xbf", "a.tsv:1: empty, where a header line should be"),
    ("a.tsv", TSV, "a.tsv:1: no rows"),
    ("a.tsv", b"text\tlabel\na\t1\n", "a.tsv:1: no column 'sentence'; columns: 'text', 'label'"),
    (
        "a.tsv",
        b"Sentence\tlabel\na\t1\n",
        "a.tsv:1: no column 'sentence'; did you mean 'Sentence'? columns: 'Sentence', 'label'",
    ),
    ("a.tsv", b"sentence\tlabel\tlabel\n", "a.tsv:1: 2 columns are called 'label'"),
    (
        "a.tsv",
        TSV + b"a\t1\nb\n",
        "a.tsv:3: column 2 (label): missing; 1 columns instead of 2",
    ),
    (
        "a.tsv",
        TSV + b"a\t1\nb\tc\t1\n",
        "a.tsv:3: column 3: one too many; 3 columns instead of 2",
    ),
    ("a.tsv", TSV + b"a\t1\n\nb\t1\n", "a.tsv:3: column 1 (sentence): empty line"),
    ("a.tsv", TSV + b"a\t1\r\n\r\n", "a.tsv:3: column 1 (sentence): empty line"),
    ("a.tsv", TSV + b"a\t1\nb\t\0\n", "a.tsv:3: column 2: a NUL byte, which no text has"),
    ("a.tsv", TSV + b"a\t1\nb\xff\t1\n", "a.tsv:3: column 1: byte 0xff is not UTF-8"),
    ("a.tsv", TSV + "é\t1\n".encode("latin-1"), "a.tsv:2: column 1: byte 0xe9 is not UTF-8"),
    ("a.tsv", TSV.decode().encode("utf-16"), "a.tsv:1: column 1: a NUL byte, which no text has"),
    ("a.csv", b"", "a.csv:1: no rows"),
    ("a.csv", b"sentence,label\n", "a.csv:1: no rows"),
    ("a.csv", b"\nsentence,label\n", "a.csv:1: empty, where a header line should be"),
    ("a.csv", b'sentence,label\n"a\nb",1\n\nc,1\n', "a.csv:4: column 1 (sentence): empty line"),
    (
        "a.csv",
        b'sentence,label\n"a\nb",1\nc\n',
        "a.csv:4: column 2 (label): missing; 1 columns instead of 2",
    ),
    (
        "a.csv",
        b'sentence,label\na,1\n"b,1\nc,1\n',
        "a.csv:3: the row that starts here: unexpected end of data",
    ),
    (
        "a.csv",
        b'sentence,label\n"a"b,1\n',
        "a.csv:2: the row that starts here: ',' expected after '\"'",
    ),
    ("a.csv", b"sentence,label\na,1\nb\0,1\n", "a.csv:3: byte 2: a NUL byte, which no text has"),
    ("a.csv", b"sentence,label\na\xff,1\n", "a.csv:2: byte 2: byte 0xff is not UTF-8"),
    ("a.jsonl", b"", "a.jsonl:1: no rows"),
    ("a.jsonl", b'{"sentence": "a"}\n', "a.jsonl:1: column label: missing"),
    (
        "a.jsonl",
        b'{"sentence": "a", "label": null}\n',
        "a.jsonl:1: column label: null",
    ),
    (
        "a.jsonl",
        b'{"sentence": 3, "label": 1}\n',
        "a.jsonl:1: column sentence: 3 is not text",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a", "label": [1]}\n',
        "a.jsonl:1: column label: [1] is not text",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a", "label": 1, "label": 0}\n',
        "a.jsonl:1: not JSON: the key 'label' is there twice",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a", "label": NaN}\n',
        "a.jsonl:1: not JSON: NaN is no number",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a\\u0000", "label": 1}\n',
        "a.jsonl:1: column sentence: a NUL character, which no text has",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a\\ud800", "label": 1}\n',
        "a.jsonl:1: column sentence: half of a surrogate pair, which is no character",
    ),
    ("a.jsonl", b"[]\n", "a.jsonl:1: not an object: []"),
    (
        "a.jsonl",
        b'{"sentence": "a", "label": 1}\n\n',
        "a.jsonl:2: character 1: not JSON: Expecting value",
    ),
    (
        "a.jsonl",
        b'{"sentence": "a" "label": 1}\n',
        "a.jsonl:1: character 18: not JSON: Expecting ',' delimiter",
    ),
    ("a.txt", b"a\t1\n", "a.txt: a data file ends in .tsv, .csv, .jsonl, .parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED)
def test_malformed_files_are_named_with_their_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path / name, content)
    assert str(error.value) == f"{tmp_path}/{message}"


def test_deeply_nested_json_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: not JSON"):
        read(tmp_path / "a.jsonl", b"[" * 100_000)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "dir.tsv").mkdir()
    with pytest.raises(DataError, match=r"none\.tsv: no such file or directory$"):
        read_table(tmp_path / "none.tsv", WANTED)
    with pytest.raises(DataError, match=r"dir\.tsv: is a directory$"):
        read_table(tmp_path / "dir.tsv", WANTED)


def test_malformed_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    for content in (b"", b"PAR1", b"sentence\tlabel\n" * 10):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet: not parquet, or broken: [^\n]+$"):
            read_table(path, WANTED)
    pq.write_table(pa.table({"sentence": ["a", None], "label": [1, 0]}), path)
    with pytest.raises(DataError, match=r"a\.parquet:2: column sentence: null$"):
        read_table(path, WANTED)
    pq.write_table(pa.table({"sentence": ["a"]}), path)
    expected = r"a\.parquet: no single column 'label'; columns: 'sentence'$"
    with pytest.raises(DataError, match=expected):
        read_table(path, WANTED)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), ending=st.sampled_from([".tsv", ".csv", ".jsonl"]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path: Path, content: bytes, ending: str) -> None:
    said = ""
    try:
        table = read(tmp_path / f"a{ending}", b"sentence\tlabel\n" * (ending == ".tsv") + content)
    except DataError as error:
        said = str(error)
    if said:
        assert "\n" not in said
        assert said.startswith(f"{tmp_path}/a{ending}:")
    else:
        assert len(table.texts) == len(table.labels) == len(table.lines) > 0

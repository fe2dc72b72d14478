"""The report as files, and the command that writes them."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis import report
from cofi_tune import connection

MakeSource = Callable[..., Any]
ALWAYS = {"front.json", "front.csv", "trials.parquet", "report.html", "report.md"}


def test_all_files(make_source: MakeSource) -> None:
    source = make_source(9)
    source.add("fail", tags={"cofi.reason": "error"})
    document, made = report.files(source)
    assert set(made) == ALWAYS | {"front.svg", "structure.svg"}
    front = json.loads(made["front.json"])
    assert front["fronts"] == report.rounded(document["fronts"])
    assert front["fronts"][0]["hypervolume"] == pytest.approx(document["fronts"][0]["hypervolume"], rel=1e-5)
    assert "curves" not in front["studies"][0]
    rows = list(csv.DictReader(io.StringIO(made["front.csv"].decode())))
    assert len(rows) == 9
    assert float(rows[0]["scenarios/latency/speedup"]) > 0
    assert {row["front"] for row in rows} == {front["fronts"][0]["id"]}
    table = pd.read_parquet(io.BytesIO(made["trials.parquet"]))
    assert len(table) == 10
    assert table["param/cofi/target_sparsity"].dtype == "Float64"
    for name in ("front.svg", "structure.svg"):
        ElementTree.fromstring(made[name])


@pytest.mark.parametrize("kind", ["empty", "one", "all failed", "running", "two contracts", "no study"])
def test_any_state_of_a_search_makes_a_report_that_says_so(make_source: MakeSource, kind: str) -> None:
    source = make_source({"one": 1, "running": 3, "two contracts": 3}.get(kind, 0))
    match kind:
        case "all failed":
            source.add("fail", tags={"cofi.reason": "error", "cofi.message": "it broke"})
        case "running":
            source.add("running")
        case "two contracts":
            source.add(contract={"device": "cuda", "device_name": "H100", "scenario": "throughput"})
        case "no study":
            source.has_own_run = False
    document, made = report.files(source)
    assert set(made) >= ALWAYS
    assert document["notes"]
    for note in document["notes"]:
        assert note in made["report.html"].decode()
    assert len([name for name in made if name.startswith("front") and name.endswith(".svg")]) == len(
        document["fronts"]
    )


def test_the_same_studies_make_the_same_bytes(make_source: MakeSource) -> None:
    first, second = (report.files(make_source(20))[1] for _ in range(2))
    assert first == second


def test_without_pages(make_source: MakeSource) -> None:
    assert not {"report.html", "report.md"} & set(report.files(make_source(2), with_pages=False)[1])


def test_the_output_is_called_as_it_is_here(make_source: MakeSource) -> None:
    document, _ = report.files(make_source(1), "somewhere/else")
    assert document["fronts"][0]["trials"][0]["path"] == "somewhere/else/s/trials/s-0000/model"


def test_no_cell_is_a_formula(make_source: MakeSource) -> None:
    source = make_source()
    source.add(params={"cofi/layer_mix": "=cmd|'/c calc'!A0"})
    rows = list(csv.DictReader(io.StringIO(report.files(source)[1]["front.csv"].decode())))
    assert rows[0]["settings/cofi/layer_mix"].startswith("'=cmd")


def test_files_are_written_whole(make_source: MakeSource, tmp_path: Path) -> None:
    made = report.files(make_source(2))[1]
    directory = tmp_path / "deep" / "er"
    directory.mkdir(parents=True)
    (directory / "front-of-old.svg").touch()
    paths = report.write(made, directory)
    assert sorted(path.name for path in (tmp_path / "deep" / "er").iterdir()) == sorted(made)
    assert {path.name: path.read_bytes() for path in paths} == made


@given(st.text(max_size=300))
@example("../../etc")
@example("/etc/passwd")
@example("a\0b")
@example("..")
@example("CON")
@example("lpt1.txt")
@example("")
@example("x" * 300)
def test_no_study_name_leaves_the_output(name: str) -> None:
    made = report.directory_name(name)
    path = Path("output") / made
    assert path.parent == Path("output")
    assert ".." not in path.parts
    assert 0 < len(made) <= 106
    assert made.isascii()
    assert not made.startswith(".")
    assert made.split(".")[0].upper() not in report.RESERVED


def test_good_names_stay_what_they_are() -> None:
    for name in ("cola-cofi-mini", "sst2_v2.1", "demo"):
        assert report.directory_name(name) == name


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = report.main(words)
    said = capsys.readouterr()
    return status, said.out + said.err


def test_slips_are_said_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, text = command(capsys, "--output", str(tmp_path / "nothing"))
    assert (status, text.count("\n")) == (2, 1)
    assert "no mlflow.db in it (yet); give the search's --output, or --tracking-uri" in text
    connection.connect(f"sqlite:///{tmp_path}/mlflow.db")
    status, text = command(capsys, "--output", str(tmp_path), "--task", "cola")
    assert (status, text) == (
        2,
        "error: --task cola: no study of this task (tasks that were searched: none)\n",
    )
    for flags, words in [
        (("--study", "a", "--task", "b"), "contradict each other"),
        (("--to", ""), "--to '': give a directory"),
        (("--to", __file__), "give a directory"),
        (("--tracking-uri", "runs/mlflow.db"), "such as sqlite:///runs/mlflow.db"),
    ]:
        status, text = command(capsys, "--output", str(tmp_path), *flags)
        assert (status, words in text, text.count("\n")) == (2, True, 1)
    with pytest.raises(SystemExit) as caught:
        report.main(["--taks", "cola"])
    assert caught.value.code == 2
    assert "did you mean --task?" in capsys.readouterr().err

"""What a search says at its end, from its own files, is what MLflow says afterwards: byte for byte."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis import report, tracked
from cofi_tune.messages import Outcome
from cofi_tune.optuna_study import link_of

CHAIN = (0.5, 0.7, 0.9)


def ends(stand_in: Any) -> Any:
    """Every third trial fails, every fourth is stopped early."""
    numbers = itertools.count()

    def evaluate(job: Any) -> Outcome:
        number = next(numbers)
        if number % 3 == 2:
            return Outcome.failed("non_finite", "a <b>loss</b> is nan\u2028| `x`")
        if number % 4 == 3:
            return Outcome("pruned", "overshoot", "too sparse for long")
        measured: Outcome = stand_in.measure(job)
        return measured

    return evaluate


@pytest.fixture(scope="module")
def searched(stand_in: Any) -> dict[str, Any]:
    """A search in two commands, the second of which goes on with the first."""
    evaluate = ends(stand_in)
    changes = {"report": True, "chain": CHAIN, "command": "python -m cofi_tune.search --trials 5"}
    stand_in.run("both-ways", evaluate, trials=5, **changes)
    changes |= {"trials": 14, "command": "python -m cofi_tune.search --trials 14"}
    found: dict[str, Any] = stand_in.run("both-ways", evaluate, **changes)
    return found


def test_both_make_the_same_report(searched: dict[str, Any], stand_in: Any) -> None:
    directory = stand_in.directory / "both-ways"
    source = tracked.connect(f"sqlite:///{stand_in.directory}/mlflow.db")
    source.chosen = tracked.choose(source.studies(), ["both-ways"], None)
    document, made = report.files(source, str(stand_in.directory))
    assert {"report.html", "report.md", "front.json", "front.svg", "trials.parquet"} <= set(made)
    assert [name for name, content in made.items() if (directory / name).read_bytes() != content] == []
    assert document["studies"][0]["command"].endswith("--trials 14")
    assert document["studies"][0]["counts"] == searched["counts"]
    assert sum(end["count"] for end in document["studies"][0]["ends"]) >= 6


def test_parents_are_recorded_in_optuna_in_mlflow_and_in_the_report(
    searched: dict[str, Any], stand_in: Any
) -> None:
    source = tracked.connect(f"sqlite:///{stand_in.directory}/mlflow.db")
    source.chosen = tracked.choose(source.studies(), ["both-ways"], None)
    tags = {run.tags["cofi.trial_id"]: run.tags for run in source.runs() if run.tags["cofi.kind"] == "trial"}
    rows = {row["trial"]: row for row in searched["trials"]}
    links = {trial.user_attrs["trial_id"]: link_of(trial) for trial in stand_in.trials("both-ways")}
    assert {link.place for link in links.values() if link} == {1, 2, 3}
    for trial_id, link in links.items():
        assert link is not None
        targets = " > ".join(map(str, link.targets))
        told = tags[trial_id]
        assert (told["cofi.parent"], told["cofi.root"], told["cofi.chain"]) == (
            link.parent or "",
            link.root,
            targets,
        )
        if trial_id in rows:
            assert rows[trial_id]["parent"] == link.parent
            assert rows[trial_id]["chain"] == f"link {link.place} of {link.root}: {targets}"
    page = (stand_in.directory / "both-ways" / "report.html").read_text()
    best = next(row for row in rows.values() if row["on_front"])
    assert f"<dt>chain</dt><dd>link {best['chain'].split()[1]} of {best['chain'].split()[3]}" in page
    assert "CPU minutes of training" in page


def test_an_output_that_was_moved_makes_it_too(
    searched: dict[str, Any], stand_in: Any, tmp_path: Path
) -> None:
    there = tmp_path / "runs"
    shutil.copytree(stand_in.directory, there, ignore=shutil.ignore_patterns("mlartifacts"))
    for trial in (there / "both-ways" / "trials").iterdir():
        (trial / "plan.json").write_text("{}")
    source = tracked.connect(f"sqlite:///{there}/mlflow.db", there)
    source.chosen = tracked.choose(source.studies(), ["both-ways"], None)
    trials = [run for run in source.runs() if run.tags["cofi.kind"] == "trial"]
    assert {source.artifact(run, "plan.json") for run in trials} == {b"{}"}
    assert {source.artifact(run, "nothing.json") for run in trials} == {None}


def test_the_report_is_in_mlflow_too(searched: dict[str, Any], stand_in: Any) -> None:
    source = tracked.connect(f"sqlite:///{stand_in.directory}/mlflow.db")
    source.chosen = tracked.choose(source.studies(), ["both-ways"], None)
    [own] = [run for run in source.runs() if run.tags["cofi.kind"] == "study"]
    page = source.artifact(own, "report.html")
    assert page == (stand_in.directory / "both-ways" / "report.html").read_bytes()
    front = json.loads(source.artifact(own, "front.json") or b"")
    assert front["fronts"][0]["trials"] == report.rounded(searched["trials"])


def test_a_front_starts_from_the_best_constant_answer(searched: dict[str, Any]) -> None:
    assert searched["reference"] == {"score": 0.0, "speedup": 1.0}
    assert searched["hypervolume"] > 0


def test_no_report_when_none_is_wanted(stand_in: Any) -> None:
    stand_in.run("plain", trials=2, report=False)
    names = {path.name for path in (stand_in.directory / "plain").iterdir()}
    assert {"front.json", "front.csv", "front.svg", "trials.parquet"} <= names
    assert not {"report.html", "report.md"} & names

"""Searches with chains, killed: each link once, in the same place, with the same curve."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.faults

KILLS = [
    {"at": "cofi_tune.proposals:Proposals._enqueue", "nth": 2, "when": "after"},  # the link is asked for
    {"at": "cofi_tune.tidy:Tidy.ended", "when": "before"},  # its parent is complete
    {"at": "cofi_tune.loop:Training.go_on", "when": "after"},  # it has begun
    {"at": "cofi_tune.loop:Training._train", "nth": 25},  # in its midst
]


def links(search: Any) -> list[Any]:
    found = [trial.user_attrs["link"] for trial in search.study.trials]
    return [(link["parent"], link["chain"][: link["place"]]) for link in found]


def test_killed_anywhere_each_link_is_there_once(search: Any, undisturbed_chain: Any, tmp_path: Path) -> None:
    search.chained().killed_in_turn(KILLS, tmp_path)
    search.run()
    search.check()
    assert links(search) == links(undisturbed_chain) == [(None, [0.5]), ("s-0000", [0.5, 0.6]), (None, [0.5])]
    for trial in range(3):
        assert search.curve(trial) == undisturbed_chain.curve(trial)
    assert search.front() == undisturbed_chain.front()
    left = (search.output / "s" / "trials").glob("*/link")
    assert [path.parent.name for path in left] == ["s-0002"], "for more --trials"


@pytest.mark.long
def test_a_link_begins_on_a_disk_that_its_parent_never_saw(
    in_bucket: Any, undisturbed_chain: Any, tmp_path: Path
) -> None:
    in_bucket.chained().killed_in_turn([{**KILLS[-1], "nth": 85}], tmp_path)
    in_bucket.end_all()
    in_bucket.no_process_is_left()
    shutil.rmtree(in_bucket.output)
    in_bucket.run()
    in_bucket.check()
    for trial in range(3):
        assert in_bucket.curve(trial) == undisturbed_chain.curve(trial)
    assert in_bucket.front() == undisturbed_chain.front()
    trials = in_bucket.output / "s" / "trials"
    kept = [
        f"s-000{one}" for one in range(3) if "link" in in_bucket.place.directories(trials / f"s-000{one}")
    ]
    assert kept == ["s-0002"], "for more --trials"


@pytest.mark.long
def test_a_chain_with_two_workers(search: Any) -> None:
    search.chained().environment = {}
    search.trials = 2
    search.flags += ["--workers-per-trial", "2"]
    text = search.run()
    assert "link 2 of 2 after 0000" in text
    search.check()
    assert links(search) == [(None, [0.5]), ("s-0000", [0.5, 0.6])]
    assert search.reasons() == [None, None]
    sparsities = [trial.user_attrs["outcome"]["measurement"]["sparsity"] for trial in search.study.trials]
    assert sparsities == pytest.approx([0.5, 0.6], abs=0.05)

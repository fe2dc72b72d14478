"""Points from a file: what is wrong with one is said with its line and the right name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

import search_spaces
from cofi_tune import points

SPACE = points.distributions(search_spaces.load("cofi", "cola").space)
SPARSITY, MATCHING = "cofi/target_sparsity", "cofi/layer_matching"
GOOD = [{SPARSITY: 0.8, MATCHING: "v3"}, {SPARSITY: 0.6}]


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.json", json.dumps(GOOD), [1, 1]),
        ("a.json", json.dumps(GOOD, indent=1), [2, 6]),
        ("a.jsonl", "\n".join(map(json.dumps, GOOD)) + "\n\n", [1, 2]),
        ("a.csv", f"{SPARSITY}, {MATCHING}\n0.8,v3\n\n0.6,\n", [2, 4]),
        ("a.csv", f"\ufeff{SPARSITY},{MATCHING}\r\n.8,v3\r\n6e-1\r\n", [2, 3]),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str, lines: list[int]) -> None:
    path = written(tmp_path, name, text)
    found = points.read(path, SPACE)
    assert [point for _, point in found] == GOOD
    assert [where for where, _ in found] == [f"{path}:{line}" for line in lines]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "", "must end with .json, .jsonl, .csv"),
        ("a.json", "[]", "there is no point in it"),
        ("a.json", "{}", "expected a list of objects"),
        ("a.json", "[1]", "a.json:1: expected an object, got 1"),
        ("a.json", f'[\n{{"{SPARSITY}": 0.8}}\n{{}}]', "a.json:3: expected a comma"),
        ("a.json", f'[\n{{"{SPARSITY}": 0.8,\n"x" 1}}]', "a.json:3: not JSON"),
        ("a.json", f'[{{"{SPARSITY}": NaN}}]', "a.json:1: NaN is no value"),
        ("a.json", f'[{{"{SPARSITY}": 0.8, "{SPARSITY}": 0.7}}]', "is given twice"),
        ("a.json", "[] []", "there is something after the list"),
        (
            "a.json",
            '[\n{"cofi/target_sparsty": 0.8}]',
            "a.json:2: unknown parameter 'cofi/target",
        ),
        ("a.json", f'[{{"{SPARSITY}": 0.99}}]', f"{SPARSITY} is 0.99, the space has 0.4 to 0.95"),
        ("a.json", f'[{{"{SPARSITY}": "0.8"}}]', "is '0.8', not a number"),
        ("a.json", f'[{{"{SPARSITY}": true}}]', "is True, not a number"),
        ("a.json", f'[{{"{MATCHING}": "v5"}}]', "is 'v5', the space has off, v3, v4, v6"),
        ("a.jsonl", f'\n{{"{SPARSITY}": 0.8}} 1', "a.jsonl:2: there is something after"),
        ("a.jsonl", f'{{"{SPARSITY}": 0.8}}\n{{', "a.jsonl:2: not JSON"),
        ("a.csv", f"{SPARSITY}\n0.8\nhalf\n", "a.csv:3: cofi/target_sparsity is 'half'"),
        ("a.csv", f"{SPARSITY}\n0.8,1\n", "a.csv:2: 2 values for 1 names"),
        ("a.csv", f"{SPARSITY},{SPARSITY}\n", "a.csv:1: a name stands there twice"),
        ("a.csv", f"{SPARSITY}\ninf\n", "not a number"),
        ("a.csv", "sparsity\n0.8\n", "a.csv:1: unknown parameter 'sparsity'; did you mean cofi/"),
    ],
)
def test_one_line_says_what_is_wrong_and_where(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match="--enqueue") as caught:
        points.read(written(tmp_path, name, text), SPACE)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: no such file"):
        points.read(tmp_path / "nowhere.csv", SPACE)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        points.read(tmp_path / "a.csv", SPACE)


def test_choices_keep_their_type(tmp_path: Path) -> None:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    space = {"a": CategoricalDistribution([1, 0.5, True, "x"]), "n": IntDistribution(1, 9)}
    found = points.read(written(tmp_path, "a.csv", "a,n\n1,3\n.50,3.0\nTrue,9\nx,1\n"), space)
    assert [point["a"] for _, point in found] == [1, 0.5, True, "x"]
    assert [point["n"] for _, point in found] == [3, 3, 9, 1]
    with pytest.raises(ValueError, match="not a whole number"):
        points.read(written(tmp_path, "a.csv", "n\n2.5\n"), space)


def test_given_points_come_first_and_once(stand_in: Any) -> None:
    given = ({SPARSITY: 0.71, "cofi/layer_mix": 0.9}, {SPARSITY: 0.93})
    changes: dict[str, Any] = {"enqueue": (*given, given[0])}
    stand_in.run("given", trials=1, **changes)
    stand_in.run("given", trials=3, **changes)
    stand_in.run("given", trials=3, **changes)
    trials = stand_in.trials("given")
    assert [trial.params[SPARSITY] for trial in trials] == [0.71, 0.93, 0.75], "then the space's own"
    assert trials[0].user_attrs[points.ENQUEUED] == given[0]
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}


def test_point_whose_driver_died_is_not_proposed_twice(stand_in: Any) -> None:
    import optuna

    stand_in.run("torn", trials=1)
    study = optuna.load_study(study_name="torn", storage=stand_in.storage)
    left = points.still_to_propose(study, search_spaces.load("smoke", "cola").points)
    assert len(left) == 4
    study.enqueue_trial(left[0], user_attrs={points.ENQUEUED: left[0]})  # and then it died
    stand_in.run("torn", trials=5)
    assert [t.params[SPARSITY] for t in stand_in.trials("torn")] == [0.75, 0.9, 0.4, 0.85, 0.8]


def test_largest_value_of_a_setting_is_found_or_its_default() -> None:
    def space(draw: Any) -> dict[str, Any]:
        size = draw.suggest_categorical("size", [16, 64, 128.0, "256", None])
        if draw.number == 3:
            raise RuntimeError("a user's own")
        return {"batch_size": size}

    assert points.largest(space, "batch_size", 32) == 64
    assert points.largest(space, "rows", 32) == 32

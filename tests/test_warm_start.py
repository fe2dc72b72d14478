"""Trials of earlier studies are known to the sampler, and are none of the study's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from cofi_tune import optuna_study, warm_start
from cofi_tune.optuna_study import WARM_START, open_study
from cofi_tune.records import OBJECTIVES

SPARSITY = "cofi/target_sparsity"
PURPOSE = {
    "task": "signs",
    "objectives": [f"{one.direction} {one.name}" for one in OBJECTIVES],
    "scenario": "throughput",
}


def imported(trials: list[Any]) -> list[Any]:
    return [trial for trial in trials if WARM_START in trial.user_attrs]


def test_they_are_known_and_count_for_nothing(stand_in: Any) -> None:
    stand_in.run("old", trials=6)
    seen: list[str] = []
    found = stand_in.run("new", seen=seen, trials=4, warm_start=("old",))
    trials = stand_in.trials("new")
    theirs, own = imported(trials), [t for t in trials if WARM_START not in t.user_attrs]
    assert (len(theirs), len(own)) == (6, 4)
    assert [t.params for t in theirs] == [t.params for t in stand_in.trials("old")]
    assert theirs[0].values == stand_in.trials("old")[0].values
    assert theirs[0].user_attrs["warm_start"] == "old-0000"
    assert theirs[0].user_attrs["warm_start_other_task"] is False
    assert found["counts"] == {"complete": 4}
    assert {row["trial"] for row in found["trials"]} == {t.user_attrs["trial_id"] for t in own} == set(seen)
    assert len(set(seen)) == 4
    assert not any(t.user_attrs["outcome"]["reason"] for t in own), "nor are these duplicates of them"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{stand_in.directory}/mlflow.db")
    experiment = client.get_experiment_by_name("new").experiment_id
    kinds = [run.data.tags["cofi.kind"] for run in client.search_runs([experiment])]
    assert sorted(kinds) == ["study"] + ["trial"] * 4


def test_again_adds_only_what_is_new(stand_in: Any) -> None:
    stand_in.run("source", trials=3)
    stand_in.run("twice", trials=2, warm_start=("source", "source"))
    before = [trial.number for trial in stand_in.trials("twice")]
    stand_in.run("twice", trials=2, warm_start=("source",))
    assert [trial.number for trial in stand_in.trials("twice")] == before
    stand_in.run("source", trials=4)
    stand_in.run("twice", trials=3, warm_start=("source",))
    assert len(imported(stand_in.trials("twice"))) == 4
    # What a study was told is not handed on.
    stand_in.run("third", trials=1, warm_start=("twice",))
    assert len(imported(stand_in.trials("third"))) == 3


def test_resumed_search_goes_on_as_if_it_had_not_been(stand_in: Any) -> None:
    stand_in.run("known", trials=5)
    stand_in.run("whole-warm", trials=8, warm_start=("known",))
    stand_in.run("parts-warm", trials=6, warm_start=("known",))
    stand_in.run("parts-warm", trials=8, warm_start=("known",))
    whole, parts = (stand_in.trials(name) for name in ("whole-warm", "parts-warm"))
    # Trials asked for differ, and with them the startup of the sampler; the points do not.
    assert [t.params for t in parts[:10]] == [t.params for t in whole[:10]]


def add(storage: str, to: str, source: str, space: Any) -> tuple[list[Any], list[str]]:
    notes: list[str] = []
    study = open_study(storage, to, {**PURPOSE, "task": "other"})
    warm_start.add(study, storage, [source], space, notes.append)
    return study.trials, notes


def earlier(storage: str, name: str, params: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    study = open_study(storage, name, PURPOSE)
    for one in params:
        space = {n: optuna.distributions.FloatDistribution(0, 100) for n in one}
        study.add_trial(
            optuna.trial.create_trial(
                params=one, distributions=space, values=[0.5, 2.0], user_attrs={"settings": settings}
            )
        )


def test_other_task_is_marked_and_fixed_values_are_carried(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    earlier(storage, "a", [{"x": 5.0}], {"x": 5.0, "y": 0.25, "kind": "v4"})

    def space(draw: Any) -> Any:
        draw.suggest_float("x", 1, 10, log=True)
        draw.suggest_float("y", 0, 1)
        if draw.suggest_categorical("kind", ["off", "v4"]) == "off":
            draw.suggest_float("z", 0, 1)

    [trial], notes = add(storage, "b", "a", space)
    assert trial.params == {"x": 5.0, "y": 0.25, "kind": "v4"}
    assert trial.distributions["x"].log
    assert trial.user_attrs["warm_start_task"] == "signs"
    assert trial.user_attrs["warm_start_other_task"] is True
    assert notes == ["warm start from a (another task, signs): 1 added"]


def test_what_does_not_fit_is_left_out_and_said(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    earlier(storage, "a", [{"x": 5.0}, {"x": 50.0}, {"x": 60.0}, {"y": 1.0}], {})
    trials, notes = add(storage, "b", "a", lambda draw: draw.suggest_float("x", 1, 10))
    assert [trial.params for trial in trials] == [{"x": 5.0}]
    found = "1 added, 2 left out, this space does not have their x, 1 left out, they have no x"
    assert notes == [f"warm start from a (another task, signs): {found}"]
    trials, notes = add(storage, "c", "a", lambda draw: draw.suggest_categorical("x", ["one", "two"]))
    assert trials == []
    assert "3 left out, this space does not have their x, 1 left out, they have no x" in notes[0]


@pytest.mark.parametrize(
    "name", ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("nsga2", "gp"))]
)
def test_samplers_learn_from_them(tmp_path: Path, name: str) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    source = open_study(storage, "a", PURPOSE)
    names = ("x", "a", "b", "c", "d", "e")
    stream = np.random.default_rng(0)
    for step in range(40):
        x, rest = step / 40, dict(zip(names[1:], stream.random(5).tolist(), strict=True))
        # Near 0.8 both objectives are best.
        source.add_trial(
            optuna.trial.create_trial(
                params={"x": x, **rest},
                distributions=dict.fromkeys(names, optuna.distributions.FloatDistribution(0, 1)),
                values=[1 - abs(x - 0.8), 1 - abs(x - 0.8)],
            )
        )
    study = open_study(storage, "b", PURPOSE)

    def space(draw: Any) -> list[float]:
        return [draw.suggest_float(name, 0, 1) for name in names]

    warm_start.add(study, storage, ["a"], space, lambda text: None)
    draws: list[float] = []
    for seed in range(3 if name == "gp" else 12):  # it takes seconds for each
        study.sampler = optuna_study.sampler(name, seed, 40, 20)
        trial = study.ask()
        draws.append(space(trial)[0])
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert sum(abs(x - 0.8) < 0.25 for x in draws) >= 0.7 * len(draws), draws


def test_a_new_study_may_learn_from_the_one_whose_name_it_was_to_have(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    open_study(storage, "mine", PURPOSE)
    warm_start.check(storage, ["mine"], None, "throughput")


def test_studies_that_cannot_be_learned_from(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/optuna.db"
    with pytest.raises(ValueError, match="no study yet"):
        warm_start.check(storage, ["a"], "mine", "throughput")
    assert not (tmp_path / "optuna.db").exists()
    open_study(storage, "cola-smoke-mini", PURPOSE)
    open_study(storage, "slow", {**PURPOSE, "scenario": "latency"})
    open_study(storage, "odd", {**PURPOSE, "objectives": ["minimize loss"]})
    warm_start.check(storage, ["cola-smoke-mini"], "mine", "throughput")
    for name, words in (
        ("cola-smok-mini", "did you mean cola-smoke-mini"),
        ("mine", "the study itself"),
        ("slow", "give --scenario latency"),
        ("odd", "its objectives are"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            warm_start.check(storage, [name], "mine", "throughput")
        assert "\n" not in str(caught.value)

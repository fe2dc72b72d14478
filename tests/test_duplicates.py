"""What repeats an earlier trial is not run again, and a space without anything new ends the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cofi_tune import duplicates
from cofi_tune.messages import Outcome

SPARSITY, MIX = "'cofi/target_sparsity'", "'cofi/layer_mix'"


@pytest.fixture
def finite(tmp_path: Path) -> str:
    """Six combinations."""
    path = tmp_path / "finite.py"
    path.write_text(
        "def space(draw):\n"
        f"    return {{{SPARSITY}: draw.suggest_categorical({SPARSITY}, [.5, .7, .9]),\n"
        f"            {MIX}: draw.suggest_categorical({MIX}, [.5, .9])}}\n"
    )
    return str(path)


def reasons(trials: list[Any]) -> list[str | None]:
    return [trial.user_attrs["outcome"]["reason"] for trial in trials]


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("nsga2", "gp", "random"))]
)
def test_finite_space_is_tried_whole_and_ends_the_search(stand_in: Any, finite: str, sampler: str) -> None:
    name = f"finite-{sampler}"
    seen: list[str] = []
    found = stand_in.run(name, seen=seen, space=finite, trials=30, sampler=sampler)
    assert len(seen) == 6
    assert found["counts"]["complete"] == 6
    assert found["ended_by"] == "the space: all of its 6 combinations have been tried"
    trials = stand_in.trials(name)
    own = {tuple(trial.params.values()) for trial in trials if trial.state is TrialState.COMPLETE}
    assert len(own) == 6
    repeated = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert reasons(repeated) == ["duplicate"] * len(repeated)
    assert found["counts"].get("pruned (duplicate)", 0) == len(repeated) <= 2 * 6
    again = stand_in.run(name, seen=seen, space=finite, trials=30, sampler=sampler)
    assert len(stand_in.trials(name)) == len(trials), "a second run adds nothing"
    assert again["trials"] == found["trials"]


def test_duplicates_cost_nothing_of_the_budget_across_a_resume(stand_in: Any, finite: str) -> None:
    seen: list[str] = []
    point = {"cofi/target_sparsity": 0.7, "cofi/layer_mix": 0.9}
    other = {"cofi/target_sparsity": 0.9, "cofi/layer_mix": 0.9}
    # The same settings under other params: `enqueue` leaves one of them out once.
    given = (point, {"cofi/target_sparsity": 0.7}, {"cofi/layer_mix": 0.9}, other)
    changes: dict[str, Any] = {"space": finite, "enqueue": given, "sampler": "random"}
    stand_in.run("budget", seen=seen, trials=2, **changes)
    stand_in.run("budget", seen=seen, trials=5, **changes)
    trials = stand_in.trials("budget")
    assert len(seen) == len(set(seen)) == 5
    assert [t.state for t in trials].count(TrialState.COMPLETE) == 5
    for trial in trials:
        if trial.state is TrialState.PRUNED:
            message = trial.user_attrs["outcome"]["message"]
            twin = trials[int(message.removeprefix("its settings are those of budget-"))]
            assert twin.number < trial.number
            assert twin.user_attrs["settings"] == trial.user_attrs["settings"]


def test_a_point_that_failed_may_be_tried_again(stand_in: Any, finite: str) -> None:
    point = {"cofi/target_sparsity": 0.7, "cofi/layer_mix": 0.9}
    ends = [Outcome.failed("lost")]
    stand_in.run(
        "failed",
        lambda job: ends.pop() if ends else stand_in.measure(job),
        space=finite,
        enqueue=(point,),
        trials=1,
    )
    study = optuna.load_study(study_name="failed", storage=stand_in.storage)
    settings = study.trials[0].user_attrs["settings"]
    assert study.trials[0].state is TrialState.FAIL
    assert duplicates.repeats(study, 1, settings) is None


def test_space_that_gives_one_point_only_ends(stand_in: Any, tmp_path: Path) -> None:
    path = tmp_path / "constant.py"
    path.write_text(
        f"def space(draw):\n    draw.suggest_float('x', 0, 1)\n    return {{{SPARSITY}: .5, {MIX}: .5}}\n"
    )
    found = stand_in.run("constant", space=str(path), trials=3)
    assert found["counts"] == {"complete": 1, "pruned (duplicate)": 20}
    assert "20 proposals in a row" in found["ended_by"]


def asked(*distributions: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "maximize"])
    for one in distributions:
        study.ask(one)
    return study


def test_combinations() -> None:
    letters, zero = CategoricalDistribution(["x", "y"]), FloatDistribution(0, 0)
    whole = {"a": letters, "b": IntDistribution(1, 3), "c": zero}
    assert len([*duplicates.combinations(whole)]) == 6 == duplicates.num_combinations(whole.values())
    assert {"a": "y", "b": 3, "c": 0.0} in [*duplicates.combinations(whole)]
    endless = {**whole, "d": FloatDistribution(0, 1)}
    assert duplicates.num_combinations(endless.values()) is None
    assert [*duplicates.combinations(endless)] == []
    assert [*duplicates.combinations({"e": IntDistribution(0, 10**6)})] == []


@pytest.mark.parametrize("function", [duplicates.untried, duplicates.exhausted])
def test_nothing_is_known_of_a_space_that_asks_for_other_names(
    function: Callable[[optuna.Study], Any],
) -> None:
    one, two = {"a": CategoricalDistribution([1])}, {"b": CategoricalDistribution([1, 2])}
    assert function(asked()) is None
    assert function(asked(one, two)) is None
    assert duplicates.exhausted(asked(one)) == 1
    assert duplicates.untried(asked(two)) in ({"b": 1}, {"b": 2})

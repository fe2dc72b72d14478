"""The study on disk: states with a meaning, and what it demands of its models."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cofi_tune import optuna_study, study
from cofi_tune.messages import FAIL_REASONS, KEY, Message, Outcome, encode
from cofi_tune.optuna_study import OtherPurpose, violations
from cofi_tune.records import InvalidMetric, InvalidPoint
from cofi_tune.worker import outcome_of


def test_violations() -> None:
    purpose = {"min_score": 0.8, "min_speedup": None}
    assert violations(purpose, {"score": 0.75, "speedup": 1.0}) == {"min_score": pytest.approx(0.05)}
    assert violations({}, {"score": 0.75, "speedup": 1.0}) == {}


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(name, marks=pytest.mark.long) for name in ("nsga2", "gp", "random"))]
)
def test_demands_are_constraints_of_every_sampler(stand_in: Any, sampler: str) -> None:
    name = f"demands-{sampler}"
    stand_in.run(f"{name}-old", trials=4, sampler="random")
    ends = iter([Outcome("pruned", "target_not_reached", "0.3 of 0.5")])
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # of `constraints_func`
        warnings.simplefilter("error", UserWarning)
        found = stand_in.run(
            name,
            lambda job: next(ends, None) or stand_in.measure(job),
            trials=4 if sampler == "gp" else 10,
            sampler=sampler,
            min_score=0.7,
            min_speedup=3.0,
            warm_start=(f"{name}-old",),
        )
    loaded = optuna.load_study(study_name=name, storage=stand_in.storage)
    assert all({*trial.constraints} == {"min_score", "min_speedup"} for trial in loaded.trials)
    own = [t for t in loaded.trials if optuna_study.WARM_START not in t.user_attrs]
    assert own[0].state is TrialState.PRUNED
    assert own[0].constraints == {"min_score": 1.7, "min_speedup": 3.0}
    for trial in (t for t in own if t.state is TrialState.COMPLETE):
        score, speedup = trial.values
        assert trial.constraints == {"min_score": 0.7 - score, "min_speedup": 3.0 - speedup}
    rows = {row["trial"]: row for row in found["trials"]}
    useful = {name for name, row in rows.items() if row["score"] >= 0.7 and row["speedup"] >= 3.0}
    assert {name for name, row in rows.items() if row["meets_demands"]} == useful
    on_front = {name for name, row in rows.items() if row["on_front"]}
    assert on_front <= useful
    # Optuna, and so its dashboard, sees the same front among what this study has run.
    best = optuna.create_study(directions=["maximize"] * 2)
    best.add_trials([t for t in own if t.state is TrialState.COMPLETE])
    assert {t.user_attrs["trial_id"] for t in best.best_trials} == on_front
    if on_front:
        assert found["recommended"] == max(on_front, key=lambda name: rows[name]["speedup"])


@pytest.mark.long
def test_tpe_prefers_what_meets_the_demands(stand_in: Any) -> None:
    found = stand_in.run("demanding", trials=40, min_speedup=5.0)
    rows = sorted(found["trials"], key=lambda row: row["trial"])
    late = [row["meets_demands"] for row in rows[20:]]
    assert sum(late) >= 0.5 * len(late), "a fifth of the space meets them"
    assert found["recommended"] == max((r for r in rows if r["on_front"]), key=lambda r: r["score"])["trial"]


def test_other_demands_are_another_purpose(stand_in: Any) -> None:
    stand_in.run("strict", trials=1, min_score=0.5)
    with pytest.raises(OtherPurpose, match=r"min_score: 0\.5 there, 0\.6 now"):
        stand_in.run("strict", trials=1, min_score=0.6)


def test_driver_that_died_after_the_constraints(stand_in: Any) -> None:
    stand_in.run("half-told", trials=2, min_score=0.5)
    loaded = optuna.load_study(study_name="half-told", storage=stand_in.storage)
    trial = loaded.ask()
    trial.set_user_attr("outcome", loaded.trials[0].user_attrs["outcome"])
    trial.set_constraint("min_score", 0.5 - loaded.trials[0].values[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)
        found = stand_in.run("half-told", trials=3, min_score=0.5)
    assert len(found["trials"]) == 3


def test_a_table_of_trials_reads_well(stand_in: Any) -> None:
    ends = iter([Outcome("pruned", "target_not_reached", "0.3 of 0.5")])
    stand_in.run("table", lambda job: next(ends, None) or stand_in.measure(job), trials=2)
    one, two = (trial.user_attrs for trial in stand_in.trials("table"))
    assert (one["reason"], one["message"]) == ("target_not_reached", "0.3 of 0.5")
    assert {*two} - {"outcome", "settings", "reproduce", "enqueued"} == {
        "trial_id",
        "sparsity",
        "num_parameters",
        "throughput_speedup",
    }
    loaded = optuna.load_study(study_name="table", storage=stand_in.storage)
    assert loaded.metric_names == ["score", "speedup"]


def test_reasons_of_failures(stand_in: Any) -> None:
    assert outcome_of(InvalidMetric("score is nan")).reason == "invalid_metric"
    assert outcome_of(InvalidPoint("no hidden unit is left")).reason == "invalid_point"
    ends = [Outcome.failed(reason) for reason in (*FAIL_REASONS, "moonlight")]
    stand_in.run("reasons", lambda job: ends.pop(0), trials=len(ends))
    trials = stand_in.trials("reasons")
    assert {trial.state for trial in trials} == {TrialState.FAIL}
    found = [trial.user_attrs["outcome"]["reason"] for trial in trials]
    assert found == [*FAIL_REASONS, "error"]
    assert trials[-1].user_attrs["outcome"]["message"] == "moonlight: "


@pytest.mark.parametrize(("name", "value"), [("score", "NaN"), ("score", "1.5"), ("speedup", "0.0")])
def test_impossible_results_of_a_worker_never_reach_the_study(stand_in: Any, name: str, value: str) -> None:
    good = stand_in.module.measure_at(0.5)
    said = f'"{name}": {getattr(good.measurement, name)!r}'
    hurt = encode(Message(good)).replace(said, f'"{name}": {value}')
    assert hurt != encode(Message(good))
    study_name = f"impossible-{name}-{value.replace('.', '-')}"
    stand_in.run(study_name, lambda job: hurt, trials=1)
    [trial] = stand_in.trials(study_name)
    assert trial.state is TrialState.FAIL
    assert trial.values is None
    assert trial.user_attrs["outcome"]["reason"] == "invalid_metric"


def test_time_budget_ends_the_search_and_the_running_trial_finishes(stand_in: Any, monkeypatch: Any) -> None:
    from cofi_tune import budget

    now = [0.0]
    monkeypatch.setattr(study, "Budget", lambda *a: budget.Budget(*a, clock=lambda: now[0]))

    def evaluate(job: Any) -> Outcome:
        now[0] += 60
        return stand_in.measure(job)

    found = stand_in.run("timed", evaluate, trials=10, time_budget_seconds=150.0)
    assert found["ended_by"] == "--time-budget 2m30s"
    assert found["counts"] == {"complete": 3}
    # Of this invocation: the next one has as much again.
    assert stand_in.run("timed", evaluate, trials=10, time_budget_seconds=60.0)["counts"] == {"complete": 4}
    assert stand_in.run("timed", evaluate, trials=5)["ended_by"] == "--trials 5"


def test_gpu_hours_are_those_of_all_invocations(stand_in: Any, monkeypatch: Any) -> None:
    from cofi_tune import proposals

    now = [0.0]
    monkeypatch.setattr(
        proposals, "GpuMeter", lambda gpus, earlier: optuna_meter(gpus, earlier, lambda: now[0])
    )

    class Launch:
        """Stands in for a machine with GPUs, where the study itself runs on none."""

        def __init__(self, trials: int) -> None:
            self.trials = trials

        def __call__(self, config: Any, asked: Any, stopper: Any) -> None:
            asked.meter.gpus_per_trial = 2.0
            for number in range(self.trials):
                proposed = asked.suggest(f"tune-{number}")
                if proposed == "FINISHED":
                    return
                now[0] += 1800
                text = encode(Message(stand_in.measure(proposed["job"])))
                asked.on_trial_result(f"tune-{number}", {KEY: text})
            stopper.requested = True

    def go(trials: int) -> Any:
        stand_in.files = stand_in.files or stand_in.rows()
        config = stand_in.module.config(stand_in.directory, "gpus", trials=9, gpu_hours=3.0)
        watch = stand_in.module.Lines(stand_in.module.Console(quiet=True), "gpus")
        return study.run(config, *stand_in.files, watch, launch=Launch(trials))

    with pytest.raises(study.Interrupted):
        go(2)
    found = go(9)
    assert found["ended_by"] == "--gpu-hours 3"
    assert found["counts"] == {"complete": 3}
    assert [t.user_attrs["gpu_seconds"] for t in stand_in.trials("gpus")] == [3600.0] * 3


def optuna_meter(gpus: float, earlier: float, clock: Any) -> Any:
    from cofi_tune.budget import GpuMeter

    return GpuMeter(gpus, earlier, clock)


def test_the_end_is_named_even_if_nobody_asks_again(stand_in: Any) -> None:
    def launch(config: Any, asked: Any, stopper: Any) -> None:
        for number in range(2):
            proposed = asked.suggest(f"tune-{number}")
            text = encode(Message(stand_in.measure(proposed["job"])))
            asked.on_trial_result(f"tune-{number}", {KEY: text})

    stand_in.files = stand_in.files or stand_in.rows()
    config = stand_in.module.config(stand_in.directory, "asked-twice", trials=2)
    watch = stand_in.module.Lines(stand_in.module.Console(quiet=True), "asked-twice")
    assert study.run(config, *stand_in.files, watch, launch=launch)["ended_by"] == "--trials 2"

"""A study with an analytic stand-in for training: its states, its front, and what a second run does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from analysis import report
from cofi_tune import optuna_study, study
from cofi_tune.config import StudyConfig
from cofi_tune.data.local import local_task
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.messages import KEY, Message, Outcome, encode
from cofi_tune.optuna_study import OtherPurpose
from cofi_tune.progress import Lines
from cofi_tune.proposals import Proposals
from cofi_tune.records import Latency, Measurement, Progress
from cofi_tune.worker import Job

Evaluate = Callable[[Job], Outcome | str]
NAME = "simulated"


def measure(job: Job) -> Outcome:
    """More sparsity is faster and worse; half of the recipes are worse still."""
    sparsity = job.trial.options["target_sparsity"]
    score = 0.9 - 0.5 * sparsity**4 - (0.2 if job.trial.options["layer_mix"] == 0.1 else 0.0)
    speedup = 1 / (1.05 - sparsity)
    timing = Latency("throughput", 1.0, 1 / speedup, speedup, 0.9 * speedup, 1.1 * speedup, 9, 32, 64)
    return Outcome(
        "complete",
        measurement=Measurement(
            score=score,
            speedup=speedup,
            scores={"matthews": score},
            teacher_scores={"matthews": 0.9},
            latencies=(timing,),
            sparsity=sparsity,
            model_sparsity=sparsity / 2,
            num_parameters=int(1000 * (1 - sparsity)),
            dense_num_parameters=1000,
            macs=1,
            dense_macs=2,
            mean_tokens=8,
            expected_sparsity=sparsity,
            target_sparsity=sparsity,
            seconds=1.0,
            contract={"device": "cpu"},
        ),
    )


def simulate(evaluate: Evaluate, seen: list[str] | None = None) -> study.Launch:
    """What Ray Tune does, without Ray."""

    def launch(config: StudyConfig, proposals: Proposals, stopper: Any) -> None:
        number = 0
        while not stopper.requested:
            tune_id = f"tune-{number}"
            config_of_trial = proposals.suggest(tune_id)
            if config_of_trial == "FINISHED":
                return
            assert isinstance(config_of_trial, dict)
            job = config_of_trial["job"]
            if seen is not None:
                seen.append(job.trial_id)
            progress = Progress(1, 1, "prune", {"loss": 1.0}, 1e-3, 0.1, 0.5, 0.5, 0.8)
            proposals.on_trial_result(tune_id, {KEY: encode(Message(progress))})
            outcome = evaluate(job)
            if outcome == "killed":
                proposals.on_trial_complete(tune_id, {}, error=True)
            elif outcome == "stopped":
                stopper.requested = True
            else:
                text = outcome if isinstance(outcome, str) else encode(Message(outcome))
                proposals.on_trial_result(tune_id, {KEY: text})
                proposals.on_trial_complete(tune_id, {KEY: text})
            number += 1

    return launch


@pytest.fixture(scope="module")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Source]:
    directory = tmp_path_factory.mktemp("rows")
    for name, rows in (("train", 60), ("dev", 20)):
        lines = [
            f"a sentence with {i % 7} words and {i % 5} signs\t{'yes' if i % 2 else 'no'}"
            for i in range(rows)
        ]
        (directory / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    train, dev = (str(directory / f"{name}.tsv") for name in ("train", "dev"))
    return local_task(train, ("text",), "label", name="signs", metric="matthews"), Source.files(train, dev)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded data, teacher and databases: made once for all these studies."""
    return tmp_path_factory.mktemp("runs")


def config(shared: Path, name: str = NAME, **changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": name,
        "task": "signs",
        "source": {},
        "model": "tiny",
        "space": "smoke",
        "trials": 6,
        "epochs": 1.0,
        "teacher_epochs": 1.0,
        "base_learning_rate": 5e-4,
        "workers_per_trial": 0,
        "concurrency": 1,
        "cpus_per_worker": 1,
        "gpus_per_worker": 0.0,
        "output": shared,
        "tracking_uri": f"sqlite:///{shared}/mlflow.db",
        "storage": f"sqlite:///{shared}/optuna.db",
        "report": False,
    }
    return StudyConfig(**{**values, **changes})


def run(
    shared: Path,
    own_files: tuple[Task, Source],
    evaluate: Evaluate,
    seen: list[str] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    one = config(shared, **changes)
    watch = Lines(Console(quiet=True), one.name)
    return study.run(one, *own_files, watch, launch=simulate(evaluate, seen))


def load(shared: Path, name: str = NAME) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{shared}/optuna.db")


def test_known_front_is_found(shared: Path, own_files: tuple[Task, Source]) -> None:
    found = run(shared, own_files, measure, name="front", trials=12)
    points = {row["trial"]: (row["score"], row["speedup"]) for row in found["trials"]}
    assert len(points) == 12
    best = {
        trial
        for trial, (score, speed) in points.items()
        if not any(s >= score and v >= speed and (s, v) != (score, speed) for s, v in points.values())
    }
    assert {row["trial"] for row in found["trials"] if row["on_front"]} == best
    assert len(best) >= 5
    front = json.loads((shared / "front" / "front.json").read_text())
    assert front["fronts"][0]["trials"] == report.rounded(found["trials"])
    assert (shared / "front" / "front.svg").read_text().startswith("<svg")
    assert (shared / "front" / "front.csv").read_text().count("\n") == 13


def test_every_end_has_its_state(shared: Path, own_files: tuple[Task, Source]) -> None:
    hurt = encode(Message(measure_at(0.5))).replace('"score": 0.86875', '"score": NaN')
    assert "NaN" in hurt
    ends: list[Outcome | str] = [
        Outcome("pruned", "target_not_reached", "0.3 of 0.5"),
        Outcome.failed("out_of_memory"),
        hurt,
        "killed",
        Outcome("complete"),
    ]
    found = run(shared, own_files, lambda job: ends.pop(0) if ends else measure(job), name="ends", trials=7)
    trials = load(shared, "ends").trials
    assert [trial.state for trial in trials] == [
        TrialState.PRUNED,
        *[TrialState.FAIL] * 4,
        *[TrialState.COMPLETE] * 2,
    ]
    reasons = [trial.user_attrs["outcome"]["reason"] for trial in trials]
    assert reasons == [
        "target_not_reached",
        "out_of_memory",
        "invalid_metric",
        "lost",
        "invalid_metric",
        None,
        None,
    ]
    assert [trial.user_attrs["trial_id"] for trial in trials] == [f"ends-{i:04d}" for i in range(7)]
    assert {row["trial"] for row in found["trials"]} == {"ends-0005", "ends-0006"}
    assert found["counts"]["fail (invalid_metric)"] == 2
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{shared}/mlflow.db")
    experiment = client.get_experiment_by_name("ends")
    runs = client.search_runs([experiment.experiment_id])
    states = {run.info.run_name: run.data.tags.get("cofi.state") for run in runs}
    assert states.pop("ends (study)") == "finished"
    assert list(states.values()).count("fail") == 4
    assert len(states) == 7


def test_second_run_adds_nothing(shared: Path, own_files: tuple[Task, Source]) -> None:
    first = run(shared, own_files, measure, name="again")

    def never(job: Job) -> Outcome:
        raise AssertionError(f"{job.trial_id} ran again")

    assert run(shared, own_files, never, name="again") == first
    seen: list[str] = []
    more = run(shared, own_files, measure, seen, name="again", trials=8)
    assert seen == ["again-0006", "again-0007"]
    assert len(more["trials"]) == 8


def test_interrupted_trial_is_offered_again_first(shared: Path, own_files: tuple[Task, Source]) -> None:
    with pytest.raises(study.Interrupted):
        run(
            shared,
            own_files,
            lambda job: "stopped" if job.trial_id.endswith("2") else measure(job),
            name="left",
        )
    states = [trial.state for trial in load(shared, "left").trials]
    assert TrialState.COMPLETE not in states[2:]
    proposed = load(shared, "left").trials[2].params
    seen: list[str] = []
    run(shared, own_files, measure, seen, name="left")
    assert seen == [f"left-{i:04d}" for i in (2, 3, 4, 5)]
    trials = load(shared, "left").trials
    assert trials[2].params == proposed
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6


def test_interrupted_search_goes_on_as_if_it_had_not_been(
    shared: Path, own_files: tuple[Task, Source]
) -> None:
    run(shared, own_files, measure, name="whole", trials=9)
    with pytest.raises(study.Interrupted):
        run(
            shared,
            own_files,
            lambda job: "stopped" if job.trial_id.endswith("6") else measure(job),
            name="parts",
            trials=9,
        )
    run(shared, own_files, measure, name="parts", trials=9)
    whole, parts = (load(shared, name).trials for name in ("whole", "parts"))
    assert [trial.params for trial in parts] == [trial.params for trial in whole]


def test_driver_that_died_between_saying_and_telling(shared: Path, own_files: tuple[Task, Source]) -> None:
    run(shared, own_files, measure, name="between", trials=2)
    unfinished = load(shared, "between")
    trial = unfinished.ask()
    trial.set_user_attr("outcome", load(shared, "between").trials[0].user_attrs["outcome"])
    found = run(shared, own_files, measure, name="between", trials=3)
    assert len(found["trials"]) == 3
    assert load(shared, "between").trials[2].state is TrialState.COMPLETE


def test_another_purpose_is_refused(shared: Path, own_files: tuple[Task, Source]) -> None:
    run(shared, own_files, measure, name="purpose", trials=1)
    with pytest.raises(OtherPurpose, match=r"epochs: 1\.0 there, 2\.0 now.*another --name"):
        run(shared, own_files, measure, name="purpose", trials=1, epochs=2.0)
    with pytest.raises(OtherPurpose, match=r"space: 'smoke .* there, 'cofi "):
        run(shared, own_files, measure, name="purpose", trials=1, space="cofi")
    with pytest.raises(OtherPurpose, match="scenario"):
        run(shared, own_files, measure, name="purpose", trials=1, scenario="latency")


def test_impossible_proposals_do_not_end_the_search(
    shared: Path, own_files: tuple[Task, Source], tmp_path: Path
) -> None:
    space = tmp_path / "odd.py"
    space.write_text(
        "def space(draw):\n"
        "    return {'cofi/target_sparsity': draw.suggest_float('cofi/target_sparsity', .5, 1.5),\n"
        "            'cofi/layer_mix': .5}\n"
    )
    found = run(shared, own_files, measure, name="odd", space=str(space), trials=12, sampler="random")
    assert found["counts"]["fail (invalid_point)"] + found["counts"]["complete"] == 12
    assert found["counts"]["fail (invalid_point)"] > 0


@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp", "random"])
def test_samplers_repeat_by_seed_and_number(name: str) -> None:
    def draws(seed: int) -> list[float]:
        one = optuna.create_study(directions=["maximize", "maximize"])
        values = []
        for number in range(5):
            one.sampler = optuna_study.sampler(name, seed, number, 12)
            trial = one.ask()
            values.append(trial.suggest_float("x", 0, 1))
            one.tell(trial, [values[-1], -values[-1]])
        return values

    first = draws(0)
    assert first == draws(0)
    assert first != draws(1)
    assert len(set(first)) == len(first)


def measure_at(sparsity: float) -> Outcome:
    class Trial:
        options = {"target_sparsity": sparsity, "layer_mix": 0.5}  # noqa: RUF012

    class Stub:
        trial = Trial

    return measure(Stub)  # type: ignore[arg-type]

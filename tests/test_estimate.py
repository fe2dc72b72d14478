"""What a trial will cost follows from what was timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cofi_tune import dry_run, estimate, methods, teacher
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.encode import EncodedTask


@pytest.fixture
def config(tmp_path: Path, study_config: Callable[..., StudyConfig]) -> StudyConfig:
    changes = {"task": "toy", "epochs": 3.0, "teacher_epochs": 4.0, "trials": 10, "workers_per_trial": 0}
    return study_config(tmp_path, **changes)


def trial(**changes: Any) -> TrialConfig:
    options = {"target_sparsity": 0.7, "recover_fraction": 0.25, **changes.pop("options", {})}
    return TrialConfig(epochs=8.0, options=options, **changes)


@pytest.fixture
def timing() -> estimate.Timing:
    return estimate.Timing(
        steps={"prune": (1.0, 3.0, 1.0), "recover": (0.25,), "teacher": (0.5,)},
        batch_size=32,
        target_sparsity=0.7,
        outputs_bytes=0,
        dense_row=0.01,
        small_row=0.002,
        measurement=7.0,
        model_bytes=1000,
        teacher_bytes=5000,
    )


@pytest.fixture
def on_the_clock(timing: estimate.Timing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_timed", lambda *rest: timing)


def test_real_steps_are_timed(config: StudyConfig, toy: EncodedTask) -> None:
    found = estimate.estimate(config, toy, [trial()])
    timing = found.timing
    assert set(timing.steps) == {"prune", "recover", "teacher"}
    assert all(len(each) >= 3 and min(each) > 0 for each in timing.steps.values())
    assert timing.measurement > 0
    assert timing.dense_row > 0 < timing.small_row
    assert timing.model_bytes < timing.teacher_bytes
    assert found.trials[0].steps == 8 * 4


def test_costs_follow(
    config: StudyConfig, toy: EncodedTask, timing: estimate.Timing, on_the_clock: None
) -> None:
    found = estimate.estimate(config, toy, [trial(), trial(batch_size=16), trial(finetune_epochs=2.0)])
    # 128 rows: 4 steps an epoch, 24 of pruning and 8 of recovery; 64 selection rows, four times.
    rows = 4 * 64 * 0.002 + 80 * 0.012
    assert found.trials[0] == estimate.Cost(32, pytest.approx(24 * 1.0 + 8 * 0.25 + rows + 7.0))
    # Half the batch: twice the steps, each half as long.
    assert found.trials[1] == estimate.Cost(64, pytest.approx(found.trials[0].seconds))
    # Distilling before pruning takes what pruning takes.
    assert found.trials[2] == estimate.Cost(40, pytest.approx(found.trials[0].seconds + 8 * 1.0))
    assert found.teacher == estimate.Cost(16, pytest.approx(16 * 0.5 + 4 * 64 * 0.01))


def test_links_begin_where_their_parents_ended(
    config: StudyConfig, toy: EncodedTask, timing: estimate.Timing, on_the_clock: None
) -> None:
    links = trial(options={"target_sparsity": 0.35}).links((0.35, 0.7), 0.5)
    [first, second] = estimate.estimate(config, toy, links).trials
    # The line between the sizes that were timed: half way to 0.7, a step takes half of what was cut less.
    half, half_row = (1.0 + 0.25) / 2, (0.01 + 0.002) / 2
    rows = 4 * 64 * half_row + 80 * (0.01 + half_row)
    assert first == estimate.Cost(32, pytest.approx(24 * 1.0 + 8 * half + rows + 7.0))
    # Recovery sees 128 rows: twice as many as an evaluation.
    rows = 2 * 64 * 0.002 + 80 * 0.012
    assert second == estimate.Cost(16, pytest.approx(12 * half + 4 * 0.25 + rows + 7.0))
    dense = estimate.estimate(config.model_copy(update={"shrink": False}), toy, links).trials[1]
    assert dense.seconds == pytest.approx(second.seconds + 12 * (1.0 - half))


def test_the_highest_target_is_timed() -> None:
    links = trial(options={"target_sparsity": 0.5}).links((0.5, 0.9), 0.5)
    assert estimate._deepest(links).options["target_sparsity"] == 0.9
    plain = TrialConfig(method="dense")
    assert estimate._deepest([plain]) is plain


@pytest.mark.long
def test_kept_outputs_stand_in_for_the_teacher(config: StudyConfig, toy: EncodedTask) -> None:
    with_them = estimate.estimate(config, toy, [trial()])
    assert with_them.timing.outputs_bytes > 128 * 2 * 4
    assert with_them.outputs == pytest.approx(128 * with_them.timing.dense_row)
    too_small = config.model_copy(update={"teacher_cache_bytes": 1000})
    without = estimate.estimate(too_small, toy, [trial()])
    assert (without.timing.outputs_bytes, without.outputs) == (0, 0.0)


def test_given_teacher_costs_nothing(
    config: StudyConfig, toy: EncodedTask, on_the_clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = teacher.new_model
    monkeypatch.setattr(teacher, "new_model", lambda data, model, seed: made(data, "tiny", seed))
    given = config.model_copy(update={"teacher": "somewhere"})
    assert estimate.estimate(given, toy, [trial()]).teacher is None


@pytest.mark.parametrize("target", [0.4, 0.7, 0.95])
def test_gates_are_put_at_the_target(toy: EncodedTask, target: float) -> None:
    torch.manual_seed(0)
    student = teacher.new_model(toy, "tiny", 0)
    method = methods.load("cofi")(trial(options={"target_sparsity": target}), student, 4)
    estimate._close(method.gates, target)
    assert float(method.gates.expected_sparsity()) == pytest.approx(target, abs=0.01)
    plan, _ = method.gates.decide(target)
    assert plan.sparsity == pytest.approx(target, abs=0.03)
    assert len(plan.hidden) == plan.hidden_size


def test_words(config: StudyConfig, timing: estimate.Timing) -> None:
    found = estimate.Estimate(timing, (estimate.Cost(9, 600.0), estimate.Cost(9, 3000.0)), None, 0.0)
    two = config.model_copy(update={"concurrency": 2, "cpus_per_worker": 3})
    text = "\n".join([*dry_run._timed(timing, two), *dry_run._extrapolated(found, two, 10**6)])
    assert "one process with 3 CPU threads, batches of 32 real rows, weights of tiny as they are" in text
    assert "a step of prune 1 s, the median of 3 between 1 s and 3 s" in text
    assert "a trial 10m to 50m, 30m on average of these draws" in text
    assert "10 trials, 2 at a time: 2h30m; 15 CPU hours" in text
    assert "disk 1 MB: 10 models of 1 kB, the teacher 5 kB, encoded rows 1 MB; " in text
    assert "and while trials run up to 120 kB of checkpoints" in text
    assert "side by side" in text
    assert "teacher 1" not in text


def test_sizes() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    letters, number = CategoricalDistribution(["a", "b"]), FloatDistribution(0, 1)
    assert dry_run.size({"a": letters, "b": letters}) == "2 parameters, 2 with choices (4 combinations)"
    assert dry_run.size({"a": number}) == "1 parameters, 1 with ranges of numbers"
    assert dry_run.size({}) == "0 parameters"

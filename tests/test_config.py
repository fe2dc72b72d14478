"""Settings are checked at birth, and a mistake is told in one line that names it."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cofi_tune.config import Setup, StudyConfig, TeacherCache, TrialConfig, build
from cofi_tune.model_names import RANDOM_SIZES, check_model

SETUP: dict[str, Any] = {"data": Path("data"), "teacher": Path("teacher"), "output": Path("out")}


def refused(values: dict[str, Any], model: Any = TrialConfig) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        build(model, values)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ValidationError)
    return str(caught.value)


def test_an_unknown_name_is_named_with_all_known() -> None:
    message = refused({"learning_rat": 1e-3})
    assert message.startswith("learning_rat: unknown; known are ")
    assert "learning_rate" in message.split("known are")[1]


@pytest.mark.parametrize("name", ["seed", "batch_size"])
@pytest.mark.parametrize("value", [True, 1.5, "3", None])
def test_whole_numbers_are_whole_numbers(name: str, value: Any) -> None:
    assert refused({name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "clip_norm", "dropout"])
@pytest.mark.parametrize("value", [True, "1", math.nan, math.inf, -1.0])
def test_numbers_are_finite_numbers_in_range(name: str, value: Any) -> None:
    assert refused({name: value}).startswith(f"{name}: ")


def test_every_mistake_is_told_at_once() -> None:
    message = refused({"seed": -1, "init": "tacher", "colour": 3})
    assert all(f"{name}: " in message for name in ("seed", "init", "colour"))
    assert "(got -1)" in message
    assert "'teacher' or 'pretrained'" in message


def test_numbers_at_the_edge() -> None:
    assert build(TrialConfig, {"dropout": 0.0, "epochs": 1, "finetune_epochs": 0}).epochs == 1.0
    assert refused({"dropout": 1.0}).startswith("dropout: ")
    assert refused({"epochs": 0}).startswith("epochs: ")


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().seed = 3


def proposed(proposal: dict[str, Any], **more: Any) -> TrialConfig:
    return TrialConfig.from_proposal(proposal, **{"base_learning_rate": 2e-4, "epochs": 3, "seed": 7, **more})


def test_a_proposal_in_absolute_terms() -> None:
    trial = proposed(
        {"method": "cofi", "learning_rate_ratio": 2.5, "cofi/target_sparsity": 0.8, "batch_size": 16}
    )
    assert trial.learning_rate == pytest.approx(5e-4)
    assert trial.options == {"target_sparsity": 0.8}
    assert (trial.epochs, trial.seed, trial.batch_size, trial.method) == (3.0, 7, 16, "cofi")


def test_a_proposal_may_set_what_the_study_gives() -> None:
    trial = proposed({"epochs": 9.0, "seed": 1, "learning_rate": 1e-5})
    assert (trial.epochs, trial.seed, trial.learning_rate) == (9.0, 1, 1e-5)
    assert proposed({}).learning_rate == 2e-4


def test_options_of_another_method_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dense/warmup_fraction: .*'cofi'"):
        proposed({"dense/warmup_fraction": 0.1})
    assert proposed({"method": "dense", "dense/warmup_fraction": 0.1}).options == {"warmup_fraction": 0.1}


def test_an_unknown_setting_of_a_proposal_is_named() -> None:
    with pytest.raises(ValueError, match="target_sparsity: unknown"):
        proposed({"target_sparsity": 0.8})


def test_setup_is_strict() -> None:
    assert build(Setup, SETUP).scenarios == ("throughput", "latency")
    assert refused({**SETUP, "scenario": "fast"}, Setup).startswith("scenario: ")
    assert refused({**SETUP, "num_threads": 0}, Setup).startswith("num_threads: ")
    assert refused({"data": Path("data")}, Setup).startswith("teacher: ")


def test_a_cache_lies_in_the_output_and_none_has_no_bytes(tmp_path: Path) -> None:
    cache = TeacherCache.below(tmp_path, 5)
    assert cache == TeacherCache(directory=tmp_path / "teacher_outputs", num_bytes=5)
    assert TeacherCache.below(tmp_path, 0) is None
    assert build(Setup, SETUP).teacher_cache is None
    again = Setup.model_validate_json(
        build(Setup, SETUP | {"teacher_cache": cache}).model_dump_json(), strict=False
    )
    assert again.teacher_cache == cache


def test_study_knows_where_it_lies_and_runs() -> None:
    values: dict[str, Any] = {
        "name": "s",
        "task": "cola",
        "source": {"kind": "hub"},
        "model": "mini",
        "epochs": 2.0,
        "teacher_epochs": 1.0,
        "base_learning_rate": 1e-3,
        "workers_per_trial": 0,
        "concurrency": 1,
        "cpus_per_worker": 1,
        "gpus_per_worker": 0.0,
        "output": Path("runs"),
        "tracking_uri": "sqlite:///x",
        "storage": "sqlite:///y",
    }
    study = build(StudyConfig, values)
    assert study.directory == Path("runs/s")
    assert study.device == "cpu"
    assert build(StudyConfig, {**values, "gpus_per_worker": 0.5}).device == "cuda"
    assert refused({**values, "trials": 0}, StudyConfig).startswith("trials: ")


def test_models_that_can_be(tmp_path: Path) -> None:
    for name in (*RANDOM_SIZES, "google/bert_uncased_L-2_H-128_A-2", "bert-base-uncased", str(tmp_path)):
        check_model(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("minii", "did you mean mini"), ("./none", "no such directory"), ("a/b/c", "no such")],
)
def test_models_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(name)

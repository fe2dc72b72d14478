"""One configuration from end to end: what is written is what was measured."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cofi_tune import compress, evaluate
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import Measurement, Progress, PruningPlan, Stopped

MakeModel = Callable[..., CofiForSequenceClassification]

TRIAL = TrialConfig(options={"target_sparsity": 0.7}, epochs=16, learning_rate=1e-3, dropout=0.0)


def set_up(
    data: EncodedTask, teacher: CofiForSequenceClassification, directory: Path, **changes: Any
) -> Setup:
    teacher.config.id2label, teacher.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    teacher.save_pretrained(directory / "teacher")
    return Setup(
        data=data.directory, teacher=directory / "teacher", output=directory / "out", num_threads=1, **changes
    )


@pytest.fixture
def setup(toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path) -> Setup:
    return set_up(toy_on_disk, teacher, tmp_path)


class Done:
    """A finished run and what it wrote."""

    def __init__(self, trial: TrialConfig, setup: Setup) -> None:
        events = list(compress.compress(trial, setup))
        self.reports = [event for event in events if isinstance(event, Progress)]
        assert len(self.reports) == len(events) - 1
        assert isinstance(events[-1], Measurement)
        self.setup, self.measured = setup, events[-1]
        self.model = CofiForSequenceClassification.from_pretrained(setup.output / "model")
        self.teacher = CofiForSequenceClassification.from_pretrained(setup.teacher)


@pytest.fixture(scope="module")
def done(
    toy_on_disk: EncodedTask,
    make_model: MakeModel,
    trained_state: dict[str, Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> Done:
    """CoFi on the toy task, to be read only."""
    model = make_model(layers=2)
    model.load_state_dict(trained_state)
    scenarios = ("throughput", "latency", "reference")
    return Done(TRIAL, set_up(toy_on_disk, model, tmp_path_factory.mktemp("run"), scenarios=scenarios))


def test_it_writes_model_plan_and_measurement(done: Done) -> None:
    output = done.setup.output
    files = {"model", "plan.json", "measurement.json", "predictions.safetensors"}
    assert {path.name for path in output.iterdir()} == files
    assert {"config.json", "model.safetensors", "modeling_cofi.py", "vocab.txt"} <= {
        path.name for path in (output / "model").iterdir()
    }
    assert Measurement.from_json(json.loads((output / "measurement.json").read_text())) == done.measured
    plan = PruningPlan.from_json((output / "plan.json").read_text())
    assert plan.sparsity == done.measured.sparsity
    assert len(plan.layers) == 2
    assert done.model.config.id2label == {0: "no", 1: "yes"}


def counted(model: CofiForSequenceClassification, length: int) -> tuple[int, int, int]:
    """Parameters in all, those of the layers' linear maps, and the layers' MACs for one row."""
    maps = [m for m in model.layers.modules() if isinstance(m, nn.Linear)]
    linear = sum(p.numel() for m in maps for p in m.parameters())
    eager = CofiForSequenceClassification._from_config(model.config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        eager(torch.ones(1, length, dtype=torch.long))
    head = model.pooler.weight.numel() + model.classifier.weight.numel()
    return sum(p.numel() for p in model.parameters()), linear, counter.get_total_flops() // 2 - head


def test_numbers_equal_what_is_counted_on_the_loaded_model(done: Done, toy_on_disk: EncodedTask) -> None:
    measured = done.measured
    assert measured.mean_tokens == round(float(toy_on_disk.splits["dev"].lengths.mean()))
    parameters, linear, macs = counted(done.model, measured.mean_tokens)
    dense_parameters, dense_linear, dense_macs = counted(done.teacher, measured.mean_tokens)
    assert (measured.num_parameters, measured.dense_num_parameters) == (parameters, dense_parameters)
    assert (measured.macs, measured.dense_macs) == (macs, dense_macs)
    assert measured.sparsity == 1 - linear / dense_linear
    assert measured.model_sparsity == 1 - parameters / dense_parameters
    assert 0.7 <= measured.sparsity < 0.85
    assert macs < dense_macs
    assert measured.target_sparsity == 0.7
    assert measured.expected_sparsity is not None
    assert measured.expected_sparsity > 0.68


def test_scores_are_those_of_the_loaded_models_on_dev(done: Done, toy_on_disk: EncodedTask) -> None:
    task, dev = toy_on_disk.task, toy_on_disk.splits["dev"]
    assert dict(done.measured.scores) == evaluate.score(done.model, task, dev)
    assert dict(done.measured.teacher_scores) == evaluate.score(done.teacher, task, dev)
    assert done.measured.score == done.measured.scores["accuracy"] > 0.9


def test_speedup_is_that_of_the_scenario_asked_for(done: Done) -> None:
    measured = done.measured
    assert [timed.scenario for timed in measured.latencies] == ["throughput", "latency", "reference"]
    assert [timed.batch_size for timed in measured.latencies] == [32, 1, 80]
    throughput = measured.latency("throughput")
    assert throughput is not None
    assert measured.speedup == throughput.speedup
    assert measured.seconds > 0


def test_the_contract_says_what_it_was_measured_under(done: Done, toy_on_disk: EncodedTask) -> None:
    contract = done.measured.contract
    assert contract["device"] == "cpu"
    assert contract["num_threads"] == 1
    assert contract["torch"] == torch.__version__
    assert contract["data"] == toy_on_disk.content_hash
    assert (contract["task"], contract["teacher"], contract["selection"]) == ("toy", "teacher", "train")
    assert contract["scenario"] == "throughput"
    assert (contract["throughput_rows"], contract["timed"]) == (32, "search")
    assert (contract["alone"], contract["dtype"]) == ("yes", "float32")
    json.dumps(dict(contract))


def test_progress_is_told_on_the_way(done: Done) -> None:
    assert [progress.step for progress in done.reports][-1] == 64
    assert {progress.phase for progress in done.reports} == {"prune", "recover"}
    assert done.reports[-1].selection_score is not None


def short(**changes: Any) -> TrialConfig:
    values: dict[str, Any] = {"options": {"target_sparsity": 0.01}, "epochs": 2, "learning_rate": 1e-3}
    return TrialConfig(**{**values, **changes})


def curve(trial: TrialConfig, setup: Setup) -> list[dict[str, float]]:
    return [dict(e.losses) for e in compress.compress(trial, setup) if isinstance(e, Progress)]


def test_same_seed_twice_is_the_same_curve(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofi_tune.latency.measure", no_clock)
    torch.manual_seed(1)
    first = curve(short(dropout=0.2), setup)
    torch.manual_seed(2)
    assert curve(short(dropout=0.2), setup) == first
    assert curve(short(dropout=0.2, seed=1), setup) != first


def no_clock(model: Any, dense: Any, split: Any, scenarios: Any) -> Any:
    """Stands for the timing where it is of no interest."""
    from cofi_tune.records import Latency

    return tuple(Latency(name, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 1, 1) for name in scenarios)


def test_objective_may_be_latency(
    toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path
) -> None:
    done = Done(short(method="dense", options={}), set_up(toy_on_disk, teacher, tmp_path, scenario="latency"))
    timed = done.measured.latency("latency")
    assert timed is not None
    assert done.measured.speedup == timed.speedup
    assert done.measured.contract["scenario"] == "latency"
    # Nothing was pruned, and nothing says that it was.
    assert done.measured.sparsity == done.measured.model_sparsity == 0
    assert done.measured.expected_sparsity is None
    assert not (tmp_path / "out" / "plan.json").exists()


def rates(model: nn.Module) -> set[float]:
    attention = {m.attention_dropout for m in model.modules() if hasattr(m, "attention_dropout")}
    return attention | {m.p for m in model.modules() if isinstance(m, nn.Dropout)}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_dropout_holds_in_every_phase(
    toy_on_disk: EncodedTask,
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dropout: float,
) -> None:
    """In recovery too, whose model is built anew."""
    setup = set_up(toy_on_disk, make_model(layers=2, dropout=0.1), tmp_path)
    monkeypatch.setattr("cofi_tune.latency.measure", no_clock)
    seen: dict[str, set[float]] = {}
    original = Training._phase

    def spy(self: Training, phase: Any) -> Any:
        seen[phase.name] = rates(self.student)
        return original(self, phase)

    monkeypatch.setattr(Training, "_phase", spy)
    list(compress.compress(short(dropout=dropout), setup))
    assert seen == {"prune": {dropout}, "recover": {dropout}}


def test_the_checkpoints_own_dropout_is_the_default(
    toy_on_disk: EncodedTask, make_model: MakeModel, tmp_path: Path
) -> None:
    setup = set_up(toy_on_disk, make_model(layers=2, dropout=0.1), tmp_path)
    student = compress.start_student(short(), setup, toy_on_disk)
    assert rates(student) == {0.1}


def test_the_student_starts_from_the_teacher_or_from_a_checkpoint(
    toy_on_disk: EncodedTask, setup: Setup, make_model: MakeModel, tmp_path: Path
) -> None:
    def start(init: str, pretrained: str | None) -> Tensor:
        asked = setup.model_copy(update={"pretrained": pretrained})
        return compress.start_student(short(init=init), asked, toy_on_disk).pooler.weight

    other = make_model(layers=2, seed=5)
    other.save_pretrained(tmp_path / "pretrained")
    taught = CofiForSequenceClassification.from_pretrained(setup.teacher).pooler.weight
    assert torch.equal(start("teacher", None), taught)
    assert torch.equal(start("pretrained", str(tmp_path / "pretrained")), other.pooler.weight)
    with pytest.raises(ValueError, match="needs a model to start from"):
        start("pretrained", None)


@pytest.mark.parametrize("selection", ["train", "dev"])
def test_selection_rows(
    toy_on_disk: EncodedTask,
    teacher: CofiForSequenceClassification,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    selection: str,
) -> None:
    """D7: never those that are reported, unless asked for; the contract tells."""
    monkeypatch.setattr("cofi_tune.latency.measure", no_clock)
    chosen: list[int] = []
    original = Training._evaluate

    def spy(self: Training) -> float:
        chosen.append(len(self.selection.labels))
        return original(self)

    monkeypatch.setattr(Training, "_evaluate", spy)
    done = Done(short(), set_up(toy_on_disk, teacher, tmp_path, selection=selection))
    assert set(chosen) == {64 if selection == "train" else 80}
    assert done.measured.contract["selection"] == selection


def test_a_run_that_is_stopped_writes_nothing(setup: Setup) -> None:
    trial = short(options={"target_sparsity": 0.9, "mask_learning_rate": 0.01})
    with pytest.warns(UserWarning, match="will not be reached"), pytest.raises(Stopped) as stopped:
        list(compress.compress(trial, setup))
    assert stopped.value.reason == "target_not_reached"
    assert not setup.output.exists()


def test_weights_that_are_lost_are_told_as_such(setup: Setup) -> None:
    with pytest.raises(Stopped) as stopped:
        list(compress.compress(short(method="dense", options={}, epochs=0.25, learning_rate=1e38), setup))
    assert stopped.value.reason == "non_finite"
    assert not setup.output.exists()

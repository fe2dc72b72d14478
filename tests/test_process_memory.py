"""A process that trains stays as large as it is: what keeps it so, and how large that is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.backends import mkldnn

from cofi_tune import evaluate, latency, methods, process_memory
from cofi_tune.components.hard_concrete import LOG_ALPHA_LIMIT
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.loop import Training
from cofi_tune.methods.cofi import Cofi
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification
from cofi_tune.teacher_outputs import outputs_of

MakeModel = Callable[..., CofiForSequenceClassification]

TRIAL = TrialConfig(options={"target_sparsity": 0.5, "mask_travel": 40.0}, epochs=3, learning_rate=1e-3)
X86 = pytest.mark.skipif(not process_memory._is_x86(), reason="elsewhere products in fp32 need oneDNN")
GLIBC = pytest.mark.skipif(process_memory._glibc() is None, reason="another C library")


@pytest.fixture
def primitives(capfd: Any) -> Callable[[Callable[[], object]], int]:
    """Counts the primitives of oneDNN that a function runs, by what oneDNN prints itself."""

    def count(function: Callable[[], object]) -> int:
        capfd.readouterr()
        with mkldnn.verbose(mkldnn.VERBOSE_ON):
            function()
        return sum(",exec," in line for line in capfd.readouterr().out.splitlines())

    return count


def training_of(
    student: CofiForSequenceClassification, data: EncodedTask, teacher: Any, **more: Any
) -> Training:
    return Training(student, methods.load("cofi")(TRIAL, student, 4), teacher, data, TRIAL, **more)


@X86
def test_only_timing_uses_onednn(
    make_model: MakeModel, toy: EncodedTask, primitives: Any, tmp_path: Path
) -> None:
    model, split = make_model(), toy.splits["dev"]

    def train_left_early() -> None:
        steps = training_of(make_model(), toy, model).steps()
        next(steps)
        assert mkldnn.enabled, "a step has left its own setting to whoever asked for it"
        next(steps)

    def time() -> None:
        latency.measure(model, model, split, ["latency"], seconds=0.0)

    assert primitives(lambda: [*training_of(make_model(), toy, model).run()]) == 0
    assert primitives(train_left_early) == 0
    assert primitives(lambda: evaluate.predict(model, split)) == 0
    assert primitives(lambda: outputs_of(model, split, [0, 1], tmp_path)) == 0
    assert primitives(time) > 0
    with process_memory.without_onednn():
        assert primitives(time) > 0
        assert not mkldnn.enabled
    assert mkldnn.enabled


def test_bf16_keeps_it() -> None:
    with process_memory.without_onednn("bf16"):
        assert mkldnn.enabled
    with torch.autocast("cpu", torch.bfloat16), process_memory.without_onednn():
        assert mkldnn.enabled


def test_an_error_leaves_the_setting_as_it_was() -> None:
    with pytest.raises(ValueError, match="broken"), process_memory.without_onednn():
        raise ValueError("broken")
    assert mkldnn.enabled


def test_the_dense_student_is_gone_once_there_is_a_smaller_one(
    toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path, monkeypatch: Any
) -> None:
    from cofi_tune import compress
    from cofi_tune.records import Measurement

    teacher.save_pretrained(tmp_path / "teacher")
    setup = Setup(data=toy_on_disk.directory, teacher=tmp_path / "teacher", output=tmp_path / "out")
    monkeypatch.setattr(Cofi, "closing_steps", 3.0)
    students: list[Any] = []
    start, shrink = compress.start_student, Training._shrink
    alive: list[bool] = []

    def started(*args: Any) -> CofiForSequenceClassification:
        student = start(*args)
        students.append(weakref.ref(student))
        return student

    def shrunk(training: Training, *args: Any) -> Any:
        gates = training.method.gates.log_alpha
        gates["intermediate"].data[:, :16] = -LOG_ALPHA_LIMIT
        before = training.student.num_parameters()
        module = shrink(training, *args)
        if alive == [] and training.student.num_parameters() < before:
            alive.append(True)
        return module

    monkeypatch.setattr(compress, "start_student", started)
    monkeypatch.setattr(Training, "_shrink", shrunk)
    trial = TRIAL.model_copy(update={"epochs": 8.0})
    for event in compress.compress(trial, setup):
        if alive and not isinstance(event, Measurement):
            alive.append(students[0]() is not None)
    assert alive[0]
    assert not any(alive[1:])
    assert len(alive) > 1


def test_what_a_process_holds(monkeypatch: Any) -> None:
    now, most = process_memory.resident_mib().values()
    assert 50 < now <= most
    assert now == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.1)
    monkeypatch.setattr(Path, "read_text", lambda *args, **more: "Name: python\n")
    elsewhere, peak = process_memory.resident_mib().values()
    assert elsewhere == pytest.approx(now, rel=0.1)
    assert peak >= 0.9 * most


def test_reports_say_it(make_model: MakeModel, toy: EncodedTask) -> None:
    for report in training_of(make_model(), toy, make_model()).run():
        assert report.rss_mib is not None
        assert report.peak_rss_mib is not None
        assert 0 < report.rss_mib <= report.peak_rss_mib


def test_another_c_library_is_left_alone(monkeypatch: Any) -> None:
    monkeypatch.setattr(process_memory, "_glibc", lambda: None)
    process_memory.set_thresholds.__wrapped__()
    process_memory.free_memory()


@GLIBC
def test_what_a_thread_leaves_is_given_back() -> None:
    """Small pieces in an arena of its own, with one at the end that keeps the rest from being trimmed."""
    kept: list[torch.Tensor] = []

    def work() -> None:
        pieces = [torch.ones(4096) for _ in range(8000)]  # 16 KiB each: never mapped apart
        kept.append(pieces[-1])

    process_memory.free_memory()
    before = process_memory.resident_mib()["rss_mib"]
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        process_memory.free_memory()
    assert process_memory.resident_mib()["rss_mib"] - before < 40


SCRIPT = """
import json, shutil, sys, threading
from cofi_tune import compress, process_memory
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.upkeep import Upkeep

setup = Setup.model_validate_json(sys.argv[1], strict=False)
trial = TrialConfig.model_validate_json(sys.argv[2], strict=False)
by_step, by_trial = [], []

def run():
    shutil.rmtree(setup.output, ignore_errors=True)
    beat = lambda: by_step.append(process_memory.resident_mib()["rss_mib"])
    for _ in compress.compress(trial, setup, upkeep=Upkeep(1e9, beat=beat)):
        pass
    process_memory.free_memory()

for number in range(int(sys.argv[3])):
    # Other structures: what times them meets other sizes.
    options = {**trial.options, "target_sparsity": 0.4 + 0.01 * number}
    trial = trial.model_copy(update={"options": options})
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    by_trial.append(process_memory.resident_mib()["rss_mib"])
print(json.dumps([by_step, by_trial]))
"""


@pytest.fixture
def sizes_mib(
    make_task_on_disk: Callable[[int, Path], EncodedTask], tmp_path: Path
) -> Callable[[float, int], tuple[list[float], list[float]]]:
    """Of a process that prunes an encoder as wide as `mini` on batches of very different numbers of tokens:
    after each step of all trials, and after each trial."""

    def measure(epochs: float, trials: int) -> tuple[list[float], list[float]]:
        data = make_task_on_disk(2048, tmp_path / "toy")
        layers = 4
        config = CofiConfig(
            vocab_size=data.vocab_size,
            hidden_size=256,
            head_size=64,
            heads_per_layer=[4] * layers,
            ffn_per_layer=[1024] * layers,
            pooler_size=256,
            max_position_embeddings=128,
            num_labels=2,
        )
        CofiForSequenceClassification(config).save_pretrained(tmp_path / "teacher")
        setup = Setup(
            data=data.directory, teacher=tmp_path / "teacher", output=tmp_path / "out", num_threads=1
        )
        trial = TRIAL.model_copy(update={"epochs": epochs})
        asked = [setup.model_dump_json(), trial.model_dump_json(), str(trials)]
        command = [sys.executable, "-W", "ignore", "-c", SCRIPT, *asked]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        by_step, by_trial = json.loads(said)
        return by_step, by_trial

    return measure


@pytest.mark.long
@GLIBC
@X86
def test_a_trial_reaches_a_plateau(sizes_mib: Any) -> None:
    by_step, _ = sizes_mib(epochs=8.0, trials=1)
    assert len(by_step) > 500
    assert max(by_step) < 1.4 * by_step[50]  # 1.15; with oneDNN 1.7, and on its way up


@pytest.mark.long
@GLIBC
@X86
def test_thirty_trials_leave_a_process_as_large_as_the_first_steps(sizes_mib: Any) -> None:
    by_step, by_trial = sizes_mib(epochs=0.5, trials=30)
    assert max(by_trial) < 1.4 * by_step[5]  # 1.15 after ten; with oneDNN, and untrimmed, 1.7

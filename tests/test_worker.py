"""A worker tells how its trial ended, whatever happens; two workers train as one does."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from cofi_tune import resumable, worker
from cofi_tune.config import Setup, TeacherCache, TrialConfig
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.messages import Message, Outcome, decode, encode
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import InvalidPoint, Progress, Stopped
from cofi_tune.worker import Job, work

OPTIONS = {
    "target_sparsity": 0.5,
    "mask_travel": 20.0,
    "warmup_fraction": 0.5,
    "layer_mix": 0.5,
    "recover_fraction": 0.3,
}


@pytest.fixture
def job(teacher: CofiForSequenceClassification, toy_on_disk: EncodedTask, tmp_path: Path) -> Job:
    teacher.save_pretrained(tmp_path / "teacher")
    setup = Setup(
        data=toy_on_disk.directory, teacher=tmp_path / "teacher", output=tmp_path / "out", num_threads=1
    )
    trial = TrialConfig(options=OPTIONS, epochs=10.0, learning_rate=1e-3, dropout=0.0)
    return Job("t-0000", trial, setup)


def run(job: Job, ranks: Ranks = ALONE) -> list[Message]:
    """What the driver hears, by way of text."""
    texts: list[str] = []
    work(job, ranks, lambda message: texts.append(encode(message)))
    return [decode(text) for text in texts]


def failing(error: Exception) -> Callable[..., Any]:
    def compress(*_: Any) -> Any:
        yield Progress(1, 2, "prune", {"loss": 1.0}, 1e-3, 0.1)
        warnings.warn("mind the gap", stacklevel=1)
        raise error

    return compress


def test_reports_progress_then_the_measurement(job: Job) -> None:
    *progress, last = run(job)
    assert [message.content.phase for message in progress if isinstance(message.content, Progress)][
        -1
    ] == "recover"
    assert len(progress) >= 10
    outcome = last.content
    assert isinstance(outcome, Outcome)
    assert outcome.state == "complete"
    assert outcome.measurement is not None
    assert outcome.measurement.sparsity >= 0.5
    saved = json.loads((job.setup.output / "measurement.json").read_text())
    assert saved["score"] == outcome.measurement.score


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Stopped("target_not_reached", "0.3 of 0.5"), "pruned", "target_not_reached"),
        (Stopped("non_finite", "loss is nan"), "fail", "non_finite"),
        (InvalidPoint("no hidden unit is left"), "fail", "invalid_point"),
        (KeyError("nothing"), "fail", "error"),
        (OSError(errno.ENOSPC, "No space left on device"), "fail", "disk_full"),
    ],
)
def test_every_end_has_a_reason(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception, state: str, reason: str
) -> None:
    monkeypatch.setattr(worker, "_compress", failing(error))
    first, last = run(job)
    assert isinstance(first.content, Progress)
    assert isinstance(last.content, Outcome)
    assert (last.content.state, last.content.reason) == (state, reason)
    assert last.warnings == ("mind the gap",)
    assert (job.setup.output / "error.txt").exists() == (reason == "error")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        ImportError("libgomp.so.1: failed to map segment from shared object"),
    ],
)
def test_memory_that_runs_out_halves_the_batch_once(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(worker, "_compress", failing(error))
    with pytest.raises(type(error)):
        run(job)
    first, last = run(dataclasses.replace(job, parts=2))
    assert any("2 parts" in warning for warning in first.warnings)
    assert isinstance(last.content, Outcome)
    assert (last.content.state, last.content.reason) == ("fail", "out_of_memory")


def test_a_batch_in_parts_is_the_same_batch(job: Job) -> None:
    whole, parts = _losses(run(job)), _losses(run(dataclasses.replace(job, parts=2)))
    assert [step for step, _ in parts] == [step for step, _ in whole]
    for (_, ours), (_, theirs) in zip(whole[:2], parts[:2], strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3, abs=2e-5)


def test_code_that_cannot_be_imported_ends_in_a_reason(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cofi_tune.compress", None)
    [message] = run(job)
    assert isinstance(message.content, Outcome)
    assert message.content.reason == "error"
    assert "cofi_tune.compress" in message.content.message
    assert "Traceback" in (job.setup.output / "error.txt").read_text()


def test_the_stop_file_ends_a_run_with_a_checkpoint_and_it_goes_on(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _losses(run(job))
    shutil.rmtree(job.setup.output)
    stop = tmp_path / "stop"
    stoppable = dataclasses.replace(job, setup=job.setup.model_copy(update={"stop_file": stop}))
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    messages: list[Message] = []

    def hear(message: Message) -> None:
        messages.append(message)
        if len(messages) == 5:
            stop.touch()

    work(stoppable, ALONE, hear)
    last = messages[-1].content
    assert isinstance(last, Outcome)
    assert last.reason == "interrupted"
    assert len(messages) == 6
    stop.unlink()
    rest = _losses(run(stoppable))
    assert _losses(messages) + rest == whole


def test_a_report_that_was_lost_with_its_process_is_said_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint lies behind it already, so that the next attempt does not make it again."""
    monkeypatch.setattr(resumable, "SHARE", 0)
    whole = [message.content for message in run(job) if isinstance(message.content, Progress)]
    shutil.rmtree(job.setup.output)
    job = dataclasses.replace(job, setup=job.setup.model_copy(update={"checkpoint_seconds": 0.0}))
    heard: list[Message] = []

    def lose(message: Message) -> None:
        if len(heard) == 3:
            raise KeyboardInterrupt  # stands for the end of a process
        heard.append(message)

    with pytest.raises(KeyboardInterrupt):
        work(job, ALONE, lose)
    del heard[2:]
    first, *others = run(job)
    assert isinstance(first.content, Progress)
    assert first.content.step == whole[3].step
    assert [(one.step, one.losses) for one in first.earlier] == [(one.step, one.losses) for one in whole[:3]]
    assert not any(message.earlier for message in [*heard, *others])


def test_one_of_several_workers_lets_its_error_through(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_compress", failing(RuntimeError("only here")))
    with pytest.raises(RuntimeError, match="only here"):
        run(job, Ranks(1, 2))
    monkeypatch.setattr(worker, "_compress", failing(Stopped("non_finite", "everywhere")))
    assert len(run(job, Ranks(1, 2))) == 2


@pytest.mark.parametrize("guided_by", ["live", "kept"])
def test_two_workers_train_as_one(job: Job, tmp_path: Path, guided_by: str) -> None:
    cache = TeacherCache.below(tmp_path, 2**20) if guided_by == "kept" else None
    job = dataclasses.replace(job, setup=job.setup.model_copy(update={"teacher_cache": cache}))
    messages = run(job)
    assert isinstance(messages[-1].content, Outcome)
    assert messages[-1].content.measurement is not None
    assert messages[-1].content.measurement.guided_by == guided_by
    alone = _losses(messages)
    context = multiprocessing.start_processes(
        _one_of_two, args=(job, tmp_path), nprocs=2, join=False, start_method="forkserver"
    )
    while not context.join():
        pass
    together = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert together[0] == together[1], "every worker sees the losses of the whole batch"
    assert [step for step, _ in together[0]] == [step for step, _ in alone]
    for (_, ours), (_, theirs) in zip(alone, together[0], strict=True):
        assert theirs == pytest.approx(ours, rel=2e-3, abs=2e-5)


def _one_of_two(rank: int, job: Job, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=rank, world_size=2)
    messages = run(job, Ranks(rank, 2))
    (tmp_path / f"{rank}.json").write_text(json.dumps(_losses(messages)))
    last = messages[-1].content
    assert isinstance(last, Outcome)
    assert (last.measurement is not None) == (rank == 0)
    distributed.destroy_process_group()


def _losses(messages: list[Message]) -> list[list[Any]]:
    found = [message.content for message in messages if isinstance(message.content, Progress)]
    return [[progress.step, dict(progress.losses)] for progress in found]

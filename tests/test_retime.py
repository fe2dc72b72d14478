"""A study's models timed again: a contract and a front of their own, on disk and in MLflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from analysis import contracts, report, tracked
from analysis.runs import Source
from cofi_tune import compress, latency, remeasure, retime, studies, sync, timed, timings
from cofi_tune.data.encoded import open_encoded
from cofi_tune.lock import only_driver
from cofi_tune.messages import Outcome
from cofi_tune.worker import Job

ROOT = Path(__file__).parents[1]
NAME = "timed-again"
MODELS = [f"{NAME}-0000", f"{NAME}-0002"]
ONE = ["--threads", "1"]
Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def searched(stand_in: Any) -> Path:
    """A search whose models are the dense one itself; the second of its three trials gave none."""

    def evaluate(job: Job) -> Outcome:
        if job.trial_id.endswith("1"):
            return Outcome.failed("out_of_memory")
        shutil.copytree(job.setup.teacher, job.setup.output / "model")
        measured = stand_in.measure(job).measurement
        machine = timed.made_on(job.setup.device)
        contract = compress.contract(open_encoded(job.setup.data), job.setup, machine)
        return Outcome("complete", measurement=replace(measured, contract=contract))

    command = "python -m cofi_tune.search --task signs"
    stand_in.run(NAME, evaluate, trials=3, report=True, command=command)
    return Path(stand_in.directory)


@pytest.fixture
def output(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, and real timings that take no time."""
    monkeypatch.setattr(latency, "MAX_PAIRS", latency.MIN_PAIRS)
    before = torch.get_num_threads()
    yield Path(shutil.copytree(searched, tmp_path / "runs"))
    torch.set_num_threads(before)


@pytest.fixture
def timed_again(output: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def command(*flags: str) -> tuple[int, str]:
        status = retime.main(["--output", str(output), "--study", NAME, *flags])
        return status, "".join(capsys.readouterr())

    return command


def trial(output: Path, trial_id: str) -> Path:
    return output / NAME / "trials" / trial_id


def fronts(output: Path) -> list[dict[str, Any]]:
    return list(json.loads((output / NAME / "front.json").read_text())["fronts"])


def of_mlflow(output: Path) -> Source:
    source = tracked.Database(f"sqlite:///{output}/mlflow.db")
    source.chosen = tracked.choose(source.studies(), [NAME], None)
    return source


def test_a_front_for_each_machine(output: Path, timed_again: Command) -> None:
    [searched] = fronts(output)
    assert (searched["contract"]["timed"], searched["contract"]["throughput_rows"]) == ("search", "32")
    status, text = timed_again(*ONE)
    assert status == 0
    lines = text.splitlines()
    for line, model in zip(lines, MODELS, strict=False):
        assert line.startswith(f"{model}: throughput ")
        assert "latency " in line
    assert lines[2] == f"Report: {output}/{NAME}/report.html"
    assert lines[3].startswith(f"Fastest on CPU, 1 thread: {NAME}-000")
    assert len(lines) == 4
    own, again = fronts(output)
    measured = ("trial", "score", "speedup", "scenarios", "on_front")
    for before, after in zip(searched["trials"], own["trials"], strict=True):
        assert {name: after[name] for name in measured} == {name: before[name] for name in measured}
    assert set(again["contract"]) == set(own["contract"])
    assert {*contracts.differing(own["contract"], again["contract"])} - {"num_threads"} == {"timed"}
    assert {row["trial"] for row in again["trials"]} == {*MODELS}
    for model in MODELS:
        [kept] = timings.read(trial(output, model))
        assert kept.contract_id == again["id"]
        assert [t.scenario for t in kept.latencies] == ["throughput", "latency"]
        row = next(row for row in again["trials"] if row["trial"] == model)
        assert row["speedup"] == pytest.approx(kept.latencies[0].speedup, rel=1e-5)
        assert row["scenarios"]["latency"]["speedup"] == pytest.approx(kept.latencies[1].speedup, rel=1e-5)
    assert not (trial(output, f"{NAME}-0001") / "timings").exists()
    assert (output / NAME / f"front-{again['id']}.svg").is_file()


@pytest.mark.long
def test_threads_and_batch_are_part_of_the_contract(output: Path, timed_again: Command) -> None:
    for flags in (ONE, [*ONE, "--batch", "8"], []):
        assert timed_again(*flags)[0] == 0
    kept = {
        (one.contract["num_threads"], one.contract["throughput_rows"]): one
        for one in timings.read(trial(output, MODELS[0]))
    }
    cpus = len(os.sched_getaffinity(0))
    assert set(kept) == {(1, 32), (1, 8), (cpus, 32)}
    assert kept[1, 8].latencies[0].batch_size == 8
    assert torch.get_num_threads() == cpus
    machine = {"device", "device_name", "num_threads", "dtype", "torch"}
    assert set(timed.made_on("cpu")) == machine


@pytest.mark.long
def test_a_second_time_replaces_the_first(output: Path, timed_again: Command) -> None:
    timed_again(*ONE)
    [first] = timings.read(trial(output, MODELS[0]))
    timed_again(*ONE)
    [second] = timings.read(trial(output, MODELS[0]))
    assert second.time_ms > first.time_ms
    _, again = fronts(output)
    row = next(row for row in again["trials"] if row["trial"] == MODELS[0])
    assert row["speedup"] == pytest.approx(second.latencies[0].speedup, rel=1e-5)
    made = report.files(of_mlflow(output), str(output))[1]
    assert made["front.json"] == (output / NAME / "front.json").read_bytes()


def test_mlflow_and_the_disk_say_the_same(output: Path, timed_again: Command) -> None:
    timed_again(*ONE)
    made = report.files(of_mlflow(output), str(output))[1]
    assert "report.html" in made
    for name, content in made.items():
        assert (output / NAME / name).read_bytes() == content, name
    [first, *_] = of_mlflow(output).runs()
    assert any(name.startswith("timing.") for run in of_mlflow(output).runs() for name in run.tags)
    assert first.tags["cofi.study"] == NAME


def test_mlflow_may_be_away_and_sync_writes_it(
    output: Path, timed_again: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = timed_again(*ONE, "--tracking-uri", "http://127.0.0.1:9")
    assert status == 0
    command = f"python -m cofi_tune.sync --output {output} --name {NAME}"
    assert f"to write it when MLflow is there: {command}\n" in text
    assert len(report.files(of_mlflow(output))[0]["fronts"]) == 1
    for said in ("2 written, 1 were there already", "0 written, 3 were there already"):
        assert sync.main(["--output", str(output), "--name", NAME]) == 0
        assert capsys.readouterr().out == f"{NAME}: {said}\n"
    for name, content in report.files(of_mlflow(output), str(output))[1].items():
        assert (output / NAME / name).read_bytes() == content, name


def test_models_that_are_gone_or_damaged_are_left_out(output: Path, timed_again: Command) -> None:
    shutil.rmtree(trial(output, MODELS[0]) / "model")
    status, text = timed_again(*ONE)
    assert status == 0
    assert f"warning: {MODELS[0]} is not timed: there is no model {trial(output, MODELS[0])}/model\n" in text
    assert text.startswith(f"{MODELS[1]}: throughput ")
    (trial(output, MODELS[1]) / "model" / "model.safetensors").write_bytes(b"no weights")
    status, text = timed_again(*ONE)
    assert status == 2
    assert f"{MODELS[1]} is not timed: the model {trial(output, MODELS[1])}/model cannot be loaded" in text
    assert text.splitlines()[-1].startswith(f"error: {NAME}: none of its models is there")


@pytest.mark.parametrize(("what", "said"), [("teachers", "the dense model: there is"), ("data", "there are")])
def test_without_teacher_or_data_nothing_is_timed(
    output: Path, timed_again: Command, what: str, said: str
) -> None:
    (output / what).rename(output / "moved")
    status, text = timed_again(*ONE)
    assert status == 2
    assert text.startswith(f"error: {said} no ")
    assert "python -m cofi_tune.search --task signs" in text
    assert text.count("\n") == 1


def test_not_beside_a_search(output: Path, timed_again: Command) -> None:
    with only_driver(output / NAME, NAME, print):
        status, text = timed_again(*ONE)
    assert status == 2
    assert f"named {NAME} is running already (pid {os.getpid()} on " in text
    assert text.endswith("wait for it, or end it\n")
    assert timings.read(trial(output, MODELS[0])) == []


def test_ctrl_c_keeps_what_was_timed(
    output: Path, timed_again: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = latency.measure, iter(range(2))

    def interrupted(*args: Any, **more: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return honest(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(latency, "measure", interrupted)
        status, text = timed_again(*ONE)
    assert status == 130
    assert "what was timed is kept" in text
    assert "Traceback" not in text
    assert [row["trial"] for row in fronts(output)[1]["trials"]] == MODELS[:1]
    assert timed_again(*ONE)[0] == 0
    assert {row["trial"] for row in fronts(output)[1]["trials"]} == {*MODELS}


def test_memory_that_runs_out_is_said(
    output: Path, timed_again: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*args: Any, **more: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(latency, "measure", out_of_memory)
    assert timed_again(*ONE) == (4, "error: memory ran out on cpu; give fewer rows than --batch 32\n")


def test_usage(output: Path, timed_again: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, said in [
        (["--study", "timed-agian"], f"unknown study 'timed-agian'; did you mean {NAME}? studies: "),
        (["--threads", "4000"], "--threads 4000: this machine has "),
        (["--batch", "4000"], "--batch 4000: there are only 20 rows to time; give fewer\n"),
        (["--device", "gpu"], "--device gpu: give cpu, cuda or cuda:N\n"),
    ]:
        status, text = timed_again(*flags)
        assert status == 2
        assert text.startswith(f"error: {said}")
    with pytest.raises(SystemExit):
        retime.main(["--output", str(output)])
    assert "--study" in capsys.readouterr().err
    assert timed_again("--storage", f"sqlite:////{output}/no/such/place.db")[0] == 4


def test_without_the_command(output: Path) -> None:
    study = studies.in_database(output, None)[NAME]
    heard: list[str] = []
    found = remeasure.retime(
        study, output, num_threads=1, note=lambda one: heard.append(one[0].asked.trial_id)
    )
    assert [one.asked.trial_id for one, _ in found] == heard == MODELS


def test_the_command_imports_nothing_slow() -> None:
    code = "import sys; from cofi_tune import retime; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=300
    )

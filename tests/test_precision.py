"""bf16 is for products of matrices while a model trains, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from cofi_tune import checkpoint, compress, evaluate, loop, methods
from cofi_tune.config import Precision, Setup, TrialConfig
from cofi_tune.data.batches import collate
from cofi_tune.data.encoded import EncodedTask, open_encoded
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification, Encoded, Gates
from cofi_tune.precision import resolve
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Measurement
from cofi_tune.step import Step, encode

MakeModel = Callable[..., CofiForSequenceClassification]
TRIAL = TrialConfig(
    options={"target_sparsity": 0.5, "layer_matching": "v4", "label_weight": 0.1},
    epochs=8,
    learning_rate=1e-3,
)


def test_auto_is_fp32_on_the_cpu_where_bf16_is_done_when_asked() -> None:
    assert [resolve(asked, "cpu") for asked in ("auto", "fp32", "bf16")] == ["fp32", "fp32", "bf16"]


@pytest.mark.parametrize(("able", "auto"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_that_can_and_one_that_cannot(able: bool, auto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    assert resolve("auto", "cuda:0") == auto
    assert resolve("fp32", "cuda:0") == "fp32"
    if able:
        assert resolve("bf16", "cuda:0") == "bf16"
    else:
        with pytest.raises(ValueError, match=r"^--precision bf16: Old GPU does not compute.*give fp32$"):
            resolve("bf16", "cuda:0")


def one_step(
    make_model: MakeModel, data: EncodedTask, precision: Precision
) -> tuple[Encoded, dict[str, Tensor], methods.Method, Training]:
    """A step of pruning with the gates half closed: outputs, losses, and what has gradients."""
    student, teacher = make_model(layers=4), make_model(layers=4, seed=1)
    method = methods.load("cofi")(TRIAL, student, 4)
    training = Training(student, method, teacher, data, TRIAL, precision=precision)
    method.enter(method.phases()[0], student)
    batch = collate(data.splits["train"], next(training.rows), torch.device("cpu"))
    out = encode(student, batch, method.before_forward(1), True, precision)
    with torch.no_grad():
        taught = encode(teacher, batch, Gates(), True, precision)
    terms = Step(student, method, ALONE, precision)(batch, taught, 1)
    sum(terms.values()).backward()
    return out, terms, method, training


def test_everything_but_the_products_is_fp32(make_model: MakeModel, toy: EncodedTask) -> None:
    out, terms, method, training = one_step(make_model, toy, "bf16")
    exact, exact_terms, exact_method, _ = one_step(make_model, toy, "fp32")
    assert {out.logits_BC.dtype, *(s.dtype for s in out.hidden_states_NH)} == {torch.float32}
    assert {term.dtype for term in terms.values()} == {torch.float32}
    parameters = [*training.student.parameters(), *method.parameters()]
    assert {p.grad.dtype for p in parameters if p.grad is not None} == {torch.float32}
    # The gates' draw and the Lagrangian have no product of matrices in them: not a bit differs.
    assert torch.equal(terms["cofi/lagrangian"], exact_terms["cofi/lagrangian"])
    assert torch.equal(method.lambda_1.grad, exact_method.lambda_1.grad)
    assert not torch.equal(out.logits_BC, exact.logits_BC)
    torch.testing.assert_close(out.logits_BC, exact.logits_BC, atol=0.05, rtol=0.05)
    for name, term in terms.items():
        assert float(term.detach()) == pytest.approx(float(exact_terms[name].detach()), rel=0.05, abs=1e-3), (
            name
        )


def set_up(data: EncodedTask, teacher: CofiForSequenceClassification, directory: Path, **more: Any) -> Setup:
    teacher.save_pretrained(directory / "teacher")
    return Setup(
        data=data.directory, teacher=directory / "teacher", output=directory / "out", num_threads=1, **more
    )


def test_what_is_scored_timed_and_shipped_is_fp32(
    toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path
) -> None:
    setup = set_up(toy_on_disk, teacher, tmp_path, precision="bf16")
    *_, measured = compress.compress(TRIAL.model_copy(update={"epochs": 16.0, "dropout": 0.0}), setup)
    assert isinstance(measured, Measurement)
    shipped = CofiForSequenceClassification.from_pretrained(setup.output / "model")
    assert {p.dtype for p in shipped.parameters()} == {torch.float32}
    task, dev = toy_on_disk.task, toy_on_disk.splits["dev"]
    assert dict(measured.scores) == evaluate.score(shipped, task, dev)
    assert measured.contract["dtype"] == "float32"
    assert measured.score > 0.9


def test_a_checkpoint_of_another_precision_is_another_runs(
    toy_on_disk: EncodedTask, teacher: CofiForSequenceClassification, tmp_path: Path
) -> None:
    ours, auto, other = (
        compress.identity(TRIAL, set_up(toy_on_disk, teacher, tmp_path, precision=p), toy_on_disk)
        for p in ("fp32", "auto", "bf16")
    )
    assert ours == auto
    method = methods.load("dense")(TRIAL.model_copy(update={"options": {}}), teacher, 4)
    training = Training(teacher, method, None, toy_on_disk, TRIAL)
    next(training.steps())
    checkpoint.save(tmp_path / "c", training.state(), ours)
    with pytest.warns(UserWarning, match="of another run: precision differ"):
        assert checkpoint.latest(tmp_path / "c", other) is None


def test_a_resumed_run_in_bf16_is_the_uninterrupted_one_to_the_bit(
    make_model: MakeModel, toy: EncodedTask
) -> None:
    def new() -> Training:
        torch.manual_seed(0)
        student = make_model(layers=2, dropout=0.1)
        method = methods.load("cofi")(TRIAL, student, 4)
        return Training(student, method, make_model(layers=2, seed=1), toy, TRIAL, precision="bf16")

    def losses(training: Training) -> list[tuple[int, dict[str, float]]]:
        return [(p.step, dict(p.losses)) for p in training.run() if p.step > 9]

    expected = losses(new())
    broken, resumed = new(), new()
    torch.manual_seed(0)
    broken = new()
    steps = broken.steps()
    for _ in range(9):
        next(steps)
    resumed.restore(broken.state())
    assert losses(resumed) == expected


class Counting(DistributedDataParallel):
    """Counts how often gradients travel."""

    travelled: list[int]

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        group = distributed.group.WORLD

        def hook(counts, bucket):  # type: ignore[no-untyped-def] # DDP wants classes here, not their names
            counts.append(bucket.buffer().numel())
            assert bucket.buffer().dtype == torch.float32
            done = distributed.all_reduce(bucket.buffer() / 2, group=group, async_op=True)
            assert done is not None
            return done.get_future().then(lambda future: future.value()[0])

        self.register_comm_hook(self.travelled, hook)


@pytest.mark.parametrize(("parts", "precision"), [(1, "fp32"), (3, "fp32"), (1, "bf16")])
def test_gradients_travel_once_a_step(
    toy_on_disk: EncodedTask, tmp_path: Path, parts: int, precision: Precision
) -> None:
    context = torch.multiprocessing.start_processes(
        _one_of_two,
        args=(toy_on_disk.directory, parts, precision, tmp_path),
        nprocs=2,
        join=False,
        start_method="forkserver",
    )
    while not context.join():
        pass
    first, second = ((tmp_path / f"{rank}").read_text().split() for rank in range(2))
    assert first == second
    steps, values, parameters = map(int, first[:3])
    assert len(first) == 3 + steps, "one bucket a step: the model is small"
    assert values == steps * parameters


def _one_of_two(rank: int, data: Path, parts: int, precision: Precision, output: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{output}/meeting", rank=rank, world_size=2)
    Counting.travelled = []
    loop.DistributedDataParallel = Counting  # type: ignore[misc]
    trial = TrialConfig(method="dense", epochs=1, learning_rate=1e-3)
    torch.manual_seed(0)
    student = CofiForSequenceClassification(
        CofiConfig(vocab_size=64, hidden_size=64, pooler_size=64, heads_per_layer=[1], ffn_per_layer=[64])
    )
    method = methods.load("dense")(trial, student, 4)
    training = Training(
        student, method, None, open_encoded(data), trial, ranks=Ranks(rank, 2, parts), precision=precision
    )
    list(training.run())
    size = sum(p.numel() for p in student.parameters())
    counts = Counting.travelled
    (output / f"{rank}").write_text(" ".join(map(str, [training.step, sum(counts), size, *counts])))
    distributed.destroy_process_group()

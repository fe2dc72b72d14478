"""A training step never makes the host wait for the device.

Two witnesses. A dispatch mode sees every operator of forward, losses, Lagrangian, backward and update, and
knows those that read back. And the same step runs on the meta device, whose tensors hold no values: reading
one in any way is an error there.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cofi_tune.components import hard_concrete
from cofi_tune.components.distillation import MATCHINGS
from cofi_tune.config import Precision, TrialConfig
from cofi_tune.data.batches import Batch, RowStream, collate
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.methods.cofi import Cofi
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates
from cofi_tune.ranks import ALONE
from cofi_tune.step import Step, encode
from cofi_tune.teacher_outputs import outputs_of

MakeModel = Callable[..., CofiForSequenceClassification]

READING = {
    "_local_scalar_dense",  # .item(), float(), bool()
    "item",
    "is_nonzero",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "unique",
    "_unique",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "allclose",
    "bincount",
    "repeat_interleave",
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""With booleans they look for the true ones first."""

PHASES = ("finetune", "prune", "recover")
every_step = pytest.mark.parametrize("matching", MATCHINGS)
every_phase = pytest.mark.parametrize("phase", [*PHASES, "shrunk"])


class Recorder(TorchDispatchMode):
    """Names of all operators that ran, and of those that read back."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.reading: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.ran.append(name)
        by_mask = name in INDEXING and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if name in READING or by_mask:
            self.reading.append(name)
        return func(*args, **(kwargs or {}))


def in_phase(
    phase: str, matching: str, model: CofiForSequenceClassification
) -> tuple[Cofi, CofiForSequenceClassification, torch.optim.Optimizer]:
    """CoFi in the middle of a phase, with its optimizer."""
    target = 0.6 if phase == "shrunk" else 0.3
    options = {"target_sparsity": target, "layer_matching": matching, "label_weight": 0.1}
    trial = TrialConfig(options=options, epochs=4, finetune_epochs=1)
    method, student = Cofi(trial, model, steps_per_epoch=10), model.train()
    stages = method.phases()[: PHASES.index("prune" if phase == "shrunk" else phase) + 1]
    for stage in stages:
        if stage.name == "recover":
            close(method)
        student = method.enter(stage, student)
    if phase == "shrunk":
        close(method)
        assert method.shrink(student, 0) is None
        shrunk = method.shrink(student, 1000)
        assert shrunk is not None
        student = shrunk.student
        assert student.config.heads_per_layer == [0, 0, 0, 4, 4, 4]
    groups = [{"params": [p for p in student.parameters() if p.requires_grad]}, *method.parameter_groups()]
    return method, student, torch.optim.AdamW(groups, lr=1e-3, fused=True)


def close(method: Cofi) -> None:
    """Half of the FFN units and three attention sublayers."""
    method.gates.log_alpha["intermediate"].data[:, ::2] = -hard_concrete.LOG_ALPHA_LIMIT
    method.gates.log_alpha["mha"].data[:3] = -hard_concrete.LOG_ALPHA_LIMIT


def step(module: Step, optimizer: torch.optim.Optimizer, batch: Batch, teacher: Encoded) -> None:
    """As `Training` does it."""
    terms = module(batch, teacher, 7)
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    module.method.after_step()


@pytest.fixture
def batch(toy: EncodedTask) -> Batch:
    rows = next(RowStream(toy.splits["train"], 16, seed=0))
    made = collate(toy.splits["train"], rows, torch.device("cpu"))
    assert made.packing.position_N is not None
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_phase
@every_step
def test_no_operator_reads_back(
    make_model: MakeModel, batch: Batch, phase: str, matching: str, precision: Precision
) -> None:
    method, student, optimizer = in_phase(phase, matching, make_model(layers=6, dropout=0.1))
    teacher = make_model(layers=6, seed=1)
    with Recorder() as recorder:
        with torch.no_grad():
            taught = encode(teacher, batch, Gates(), True, precision)
        step(Step(student, method, ALONE, precision), optimizer, batch, taught)
    assert recorder.reading == []
    assert {"addmm", "gelu_backward", "_fused_adamw_"} <= set(recorder.ran)
    assert ("argmin" in recorder.ran) == (matching != "off")
    assert (method.lambda_1.grad is not None) == (phase in ("prune", "shrunk"))


@every_step
def test_kept_outputs_are_gathered_without_reading_back(
    make_model: MakeModel, toy: EncodedTask, batch: Batch, matching: str, tmp_path: Path
) -> None:
    method, student, optimizer = in_phase("prune", matching, make_model(layers=6, dropout=0.1))
    guide = outputs_of(make_model(layers=6, seed=1), toy.splits["train"], method.teacher_layers, tmp_path)
    with Recorder() as recorder:
        step(Step(student, method, ALONE), optimizer, batch, guide(batch))
    assert recorder.reading == []
    assert ("argmin" in recorder.ran) == (matching != "off")


@every_phase
@every_step
def test_the_step_runs_without_values(
    make_model: MakeModel, batch: Batch, phase: str, matching: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stream of the gates has no twin on the meta device.
    monkeypatch.setattr(
        hard_concrete, "uniform_like", lambda log_alpha, generator: torch.rand_like(log_alpha)
    )
    method, student, _ = in_phase(phase, matching, make_model(layers=6, dropout=0.1))
    teacher = make_model(layers=6, seed=1).to("meta")
    method.to("meta")
    method.live_L = None if method.live_L is None else method.live_L.to("meta")
    there = moved(batch)
    with torch.no_grad():
        taught = encode(teacher, there, Gates(), with_hidden_states=True)
    terms = Step(student.to("meta"), method, ALONE)(there, taught, 7)
    torch.stack(list(terms.values())).sum().backward()
    assert student.layers[0].ffn.up.weight.grad.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        terms["cofi/prediction"].item()


def moved(batch: Batch) -> Batch:
    """The batch on the meta device."""
    packing = batch.packing
    there = {n: t.to("meta") for n, t in packing._asdict().items() if isinstance(t, Tensor)}
    tensors = ("ids_N", "types_N", "positions_N", "labels_B")
    plain: dict[str, Any] = {name: getattr(batch, name).to("meta") for name in tensors}
    return replace(batch, packing=packing._replace(**there), **plain)


class ReadsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        return grad[0] * grad[0].sum().item()


CULPRITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0]),
    "branch": lambda x: 1 if (x == 0).all() else 2,
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "boolean index": lambda x: x[x > 0],
    "boolean assignment": lambda x: x.clone().index_put_((x > 0,), torch.tensor(0.0)),
    "unique": lambda x: x.unique(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "equal": lambda x: torch.equal(x, x + 1),
    "in backward": lambda x: ReadsInBackward.apply(x.requires_grad_()).sum().backward(),
}


@pytest.mark.parametrize("name", CULPRITS)
def test_the_recorder_sees_what_it_should(name: str) -> None:
    x = torch.tensor([1.0, 0.0, 2.0])
    with Recorder() as recorder:
        CULPRITS[name](x)
    assert recorder.reading


def test_the_recorder_lets_harmless_operators_pass() -> None:
    x = torch.randn(3, 4)
    with Recorder() as recorder:
        torch.where(x > 0, x, 0.0).index_select(0, torch.tensor([2, 0])).sum()
        assert x[torch.tensor([1, 2])].shape == (2, 4)
    assert recorder.ran
    assert recorder.reading == []


def test_the_step_of_a_padded_batch_packs_it_outside(make_model: MakeModel, batch: Batch) -> None:
    """`forward` for padded tensors reads its mask; the loop never calls it."""
    with Recorder() as recorder:
        make_model()(torch.ones(2, 3).long(), torch.tensor([[1, 1, 1], [1, 0, 0]]))
    assert recorder.reading == ["nonzero"]

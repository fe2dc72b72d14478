"""Our mathematics against numbers recorded from the reference implementation (princeton-nlp/CoFiPruning).

Every `*.npz` in COFI_REFERENCE_DIR (default ../shared/reference) is a case; its README describes the keys.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cofi_tune.components import distillation, hard_concrete, lagrangian, surgery
from cofi_tune.components.pretrained import convert_state
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification, Encoded, Gates, pack

DIRECTORY = Path(os.environ.get("COFI_REFERENCE_DIR") or Path(__file__).parents[2] / "shared" / "reference")
CASES = sorted(DIRECTORY.glob("*.npz")) if DIRECTORY.is_dir() else []
THEIR_NAMES = {
    "hidden": "hidden_H",
    "head": "head_LA",
    "head_layer": "mha_L",
    "intermediate": "intermediate_LF",
    "mlp": "ffn_L",
}
FORWARDS = ("dense", "deterministic", "sampled")

pytestmark = pytest.mark.skipif(
    not DIRECTORY.is_dir(), reason=f"no recorded reference in {DIRECTORY} (set COFI_REFERENCE_DIR)"
)


def test_there_are_cases() -> None:
    assert CASES, f"{DIRECTORY} holds no *.npz"


class Case:
    """One recorded file, in our terms."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path)
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))
        self.kinds = [k for k in THEIR_NAMES if f"log_alpha/{k}" in self.arrays.files]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def has(self, key: str) -> bool:
        return key in self.arrays.files

    @property
    def steps(self) -> list[int]:
        return sorted({int(k.split("/")[1]) for k in self.arrays.files if k.startswith("lagrangian/")})

    @property
    def temperature(self) -> float:
        return float(self.meta["temperature"])

    def log_alpha(self) -> dict[str, Tensor]:
        return {k: self.tensor(f"log_alpha/{k}") for k in self.kinds}

    def gates(self, which: str) -> Gates:
        if which == "dense":
            return Gates()
        shapes = {k: a.shape for k, a in self.log_alpha().items()}
        return Gates(**{THEIR_NAMES[k]: self.tensor(f"{which}/{k}_z").reshape(shapes[k]) for k in self.kinds})

    def sizes(self) -> lagrangian.Sizes:
        m = self.meta
        heads, hidden = m["num_attention_heads"], m["hidden_size"]
        return lagrangian.Sizes(
            m["num_hidden_layers"], heads, hidden // heads, hidden, m["intermediate_size"]
        )

    def state(self, who: str) -> dict[str, Tensor]:
        return {
            k.removeprefix(f"{who}/"): self.tensor(k) for k in self.arrays.files if k.startswith(f"{who}/")
        }

    def model(self, who: str) -> CofiForSequenceClassification:
        m, s = self.meta, self.sizes()
        config = CofiConfig(
            vocab_size=m["vocab_size"],
            hidden_size=s.hidden_size,
            head_size=s.head_size,
            heads_per_layer=[s.num_heads] * s.num_layers,
            ffn_per_layer=[s.num_ffn] * s.num_layers,
            pooler_size=s.hidden_size,
            max_position_embeddings=m["max_position_embeddings"],
            layer_norm_eps=m["layer_norm_eps"],
            num_labels=m["num_labels"],
        )
        # Eager attention rounds in the order of the recorded forward; the fused kernel does not.
        model = CofiForSequenceClassification._from_config(config, attn_implementation="eager")
        model.load_state_dict(convert_state(self.state(who)))
        return model.eval()

    def forward(self, who: str, gates: Gates) -> Encoded:
        """Packed run on the recorded batch."""
        ids, mask = self.tensor("input_ids"), self.tensor("attention_mask")
        packing, positions = pack(mask, ids)
        assert packing.position_N is not None
        flat = [self.tensor(k).flatten()[packing.position_N] for k in ("input_ids", "token_type_ids")]
        with torch.no_grad():
            return self.model(who).encode(*flat, positions, packing, gates, with_hidden_states=True)

    def real_tokens(self) -> Tensor:
        return self.tensor("attention_mask").bool()


@pytest.fixture(params=CASES, ids=lambda p: p.stem)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def close(ours: Tensor | float, theirs: Tensor) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours, dtype=theirs.dtype).reshape(theirs.shape), theirs, atol=1e-5, rtol=1e-4
    )


def test_probability_open(case: Case) -> None:
    for kind, log_alpha in case.log_alpha().items():
        close(
            hard_concrete.probability_open(log_alpha, case.temperature), case.tensor(f"prob_nonzero/{kind}")
        )


def test_sampled_gates(case: Case) -> None:
    for kind, log_alpha in case.log_alpha().items():
        z = hard_concrete.sample(log_alpha, case.tensor(f"sample/{kind}/u"), case.temperature)
        close(z, case.tensor(f"sample/{kind}/z"))


def test_deterministic_gates(case: Case) -> None:
    theirs = case.gates("deterministic")
    for kind, log_alpha in case.log_alpha().items():
        single = kind in ("head_layer", "mlp")
        rule = hard_concrete.deterministic_single if single else hard_concrete.deterministic
        close(rule(log_alpha, case.temperature), getattr(theirs, THEIR_NAMES[kind]))


def test_target_sparsity(case: Case) -> None:
    for step in case.steps:
        target = lagrangian.scheduled_sparsity(
            step, case.meta["sparsity_warmup_steps"], case.meta["target_sparsity"], "linear"
        )
        close(target, case.tensor(f"lagrangian/{step}/target_sparsity"))


def test_lagrangian_and_its_gradients(case: Case) -> None:
    for step in case.steps:
        log_alpha = {k: a.requires_grad_() for k, a in case.log_alpha().items()}
        lambda_1, lambda_2 = (
            torch.tensor(case.meta[n], requires_grad=True) for n in ("lambda_1", "lambda_2")
        )
        probability = {k: hard_concrete.probability_open(a, case.temperature) for k, a in log_alpha.items()}
        gates = Gates(**{THEIR_NAMES[k]: p for k, p in probability.items()})
        sparsity = lagrangian.expected_sparsity(gates, case.sizes(), count="reference")
        close(sparsity, case.tensor(f"lagrangian/{step}/expected_sparsity"))
        target = float(case.tensor(f"lagrangian/{step}/target_sparsity"))
        loss = lagrangian.penalty(sparsity, target, lambda_1, lambda_2)
        close(loss, case.tensor(f"lagrangian/{step}/loss"))
        loss.backward()
        assert lambda_1.grad is not None
        assert lambda_2.grad is not None
        close(lambda_1.grad, case.tensor(f"lagrangian/{step}/grad_lambda_1"))
        close(lambda_2.grad, case.tensor(f"lagrangian/{step}/grad_lambda_2"))
        for kind, parameter in log_alpha.items():
            assert parameter.grad is not None
            close(parameter.grad, case.tensor(f"lagrangian/{step}/grad_log_alpha/{kind}"))


def test_prunable_parameters(case: Case) -> None:
    sizes, their_biases = case.sizes(), 4 * case.meta["hidden_size"]
    # The reference writes 4H where F is meant; beyond that the counts agree.
    gap = sizes.num_layers * (their_biases - sizes.num_ffn)
    assert sizes.prunable_parameters + gap == case.meta["prunable_model_size"]


@pytest.mark.parametrize("which", FORWARDS)
def test_masked_forward(case: Case, which: str) -> None:
    out = case.forward("model", case.gates(which))
    close(out.logits_BC, case.tensor(f"forward/{which}/logits"))
    for index, state in enumerate(out.hidden_states_NH):
        close(state, case.tensor(f"forward/{which}/hidden_states/{index}")[case.real_tokens()])


def test_teacher_forward(case: Case) -> None:
    out = case.forward("teacher", Gates())
    close(out.logits_BC, case.tensor("teacher_forward/logits"))
    for index, state in enumerate(out.hidden_states_NH):
        close(state, case.tensor(f"teacher_forward/hidden_states/{index}")[case.real_tokens()])


@pytest.mark.parametrize("which", ["deterministic", "sampled"])
def test_distillation_losses(case: Case, which: str) -> None:
    """The recorded layer loss averages over padding too, so it is fed the recorded padded states."""
    num_layers = case.meta["num_hidden_layers"]

    def states(prefix: str) -> Tensor:
        return torch.stack(
            [case.tensor(f"{prefix}/hidden_states/{i + 1}").flatten(0, 1) for i in range(num_layers)]
        )

    student, teacher = states(f"forward/{which}"), states("teacher_forward")
    weights = case.state("model")
    transform = torch.nn.Linear(student.shape[-1], student.shape[-1])
    transform.weight.data = weights["layer_transformation.weight"]
    transform.bias.data = weights["layer_transformation.bias"]
    layer = distillation.layer_loss(
        student,
        teacher[list(distillation.teacher_layers(num_layers))],
        transform,
        torch.ones(num_layers, dtype=torch.bool),
        "v3",
        student.shape[1],
    )
    close(layer.detach(), case.tensor(f"distill/{which}/v3/layer_loss"))
    student_logits = case.tensor(f"forward/{which}/logits")
    teacher_logits = case.tensor("teacher_forward/logits")
    prediction = distillation.prediction_loss(student_logits, teacher_logits, 2.0, len(student_logits))
    close(prediction, case.tensor(f"distill/{which}/v3/ce_loss"))
    close(0.1 * prediction + 0.9 * layer.detach(), case.tensor(f"distill/{which}/v3/loss"))


def test_cut_model_equals_the_masked_forward(case: Case) -> None:
    """Where the reference's own cut model is off by 0.14, ours gives the masked logits."""
    gates = case.gates("deterministic")
    plan = surgery.plan(gates, case.sizes())
    small = surgery.cut(case.model("model"), plan, gates)
    with torch.no_grad():
        logits = small(
            case.tensor("input_ids"), case.tensor("attention_mask"), case.tensor("token_type_ids")
        ).logits
    close(logits, case.tensor("forward/deterministic/logits"))
    if case.has("surgery/logits") and "hidden" not in case.kinds:
        close(logits, case.tensor("surgery/logits"))

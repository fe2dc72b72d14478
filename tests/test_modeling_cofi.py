"""Packed equals padded, whoever shares the batch; and a cut model loads wherever it is taken (D1, D2)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from cofi_tune.components import surgery
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import (
    CofiConfig,
    CofiForSequenceClassification,
    Gates,
    Hidden,
    classification_loss,
    eager_attention,
    masked_layer_norm,
    pack,
    sdpa_attention,
    sublayers,
)

MakeModel = Callable[..., CofiForSequenceClassification]

LENGTHS = (9, 1, 5, 14, 14)
REPOSITORY = Path(__file__).parents[1]


def batch(left: bool = False) -> dict[str, Tensor]:
    """Rows of `LENGTHS` tokens, padded on the right or on the left with the same tokens."""
    generator = torch.Generator().manual_seed(1)
    longest = max(LENGTHS)
    ids = torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    types, mask = ids.clone(), ids.clone()
    for row, length in enumerate(LENGTHS):
        place = slice(longest - length, longest) if left else slice(0, length)
        ids[row, place] = torch.randint(3, 40, (length,), generator=generator)
        types[row, place] = torch.randint(0, 2, (length,), generator=generator)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def logits(model: CofiForSequenceClassification, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def test_a_row_does_not_know_its_batch(make_model: MakeModel) -> None:
    model, inputs = make_model(), batch()
    together = logits(model, inputs)
    assert together.std(0).min() > 0.01
    for row, length in enumerate(LENGTHS):
        alone = {name: t[row : row + 1, :length] for name, t in inputs.items()}
        close(logits(model, alone), together[row : row + 1])
        del alone["attention_mask"]
        close(logits(model, alone), together[row : row + 1])
    backwards = {name: t.flip(0) for name, t in inputs.items()}
    close(logits(model, backwards), together.flip(0))
    wider = {name: torch.nn.functional.pad(t, (0, 7)) for name, t in inputs.items()}
    close(logits(model, wider), together)


def test_what_stands_in_the_padding_does_not_matter(make_model: MakeModel) -> None:
    inputs = batch()
    other = {**inputs, "input_ids": torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 17)}
    assert torch.equal(logits(make_model(), other), logits(make_model(), inputs))


def test_left_padding_equals_right_padding(make_model: MakeModel) -> None:
    model = make_model()
    close(logits(model, batch(left=True)), logits(model, batch()))


def test_a_full_mask_equals_no_mask(make_model: MakeModel) -> None:
    model, ids = make_model(), batch()["input_ids"][3:]
    close(
        logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}),
        logits(model, {"input_ids": ids}),
    )


def test_eager_attention_equals_the_fused_one(make_model: MakeModel) -> None:
    eager, fused = make_model(attention="eager"), make_model(attention="sdpa")
    assert eager.config._attn_implementation == "eager"
    close(logits(eager, batch()), logits(fused, batch()))
    q, k, v = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind(0)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])[:, None, None, :]
    torch.testing.assert_close(eager_attention(q, k, v, mask, 0.0), sdpa_attention(q, k, v, mask, 0.0))
    torch.testing.assert_close(eager_attention(q, k, v, None, 0.0), sdpa_attention(q, k, v, None, 0.0))


def test_masked_layer_norm_is_layer_norm_of_the_kept() -> None:
    norm = torch.nn.LayerNorm(12, eps=1e-12, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    gate = torch.rand(12, dtype=torch.float64)
    gate[[0, 3, 4, 11]] = 0
    x = torch.randn(7, 12, dtype=torch.float64) * (gate != 0)
    kept = gate.nonzero().flatten()
    expected = torch.zeros_like(x)
    normed = torch.nn.functional.layer_norm(x[:, kept], (8,), norm.weight[kept], norm.bias[kept], norm.eps)
    expected[:, kept] = normed * gate[kept]
    torch.testing.assert_close(masked_layer_norm(x, norm, Hidden.of(gate)), expected)
    torch.testing.assert_close(masked_layer_norm(x, norm, Hidden.of(torch.ones_like(gate))), norm(x))


def gradients_of_norm(whole: bool, tensors: Sequence[Tensor], upstream: Tensor, eps: float) -> list[Tensor]:
    """Of input, gate, weight and bias: of the masked norm, or of a norm of what the gate keeps."""
    x, gate, weight, bias = (t.detach().clone().requires_grad_() for t in tensors)
    kept = gate.nonzero().flatten()
    norm = torch.nn.LayerNorm(len(gate), eps=eps)
    if whole:
        y = masked_layer_norm(x, copy_of(norm, weight, bias), Hidden.of(gate))
        (y * upstream).sum().backward()
    else:
        own = [t[..., kept] for t in (x, weight, bias)]
        y = torch.nn.functional.layer_norm(own[0], (len(kept),), *own[1:], eps) * gate[kept]
        (y * upstream[:, kept]).sum().backward()
    return [t.grad[..., kept] for t in (x, gate, weight, bias)]


@pytest.mark.parametrize("num_kept", [1, 2, 3, 5, 32])
def test_masked_layer_norm_has_the_gradients_of_layer_norm_of_the_kept(num_kept: int) -> None:
    generator = torch.Generator().manual_seed(num_kept)
    gate = torch.zeros(32, dtype=torch.float64)
    gate[torch.randperm(32, generator=generator)[:num_kept]] = 0.7
    x, upstream = (torch.randn(4, 32, dtype=torch.float64, generator=generator) for _ in range(2))
    weight, bias = (torch.randn(32, dtype=torch.float64, generator=generator) for _ in range(2))
    tensors = (x * (gate != 0), gate, weight, bias)
    found, expected = (gradients_of_norm(whole, tensors, upstream, 1e-3) for whole in (True, False))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("num_kept", [1, 3, 4, 16])
def test_few_kept_units_do_not_blow_up_the_gradients(num_kept: int) -> None:
    """In single precision, with BERT's own epsilon: what should cancel must."""
    generator = torch.Generator().manual_seed(num_kept)
    gate = torch.zeros(768)
    gate[torch.randperm(768, generator=generator)[:num_kept]] = 1.0
    x = (torch.randn(8, 768, generator=generator) + 3) * gate
    upstream, weight = (torch.randn(size, generator=generator) for size in ((8, 768), (768,)))
    tensors = (x, gate, weight, torch.zeros(768))
    found = gradients_of_norm(True, tensors, upstream, 1e-12)
    expected = gradients_of_norm(False, [t.double() for t in tensors], upstream.double(), 1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-3)


def test_a_coarse_gate_alone_lifts_products_to_its_precision() -> None:
    [gates, _] = sublayers(None, torch.ones(2), None, 2)
    assert gates.out is not None
    assert (torch.ones(3, 4, dtype=torch.bfloat16) * gates.out).dtype == torch.float32


def copy_of(norm: torch.nn.LayerNorm, weight: Tensor, bias: Tensor) -> Any:
    """What `masked_layer_norm` reads of a norm, with other parameters."""
    return SimpleNamespace(normalized_shape=norm.normalized_shape, weight=weight, bias=bias, eps=norm.eps)


def test_gates_of_one_change_nothing(make_model: MakeModel) -> None:
    model, ids = make_model(), torch.arange(3, 12)
    packing, positions = pack(None, ids[None])
    shapes = ((32,), (3, 4), (3,), (3, 48), (3,))
    with torch.no_grad():
        plain = model.encode(ids, ids * 0, positions, packing)
        gated = model.encode(ids, ids * 0, positions, packing, Gates(*[torch.ones(s) for s in shapes]))
    close(gated.logits_BC, plain.logits_BC)
    assert plain.hidden_states_NH == ()


def test_hidden_states_and_tuples(make_model: MakeModel) -> None:
    model, inputs = make_model(), batch()
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
        first = model(**inputs, return_dict=False)
    assert len(out.hidden_states) == 4
    assert all(state.shape == (5, 14, 32) for state in out.hidden_states)
    assert all((state[inputs["attention_mask"] == 0] == 0).all() for state in out.hidden_states)
    assert torch.equal(first[0], out.logits)


def test_losses(make_model: MakeModel) -> None:
    inputs, labels = batch(), torch.tensor([0, 1, 1, 0, 1])
    out = make_model()(**inputs, labels=labels)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    scores = torch.tensor([0.1, 0.5, -2.0, 1.0, 3.0])
    out = make_model(num_labels=1)(**inputs, labels=scores)
    torch.testing.assert_close(out.loss, (out.logits[:, 0] - scores).square().mean())
    torch.testing.assert_close(classification_loss(torch.ones(2, 1), torch.tensor([1, 3])), torch.tensor(2.0))


def test_config_wants_as_many_layers_of_each() -> None:
    with pytest.raises(ValueError, match="same number of layers"):
        CofiConfig(heads_per_layer=[1, 2], ffn_per_layer=[3])
    assert CofiConfig(heads_per_layer=[0, 2], ffn_per_layer=[3, 0]).num_hidden_layers == 2


@pytest.fixture(scope="module")
def shipped(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cut model with a layer that lacks attention and one that lacks its FFN, and what it should answer."""
    model = make_model(layers=3, num_labels=3)
    model.config.id2label = {0: "bad", 1: "fair", 2: "good"}
    generator = torch.Generator().manual_seed(2)
    gates = Gates(
        *[
            torch.rand(s, generator=generator) * (torch.rand(s, generator=generator) < 0.6)
            for s in ((32,), (3, 4))
        ],
        mha_L=torch.tensor([1.0, 0.0, 0.8]),
        intermediate_LF=torch.rand(3, 48, generator=generator),
        ffn_L=torch.tensor([0.5, 1.0, 0.0]),
    )
    small = surgery.cut(model, surgery.plan(gates, Sizes.of(model.config)), gates)
    directory = tmp_path_factory.mktemp("shipped")
    small.save_pretrained(directory / "model")
    expected = logits(small, batch())
    asked = {name: t.tolist() for name, t in batch().items()}
    (directory / "case.json").write_text(json.dumps({"inputs": asked, "logits": expected.tolist()}))
    return directory


LOAD = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained("model", **OPTIONS)
case = json.load(open("case.json"))
with torch.no_grad():
    logits = model(**{name: torch.tensor(values) for name, values in case["inputs"].items()}).logits
torch.testing.assert_close(logits, torch.tensor(case["logits"]), atol=1e-5, rtol=1e-5)
assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
assert model.config.heads_per_layer[1] == 0 and model.layers[2].ffn is None
print("module:", type(model).__module__)
"""
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cofi_tune":
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
try:
    import cofi_tune
except ImportError as error:
    assert "blocked" in str(error)
else:
    raise SystemExit("the package can be imported")
"""


def run(code: str, directory: Path, with_package: bool) -> str:
    """A fresh interpreter in the directory of the shipped model; its output, or its errors as a failure."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COFI_REFERENCE_DIR")}
    environment |= {"HF_HOME": str(directory / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if with_package:
        environment["PYTHONPATH"] = str(REPOSITORY)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("transformers_first", [False, pytest.param(True, marks=pytest.mark.long)])
def test_loads_with_the_package(shipped: Path, transformers_first: bool) -> None:
    """Whether the package is imported before the auto classes are, or after."""
    first = "from transformers import AutoModelForSequenceClassification\n" if transformers_first else ""
    out = run(f"{first}import cofi_tune\n" + LOAD.replace("OPTIONS", "{}"), shipped, with_package=True)
    assert out.strip().endswith("module: cofi_tune.modeling_cofi")


def test_loads_without_the_package(shipped: Path) -> None:
    out = run(BLOCK + LOAD.replace("OPTIONS", "{'trust_remote_code': True}"), shipped, with_package=False)
    assert "transformers_modules" in out
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (shipped / "model").iterdir())


def test_saved_again_it_still_ships_its_code(shipped: Path, tmp_path: Path) -> None:
    model = CofiForSequenceClassification.from_pretrained(shipped / "model")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "modeling_cofi.py").read_text() == (
        REPOSITORY / "cofi_tune/modeling_cofi.py"
    ).read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"]["AutoModelForSequenceClassification"].endswith("CofiForSequenceClassification")
    close(logits(model, batch()), torch.tensor(json.loads((shipped / "case.json").read_text())["logits"]))

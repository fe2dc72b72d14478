"""Kept outputs of a teacher: what is gathered is what the teacher says, and what is not whole is not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cofi_tune.config import Precision
from cofi_tune.data.batches import collate
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification
from cofi_tune.ranks import Ranks
from cofi_tune.step import encode
from cofi_tune.teacher_files import LOGITS, sizes
from cofi_tune.teacher_outputs import KeptOutputs, TooLarge, outputs_of

MakeModel = Callable[..., CofiForSequenceClassification]

LAYERS = 5
HALF = 2.0**-11
"""Of a number, by which half precision may miss it."""


@pytest.fixture(scope="module")
def model(make_model: MakeModel) -> CofiForSequenceClassification:
    return make_model(layers=LAYERS, seed=3)


@pytest.fixture(scope="module")
def kept(
    model: CofiForSequenceClassification, toy: EncodedTask, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, KeptOutputs]:
    directory, split = tmp_path_factory.mktemp("kept"), toy.splits["train"]
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return {
        precision: outputs_of(model, split, range(LAYERS), directory / precision, precision)
        for precision in precisions
    }


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.integers(0, 127), min_size=4, max_size=40),
    ranks=st.sampled_from([Ranks(), Ranks(1, 2), Ranks(0, 2, 2)]),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_what_is_gathered_is_what_the_teacher_says(
    rows: list[int],
    ranks: Ranks,
    precision: Precision,
    kept: dict[str, KeptOutputs],
    model: CofiForSequenceClassification,
    toy: EncodedTask,
) -> None:
    batch = collate(toy.splits["train"], np.array(rows), torch.device("cpu"), ranks, part=ranks.parts - 1)
    with torch.no_grad():
        live = encode(model, batch, NO_GATES, True, precision)
    told = kept[precision](batch)
    # Products in bfloat16 depend on how rows are put together, in their third digit.
    near = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(told.logits_BC, live.logits_BC, rtol=near, atol=near)
    for layer in range(1, LAYERS + 1):
        state = told.hidden_states_NH[layer]
        assert state.dtype is torch.float32
        torch.testing.assert_close(state, live.hidden_states_NH[layer], rtol=HALF + near, atol=near)
    assert len(told.hidden_states_NH) == len(live.hidden_states_NH)
    assert all(a.equal(told.hidden_states_NH[i + 1]) for i, a in enumerate(told.hidden_states_NH[1:]))


def test_states_that_are_not_kept_cannot_be_had(
    model: CofiForSequenceClassification, toy: EncodedTask, tmp_path: Path
) -> None:
    guide = outputs_of(model, toy.splits["train"], (1, 3), tmp_path)
    assert set(sizes(tmp_path)) == {LOGITS, "layer-01", "layer-03"}
    told = guide(collate(toy.splits["train"], np.arange(3), torch.device("cpu")))
    with pytest.raises(KeyError):
        told.hidden_states_NH[1]
    assert told.hidden_states_NH[2].shape == (toy.splits["train"].offsets[3], 32)


def test_a_state_beyond_half_precision_is_refused(
    make_model: MakeModel, toy: EncodedTask, tmp_path: Path
) -> None:
    model = make_model(layers=2)
    last = model.layers[1].ffn
    assert last is not None
    with torch.no_grad():
        last.norm.weight.mul_(1e6)
    with pytest.raises(TooLarge, match="layer 1"):
        outputs_of(model, toy.splits["train"], (0, 1), tmp_path)
    assert [*tmp_path.iterdir()] == []
    outputs_of(model, toy.splits["train"], (0,), tmp_path)

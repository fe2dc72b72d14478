"""A batch for encoders whose parts are gated, cut or gone, and how nearly two of them must agree."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates, Packing, pack

Tokens = tuple[Tensor, Tensor, Tensor, Packing]
Tolerance = Callable[[CofiForSequenceClassification, Gates, Tokens], float]

EXACT, USUAL = 1e-10, 1e-5
"""In double precision, and in single precision where nothing divides by little."""
EPSILON = 2.0**-24


@pytest.fixture(scope="session")
def tokens() -> Tokens:
    """A padded batch of 5 rows, packed: ids, segments, positions and where they lie."""
    generator = torch.Generator().manual_seed(0)
    ids, types = (torch.randint(0, high, (5, 11), generator=generator) for high in (40, 2))
    packing, positions = pack(torch.arange(11) < torch.tensor([11, 3, 7, 1, 9])[:, None], ids)
    assert packing.position_N is not None
    return *(t.flatten()[packing.position_N] for t in (ids, types)), positions, packing


@pytest.fixture(scope="session")
def tolerance() -> Tolerance:
    """How far apart two ways may be to compute the logits and hidden states of a model under gates."""
    return allowed


def allowed(model: CofiForSequenceClassification, gates: Gates, tokens: Tokens) -> float:
    """More than usual in single precision if rounding by itself does more: three times of what it does.

    Seen in the masked model, and in four whose weights are moved by half of their last bit or so. It is more
    where two hidden units are left and nearly equal, whose norm divides by their difference.
    """
    if model.dtype == torch.float64:
        return EXACT
    exact = copy.deepcopy(model).double()
    runs = [encode(model, gates, tokens)]
    for seed in range(4):
        moved = copy.deepcopy(exact)
        generator = torch.Generator().manual_seed(seed)
        for weight in moved.parameters():
            signs = torch.randint(2, weight.shape, generator=generator) * 2.0 - 1
            weight.data *= 1 + EPSILON * signs
        runs.append(encode(moved, gates, tokens))
    there = encode(exact, gates, tokens)
    return max(USUAL, 3 * max(distance(run, there) for run in runs))


def encode(model: CofiForSequenceClassification, gates: Gates, tokens: Tokens) -> Encoded:
    """Under the gates in the model's own precision, with hidden states."""
    own = Gates(*[None if gate is None else gate.to(model.dtype) for gate in gates])
    with torch.no_grad():
        return model.encode(*tokens, own, with_hidden_states=True)


def distance(one: Encoded, other: Encoded) -> float:
    """The largest difference of a logit or a hidden state."""
    pairs = [
        (one.logits_BC, other.logits_BC),
        *zip(one.hidden_states_NH, other.hidden_states_NH, strict=True),
    ]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)

"""Which layers are compared, what the losses are, and that a cheap gradient is the whole one."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cofi_tune.components import distillation

TOKENS, HIDDEN = 10, 6


def states(layers: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(layers, TOKENS, HIDDEN, generator=generator, dtype=torch.float64)


def transform(seed: int = 5) -> nn.Linear:
    linear = nn.Linear(HIDDEN, HIDDEN, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for parameter in linear.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return linear


def naive_matches(distance: list[list[float]], live: list[bool], ordered: bool) -> list[int | None]:
    """The paper's matching, one teacher layer after the other."""
    numbers = range(len(live))
    if not ordered:
        return [min(numbers, key=row.__getitem__) for row in distance]
    matches: list[int | None] = []
    below = len(live)
    for row in reversed(distance):
        candidates = [j for j in numbers if live[j] and j < below]
        chosen = min(candidates, key=row.__getitem__) if candidates else None
        below = below if chosen is None else chosen
        matches.insert(0, chosen)
    return matches


def naive_loss(
    student: Tensor, teacher: Tensor, linear: nn.Linear, live: list[bool], matching: str
) -> Tensor:
    """All pairs with gradient, then the chosen ones summed: what the reference computes."""
    pairs = torch.stack([torch.stack([(t - linear(s)).square().mean() for s in student]) for t in teacher])
    matches = naive_matches(pairs.tolist(), live, ordered=matching != "v3")
    chosen = [pairs[i, j] for i, j in enumerate(matches) if j is not None]
    return torch.stack(chosen).sum() if chosen else pairs.sum() * 0


@given(data=st.data(), layers=st.integers(1, 12), ordered=st.booleans())
@settings(max_examples=300, deadline=None)
def test_matching_equals_the_naive_rule(data: st.DataObject, layers: int, ordered: bool) -> None:
    matched = data.draw(st.integers(1, 4))
    values = st.floats(0, 100, width=32)
    rows = st.lists(values, min_size=layers, max_size=layers, unique=True)
    distance = data.draw(st.lists(rows, min_size=matched, max_size=matched))
    live = data.draw(st.lists(st.booleans(), min_size=layers, max_size=layers))
    chosen, found = distillation.match_layers(torch.tensor(distance), torch.tensor(live), ordered)
    ours = [j if yes else None for j, yes in zip(chosen.tolist(), found.tolist(), strict=True)]
    assert ours == naive_matches(distance, live, ordered)


def test_nearest_may_repeat_and_may_be_dead() -> None:
    distance = torch.tensor([[5.0, 1.0, 3.0], [4.0, 2.0, 9.0]])
    chosen, found = distillation.match_layers(distance, torch.tensor([True, False, True]), ordered=False)
    assert chosen.tolist() == [1, 1]
    assert found.all()


def test_ordered_matches_descend_and_skip_the_dead() -> None:
    distance = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3)
    live = torch.tensor([False, True, True, True])
    # The top teacher layer takes layer 1, the nearest that lives; nothing is left below it.
    chosen, found = distillation.match_layers(distance, live, ordered=True)
    assert found.tolist() == [False, False, True]
    assert chosen[2] == 1
    chosen, found = distillation.match_layers(distance.flip(1), live, ordered=True)
    assert chosen.tolist() == [1, 2, 3]
    assert found.all()


@pytest.mark.parametrize("matching", ["v3", "v4", "v6"])
@pytest.mark.parametrize("live", [[True] * 6, [False, True, False, True, True, False], [True, *[False] * 5]])
def test_loss_and_gradient_equal_the_naive_ones(matching: str, live: list[bool]) -> None:
    teacher, linear = states(4, 1), transform()
    results = []
    for naive in (True, False):
        student = states(6, 2).requires_grad_()
        linear.zero_grad()
        if naive:
            loss = naive_loss(student, teacher, linear, live, matching)
        else:
            loss = distillation.layer_loss(student, teacher, linear, torch.tensor(live), matching, TOKENS)
        loss.backward()
        assert student.grad is not None
        assert linear.weight.grad is not None
        assert linear.bias.grad is not None
        results.append((loss.detach(), student.grad, linear.weight.grad.clone(), linear.bias.grad.clone()))
    assert results[0][0] > 0
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("matching", ["v4", "v6"])
def test_no_layer_left_is_no_loss_and_no_nan(matching: str) -> None:
    student = states(3, 2).requires_grad_()
    dead = torch.zeros(3, dtype=torch.bool)
    loss = distillation.layer_loss(student, states(3, 1), transform(), dead, matching, TOKENS)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_shares_of_a_batch_add_up() -> None:
    """Two workers with half the tokens each, matching by the distances of both."""
    student, teacher, linear, live = states(6, 2), states(4, 1), transform(), torch.ones(6, dtype=torch.bool)
    whole = distillation.layer_loss(student, teacher, linear, live, "v4", TOKENS)
    halves = [(student[:, part], teacher[:, part]) for part in (slice(0, 3), slice(3, None))]
    with torch.no_grad():
        distances = sum(
            torch.stack([torch.stack([(linear(s) - t).square().sum() for s in s_]) for t in t_])
            for s_, t_ in halves
        )
    assert isinstance(distances, Tensor)
    shares = [
        distillation.layer_loss(s, t, linear, live, "v4", TOKENS, lambda own: distances) for s, t in halves
    ]
    torch.testing.assert_close(sum(shares), whole)


def test_prediction_loss_by_hand() -> None:
    student, teacher = torch.tensor([[0.2, 1.1, -0.4]]), torch.tensor([[2.0, -1.0, 0.5]])
    for temperature in (0.7, 1.0, 2.0, 8.0):
        p = np.exp(teacher[0].numpy() / temperature)
        q = np.exp(student[0].numpy() / temperature)
        p, q = p / p.sum(), q / q.sum()
        by_hand = temperature**2 * float((p * np.log(p / q)).sum())
        ours = distillation.prediction_loss(student, teacher, temperature, 1)
        assert ours.item() == pytest.approx(by_hand, rel=1e-4)


def test_prediction_loss_is_a_mean_over_the_global_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(7, 3, generator=generator) for _ in range(2))
    whole = distillation.prediction_loss(student, teacher, 2.0, 7)
    rows = [distillation.prediction_loss(student[i : i + 1], teacher[i : i + 1], 2.0, 1) for i in range(7)]
    shares = [
        distillation.prediction_loss(student[s], teacher[s], 2.0, 7) for s in (slice(0, 2), slice(2, 7))
    ]
    torch.testing.assert_close(whole, sum(rows) / 7)
    torch.testing.assert_close(whole, sum(shares))
    assert distillation.prediction_loss(teacher, teacher, 2.0, 7).item() == pytest.approx(0, abs=1e-6)


def test_prediction_loss_of_one_logit_is_zero() -> None:
    """Why a regression needs its labels."""
    student = torch.randn(5, 1).requires_grad_()
    loss = distillation.prediction_loss(student, torch.randn(5, 1), 2.0, 5)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_prediction_loss_survives_sure_teachers() -> None:
    student = torch.tensor([[0.0, 0.0]], requires_grad=True)
    loss = distillation.prediction_loss(student, torch.tensor([[2000.0, -2000.0]]), 1.0, 1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(1, (0,)), (2, (0, 1)), (4, (0, 1, 2, 3)), (6, (1, 2, 4, 5)), (8, (1, 3, 5, 7)), (12, (2, 5, 8, 11))],
)
def test_teacher_layers(layers: int, expected: tuple[int, ...]) -> None:
    assert distillation.teacher_layers(layers) == expected


@pytest.mark.parametrize("layers", [1, 3, 4, 5, 7, 8, 12, 24])
def test_random_teacher_layers_stay_in_their_windows(layers: int) -> None:
    ends = distillation.teacher_layers(layers)
    count = len(ends)
    assert distillation.random_teacher_layers(layers, [1 - 1e-9] * count) == ends
    lowest = distillation.random_teacher_layers(layers, [0.0] * count)
    assert lowest == (0, *(end + 1 for end in ends[:-1]))
    seen = {
        distillation.random_teacher_layers(layers, draws)
        for draws in itertools.product(np.linspace(0, 0.999, 7), repeat=count)
    }
    assert {layer for chosen in seen for layer in chosen} == set(range(layers))
    assert all(a < b for chosen in seen for a, b in itertools.pairwise(chosen))

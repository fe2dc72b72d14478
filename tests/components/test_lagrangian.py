"""The factored expectation against enumeration, the schedules, and who pushes which way."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from cofi_tune.components import lagrangian, surgery
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Gates

MakeModel = Callable[..., CofiForSequenceClassification]

SMALL = Sizes(num_layers=2, num_heads=2, head_size=3, hidden_size=2, num_ffn=2)
BERT_BASE = Sizes(num_layers=12, num_heads=12, head_size=64, hidden_size=768, num_ffn=3072)
SHAPES = {"hidden_H": (2,), "head_LA": (2, 2), "mha_L": (2,), "intermediate_LF": (2, 2), "ffn_L": (2,)}
SUBSETS = [names for size in range(1, 6) for names in itertools.combinations(SHAPES, size)]
SCHEDULES = ("linear", "cubic", "cosine")


def random_probability(names: tuple[str, ...], seed: int = 0) -> Gates:
    generator = torch.Generator().manual_seed(seed)
    return Gates(**{n: torch.rand(SHAPES[n], generator=generator, dtype=torch.float64) for n in names})


def outcomes(probability: Gates) -> Iterator[tuple[float, Gates]]:
    """Every state of all gates, with its probability; units are independent."""
    given = [(n, p) for n, p in zip(probability._fields, probability, strict=True) if p is not None]
    flat = torch.cat([p.flatten() for _, p in given])
    for bits in itertools.product((0.0, 1.0), repeat=len(flat)):
        state = torch.tensor(bits, dtype=flat.dtype)
        weight = torch.where(state == 1, flat, 1 - flat).prod().item()
        parts = state.split([p.numel() for _, p in given])
        yield weight, Gates(**{n: s.view(p.shape) for (n, p), s in zip(given, parts, strict=True)})


def count(state: Gates, sizes: Sizes) -> float:
    """Parameters left when gates are 0 or 1, unit by unit; a sublayer exists while its own gate is open."""
    hidden = sizes.hidden_size if state.hidden_H is None else int(state.hidden_H.sum())
    total = 0
    for layer in range(sizes.num_layers):
        if state.mha_L is None or state.mha_L[layer]:
            heads = sizes.num_heads if state.head_LA is None else int(state.head_LA[layer].sum())
            width = heads * sizes.head_size
            total += 3 * (hidden * width + width) + width * hidden + hidden
        if state.ffn_L is None or state.ffn_L[layer]:
            units = (
                sizes.num_ffn if state.intermediate_LF is None else int(state.intermediate_LF[layer].sum())
            )
            total += hidden * units + units + units * hidden + hidden
    return total


@pytest.mark.parametrize("names", [s for s in SUBSETS if len(s) <= 3 or len(s) == 5], ids="-".join)
def test_expectation_equals_enumeration(names: tuple[str, ...]) -> None:
    sizes = SMALL if len(names) < 5 else Sizes(1, 2, 3, 2, 2)
    probability = random_probability(names)
    if len(names) == 5:
        probability = Gates(
            *[p if n == "hidden_H" else p[:1] for n, p in zip(names, probability, strict=True)]
        )
    brute = sum(weight * count(state, sizes) for weight, state in outcomes(probability))
    ours = lagrangian.expected_parameters(probability, sizes)
    assert ours.item() == pytest.approx(brute, rel=1e-10)


def test_reference_count_equals_its_outer_products() -> None:
    """The expected size, materialised as the reference does."""
    p = random_probability(tuple(SHAPES), seed=3)
    assert p.hidden_H is not None
    assert p.head_LA is not None
    assert p.mha_L is not None
    assert p.intermediate_LF is not None
    assert p.ffn_L is not None
    heads = (p.head_LA * p.mha_L[:, None]).flatten()
    units = (p.intermediate_LF * p.ffn_L[:, None]).flatten()
    per_head = 4 * 2 * 3 + 4 * 3
    brute = torch.outer(p.hidden_H, heads).sum() * per_head / 2 + 2 * torch.outer(p.hidden_H, units).sum()
    ours = lagrangian.expected_parameters(p, SMALL, count="reference")
    torch.testing.assert_close(ours, brute)


def test_reference_count_at_bert_base() -> None:
    """M and the sizes per unit of BERT-base."""
    one_head_LA = torch.zeros(12, 12, dtype=torch.float64)
    one_head_LA[0, 0] = 1
    one_head = lagrangian.expected_parameters(Gates(head_LA=one_head_LA), BERT_BASE, "reference")
    assert one_head.item() == 196_864 + 12 * 3072 * 1537
    everything = lagrangian.expected_sparsity(ones(BERT_BASE), BERT_BASE, "reference")
    kept = 144 * 196_864 / 768 * 768 + 2 * 768 * 12 * 3072
    assert everything.item() == pytest.approx(1 - kept / 85_017_600)


def ones(sizes: Sizes) -> Gates:
    layers = sizes.num_layers
    return Gates(
        *[
            torch.ones(shape, dtype=torch.float64)
            for shape in (
                (sizes.hidden_size,),
                (layers, sizes.num_heads),
                layers,
                (layers, sizes.num_ffn),
                layers,
            )
        ]
    )


@pytest.mark.parametrize("sizes", [SMALL, BERT_BASE, Sizes(3, 4, 8, 32, 48)])
def test_all_open_is_the_whole_encoder_exactly(sizes: Sizes) -> None:
    assert lagrangian.expected_parameters(ones(sizes), sizes).item() == sizes.prunable_parameters
    assert lagrangian.expected_sparsity(ones(sizes), sizes).item() == 0.0
    hidden, ffn, width = sizes.hidden_size, sizes.num_ffn, sizes.num_heads * sizes.head_size
    layer = (
        3 * (hidden * width + width) + width * hidden + hidden + hidden * ffn + ffn + ffn * hidden + hidden
    )
    assert sizes.prunable_parameters == sizes.num_layers * layer


def test_bert_base_has_85_million() -> None:
    assert BERT_BASE.prunable_parameters == 12 * (4 * (768**2 + 768) + 2 * 768 * 3072 + 768 + 3072)


def test_expectation_of_open_and_shut_gates_is_the_plans_count() -> None:
    sizes = Sizes(3, 4, 8, 32, 48)
    generator = torch.Generator().manual_seed(0)
    gates = Gates(*[(torch.rand(g.shape, generator=generator) < 0.6).double() for g in ones(sizes)])
    plan = surgery.plan(gates, sizes)
    assert lagrangian.expected_parameters(gates, sizes).item() == plan.num_parameters
    assert lagrangian.expected_sparsity(gates, sizes).item() == pytest.approx(plan.sparsity, abs=1e-12)


def test_unknown_count_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown count 'their'"):
        lagrangian.expected_parameters(ones(SMALL), SMALL, count="their")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_from_zero_to_the_target(schedule: str) -> None:
    path = [lagrangian.scheduled_sparsity(step, 50, 0.8, schedule) for step in range(80)]
    assert path[0] == 0
    assert path[50:] == [pytest.approx(0.8)] * 30
    assert all(a < b for a, b in itertools.pairwise(path[:51]))
    assert lagrangian.scheduled_sparsity(0, 0, 0.8, schedule) == pytest.approx(0.8)


def test_schedules_differ_as_they_say() -> None:
    def early(schedule: str) -> float:
        return lagrangian.scheduled_sparsity(25, 100, 1.0, schedule)

    assert early("cubic") > early("linear") > early("cosine")
    assert early("linear") == 0.25
    assert early("cubic") == pytest.approx(1 - 0.75**3)
    for schedule in ("linear", "cosine"):
        assert lagrangian.scheduled_sparsity(50, 100, 1.0, schedule) == pytest.approx(0.5)


def test_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'quadratic'.*linear, cubic or cosine"):
        lagrangian.scheduled_sparsity(1, 2, 0.5, "quadratic")


def gradients(sparsity: float, lambda_1: float, lambda_2: float) -> tuple[float, float, float]:
    s, one, two = (torch.tensor(v, requires_grad=True) for v in (sparsity, lambda_1, lambda_2))
    lagrangian.penalty(s, 0.6, one, two).backward()
    grads: list[Tensor | None] = [s.grad, one.grad, two.grad]
    return tuple(0.0 if g is None else g.item() for g in grads)  # type: ignore[return-value]


def test_penalty_and_its_gradients() -> None:
    one, two = torch.tensor(0.3), torch.tensor(0.7)
    assert lagrangian.penalty(torch.tensor(0.5), 0.6, one, two).item() == pytest.approx(-0.03 + 0.007)
    by_sparsity, by_one, by_two = gradients(0.5, 0.3, 0.7)
    assert by_sparsity == pytest.approx(0.3 - 2 * 0.7 * 0.1)
    assert by_one == pytest.approx(-0.1)
    assert by_two == pytest.approx(0.01)


def test_multipliers_are_pushed_the_right_way() -> None:
    """Ascent: lambda_1 falls below the target (so that sparsity is rewarded) and rises above it."""
    assert gradients(0.5, 0.0, 0.0)[1] < 0 < gradients(0.7, 0.0, 0.0)[1]
    assert gradients(0.5, 0.0, 0.0)[2] > 0
    assert gradients(0.7, 0.0, 0.0)[2] > 0
    # With the multipliers such a gap leaves, the masks' descent raises sparsity below the target.
    assert gradients(0.5, -0.3, 0.7)[0] < 0 < gradients(0.7, 0.3, 0.7)[0]


def test_more_open_gates_are_less_sparse() -> None:
    probability = Gates(*[p.requires_grad_() for p in random_probability(tuple(SHAPES)) if p is not None])
    lagrangian.expected_sparsity(probability, SMALL).backward()
    for p in probability:
        assert p is not None
        assert p.grad is not None
        assert (p.grad < 0).all()


def test_multipliers_start_at_zero_and_apart() -> None:
    one, two = lagrangian.new_multipliers(torch.device("cpu"))
    assert one.item() == two.item() == 0
    assert one.data_ptr() != two.data_ptr()


def test_sizes_of_a_cut_model_are_refused(make_model: MakeModel) -> None:
    config = make_model().config
    assert Sizes.of(config) == Sizes(3, 4, 8, 32, 48)
    config.heads_per_layer = [4, 3, 4]
    with pytest.raises(ValueError, match="already cut"):
        Sizes.of(config)


@pytest.mark.parametrize("schedule", ["linear", "cubic", "cosine"])
def test_a_ramp_may_begin_at_what_was_reached(schedule: str) -> None:
    path = [lagrangian.scheduled_sparsity(step, 50, 0.8, schedule, 0.6) for step in range(80)]
    assert path[0] == pytest.approx(0.6)
    assert path == sorted(path)
    assert path[50:] == pytest.approx([0.8] * 30)
    whole = [lagrangian.scheduled_sparsity(step, 50, 1.0, schedule) for step in range(80)]
    assert path == pytest.approx([0.6 + 0.2 * share for share in whole]), "the same shape"

"""The clock is right, the pairs are fair, and every scenario times what it says."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cofi_tune import latency
from cofi_tune.data.batches import Batch
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Packing

MakeModel = Callable[..., CofiForSequenceClassification]
MakeTask = Callable[..., EncodedTask]

CPU = torch.device("cpu")


class Sleeper:
    """A model that takes its time, and remembers what it was given."""

    device = CPU

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seen: list[Packing] = []

    def eval(self) -> "Sleeper":
        return self

    def encode(self, ids: Tensor, types: Tensor, positions: Tensor, packing: Packing) -> None:
        assert torch.is_inference_mode_enabled()
        self.seen.append(packing)
        time.sleep(self.seconds)


def measure(model: Any, dense: Any, data: EncodedTask, *scenarios: str, seconds: float = 0.05) -> Any:
    return latency.measure(model, dense, data.splits["dev"], scenarios, seconds)


def test_a_sleep_of_5_ms_measures_5_ms(toy: EncodedTask) -> None:
    (timed,) = measure(Sleeper(0.005), Sleeper(0.015), toy, "latency")
    assert 5 <= timed.latency_ms < 12
    assert 15 <= timed.dense_ms < 30
    assert timed.speedup_low <= timed.speedup <= timed.speedup_high
    assert 1.5 < timed.speedup < 4
    assert (timed.scenario, timed.batch_size) == ("latency", 1)


def test_milliseconds_are_those_of_a_row(toy: EncodedTask) -> None:
    (timed,) = measure(Sleeper(0.008), Sleeper(0.008), toy, "throughput")
    assert timed.batch_size == 32
    assert 8 / 32 <= timed.latency_ms < 16 / 32


def test_a_model_beside_itself_is_as_fast(make_model: MakeModel, toy: EncodedTask) -> None:
    model = make_model()
    for timed in measure(model, model, toy, "throughput", "latency", seconds=0.3):
        assert 0.6 < timed.speedup < 1.7
        assert timed.speedup_low <= timed.speedup <= timed.speedup_high


def test_a_smaller_model_is_faster(make_model: MakeModel, toy: EncodedTask) -> None:
    (timed,) = measure(make_model(layers=1), make_model(layers=6), toy, "throughput", seconds=0.3)
    assert timed.speedup > 2
    assert timed.latency_ms < timed.dense_ms


@pytest.mark.parametrize(("seconds", "pairs"), [(0.0, latency.MIN_PAIRS), (60.0, latency.MAX_PAIRS)])
def test_number_of_pairs(toy: EncodedTask, seconds: float, pairs: int) -> None:
    (timed,) = measure(Sleeper(0), Sleeper(0), toy, "latency", seconds=seconds)
    assert timed.num_pairs == pairs


def test_pairs_take_turns() -> None:
    """A B, B A, A B ...: after a warm-up of each, so that neither always runs into a warm cache."""
    order: list[str] = []
    runs = [(lambda: order.append("a0"), lambda: order.append("b0"))]
    times = latency.paired_times(runs, CPU, seconds=0.0)
    assert times.shape == (latency.MIN_PAIRS, 2)
    assert order[:2] == ["a0", "b0"]
    assert order[2:10] == ["a0", "b0", "b0", "a0", "a0", "b0", "b0", "a0"]


def test_the_first_column_is_the_first_model_whoever_went_first() -> None:
    runs = [(lambda: time.sleep(0.004), lambda: None)]
    times = latency.paired_times(runs, CPU, seconds=0.0)
    for first in (0, 1):
        assert (times[first::2, 0] > 0.0035).all()
        assert np.median(times[first::2, 1]) < 0.0035


def test_the_speedup_is_the_median_of_paired_ratios(
    toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the ratio of medians: a slow moment hits both sides of a pair."""
    times = np.array([[2.0, 1.0], [20.0, 10.0], [3.0, 1.0], [8.0, 2.0], [5.0, 1.0]])
    monkeypatch.setattr(latency, "paired_times", lambda runs, device, seconds: times)
    (timed,) = measure(Sleeper(0), Sleeper(0), toy, "latency")
    assert (timed.speedup_low, timed.speedup, timed.speedup_high) == (2.0, 3.0, 4.0)
    assert (timed.dense_ms, timed.latency_ms) == (5000.0, 1000.0)


def lengths(batch: Batch) -> list[int]:
    return np.diff([*batch.packing.first_B.tolist(), len(batch.ids_N)]).tolist()


def test_latency_runs_one_row_at_a_time_without_padding(toy: EncodedTask) -> None:
    batches = latency._batches("latency", toy.splits["dev"], CPU)
    assert len(batches) == 25
    assert all(b.packing.num_rows == 1 and b.packing.position_N is None for b in batches)
    timed = sorted(lengths(b)[0] for b in batches)
    real = toy.splits["dev"].lengths
    assert (timed[0], timed[-1]) == (real.min(), real.max())
    assert np.mean(timed) == pytest.approx(real.mean(), rel=0.1)


def test_throughput_runs_packed_batches_of_real_rows(make_task: MakeTask) -> None:
    split = make_task(rows=600).splits["train"]
    batches = latency._batches("throughput", split, CPU)
    assert [b.packing.num_rows for b in batches] == [32] * 16
    assert all(b.packing.position_N is not None for b in batches)
    assert np.mean([np.mean(lengths(b)) for b in batches]) == pytest.approx(split.lengths.mean(), rel=0.1)
    # Not sorted by length: in service rows come as they come.
    assert np.mean([np.ptp(lengths(b)) for b in batches]) > 12


@pytest.mark.parametrize(("rows", "batches"), [(8, 16), (40, 2), (80, 1), (100, 1)])
def test_a_throughput_batch_has_as_many_rows_as_asked_for(toy: EncodedTask, rows: int, batches: int) -> None:
    split = toy.splits["dev"]
    found = latency._batches("throughput", split, CPU, rows)
    assert [b.num_rows for b in found] == [min(rows, len(split))] * min(batches, len(split) // rows or 1)
    mine = Sleeper(0)
    (timed,) = latency.measure(mine, mine, split, ["throughput"], 0.0, throughput_rows=rows)  # type: ignore[arg-type]
    assert timed.batch_size == min(rows, len(split))


def test_every_model_is_timed_on_the_same_rows(toy: EncodedTask) -> None:
    for name in ("latency", "throughput", "reference"):
        first, again = (latency._batches(name, toy.splits["dev"], CPU) for _ in range(2))
        assert all(torch.equal(a.ids_N, b.ids_N) for a, b in zip(first, again, strict=True))
    mine, dense = Sleeper(0), Sleeper(0)
    measure(mine, dense, toy, "latency", "throughput")
    assert len(mine.seen) == len(dense.seen)
    assert {id(p) for p in mine.seen} == {id(p) for p in dense.seen}


def test_reference_pads_to_128_and_computes_it_all(make_model: MakeModel, make_task: MakeTask) -> None:
    model, split = make_model(), make_task(rows=300).splits["train"]
    (padded,) = latency._batches("reference", split, CPU)
    order = np.random.Generator(np.random.PCG64(latency.SAMPLE_SEED)).permutation(300)[:128]
    packed = latency.collate(split, order, CPU)
    assert len(padded.ids_N) == 128 * 128
    assert padded.packing.position_N is None
    assert padded.packing[:2] == (128, 128)
    with torch.no_grad():
        ours, theirs = (model.encode(b.ids_N, b.types_N, b.positions_N, b.packing) for b in (padded, packed))
    torch.testing.assert_close(ours.logits_BC, theirs.logits_BC, atol=1e-5, rtol=1e-5)


def test_few_rows_are_enough(make_model: MakeModel, make_task: MakeTask) -> None:
    split = make_task(rows=5).splits["train"]
    model = make_model()
    for timed in latency.measure(model, model, split, ("throughput", "latency", "reference"), seconds=0.0):
        assert timed.latency_ms > 0
        assert timed.num_pairs == latency.MIN_PAIRS


def test_an_unknown_scenario_is_refused(toy: EncodedTask) -> None:
    with pytest.raises(ValueError, match="'fast': throughput, latency or reference"):
        measure(Sleeper(0), Sleeper(0), toy, "fast")

"""A model's milliseconds, paired with the dense model's.

Both models run the same packed batches in the same process, in turn; the speedup is the median of the
paired ratios, its spread their quartiles. So a slow moment of the machine hits both sides of a ratio.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cofi_tune.data.batches import Batch, collate
from cofi_tune.data.encode import EncodedSplit
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Packing
from cofi_tune.process_memory import onednn
from cofi_tune.records import Latency

MIN_PAIRS, MAX_PAIRS = 9, 101
THROUGHPUT_ROWS, REFERENCE_ROWS, REFERENCE_LENGTH = 32, 128, 128
SAMPLE_SEED = 0
"""Which dev rows are timed; the same for every model of a study."""

Run = Callable[[], None]


def measure(
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    split: EncodedSplit,
    scenarios: Iterable[str],
    seconds: float = 3.0,
    throughput_rows: int = THROUGHPUT_ROWS,
) -> tuple[Latency, ...]:
    """Time `model` against `dense` in each scenario.

    Args:
        model: what is shipped.
        dense: the uncompressed model, on the same device and in the same dtype.
        split: rows whose real lengths are timed.
        scenarios: names from `records.SCENARIOS`.
        seconds: about how long each scenario may take (at least `MIN_PAIRS` pairs are run).
        throughput_rows: of a batch of the scenario "throughput"; all rows if there are fewer.
    """
    with onednn(True):  # as a model that is shipped runs, wherever this is called
        return tuple(_scenario(name, model, dense, split, seconds, throughput_rows) for name in scenarios)


def _scenario(
    name: str,
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    split: EncodedSplit,
    seconds: float,
    throughput_rows: int,
) -> Latency:
    batches = _batches(name, split, model.device, throughput_rows)
    rows = batches[0].num_rows
    runs = [(_run(dense, batch), _run(model, batch)) for batch in batches]
    times = paired_times(runs, model.device, seconds)
    ratios = times[:, 0] / times[:, 1]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    dense_ms, model_ms = np.median(times, axis=0) * 1e3 / rows
    return Latency(
        scenario=name,
        dense_ms=float(dense_ms),
        latency_ms=float(model_ms),
        speedup=float(middle),
        speedup_low=float(low),
        speedup_high=float(high),
        num_pairs=len(times),
        batch_size=rows,
        rows=sum(batch.num_rows for batch in batches),
    )


def paired_times(runs: list[tuple[Run, Run]], device: torch.device, seconds: float) -> NDArray[np.float64]:
    """Seconds of (first, second), pair after pair: [pairs, 2]. Who goes first alternates."""
    clock = _clock(device)
    for pair in runs[:3]:
        for run in pair:
            clock(run)
    times: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(times) < MAX_PAIRS:
        if len(times) >= MIN_PAIRS and time.perf_counter() - start > seconds:
            break
        first, second = runs[len(times) % len(runs)]
        if len(times) % 2:
            b = clock(second)
            times.append((clock(first), b))
        else:
            times.append((clock(first), clock(second)))
    return np.array(times)


def _clock(device: torch.device) -> Callable[[Run], float]:
    def timed(run: Run) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return timed


def _run(model: CofiForSequenceClassification, batch: Batch) -> Run:
    model.eval()

    def run() -> None:
        with torch.inference_mode():
            model.encode(batch.ids_N, batch.types_N, batch.positions_N, batch.packing)

    return run


def _batches(
    name: str, split: EncodedSplit, device: torch.device, throughput_rows: int = THROUGHPUT_ROWS
) -> list[Batch]:
    """The batches of a scenario: a fixed sample of real rows."""
    order = np.random.Generator(np.random.PCG64(SAMPLE_SEED)).permutation(len(split.labels))
    match name:
        case "latency":
            by_length = order[np.argsort(split.lengths[order], kind="stable")]
            spread = by_length[np.linspace(0, len(by_length) - 1, 25).astype(int)]
            return [collate(split, spread[i : i + 1], device) for i in range(len(spread))]
        case "throughput":
            starts = range(0, max(1, len(order) - throughput_rows + 1), throughput_rows)
            return [collate(split, order[s : s + throughput_rows], device) for s in [*starts][:16]]
        case "reference":
            return [_padded(collate(split, order[:REFERENCE_ROWS], device), REFERENCE_LENGTH)]
    raise ValueError(f"unknown scenario {name!r}: throughput, latency or reference")


def _padded(batch: Batch, length: int) -> Batch:
    """The batch as the CoFi paper times it: every row padded to `length`, padding computed like tokens."""
    old, device = batch.packing, batch.ids_N.device
    rows = old.num_rows
    assert old.max_length <= length, "rows are truncated to at most 128 tokens for this scenario"
    place_N = torch.arange(len(batch.ids_N), device=device) if old.position_N is None else old.position_N
    row_N, column_N = place_N // old.max_length, place_N % old.max_length
    target_N = row_N * length + column_N

    def spread(x_N: torch.Tensor) -> torch.Tensor:
        return x_N.new_zeros(rows * length).index_copy(0, target_N, x_N)

    mask = torch.zeros(rows * length, dtype=torch.bool, device=device)
    mask[target_N] = True
    return replace(
        batch,
        ids_N=spread(batch.ids_N),
        types_N=spread(batch.types_N),
        positions_N=torch.arange(length, device=device).repeat(rows),
        packing=Packing(
            num_rows=rows,
            max_length=length,
            position_N=None,
            first_B=torch.arange(rows, device=device) * length,
            key_mask_B11T=mask.view(rows, 1, 1, length),
        ),
        num_rows=rows,
        num_tokens=rows * length,
    )

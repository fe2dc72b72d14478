"""Time of one CoFi pruning step, and of a dense forward pass, against the same written padded and naive.

    python tests/benchmarks/step.py --data-dir DIR --tokenizer DIR      # real CoLA lengths
    python tests/benchmarks/step.py --run 0.95      # the mean step of a whole run, see whole_run.py
    python tests/benchmarks/step.py --device cuda --length 128      # rows of 128 tokens, on a GPU in bf16

Both sides do the same work on the same rows with the same weights and gates: teacher forward, masked student
forward, prediction and layer losses (v3), Lagrangian, backward, clip, three optimizers. The naive side is
written as the reference does it: rows padded to the longest of the batch, all 12 layers transformed and all
48 pairs of states compared with gradient, layer norm over indexed coordinates, a read-back for every
sublayer, the outer products of the expected size materialised. Sides run in turn; ratios are paired.
On a GPU both sides have the same precision, a time ends when the device is done, and, without `--run`, torch
counts the waits of the host that one more step of each side asks for. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cofi_tune import methods, tasks
from cofi_tune.config import PRECISIONS, Precision, TrialConfig
from cofi_tune.data.batches import Batch, RowStream, collate
from cofi_tune.data.encode import encode
from cofi_tune.data.encoded import EncodedSplit
from cofi_tune.data.sources import Source
from cofi_tune.modeling_cofi import NO_GATES, CofiConfig, CofiForSequenceClassification, Encoded
from cofi_tune.precision import computing, resolve
from cofi_tune.ranks import ALONE
from cofi_tune.step import Step
from cofi_tune.step import encode as run_packed
from cofi_tune.teacher_outputs import KeptOutputs

import whole_run  # isort: skip
from naive import Naive, naive_forward, padded  # isort: skip

FORWARDS_PER_STEP = 3
WARM_UPS = {"cpu": 1, "cuda": 10}
"""Steps before the first that counts: a GPU meets kernels and sizes that it has not seen for a while."""


def base_model(vocab_size: int) -> CofiForSequenceClassification:
    """BERT-base's shape, random weights."""
    return CofiForSequenceClassification(CofiConfig(vocab_size=vocab_size, num_labels=2))


class Packed:
    """The step of this package."""

    def __init__(
        self, student: CofiForSequenceClassification, method: methods.Method, precision: Precision
    ) -> None:
        self.step = Step(student, method, ALONE, precision)
        groups = [{"params": [p for p in student.parameters() if p.requires_grad]}]
        self.optimizer = torch.optim.AdamW(
            [*groups, *({k: v for k, v in g.items() if k != "scheduled"} for g in method.parameter_groups())],
            lr=2e-5,
            weight_decay=0.0,
            fused=True,
        )

    def __call__(self, batch: Batch, teacher: CofiForSequenceClassification) -> None:
        self.taught_by(batch, taught(teacher, batch, self.step.precision))

    def taught_from(self, batch: Batch, outputs: KeptOutputs) -> None:
        """The same with what a teacher has said already."""
        self.taught_by(batch, outputs(batch))

    def taught_by(self, batch: Batch, guide: Encoded) -> None:
        """The same with what a teacher says."""
        terms = self.step(batch, guide, 1)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_(self.step.student.parameters(), 1.0)
        self.optimizer.step()
        self.step.method.after_step()


def taught(teacher: CofiForSequenceClassification, batch: Batch, precision: Precision) -> Encoded:
    """What a teacher says of a batch."""
    with torch.no_grad():
        return run_packed(teacher, batch, NO_GATES, True, precision)


def seconds(run: Callable[..., object], *arguments: object) -> float:
    """Wall time of one call, to the end of what it set going."""
    ended()
    start = time.perf_counter()
    run(*arguments)
    ended()
    return time.perf_counter() - start


def ended() -> None:
    """Wait for the device."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def host_waits(run: Callable[..., object], *arguments: object) -> int:
    """How often one call makes the host wait for the GPU, by torch's own count."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(one.message) for one in caught)


def of_length(split: EncodedSplit, length: int) -> EncodedSplit:
    """Rows of one length, cut from the tokens of a split end to end."""
    rows = len(split.input_ids) // length
    offsets = np.arange(rows + 1) * length
    ends = split.input_ids[: offsets[-1]], split.token_type_ids[: offsets[-1]]
    return EncodedSplit(*ends, offsets, split.labels[:rows])


def new_method(student: CofiForSequenceClassification) -> methods.Method:
    """CoFi with layer matching v3, in its pruning phase."""
    trial = TrialConfig(
        options={"target_sparsity": 0.95, "layer_matching": "v3"}, epochs=20.0, learning_rate=2e-5
    )
    method = methods.load("cofi")(trial, student, 268)
    method.enter(method.phases()[0], student)
    return method


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="../shared/data/glue")
    parser.add_argument("--tokenizer", default="../shared/data/bert-base-uncased-tokenizer")
    parser.add_argument("--cache", type=Path, default=Path("runs/data"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--run", type=float, choices=[whole_run.TARGET_SPARSITY], help="a run's target")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--length", type=int, help="of every row, instead of CoLA's own")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = encode(tasks.load("cola"), Source.directory(args.data_dir), args.tokenizer, args.cache)
    split = data.splits["train"]
    if args.length:
        split = of_length(split, args.length)
    precision = resolve(args.precision, args.device)
    teacher = base_model(data.vocab_size).to(args.device).eval().requires_grad_(False)
    measure = run if args.run else steps
    found = measure(split, teacher, precision, args)
    found |= {"device": device_name(args.device), "precision": precision, "batch_size": args.batch_size}
    found |= {"threads": args.threads, "torch": torch.__version__, "length": args.length or "cola"}
    print(json.dumps(found))


def device_name(device: str) -> str:
    """The GPU's own, or cpu."""
    return device if torch.device(device).type == "cpu" else torch.cuda.get_device_name(device)


def shuffled_rows(split: EncodedSplit) -> np.ndarray:
    """For the naive side: rows in the order that a plain loader gives them.

    Ours are length-sorted in windows, which is part of what is measured.
    """
    return np.random.Generator(np.random.PCG64(0)).permutation(len(split))


def steps(
    split: EncodedSplit,
    teacher: CofiForSequenceClassification,
    precision: Precision,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Whole steps with the teacher run on every batch, and dense forward passes."""
    device = teacher.device
    students = [copy.deepcopy(teacher).requires_grad_(True).train() for _ in range(2)]
    packed_step = Packed(students[0], new_method(students[0]), precision)
    naive_step = Naive(students[1], new_method(students[1]), precision)
    ours = RowStream(split, args.batch_size, 0)
    # The forward passes run the very same rows.
    plain = itertools.cycle(np.array_split(shuffled_rows(split), len(split) // args.batch_size))
    step_ms: list[tuple[float, float]] = []
    forward_ms: list[tuple[float, float]] = []
    for repeat in range(-WARM_UPS[device.type], args.repeats):
        batch, rows = collate(split, next(ours), device), padded(split, next(plain), device)
        pair = seconds(packed_step, batch, teacher), seconds(naive_step, rows, teacher)
        with torch.inference_mode():
            forwards = [
                forward_pair(teacher, split, next(plain), precision) for _ in range(FORWARDS_PER_STEP)
            ]
        if repeat >= 0:
            step_ms.append((pair[0] * 1e3, pair[1] * 1e3))
            forward_ms += [(a * 1e3, b * 1e3) for a, b in forwards]
            print(
                f"step {pair[0] * 1e3:6.1f} ms ({batch.num_tokens} tokens), naive {pair[1] * 1e3:6.1f} ms "
                f"({rows[0].numel()} positions); forward {forwards[0][0] * 1e3:5.1f} ms, "
                f"padded {forwards[0][1] * 1e3:5.1f} ms",
                flush=True,
            )
    found = summary(step_ms, forward_ms)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        found |= {
            "host_waits": host_waits(packed_step, batch, teacher),
            "added_MiB": round((torch.cuda.max_memory_allocated() - before) / 2**20),
            "host_waits_with_collation": host_waits(
                lambda: packed_step(collate(split, next(ours), device), teacher)
            ),
            "naive_host_waits": host_waits(naive_step, rows, teacher),
        }
    return found


def run(
    split: EncodedSplit,
    teacher: CofiForSequenceClassification,
    precision: Precision,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Every stage in turn with the naive step; see `whole_run.summary`."""
    batch_size, device = args.batch_size, teacher.device
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    naive_step = Naive(student, new_method(student), precision)
    ours = RowStream(split, batch_size, 0)
    count = WARM_UPS[device.type] + args.repeats
    batches = [collate(split, next(ours), device) for _ in range(count)]
    rows = shuffled_rows(split)
    plain = [padded(split, rows[n * batch_size :][:batch_size], device) for n in range(count)]
    outputs = whole_run.kept_outputs(args.cache, split, teacher, batches)
    found = []
    for stage in whole_run.stages(new_method(copy.deepcopy(teacher)).gates.present.plan):
        student = copy.deepcopy(teacher).requires_grad_(True).train()
        method = new_method(student)
        packed_step = Packed(whole_run.at(stage, student, method), method, precision)
        timed = []
        for batch, naive_rows in zip(batches, plain, strict=True):
            teaching = seconds(taught, teacher, batch, precision)
            cached = seconds(packed_step.taught_from, batch, outputs)
            timed.append(whole_run.Seconds(cached, teaching, seconds(naive_step, naive_rows, teacher)))
        found.append((stage, timed[-args.repeats :]))
        print(whole_run.line(*found[-1]), flush=True)
    return whole_run.summary(found)


def forward_pair(
    model: CofiForSequenceClassification, split: EncodedSplit, rows: np.ndarray, precision: Precision
) -> tuple[float, float]:
    """Seconds of the dense forward pass on the same rows, packed and padded."""
    batch, tensors = collate(split, rows, model.device), padded(split, rows, model.device)
    packed = seconds(run_packed, model, batch, NO_GATES, False, precision)
    with computing(precision, model.device):
        return packed, seconds(naive_forward, model, *tensors, NO_GATES)


def summary(step_ms: list[tuple[float, float]], forward_ms: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and medians of paired ratios."""
    return {
        "step_ms": statistics.median(a for a, _ in step_ms),
        "naive_step_ms": statistics.median(b for _, b in step_ms),
        "step_ratio": statistics.median(a / b for a, b in step_ms),
        "forward_ms": statistics.median(a for a, _ in forward_ms),
        "padded_forward_ms": statistics.median(b for _, b in forward_ms),
        "forward_ratio": statistics.median(a / b for a, b in forward_ms),
    }


if __name__ == "__main__":
    main()

"""Time of one CoFi pruning step, and of a dense forward pass, against the same written padded and naive.

    python tests/benchmarks/step.py --data-dir DIR --tokenizer DIR      # real CoLA lengths

Both sides do the same work on the same rows with the same weights and gates: teacher forward, masked student
forward, prediction and layer losses (v3), Lagrangian, backward, clip, three optimizers. The naive side is
written as the reference does it: rows padded to the longest of the batch, all 12 layers transformed and all
48 pairs of states compared with gradient, layer norm over indexed coordinates, a read-back for every
sublayer, the outer products of the expected size materialised. Sides run in turn; ratios are paired.
The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cofi_tune import methods, tasks
from cofi_tune.config import TrialConfig
from cofi_tune.data.batches import Batch, RowStream, collate
from cofi_tune.data.encode import encode
from cofi_tune.data.encoded import EncodedSplit
from cofi_tune.data.sources import Source
from cofi_tune.loop import Step
from cofi_tune.loop import encode as run_packed
from cofi_tune.modeling_cofi import NO_GATES, CofiConfig, CofiForSequenceClassification, Gates
from cofi_tune.ranks import ALONE

HEAD_SIZE = 64
FORWARDS_PER_STEP = 3


def base_model(vocab_size: int) -> CofiForSequenceClassification:
    """BERT-base's shape, random weights."""
    return CofiForSequenceClassification(CofiConfig(vocab_size=vocab_size, num_labels=2))


def naive_norm(x: Tensor, norm: nn.LayerNorm, hidden: Tensor | None) -> Tensor:
    """Layer norm over indexed coordinates, as the reference."""
    if hidden is None:
        return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    kept = torch.where(hidden.ne(0))[0]
    part = F.layer_norm(
        torch.index_select(x, -1, kept), (len(kept),), norm.weight[kept], norm.bias[kept], norm.eps
    )
    out = x.clone()
    out[..., kept] = part
    return out


def naive_forward(
    model: CofiForSequenceClassification, ids: Tensor, types: Tensor, mask: Tensor, gates: Gates
) -> tuple[Tensor, list[Tensor]]:
    """The masked forward pass on padded [B, T] rows."""
    rate = model.config.hidden_dropout_prob
    hidden, dropout = gates.hidden_H, lambda x: F.dropout(x, rate, model.training)
    e = model.embeddings
    x = e.word(ids) + e.position.weight[: ids.shape[1]] + e.token_type(types)
    x = x if hidden is None else x * hidden
    x = dropout(naive_norm(x, e.norm, hidden))
    x = x if hidden is None else x * hidden
    bias = (1.0 - mask[:, None, None].float()) * -10000.0
    states = [x]
    for index, layer in enumerate(model.layers):
        a, f = layer.attention, layer.ffn
        batch, length, _ = x.shape
        q, k, v = (
            t.view(batch, length, a.num_heads, HEAD_SIZE).transpose(1, 2) for t in a.qkv(x).chunk(3, -1)
        )
        weights = dropout(torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(HEAD_SIZE) + bias, -1))
        context = weights @ v
        if gates.head_LA is not None:
            context = context * gates.head_LA[index][:, None, None]
        out = a.output(context.transpose(1, 2).reshape(batch, length, -1))
        x = _sublayer(x, out, a.norm, dropout, hidden, _at(gates.mha_L, index))
        inner = F.gelu(f.up(x))
        if gates.intermediate_LF is not None:
            inner = inner * gates.intermediate_LF[index]
        x = _sublayer(x, f.down(inner), f.norm, dropout, hidden, _at(gates.ffn_L, index))
        states.append(x)
    pooled = dropout(torch.tanh(model.pooler(x[:, 0])))
    return model.classifier(pooled), states


def _at(gate: Tensor | None, index: int) -> Tensor | None:
    return None if gate is None else gate[index]


def _sublayer(
    x: Tensor,
    out: Tensor,
    norm: nn.LayerNorm,
    dropout: Callable[[Tensor], Tensor],
    hidden: Tensor | None,
    coarse: Tensor | None,
) -> Tensor:
    if coarse is not None:
        out = out * coarse
    if out.sum().eq(0).item():
        return x
    if hidden is not None:
        out = out * hidden
    x = naive_norm(dropout(out) + x, norm, hidden)
    return x if hidden is None else x * hidden


def naive_expected_sparsity(p: Gates, prunable: int) -> Tensor:
    """The reference's count, outer products and all."""
    assert p.hidden_H is not None
    assert p.head_LA is not None
    assert p.mha_L is not None
    assert p.intermediate_LF is not None
    assert p.ffn_L is not None
    heads = (p.mha_L[:, None] * p.head_LA).flatten()
    units = (p.ffn_L[:, None] * p.intermediate_LF).flatten()
    size = torch.outer(p.hidden_H, heads).sum() * (196864 / 768) + 2 * torch.outer(p.hidden_H, units).sum()
    return 1 - size / prunable


class Naive:
    """The step, padded and naive."""

    def __init__(self, student: CofiForSequenceClassification, method: methods.Method) -> None:
        self.student, self.method = student, method
        main = [p for n, p in student.named_parameters() if "embeddings" not in n]
        self.main = torch.optim.AdamW([*main, *method.matching.transform.parameters()], lr=2e-5)
        self.masks = torch.optim.AdamW(method.gates.parameters(), lr=0.01)
        self.multipliers = torch.optim.AdamW([method.lambda_1, method.lambda_2], lr=0.01, maximize=True)

    def __call__(self, padded: tuple[Tensor, Tensor, Tensor], teacher: CofiForSequenceClassification) -> None:
        ids, types, mask = padded
        method = self.method
        with torch.no_grad():
            teacher_logits, teacher_states = naive_forward(teacher, ids, types, mask, NO_GATES)
        logits, states = naive_forward(self.student, ids, types, mask, method.gates.sample())
        prediction = F.kl_div(
            F.log_softmax(logits / 2, -1), F.softmax(teacher_logits / 2, -1), reduction="batchmean"
        )
        moved = [method.matching.transform(s) for s in states[1:]]
        pairs = [
            [F.mse_loss(teacher_states[t + 1], s) for s in moved] for t in method.matching.teacher_layers
        ]
        layer = sum(row[int(torch.stack(row).argmin().item())] for row in pairs)
        p = method.gates.probability_open()
        gap = naive_expected_sparsity(p, method.sizes.prunable_parameters) - 0.3
        loss = 0.1 * 4 * prediction + 0.9 * layer + method.lambda_1 * gap + method.lambda_2 * gap.square()
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimizer in (self.main, self.masks, self.multipliers):
            optimizer.step()
            optimizer.zero_grad()
        method.after_step()


class Packed:
    """The step of this package."""

    def __init__(self, student: CofiForSequenceClassification, method: methods.Method) -> None:
        self.step = Step(student, method, ALONE)
        groups = [{"params": [p for p in student.parameters() if p.requires_grad]}]
        self.optimizer = torch.optim.AdamW(
            [*groups, *({k: v for k, v in g.items() if k != "scheduled"} for g in method.parameter_groups())],
            lr=2e-5,
            weight_decay=0.0,
            fused=True,
        )

    def __call__(self, batch: Batch, teacher: CofiForSequenceClassification) -> None:
        with torch.no_grad():
            guide = run_packed(teacher, batch, NO_GATES, True)
        terms = self.step(batch, guide, 1)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        nn.utils.clip_grad_norm_(self.step.student.parameters(), 1.0)
        self.optimizer.step()
        self.step.method.after_step()


def padded(split: EncodedSplit, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows as [B, T] tensors: ids, segment ids, mask."""
    lengths = split.lengths[rows]
    ids, types, mask = (torch.zeros(len(rows), int(lengths.max()), dtype=torch.long) for _ in range(3))
    for i, row in enumerate(rows):
        start, length = int(split.offsets[row]), int(lengths[i])
        ids[i, :length] = torch.from_numpy(split.input_ids[start : start + length].astype(np.int64))
        types[i, :length] = torch.from_numpy(split.token_type_ids[start : start + length].astype(np.int64))
        mask[i, :length] = 1
    return ids, types, mask


def seconds(run: Callable[..., object], *arguments: object) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


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
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data = encode(tasks.load("cola"), Source.directory(args.data_dir), args.tokenizer, args.cache)
    split = data.splits["train"]
    teacher = base_model(data.vocab_size).eval().requires_grad_(False)
    students = [copy.deepcopy(teacher).requires_grad_(True).train() for _ in range(2)]
    packed_step = Packed(students[0], new_method(students[0]))
    naive_step = Naive(students[1], new_method(students[1]))
    device, batch_size = torch.device("cpu"), args.batch_size
    ours = RowStream(split, batch_size, 0)
    # The naive side gets rows in shuffled order, as a plain loader gives them; ours are length-sorted in
    # windows, which is part of what is measured. The forward passes run the very same rows.
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(split))
    plain = iter(np.array_split(shuffled, len(split) // batch_size))
    step_ms: list[tuple[float, float]] = []
    forward_ms: list[tuple[float, float]] = []
    for repeat in range(args.repeats + 1):
        batch, rows = collate(split, next(ours), device), padded(split, next(plain))
        pair = seconds(packed_step, batch, teacher), seconds(naive_step, rows, teacher)
        with torch.inference_mode():
            forwards = [forward_pair(teacher, split, next(plain), device) for _ in range(FORWARDS_PER_STEP)]
        if repeat:  # the first pair warms up
            step_ms.append((pair[0] * 1e3, pair[1] * 1e3))
            forward_ms += [(a * 1e3, b * 1e3) for a, b in forwards]
            print(
                f"step {pair[0] * 1e3:6.0f} ms ({batch.num_tokens} tokens), naive {pair[1] * 1e3:6.0f} ms "
                f"({rows[0].numel()} positions); forward {forwards[0][0] * 1e3:5.0f} ms, "
                f"padded {forwards[0][1] * 1e3:5.0f} ms",
                flush=True,
            )
    print(json.dumps(summary(step_ms, forward_ms, args.threads, batch_size)))


def forward_pair(
    model: CofiForSequenceClassification, split: EncodedSplit, rows: np.ndarray, device: torch.device
) -> tuple[float, float]:
    """Seconds of the dense forward pass on the same rows, packed and padded."""
    batch, tensors = collate(split, rows, device), padded(split, rows)
    packed = seconds(run_packed, model, batch, NO_GATES, False)
    return packed, seconds(naive_forward, model, *tensors, NO_GATES)


def summary(
    step_ms: list[tuple[float, float]], forward_ms: list[tuple[float, float]], threads: int, batch: int
) -> dict[str, float | int | str]:
    """Medians, and medians of paired ratios."""
    return {
        "step_ms": statistics.median(a for a, _ in step_ms),
        "naive_step_ms": statistics.median(b for _, b in step_ms),
        "step_ratio": statistics.median(a / b for a, b in step_ms),
        "forward_ms": statistics.median(a for a, _ in forward_ms),
        "padded_forward_ms": statistics.median(b for _, b in forward_ms),
        "forward_ratio": statistics.median(a / b for a, b in forward_ms),
        "threads": threads,
        "batch_size": batch,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()

"""The pruning step as the reference writes it: padded, with read-backs; what `step.py` compares with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cofi_tune import methods
from cofi_tune.config import Precision
from cofi_tune.data.encoded import EncodedSplit
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Gates
from cofi_tune.precision import computing

HEAD_SIZE = 64


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

    def __init__(
        self,
        student: CofiForSequenceClassification,
        method: methods.Method,
        precision: Precision = "fp32",
    ) -> None:
        self.student, self.method, self.precision = student, method, precision
        main = [p for n, p in student.named_parameters() if "embeddings" not in n]
        self.main = torch.optim.AdamW([*main, *method.matching.transform.parameters()], lr=2e-5)
        self.masks = torch.optim.AdamW(method.gates.parameters(), lr=0.01)
        self.multipliers = torch.optim.AdamW([method.lambda_1, method.lambda_2], lr=0.01, maximize=True)

    def __call__(self, padded: tuple[Tensor, Tensor, Tensor], teacher: CofiForSequenceClassification) -> None:
        with computing(self.precision, self.student.device):
            loss = self._loss(padded, teacher)
        loss.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        for optimizer in (self.main, self.masks, self.multipliers):
            optimizer.step()
            optimizer.zero_grad()
        self.method.after_step()

    def _loss(self, padded: tuple[Tensor, Tensor, Tensor], teacher: CofiForSequenceClassification) -> Tensor:
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
        return 0.1 * 4 * prediction + 0.9 * layer + method.lambda_1 * gap + method.lambda_2 * gap.square()


def padded(split: EncodedSplit, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows as [B, T] tensors on the device: ids, segment ids, mask."""
    lengths = split.lengths[rows]
    ids, types, mask = (torch.zeros(len(rows), int(lengths.max()), dtype=torch.long) for _ in range(3))
    for i, row in enumerate(rows):
        start, length = int(split.offsets[row]), int(lengths[i])
        ids[i, :length] = torch.from_numpy(split.input_ids[start : start + length].astype(np.int64))
        types[i, :length] = torch.from_numpy(split.token_type_ids[start : start + length].astype(np.int64))
        mask[i, :length] = 1
    return ids.to(device), types.to(device), mask.to(device)

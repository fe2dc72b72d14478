"""Gates -> plan -> a physically smaller model that computes the same function.

The cut is exact for any gates: a gate on the residual stream is folded into what writes to the stream
(embeddings, the outputs of sublayers, every norm's weight and bias), never into what reads from it.
The reference folds it into the readers, and its cut models differ from its masked ones.

Axes: L layers, A heads, H hidden units, F FFN units.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import (
    NO_GATES,
    Attention,
    CofiForSequenceClassification,
    FeedForward,
    Gates,
    Layer,
)
from cofi_tune.records import LayerPlan, PruningPlan


def plan(gates: Gates, sizes: Sizes) -> PruningPlan:
    """What stays: units whose own gate and whose sublayer's gate are open.

    Raises:
        InvalidPoint: no hidden unit is left.
    """
    layers = range(sizes.num_layers)
    heads = _kept(gates.head_LA, gates.mha_L, sizes.num_layers, sizes.num_heads)
    units = _kept(gates.intermediate_LF, gates.ffn_L, sizes.num_layers, sizes.num_ffn)
    hidden = range(sizes.hidden_size) if gates.hidden_H is None else _indices(gates.hidden_H)
    return PruningPlan(
        hidden_size=sizes.hidden_size,
        num_heads=sizes.num_heads,
        head_size=sizes.head_size,
        num_ffn=sizes.num_ffn,
        hidden=tuple(hidden),
        layers=tuple(LayerPlan(heads[i], units[i]) for i in layers),
    )


def cut(
    model: CofiForSequenceClassification, plan: PruningPlan, gates: Gates = NO_GATES
) -> CofiForSequenceClassification:
    """A new, smaller model: `gates` folded into its weights, then only the plan's units copied.

    Args:
        model: a model of the plan's dense sizes; left as it is.
        plan: what stays.
        gates: values of the gates that stay open; every unit outside the plan must be closed in them, or
            its removal changes the function.

    Returns:
        A model whose outputs equal those of `model` under `gates`, to rounding.
    """
    config = copy.deepcopy(model.config)
    _check_sizes(model, plan)
    config.hidden_size = len(plan.hidden)
    config.heads_per_layer = [len(p.heads) for p in plan.layers]
    config.ffn_per_layer = [len(p.ffn) for p in plan.layers]
    small = CofiForSequenceClassification(config).to(model.device, model.dtype)
    small.train(model.training)
    with torch.no_grad():
        _copy(model, small, plan, gates)
    return small


def _copy(
    model: CofiForSequenceClassification,
    small: CofiForSequenceClassification,
    plan: PruningPlan,
    gates: Gates,
) -> None:
    hidden = torch.tensor(plan.hidden, device=model.device)
    scale_h = _pick(gates.hidden_H, hidden)
    for name in ("word", "position", "token_type"):
        table = getattr(model.embeddings, name).weight[:, hidden]
        getattr(small.embeddings, name).weight.copy_(_times(table, scale_h))
    _copy_norm(model.embeddings.norm, small.embeddings.norm, hidden, scale_h)
    small.pooler.weight.copy_(model.pooler.weight[:, hidden])
    small.pooler.bias.copy_(model.pooler.bias)
    small.classifier.load_state_dict(model.classifier.state_dict())
    for index, (old, new, kept) in enumerate(zip(model.layers, small.layers, plan.layers, strict=True)):
        head_A, mha, intermediate_F, ffn = (None if g is None else g[index] for g in gates[1:])
        assert isinstance(old, Layer)
        assert isinstance(new, Layer)
        if new.attention is not None:
            assert old.attention is not None
            _copy_attention(old.attention, new.attention, hidden, scale_h, kept.heads, head_A, mha)
        if new.ffn is not None:
            assert old.ffn is not None
            _copy_ffn(old.ffn, new.ffn, hidden, scale_h, kept.ffn, intermediate_F, ffn)


def _copy_attention(
    old: Attention,
    new: Attention,
    hidden: Tensor,
    scale_h: Tensor | None,
    kept_heads: tuple[int, ...],
    head_A: Tensor | None,
    mha: Tensor | None,
) -> None:
    heads = torch.tensor(kept_heads, device=hidden.device)
    columns = (heads[:, None] * old.head_size + torch.arange(old.head_size, device=hidden.device)).flatten()
    rows = torch.cat([columns + part * old.num_heads * old.head_size for part in range(3)])
    new.qkv.weight.copy_(old.qkv.weight[rows][:, hidden])
    new.qkv.bias.copy_(old.qkv.bias[rows])
    scale_columns = None if head_A is None else head_A[heads].repeat_interleave(old.head_size)
    _copy_output(old.output, new.output, hidden, columns, scale_h, scale_columns, mha)
    _copy_norm(old.norm, new.norm, hidden, scale_h)


def _copy_ffn(
    old: FeedForward,
    new: FeedForward,
    hidden: Tensor,
    scale_h: Tensor | None,
    kept_units: tuple[int, ...],
    intermediate_F: Tensor | None,
    ffn: Tensor | None,
) -> None:
    units = torch.tensor(kept_units, device=hidden.device)
    new.up.weight.copy_(old.up.weight[units][:, hidden])
    new.up.bias.copy_(old.up.bias[units])
    _copy_output(old.down, new.down, hidden, units, scale_h, _pick(intermediate_F, units), ffn)
    _copy_norm(old.norm, new.norm, hidden, scale_h)


def _copy_output(
    old: nn.Linear,
    new: nn.Linear,
    hidden: Tensor,
    columns: Tensor,
    scale_h: Tensor | None,
    scale_columns: Tensor | None,
    coarse: Tensor | None,
) -> None:
    """A projection back to the residual stream: unit gates on its columns, stream gates on its rows."""
    weight = _times(old.weight[hidden][:, columns], scale_columns)
    row_scale = _times(scale_h if scale_h is not None else old.bias.new_ones(len(hidden)), coarse)
    new.weight.copy_(weight * row_scale[:, None])
    new.bias.copy_(old.bias[hidden] * row_scale)


def _copy_norm(old: nn.LayerNorm, new: nn.LayerNorm, hidden: Tensor, scale_h: Tensor | None) -> None:
    new.weight.copy_(_times(old.weight[hidden], scale_h))
    new.bias.copy_(_times(old.bias[hidden], scale_h))


def _times(x: Tensor, scale: Tensor | None) -> Tensor:
    return x if scale is None else x * scale


def _pick(x: Tensor | None, index: Tensor) -> Tensor | None:
    return None if x is None else x[index]


def _indices(gate: Tensor) -> tuple[int, ...]:
    return tuple(gate.nonzero().flatten().tolist())


def _kept(fine: Tensor | None, coarse_L: Tensor | None, num_layers: int, size: int) -> list[tuple[int, ...]]:
    """Indices of open units, layer by layer."""
    open_rows = [tuple(range(size))] * num_layers if fine is None else [_indices(row) for row in fine]
    alive = [True] * num_layers if coarse_L is None else [bool(g != 0) for g in coarse_L]
    return [row if keep else () for row, keep in zip(open_rows, alive, strict=True)]


def _check_sizes(model: CofiForSequenceClassification, plan: PruningPlan) -> None:
    if Sizes.of(model.config) != Sizes(
        len(plan.layers), plan.num_heads, plan.head_size, plan.hidden_size, plan.num_ffn
    ):
        raise ValueError("the plan was made for a model of other sizes")

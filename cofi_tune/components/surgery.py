"""Gates -> plan -> a physically smaller model that computes the same function.

The cut is exact for any gates: a gate on the residual stream is folded into what writes to the stream
(embeddings, the outputs of sublayers, every norm's weight and bias), never into what reads from it.
The reference folds it into the readers, and its cut models differ from its masked ones.

A model may be cut again and again; plans always count the units of the dense one.

Axes: L layers, A heads, H hidden units, F FFN units, K head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cofi_tune.components.lagrangian import Sizes
from cofi_tune.modeling_cofi import NO_GATES, CofiForSequenceClassification, Gates
from cofi_tune.records import LayerPlan, PruningPlan


class Axis(NamedTuple):
    """What stays along one axis of a weight, and what it is multiplied by."""

    kept: Tensor | None = None
    """Indices; None: everything."""
    scale: Tensor | None = None
    """One factor for each that is kept; None: 1."""


Axes = tuple[Axis, ...]
ALL = Axis()


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
    model: CofiForSequenceClassification,
    plan: PruningPlan,
    gates: Gates = NO_GATES,
    present: PruningPlan | None = None,
) -> CofiForSequenceClassification:
    """A new, smaller model: `gates` folded into its weights, then only the plan's units copied.

    Args:
        model: a model of the plan's dense sizes, or what is left of one; left as it is.
        plan: what stays, a part of `present`.
        gates: values of the dense model's gates that stay open; every unit outside the plan must be closed
            in them, or its removal changes the function.
        present: what `model` has of the dense one; None: everything.

    Returns:
        A model whose outputs equal those of `model` under `gates`, to rounding.
    """
    present = plan.dense if present is None else present
    _check_sizes(model, plan, present)
    config = copy.deepcopy(model.config)
    config.hidden_size = len(plan.hidden)
    config.heads_per_layer = [len(p.heads) for p in plan.layers]
    config.ffn_per_layer = [len(p.ffn) for p in plan.layers]
    with torch.device("meta"):  # weights of its own would be drawn in vain
        small = CofiForSequenceClassification(config)
    made, old = axes(plan, present, model.device, gates), model.state_dict()
    weights = {name: select(old[name], made.get(name, ())).clone() for name in small.state_dict()}
    small.load_state_dict(weights, assign=True)
    return small.train(model.training)


def axes(
    plan: PruningPlan, present: PruningPlan, device: torch.device, gates: Gates = NO_GATES
) -> dict[str, Axes]:
    """How the weights of the cut model are made of the model's, by name; those that are not named stay.

    Args:
        plan: what stays, a part of `present`.
        present: what there is.
        device: of the weights.
        gates: values of the dense model's gates, to be folded into the weights.
    """
    write = _axis(plan.hidden, present.hidden, gates.hidden_H, device)
    read = Axis(write.kept)
    made: dict[str, Axes] = {"pooler.weight": (ALL, read), **_norm("embeddings.", write)}
    for table in ("word", "position", "token_type"):
        made[f"embeddings.{table}.weight"] = (ALL, write)
    for number, (kept, there) in enumerate(zip(plan.layers, present.layers, strict=True)):
        head_A, mha, intermediate_F, ffn = (None if g is None else g[number] for g in gates[1:])
        if kept.heads:
            heads = _axis(kept.heads, there.heads, head_A, device)
            inner, qkv = _of_heads(heads, len(there.heads), plan.head_size)
            made |= _sublayer(f"layers.{number}.attention.", ("qkv", "output"), qkv, inner, write, mha)
        if kept.ffn:
            inner = _axis(kept.ffn, there.ffn, intermediate_F, device)
            made |= _sublayer(f"layers.{number}.ffn.", ("up", "down"), Axis(inner.kept), inner, write, ffn)
    return made


def select(x: Tensor, axes: Axes) -> Tensor:
    """What stays of a weight, or of anything that has its shape."""
    for dim, axis in enumerate(axes):
        if axis.kept is not None:
            x = x.index_select(dim, axis.kept)
        if axis.scale is not None:
            x = x * axis.scale.view(-1, *[1] * (x.dim() - dim - 1))
    return x


def _axis(kept: Sequence[int], present: Sequence[int], gate: Tensor | None, device: torch.device) -> Axis:
    """Dense indices as places among what is there, with their gates."""
    place = {unit: number for number, unit in enumerate(present)}
    index = torch.tensor([place[unit] for unit in kept], device=device, dtype=torch.long)
    return Axis(index, None if gate is None else gate[torch.tensor(kept, device=gate.device)])


def _of_heads(heads: Axis, num_present: int, head_size: int) -> tuple[Axis, Axis]:
    """The columns of heads in the output projection, and their rows in that of queries, keys and values."""
    assert heads.kept is not None
    within_K = torch.arange(head_size, device=heads.kept.device)
    columns = (heads.kept[:, None] * head_size + within_K).flatten()
    rows = torch.cat([columns + part * num_present * head_size for part in range(3)])
    scale = None if heads.scale is None else heads.scale.repeat_interleave(head_size)
    return Axis(columns, scale), Axis(rows)


def _sublayer(
    prefix: str, names: tuple[str, str], outer: Axis, inner: Axis, write: Axis, coarse: Tensor | None
) -> dict[str, Axes]:
    """From the stream into units and back, and the norm: unit gates on the columns of the way back."""
    into, back = names
    scale = write.scale
    if coarse is not None:
        assert write.kept is not None
        scale = coarse.expand(len(write.kept)) if scale is None else scale * coarse
    out = write._replace(scale=scale)
    return {
        f"{prefix}{into}.weight": (outer, Axis(write.kept)),
        f"{prefix}{into}.bias": (outer,),
        f"{prefix}{back}.weight": (out, inner),
        f"{prefix}{back}.bias": (out,),
        **_norm(prefix, write),
    }


def _norm(prefix: str, write: Axis) -> dict[str, Axes]:
    return {f"{prefix}norm.weight": (write,), f"{prefix}norm.bias": (write,)}


def _indices(gate: Tensor) -> tuple[int, ...]:
    return tuple(gate.nonzero().flatten().tolist())


def _kept(fine: Tensor | None, coarse_L: Tensor | None, num_layers: int, size: int) -> list[tuple[int, ...]]:
    """Indices of open units, layer by layer."""
    open_rows = [tuple(range(size))] * num_layers if fine is None else [_indices(row) for row in fine]
    alive = [True] * num_layers if coarse_L is None else [bool(g != 0) for g in coarse_L]
    return [row if keep else () for row, keep in zip(open_rows, alive, strict=True)]


def _check_sizes(model: CofiForSequenceClassification, plan: PruningPlan, present: PruningPlan) -> None:
    config = model.config
    has = (config.hidden_size, config.head_size, config.heads_per_layer, config.ffn_per_layer)
    heads, units = [len(p.heads) for p in present.layers], [len(p.ffn) for p in present.layers]
    if has != (len(present.hidden), present.head_size, heads, units) or plan.dense != present.dense:
        raise ValueError("the plan was made for a model of other sizes")

"""The encoder that CoFi Tune trains, cuts, saves and ships: BERT or RoBERTa whose layers may differ in size.

This file is self-contained: `save_pretrained` copies it beside the weights, so that a shipped model
loads without this package (`trust_remote_code=True`), and with it by a plain `from_pretrained`.

Two ideas set it apart from the stock encoder. Tokens are packed: every linear layer and norm runs on
real tokens laid end to end, padding exists inside attention only. And every unit that CoFi can remove
(Xia et al., 2022, arXiv:2204.00408) can be gated, without one read-back from the device.

Axes: B rows, T positions, N real tokens of all rows end to end, L layers, A heads, K head size,
H hidden, F FFN units, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class CofiConfig(PreTrainedConfig):
    """Sizes of an encoder, layer by layer. A layer with 0 heads (or 0 FFN units) has no such sublayer."""

    model_type = "cofi_bert"

    vocab_size: int = 30522
    hidden_size: int = 768
    head_size: int = 64
    heads_per_layer: list[int] | None = None
    ffn_per_layer: list[int] | None = None
    pooler_size: int = 768
    max_position_embeddings: int = 512
    position_offset: int = 0
    type_vocab_size: int = 2
    pad_token_id: int | None = 0
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    dropout_before_pooler: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: object) -> None:
        """Fill in BERT-base's twelve layers where none are given."""
        self.heads_per_layer = list(self.heads_per_layer or [12] * 12)
        self.ffn_per_layer = list(self.ffn_per_layer or [3072] * 12)
        if len(self.heads_per_layer) != len(self.ffn_per_layer):
            raise ValueError("heads_per_layer and ffn_per_layer must name the same number of layers")
        super().__post_init__(**kwargs)

    @property
    def num_hidden_layers(self) -> int:
        """L, sublayers that are gone included."""
        return len(self.heads_per_layer or [])


class Gates(NamedTuple):
    """Multipliers in [0, 1] of the units CoFi removes; None leaves a kind of unit alone."""

    hidden_H: Tensor | None = None
    head_LA: Tensor | None = None
    mha_L: Tensor | None = None
    intermediate_LF: Tensor | None = None
    ffn_L: Tensor | None = None


NO_GATES = Gates()
"""Nothing is gated: the plain forward pass."""


class Packing(NamedTuple):
    """Where the N tokens of a batch lie among its B x T positions; made on the host, with the batch."""

    num_rows: int
    max_length: int
    position_N: Tensor | None
    """Index of each token in the flattened [B * T]; None where nothing is padded."""
    first_B: Tensor
    """Index in N of each row's first token ([CLS])."""
    key_mask_B11T: Tensor | None
    """True at real tokens; None where nothing is padded."""


class Encoded(NamedTuple):
    """What one forward pass over packed tokens gives."""

    logits_BC: Tensor
    hidden_states_NH: tuple[Tensor, ...]
    """Embedding output, then every layer's output: L + 1 tensors; empty unless asked for."""


def masked_layer_norm(x_NH: Tensor, norm: nn.LayerNorm, hidden_H: Tensor | None) -> Tensor:
    """Layer norm over the coordinates whose gate is open, then the gate.

    `x_NH` must be 0 where the gate is 0, as it is everywhere in this model; sums over all H are then
    sums over the kept coordinates, and no index of kept units has to be read back from the device.
    """
    if hidden_H is None:
        return F.layer_norm(x_NH, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    kept_H = (hidden_H != 0).to(x_NH.dtype)
    num_kept = kept_H.sum().clamp(min=1)
    centred_NH = (x_NH - x_NH.sum(-1, keepdim=True) / num_kept) * kept_H
    variance_N1 = centred_NH.square().sum(-1, keepdim=True) / num_kept
    scaled_NH = centred_NH * torch.rsqrt(variance_N1 + norm.eps)
    return torch.addcmul(norm.bias * hidden_H, scaled_NH, norm.weight * hidden_H)


def gated(x: Tensor, gate: Tensor | None) -> Tensor:
    """`x` times its gate, or `x` where there is none."""
    return x if gate is None else x * gate


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, mask_B11T: Tensor | None, dropout: float) -> Tensor:
    """Softmax(QK^T / sqrt(K)) V by torch's fused kernel; all [B, A, T, K]."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11T, dropout_p=dropout)


def eager_attention(q: Tensor, k: Tensor, v: Tensor, mask_B11T: Tensor | None, dropout: float) -> Tensor:
    """The same written out, in the order of BERT's original code (`attn_implementation="eager"`)."""
    scores_BATT = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask_B11T is not None:
        scores_BATT = scores_BATT.masked_fill(~mask_B11T, -torch.inf)
    return F.dropout(scores_BATT.softmax(-1), dropout) @ v


def keep_if_open(y_NH: Tensor, x_NH: Tensor, fine: Tensor | None, coarse: Tensor | None) -> Tensor:
    """`y_NH`, or the residual `x_NH` alone where the sublayer's own gate or all its units are closed."""
    alive = None if fine is None else (fine != 0).any()
    if coarse is not None:
        alive = coarse != 0 if alive is None else alive & (coarse != 0)
    return y_NH if alive is None else torch.where(alive, y_NH, x_NH)


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, config: CofiConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids_N: Tensor, types_N: Tensor, positions_N: Tensor, hidden_H: Tensor | None) -> Tensor:
        """Embed packed tokens: [N, H]."""
        x_NH = self.word(ids_N) + self.position(positions_N) + self.token_type(types_N)
        return self.dropout(masked_layer_norm(gated(x_NH, hidden_H), self.norm, hidden_H))


class Attention(nn.Module):
    """Multi-head attention with its residual and norm (post-norm, as BERT)."""

    def __init__(self, config: CofiConfig, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads, self.head_size = num_heads, config.head_size
        width = num_heads * config.head_size
        self.qkv = nn.Linear(config.hidden_size, 3 * width)
        self.output = nn.Linear(width, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob

    def forward(
        self,
        x_NH: Tensor,
        packing: Packing,
        hidden_H: Tensor | None = None,
        head_A: Tensor | None = None,
        mha: Tensor | None = None,
    ) -> Tensor:
        """One sublayer: [N, H] -> [N, H]."""
        context_NAK = self._attend(self.qkv(x_NH), packing)
        if head_A is not None:
            context_NAK = context_NAK * head_A[:, None]
        out_NH = gated(gated(self.output(context_NAK.flatten(1)), mha), hidden_H)
        y_NH = masked_layer_norm(self.dropout(out_NH) + x_NH, self.norm, hidden_H)
        return keep_if_open(y_NH, x_NH, head_A, mha)

    def _attend(self, qkv_NW: Tensor, packing: Packing) -> Tensor:
        """Softmax(QK^T / sqrt(K)) V, the one place where rows are padded to T."""
        rows, length = packing.num_rows, packing.max_length
        if packing.position_N is not None:
            padded = qkv_NW.new_zeros(rows * length, qkv_NW.shape[-1])
            qkv_NW = padded.index_copy(0, packing.position_N, qkv_NW)
        qkv_3BATK = qkv_NW.view(rows, length, 3, self.num_heads, self.head_size).permute(2, 0, 3, 1, 4)
        eager = self.config._attn_implementation == "eager"
        rate = self.attention_dropout if self.training else 0.0
        q, k, v = qkv_3BATK.unbind(0)
        attend = eager_attention if eager else sdpa_attention
        context_BATK = attend(q, k, v, packing.key_mask_B11T, rate)
        context_NAK = context_BATK.transpose(1, 2).reshape(rows * length, self.num_heads, self.head_size)
        return context_NAK if packing.position_N is None else context_NAK.index_select(0, packing.position_N)


class FeedForward(nn.Module):
    """The feed-forward sublayer with its residual and norm."""

    def __init__(self, config: CofiConfig, num_units: int) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, num_units)
        self.down = nn.Linear(num_units, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        x_NH: Tensor,
        hidden_H: Tensor | None = None,
        intermediate_F: Tensor | None = None,
        ffn: Tensor | None = None,
    ) -> Tensor:
        """One sublayer: [N, H] -> [N, H]."""
        inner_NF = gated(F.gelu(self.up(x_NH)), intermediate_F)
        out_NH = gated(gated(self.down(inner_NF), ffn), hidden_H)
        y_NH = masked_layer_norm(self.dropout(out_NH) + x_NH, self.norm, hidden_H)
        return keep_if_open(y_NH, x_NH, intermediate_F, ffn)


class Layer(nn.Module):
    """Attention, then feed-forward; either may be gone, and is then the identity."""

    def __init__(self, config: CofiConfig, num_heads: int, num_units: int) -> None:
        super().__init__()
        self.attention = Attention(config, num_heads) if num_heads else None
        self.ffn = FeedForward(config, num_units) if num_units else None

    def forward(self, x_NH: Tensor, packing: Packing, gates: Gates, index: int) -> Tensor:
        """One layer: [N, H] -> [N, H]."""
        head_A, mha, intermediate_F, ffn = (None if g is None else g[index] for g in gates[1:])
        if self.attention is not None:
            x_NH = self.attention(x_NH, packing, gates.hidden_H, head_A, mha)
        if self.ffn is not None:
            x_NH = self.ffn(x_NH, gates.hidden_H, intermediate_F, ffn)
        return x_NH


class CofiForSequenceClassification(PreTrainedModel):
    """BERT or RoBERTa with a classification (or, with one label, regression) head."""

    config_class = CofiConfig
    config: CofiConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _no_split_modules = ("Layer",)
    _supports_sdpa = True

    def __init__(self, config: CofiConfig) -> None:
        super().__init__(config)
        sizes = zip(config.heads_per_layer or [], config.ffn_per_layer or [], strict=True)
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, heads, units) for heads, units in sizes)
        self.pooler = nn.Linear(config.hidden_size, config.pooler_size)
        self.classifier = nn.Linear(config.pooler_size, config.num_labels)
        rate = config.classifier_dropout
        self.head_dropout = nn.Dropout(config.hidden_dropout_prob if rate is None else rate)
        self.post_init()

    def encode(
        self,
        ids_N: Tensor,
        types_N: Tensor,
        positions_N: Tensor,
        packing: Packing,
        gates: Gates = NO_GATES,
        with_hidden_states: bool = False,
    ) -> Encoded:
        """Run packed tokens.

        Args:
            ids_N: token ids of all rows end to end, int64.
            types_N: segment ids.
            positions_N: position in the row, from 0; RoBERTa's offset is added here.
            packing: where the tokens lie.
            gates: multipliers of the units CoFi prunes.
            with_hidden_states: also return the L + 1 hidden states.
        """
        x_NH = self.embeddings(ids_N, types_N, positions_N + self.config.position_offset, gates.hidden_H)
        states = [x_NH]
        for index, layer in enumerate(self.layers):
            x_NH = layer(x_NH, packing, gates, index)
            states.append(x_NH)
        first_BH = x_NH.index_select(0, packing.first_B)
        if self.config.dropout_before_pooler:
            first_BH = self.head_dropout(first_BH)
        pooled = self.head_dropout(torch.tanh(self.pooler(first_BH)))
        return Encoded(self.classifier(pooled), tuple(states) if with_hidden_states else ())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **ignored: object,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """The usual Hugging Face call on padded [B, T] tensors.

        Hidden states come back as [B, T, H] with zeros at padding. Packing a padded batch reads the
        mask once; callers that hold their tokens packed use `encode`, which never does.
        """
        packing, positions_N = pack(attention_mask, input_ids)
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        ids_N, types_N = (_select(t.reshape(-1), packing.position_N) for t in (input_ids, types))
        out = self.encode(ids_N, types_N, positions_N, packing, NO_GATES, bool(output_hidden_states))
        states = tuple(_unpack(x_NH, packing) for x_NH in out.hidden_states_NH) or None
        loss = None if labels is None else classification_loss(out.logits_BC, labels)
        result = SequenceClassifierOutput(loss=loss, logits=out.logits_BC, hidden_states=states)
        return result if return_dict is not False else result.to_tuple()


def classification_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy, or squared error where there is one output (regression); mean over rows."""
    if logits_BC.shape[-1] == 1:
        return F.mse_loss(logits_BC[:, 0], labels_B.to(logits_BC.dtype))
    return F.cross_entropy(logits_BC, labels_B)


def pack(attention_mask_BT: Tensor | None, ids_BT: Tensor) -> tuple[Packing, Tensor]:
    """The packing of a padded batch, and each token's position in its row.

    Positions count real tokens, so that left padding gives what right padding gives.
    """
    rows, length = ids_BT.shape
    device = ids_BT.device
    if attention_mask_BT is None:
        first_B = torch.arange(rows, device=device) * length
        return Packing(rows, length, None, first_B, None), torch.arange(length, device=device).repeat(rows)
    real_BT = attention_mask_BT.bool()
    position_N = real_BT.flatten().nonzero().squeeze(1)
    counts_B = real_BT.sum(1)
    first_B = counts_B.cumsum(0) - counts_B
    positions_N = (real_BT.long().cumsum(1) - 1).flatten().index_select(0, position_N)
    return Packing(rows, length, position_N, first_B, real_BT[:, None, None, :]), positions_N


def _select(x: Tensor, index_N: Tensor | None) -> Tensor:
    return x if index_N is None else x.index_select(0, index_N)


def _unpack(x_NH: Tensor, packing: Packing) -> Tensor:
    if packing.position_N is not None:
        padded = x_NH.new_zeros(packing.num_rows * packing.max_length, x_NH.shape[-1])
        x_NH = padded.index_copy(0, packing.position_N, x_NH)
    return x_NH.view(packing.num_rows, packing.max_length, -1)


CofiConfig.register_for_auto_class()
CofiForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

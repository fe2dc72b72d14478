"""Where models come from: a hub id, a directory, or one of BERT's usual small sizes with random weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cofi_tune.model_names import RANDOM_SIZES, check_model
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification

_RENAMES = (
    (r"^(bert|roberta)\.", ""),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
    (r"^embeddings\.(word|position|token_type)_embeddings", r"embeddings.\1"),
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.output\.dense", "attention.output"),
    (r"attention\.output\.LayerNorm", "attention.norm"),
    (r"intermediate\.dense", "ffn.up"),
    (r"(layers\.\d+)\.output\.dense", r"\1.ffn.down"),
    (r"(layers\.\d+)\.output\.LayerNorm", r"\1.ffn.norm"),
    (r"LayerNorm", "norm"),
    (r"^pooler\.dense", "pooler"),
    (r"^classifier\.dense", "pooler"),
    (r"^classifier\.out_proj", "classifier"),
)
_HEAD = ("pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias")


def load(
    model: str, num_labels: int, vocab_size: int | None = None, seed: int = 0, **config: Any
) -> CofiForSequenceClassification:
    """A dense encoder with a classification head.

    Args:
        model: `tiny mini small medium` (random weights), a directory, or a hub id.
        num_labels: outputs of the head; a checkpoint's own head is kept where it has as many.
        vocab_size: of the tokenizer; needed for random sizes, checked against a checkpoint.
        seed: of random weights, a fresh head's included.
        config: fields of `CofiConfig` to set on top (dropout, id2label, ...).

    Raises:
        ValueError: unknown name, unreadable checkpoint, or a vocabulary that does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model in RANDOM_SIZES:
            if vocab_size is None:
                raise ValueError(
                    f"--model {model} has random weights and needs a tokenizer's vocabulary size"
                )
            return CofiForSequenceClassification(random_config(model, vocab_size, num_labels, **config))
        return _from_checkpoint(find(model), num_labels, vocab_size, **config)


def random_config(size: str, vocab_size: int, num_labels: int, **config: Any) -> CofiConfig:
    """The sizes of `tiny mini small medium`."""
    layers, hidden = RANDOM_SIZES[size]
    return CofiConfig(
        **{
            "vocab_size": vocab_size,
            "hidden_size": hidden,
            "heads_per_layer": [hidden // 64] * layers,
            "ffn_per_layer": [4 * hidden] * layers,
            "pooler_size": hidden,
            "num_labels": num_labels,
            **config,
        }
    )


def is_random(model: str) -> bool:
    """Whether a name means random weights."""
    return model in RANDOM_SIZES


def tokenizer_of(model: str) -> str | None:
    """The tokenizer that belongs to a checkpoint; None for random weights, which have none."""
    return None if is_random(model) else str(find(model))


def find(model: str) -> Path:
    """The directory of a checkpoint: local, or fetched from the hub.

    Raises:
        ValueError: no such directory and the hub cannot give it; says what else can be done.
    """
    if Path(model).is_dir():
        return Path(model)
    check_model(model)
    from cofi_tune.data import hub

    return hub.fetch_model(model)


def _from_checkpoint(
    directory: Path, num_labels: int, vocab_size: int | None, **config: Any
) -> CofiForSequenceClassification:
    theirs = _config(str(directory))
    is_ours = theirs.model_type == CofiConfig.model_type
    ours = theirs if is_ours else convert_config(theirs, num_labels, **config)
    if vocab_size is not None and vocab_size > ours.vocab_size:
        raise ValueError(
            f"{directory}: the tokenizer has {vocab_size} tokens, the model {ours.vocab_size}; "
            "give the tokenizer that belongs to the model (--tokenizer DIR)"
        )
    if is_ours:  # a classifier of another size is made anew, as below
        return CofiForSequenceClassification.from_pretrained(
            directory, num_labels=num_labels, ignore_mismatched_sizes=True, **config
        )
    model = CofiForSequenceClassification(ours)
    state = convert_state(_read_state(directory))
    fresh = model.state_dict()
    for name in _HEAD:
        if name not in state or state[name].shape != fresh[name].shape:
            state[name] = fresh[name]
    missing, _ = model.load_state_dict(state, strict=False)
    if missing:
        raise ValueError(f"{directory}: the checkpoint lacks {missing[0]} (and {len(missing) - 1} more)")
    return model


def convert_config(theirs: Any, num_labels: int, **config: Any) -> CofiConfig:
    """Our configuration of a dense BERT or RoBERTa."""
    if theirs.model_type not in ("bert", "roberta", "xlm-roberta", "camembert"):
        raise ValueError(
            f"model type {theirs.model_type!r}: only BERT, RoBERTa and their relatives can be pruned"
        )
    if theirs.hidden_act != "gelu":
        raise ValueError(f"activation {theirs.hidden_act!r}: only gelu is supported")
    is_bert = theirs.model_type == "bert"
    layers = theirs.num_hidden_layers
    return CofiConfig(
        **{
            "vocab_size": theirs.vocab_size,
            "hidden_size": theirs.hidden_size,
            "head_size": theirs.hidden_size // theirs.num_attention_heads,
            "heads_per_layer": [theirs.num_attention_heads] * layers,
            "ffn_per_layer": [theirs.intermediate_size] * layers,
            "pooler_size": theirs.hidden_size,
            "max_position_embeddings": theirs.max_position_embeddings,
            "position_offset": 0 if is_bert else theirs.pad_token_id + 1,
            "dropout_before_pooler": not is_bert,
            "type_vocab_size": theirs.type_vocab_size,
            "pad_token_id": theirs.pad_token_id,
            "layer_norm_eps": theirs.layer_norm_eps,
            "hidden_dropout_prob": theirs.hidden_dropout_prob,
            "attention_probs_dropout_prob": theirs.attention_probs_dropout_prob,
            "classifier_dropout": theirs.classifier_dropout,
            "num_labels": num_labels,
            **config,
        }
    )


def convert_state(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face BERT or RoBERTa state dict under our names, with Q, K and V stacked."""
    named: dict[str, Tensor] = {}
    own_head = "classifier.dense.weight" in theirs
    for name, tensor in theirs.items():
        if own_head and "pooler." in name:
            continue  # RoBERTa's classifier brings its own dense layer; a leftover pooler is not it
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        named[name] = tensor
    state = {
        k: v for k, v in named.items() if k.startswith(("embeddings.", "layers.", "pooler", "classifier"))
    }
    state.pop("embeddings.position_ids", None)
    state.pop("embeddings.token_type_ids", None)
    for name in [n for n in state if ".attention.self.query." in n]:
        qkv = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        state[name.replace("self.query", "qkv")] = torch.cat(qkv)
    return state


def _read_state(directory: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    shards = sorted(directory.glob("*.safetensors"))
    if shards:
        return {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    weights = directory / "pytorch_model.bin"
    if weights.exists():
        return torch.load(weights, map_location="cpu", weights_only=True)
    raise ValueError(f"{directory}: no *.safetensors and no pytorch_model.bin in it")


def has_head(model: str) -> bool:
    """Whether a checkpoint was fine-tuned: it brings a classifier."""
    return "classifier.weight" in convert_state(_read_state(find(model)))


def num_labels(model: str) -> int:
    """Outputs of a checkpoint's head."""
    return int(_config(model).num_labels)


def label_names(model: str) -> tuple[str, ...] | None:
    """A checkpoint's names of its labels, in order."""
    names = _config(model).id2label
    return tuple(names[index] for index in sorted(names)) if names else None


def _config(model: str) -> Any:
    from transformers import AutoConfig

    directory = find(model)
    try:
        return AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{directory}: not a model directory: {str(error).splitlines()[0]}") from error

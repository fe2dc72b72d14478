"""Checkpoints of stock transformers give the same logits here; what cannot be loaded says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from cofi_tune.components import pretrained
from cofi_tune.modeling_cofi import CofiForSequenceClassification

MakeModel = Callable[..., CofiForSequenceClassification]

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "layer_norm_eps": 0.05,  # large enough to be missed
}
ROBERTA = {**SMALL, "pad_token_id": 1, "type_vocab_size": 1}


def randomised(model: Any, seed: int = 0) -> Any:
    """Norms and biases too: fresh ones are 1 and 0, and a lost one would not show."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def bert() -> Any:
    return randomised(transformers.BertForSequenceClassification(transformers.BertConfig(**SMALL)))


@pytest.fixture(scope="module")
def roberta() -> Any:
    return randomised(transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**ROBERTA)))


def batch(pad_token: int, segments: int) -> dict[str, Tensor]:
    """Right-padded rows of 9, 1, 5 and 14 tokens."""
    generator = torch.Generator().manual_seed(1)
    mask = (torch.arange(14) < torch.tensor([9, 1, 5, 14])[:, None]).long()
    ids = torch.randint(2, 60, mask.shape, generator=generator)
    types = torch.randint(0, segments, mask.shape, generator=generator)
    return {
        "input_ids": torch.where(mask == 1, ids, pad_token),
        "attention_mask": mask,
        "token_type_ids": types * mask,
    }


def check_same_logits(theirs: Any, ours: Any, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad():
        expected, logits = theirs(**inputs).logits, ours.eval()(**inputs).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_bert(bert: Any, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    ours = pretrained.load(str(tmp_path), num_labels=3, vocab_size=60)
    check_same_logits(bert, ours, batch(0, 2))
    alone = {name: tensor[-1:] for name, tensor in batch(0, 2).items()}
    check_same_logits(bert, ours, {"input_ids": alone["input_ids"]})


def test_roberta(roberta: Any, tmp_path: Path) -> None:
    roberta.save_pretrained(tmp_path)
    ours = pretrained.load(str(tmp_path), num_labels=3, vocab_size=60)
    check_same_logits(roberta, ours, batch(1, 1))


def test_hidden_states_of_bert(bert: Any, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    ours, inputs = pretrained.load(str(tmp_path), num_labels=3).eval(), batch(0, 2)
    with torch.no_grad():
        expected = bert(**inputs, output_hidden_states=True).hidden_states
        states = ours(**inputs, output_hidden_states=True).hidden_states
    assert states is not None
    real = inputs["attention_mask"].bool()
    for state, theirs in zip(states, expected, strict=True):
        torch.testing.assert_close(state[real], theirs[real], atol=1e-5, rtol=1e-5)
        assert (state[~real] == 0).all()


def test_old_files_and_old_names(bert: Any, tmp_path: Path) -> None:
    """`pytorch_model.bin` with TensorFlow's `gamma` and `beta`, as the first checkpoints of the hub have."""
    bert.config.save_pretrained(tmp_path)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in bert.state_dict().items()
    }
    torch.save(old, tmp_path / "pytorch_model.bin")
    check_same_logits(bert, pretrained.load(str(tmp_path), num_labels=3), batch(0, 2))


@pytest.mark.parametrize("prefixed", [True, False])
def test_a_bare_encoder_gets_a_fresh_head(bert: Any, tmp_path: Path, prefixed: bool) -> None:
    if prefixed:  # as pretraining leaves it: bert.* and the heads of pretraining
        model = transformers.BertForPreTraining(transformers.BertConfig(**SMALL))
        model.bert.load_state_dict(bert.bert.state_dict())
        model.save_pretrained(tmp_path)
    else:
        bert.bert.save_pretrained(tmp_path)
    ours = pretrained.load(str(tmp_path), num_labels=2, seed=3)
    again = pretrained.load(str(tmp_path), num_labels=2, seed=3)
    other = pretrained.load(str(tmp_path), num_labels=2, seed=4)
    assert ours.classifier.out_features == 2
    assert torch.equal(ours.classifier.weight, again.classifier.weight)
    assert not torch.equal(ours.classifier.weight, other.classifier.weight)
    for name, weight in ours.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(weight, other.state_dict()[name]), name
    query = bert.bert.encoder.layer[2].attention.self.query.weight
    assert torch.equal(ours.layers[2].attention.qkv.weight[:32], query)
    assert torch.equal(ours.pooler.weight, bert.bert.pooler.dense.weight)


def test_another_number_of_labels_gets_a_fresh_classifier(bert: Any, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    ours = pretrained.load(str(tmp_path), num_labels=2)
    assert ours.config.num_labels == ours.classifier.out_features == 2
    assert torch.equal(ours.pooler.weight, bert.bert.pooler.dense.weight)


@pytest.mark.parametrize("missing", ["encoder.layer.1.output.dense.bias", "embeddings.LayerNorm.weight"])
def test_a_torn_checkpoint_is_refused(bert: Any, tmp_path: Path, missing: str) -> None:
    bert.config.save_pretrained(tmp_path)
    torn = {k: v for k, v in bert.state_dict().items() if k != f"bert.{missing}"}
    torch.save(torn, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="the checkpoint lacks"):
        pretrained.load(str(tmp_path), num_labels=3)


def test_a_vocabulary_that_does_not_fit_is_refused(bert: Any, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    assert pretrained.load(str(tmp_path), 3, vocab_size=50).config.vocab_size == 60
    with pytest.raises(ValueError, match="the tokenizer has 61 tokens, the model 60"):
        pretrained.load(str(tmp_path), 3, vocab_size=61)


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    config = transformers.DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=48, vocab_size=60)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'distilbert': only BERT, RoBERTa"):
        pretrained.load(str(tmp_path), num_labels=2)


def test_other_activations_are_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(**SMALL, hidden_act="relu")
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'relu': only gelu"):
        pretrained.load(str(tmp_path), num_labels=3)


def test_an_unknown_name_meets_its_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean mini"):
        pretrained.load("minni", num_labels=2, vocab_size=60)


@pytest.mark.parametrize("name", ["./nowhere/at all", "a/b/c", "../x"])
def test_what_cannot_be_a_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no such directory"):
        pretrained.load(name, num_labels=2, vocab_size=60)


@pytest.mark.parametrize("config", [None, "{}", "{"])
def test_a_directory_that_is_no_model_is_refused(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=tmp_path.name):
        pretrained.load(str(tmp_path), num_labels=2)


def test_random_sizes() -> None:
    tiny = pretrained.load("tiny", num_labels=2, vocab_size=30, seed=1)
    assert tiny.config.heads_per_layer == [2, 2]
    assert tiny.config.ffn_per_layer == [512, 512]
    assert (tiny.config.hidden_size, tiny.config.head_size, tiny.config.vocab_size) == (128, 64, 30)
    again, other = (pretrained.load("tiny", 2, 30, seed=s) for s in (1, 2))
    assert torch.equal(tiny.pooler.weight, again.pooler.weight)
    assert not torch.equal(tiny.pooler.weight, other.pooler.weight)
    with pytest.raises(ValueError, match="needs a tokenizer's vocabulary"):
        pretrained.load("tiny", num_labels=2)


def test_loading_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrained.load("tiny", 2, 30, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_our_own_checkpoints_load(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(num_labels=3)
    model.save_pretrained(tmp_path)
    check_same_logits(
        model, pretrained.load(str(tmp_path), 3, vocab_size=40), {"input_ids": torch.ones(2, 5).long()}
    )


def test_our_own_checkpoints_are_checked_as_others_are(make_model: MakeModel, tmp_path: Path) -> None:
    """A dense model of a search is a `--model` or `--teacher` of another task."""
    model = make_model(num_labels=3)
    model.save_pretrained(tmp_path)
    ours = pretrained.load(str(tmp_path), num_labels=2, vocab_size=40)
    assert ours.config.num_labels == ours.classifier.out_features == 2
    assert torch.equal(ours.pooler.weight, model.pooler.weight)
    with pytest.raises(ValueError, match="the tokenizer has 41 tokens, the model 40"):
        pretrained.load(str(tmp_path), 3, vocab_size=41)


def test_label_names(bert: Any, tmp_path: Path) -> None:
    bert.config.id2label = {0: "a", 1: "b", 2: "c"}
    bert.config.save_pretrained(tmp_path)
    assert pretrained.label_names(str(tmp_path)) == ("a", "b", "c")
    assert pretrained.num_labels(str(tmp_path)) == 3

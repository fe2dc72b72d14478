"""A score is that of every row, in the split's own order, of the model as it stands."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from cofi_tune import evaluate
from cofi_tune.components.lagrangian import Sizes
from cofi_tune.components.surgery import cut, plan
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Gates

MakeModel = Callable[..., CofiForSequenceClassification]


def one_by_one(model: CofiForSequenceClassification, data: EncodedTask) -> np.ndarray:
    split = data.splits["dev"]
    logits = []
    for start, end in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        row = {"input_ids": split.input_ids, "token_type_ids": split.token_type_ids}
        with torch.no_grad():
            out = model(**{n: torch.tensor(a[start:end].astype(np.int64))[None] for n, a in row.items()})
        logits.append(out.logits[0].numpy())
    return np.stack(logits)


def test_logits_come_in_the_splits_order(make_model: MakeModel, toy: EncodedTask) -> None:
    model = make_model(num_labels=2)
    ours = evaluate.predict(model, toy.splits["dev"])
    assert ours.shape == (80, 2)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, one_by_one(model, toy), atol=1e-5)
    assert np.unique(ours[:, 0]).size > 70


def test_more_rows_than_a_batch_or_fewer(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, expected = make_model(), evaluate.predict(make_model(), toy.splits["dev"])
    for rows in (1, 7, 1000):
        monkeypatch.setattr(evaluate, "BATCH_ROWS", rows)
        np.testing.assert_allclose(evaluate.predict(model, toy.splits["dev"]), expected, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_put_back(
    make_model: MakeModel, toy: EncodedTask, training: bool
) -> None:
    model = make_model(dropout=0.5).train(training)
    first, second = (evaluate.predict(model, toy.splits["dev"]) for _ in range(2))
    assert (first == second).all()
    assert model.training == training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_gates_count(make_model: MakeModel, toy: EncodedTask) -> None:
    model, split = make_model(), toy.splits["dev"]
    gates = Gates(mha_L=torch.tensor([1.0, 0.0, 0.7]), ffn_L=torch.tensor([0.0, 0.5, 1.0]))
    small = cut(model, plan(gates, Sizes.of(model.config)), gates)
    masked = evaluate.predict(model, split, gates)
    np.testing.assert_allclose(masked, evaluate.predict(small, split), atol=1e-5)
    assert np.abs(masked - evaluate.predict(model, split)).max() > 0.01


def test_score_is_every_metric_of_the_task(teacher: CofiForSequenceClassification, toy: EncodedTask) -> None:
    scores = evaluate.score(teacher, toy.task, toy.splits["dev"])
    predicted = evaluate.predict(teacher, toy.splits["dev"]).argmax(1)
    assert set(scores) == {"accuracy", "matthews"}
    assert scores["accuracy"] == (predicted == toy.splits["dev"].labels).mean() > 0.9
    with torch.no_grad():
        teacher.classifier.weight.neg_()
        teacher.classifier.bias.neg_()
    upside_down = evaluate.score(teacher, toy.task, toy.splits["dev"])
    assert upside_down["accuracy"] == pytest.approx(1 - scores["accuracy"])
    assert upside_down["matthews"] == pytest.approx(-scores["matthews"])


def test_scores_of_a_regression(make_model: MakeModel, toy_regression: EncodedTask) -> None:
    scores = evaluate.score(make_model(num_labels=1), toy_regression.task, toy_regression.splits["dev"])
    assert set(scores) == {"pearson", "spearman"}
    assert all(-1 <= score <= 1 for score in scores.values())

"""What models say of the dev rows, as a file of a few bytes a row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cofi_tune import evaluate, predictions
from cofi_tune.data.encoded import EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification

MakeModel = Callable[..., CofiForSequenceClassification]


def test_the_scores_can_be_computed_from_it(toy: EncodedTask, make_model: MakeModel, tmp_path: Path) -> None:
    models = make_model(seed=1), make_model(seed=2)
    logits = [evaluate.predict_dev(model, toy) for model in models]
    predictions.save(tmp_path / "trial", toy, *logits)
    path = tmp_path / "trial" / predictions.FILE
    said = load_file(path)
    assert {name: (row.dtype, len(row)) for name, row in said.items()} == {
        f"dev/{name}": (np.uint8, 80) for name in ("labels", "predicted", "dense")
    }
    assert path.stat().st_size < 80 * 3 + 400
    for name, values in zip(("predicted", "dense"), logits, strict=True):
        accuracy = (said[f"dev/{name}"] == said["dev/labels"]).mean()
        assert accuracy == pytest.approx(evaluate.dev_scores(values, toy)["accuracy"])


def test_a_regression_keeps_its_numbers(
    toy_regression: EncodedTask, make_model: MakeModel, tmp_path: Path
) -> None:
    logits = evaluate.predict_dev(make_model(num_labels=1), toy_regression)
    predictions.save(tmp_path, toy_regression, logits, logits)
    said = load_file(tmp_path / predictions.FILE)
    assert said["dev/predicted"].dtype == np.float32
    assert np.array_equal(said["dev/predicted"], logits["dev"][:, 0])


def test_the_same_answer_for_every_row_is_what_a_front_starts_from(
    toy: EncodedTask, toy_regression: EncodedTask
) -> None:
    shares = np.bincount(toy.splits["dev"].labels) / 80
    assert evaluate.constant_score(toy) == pytest.approx(max(shares))
    assert evaluate.constant_score(toy_regression) == 0.0

"""The official GLUE files, where they are at hand: counted as their README counts them."""

import os
from pathlib import Path

import numpy as np
import pytest

from cofi_tune import tasks
from cofi_tune.data.encode import encode, open_encoded
from cofi_tune.data.sources import Source, content_hash, read

SHARED = Path(__file__).parents[3] / "shared" / "data"
GLUE = Path(os.environ.get("COFI_DATA_DIR", SHARED / "glue"))
TOKENIZER = SHARED / "bert-base-uncased-tokenizer"

pytestmark = pytest.mark.skipif(not GLUE.is_dir(), reason=f"no GLUE files in {GLUE}")


@pytest.mark.parametrize(
    ("name", "train", "dev"),
    [
        ("cola", [2528, 6023], [322, 721]),
        ("sst2", [29780, 37569], [428, 444]),
        ("rte", [1249, 1241], [146, 131]),
    ],
)
def test_rows_and_classes(name: str, train: list[int], dev: list[int]) -> None:
    splits = read(tasks.load(name), Source.directory(GLUE))
    counts = {split: np.bincount(rows.labels) for split, rows in splits.items()}
    assert (counts["train"] + counts["selection"]).tolist() == train
    assert counts["dev"].tolist() == dev
    assert len(splits["selection"]) == min(round(sum(train) / 10), 2000)


def test_rows_and_scores_of_stsb() -> None:
    splits = read(tasks.load("stsb"), Source.directory(GLUE))
    train = np.concatenate([splits["train"].labels, splits["selection"].labels])
    dev = splits["dev"].labels
    assert (len(train), len(dev)) == (5749, 1500)
    assert train.mean(dtype=np.float64) == pytest.approx(2.701, abs=5e-4)
    assert dev.mean(dtype=np.float64) == pytest.approx(2.364, abs=5e-4)
    assert (train.min(), train.max(), dev.min(), dev.max()) == (0, 5, 0, 5)


def test_known_rows() -> None:
    cola = read(tasks.load("cola"), Source.directory(GLUE))["dev"]
    assert cola.texts[0] == ("The sailors rode the breeze clear of the rocks.",)
    assert cola.texts[-1][0].startswith("John talked ")  # no newline ends the file
    rte = read(tasks.load("rte"), Source.directory(GLUE))["dev"]
    assert rte.texts[0][1] == "Christopher Reeve had an accident."
    assert rte.labels[0] == 1  # not_entailment
    stsb = read(tasks.load("stsb"), Source.directory(GLUE))["dev"]
    assert stsb.texts[0][0] == "A man with a hard hat is dancing."
    assert stsb.labels[0] == 5.0


def test_the_content_hash_of_cola_is_known() -> None:
    splits = read(tasks.load("cola"), Source.directory(GLUE))
    assert content_hash(splits).startswith("152a28171fb458ba887e663a0a2e4507")


@pytest.mark.skipif(not TOKENIZER.is_dir(), reason=f"no tokenizer in {TOKENIZER}")
def test_encoded_cola(tmp_path: Path) -> None:
    cola = tasks.load("cola")
    encoded = encode(cola, Source.directory(GLUE), TOKENIZER, tmp_path)
    assert encoded.vocab_size == 30522
    assert encoded.truncated == {"train": 0, "selection": 0, "dev": 0}
    dev = open_encoded(encoded.directory).splits["dev"]
    assert dev.lengths.mean() == pytest.approx(11.7, abs=0.05)
    first = [101, 1996, 11279, 8469, 1996, 9478, 3154, 1997, 1996, 5749, 1012, 102]
    assert dev.input_ids[: dev.offsets[1]].tolist() == first

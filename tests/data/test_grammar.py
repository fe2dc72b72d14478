"""Generated judgements: reproducible, balanced, disjoint, and not solved by counting words."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cofi_tune.data import grammar

Splits = tuple[list[grammar.Judgement], list[grammar.Judgement]]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return grammar.generate()


def _digest(splits: Splits) -> str:
    return hashlib.sha256(repr(splits).encode()).hexdigest()


def test_the_same_seed_gives_the_same_sentences_in_any_process(splits: Splits) -> None:
    program = (
        "import hashlib; from cofi_tune.data import grammar;"
        "print(hashlib.sha256(repr(grammar.generate()).encode()).hexdigest())"
    )
    root = Path(grammar.__file__).parents[2]
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    printed = subprocess.check_output(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=root,
        text=True,
    )
    assert printed.strip() == _digest(splits)
    assert _digest(grammar.generate(seed=1)) != _digest(splits)


def test_the_dev_sentences_do_not_depend_on_how_many_are_for_training(splits: Splits) -> None:
    assert grammar.generate(num_train=4000)[1] == splits[1]


def test_sizes_and_exact_balance(splits: Splits) -> None:
    train, dev = splits
    assert (len(train), len(dev)) == (24_000, 1_000)
    for split in (*splits, *grammar.generate(num_train=4002, num_dev=1006, seed=3)):
        assert sum(judgement.acceptable for judgement in split) * 2 == len(split)


def test_no_sentence_comes_twice(splits: Splits) -> None:
    sentences = [judgement.sentence for split in splits for judgement in split]
    assert len(set(sentences)) == len(sentences)


def test_every_kind_has_both_labels_in_both_splits(splits: Splits) -> None:
    assert len(grammar.KINDS) >= 8
    for split in splits:
        counts = Counter((judgement.kind, judgement.acceptable) for judgement in split)
        assert set(counts) == {(kind, label) for kind in grammar.KINDS for label in (True, False)}
        assert min(counts.values()) >= len(split) / 2 / len(grammar.KINDS) / 2


def test_every_kind_is_in_the_smallest_splits() -> None:
    fewest = 2 * len(grammar.KINDS)
    for split in grammar.generate(fewest, fewest):
        assert {judgement.kind for judgement in split} == set(grammar.KINDS)


def test_sentences_are_short_and_well_formed(splits: Splits) -> None:
    for judgement in (*splits[0], *splits[1]):
        assert re.fullmatch(r"[A-Z][a-z]*( ([a-z]+|I))*[.?]", judgement.sentence), judgement
        assert 4 <= len(judgement.sentence.split()) <= 12, judgement


def test_counting_words_is_not_enough(splits: Splits) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import matthews_corrcoef

    texts, labels = (
        [[getattr(judgement, field) for judgement in split] for split in splits]
        for field in ("sentence", "acceptable")
    )
    counts = CountVectorizer(token_pattern=r"\w+").fit(texts[0])
    model = LogisticRegression(max_iter=200).fit(counts.transform(texts[0]), labels[0])
    assert matthews_corrcoef(labels[1], model.predict(counts.transform(texts[1]))) < 0.5


def test_as_many_as_promised_can_be_generated() -> None:
    train, dev = grammar.generate(num_train=grammar.CAPACITY - 1_000, num_dev=1_000)
    assert len({judgement.sentence for judgement in train + dev}) == grammar.CAPACITY


@pytest.mark.parametrize(
    ("num_train", "num_dev", "message"),
    [
        (grammar.CAPACITY, 1_000, f"{grammar.CAPACITY} can be generated"),
        (10**9, 10**9, f"{grammar.CAPACITY} can be generated"),
        (4_001, 1_000, "4001 is not an even number"),
        (4_000, 999, "999 is not an even number"),
        (4_000, 2, "at least 26"),
        (-2, 1_000, "at least 26"),
    ],
)
def test_counts_that_cannot_be_had(num_train: int, num_dev: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grammar.generate(num_train, num_dev)

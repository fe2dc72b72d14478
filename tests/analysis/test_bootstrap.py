"""The bootstrap, against the metrics on explicit rows and against simulated truth."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from analysis import bootstrap, pareto, weighted
from cofi_tune.data import metrics

EXAMPLES = settings(max_examples=60, deadline=None)


def explicit(metric: str, labels: np.ndarray, predicted: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The same scores, one resample after the other, by the metrics that judge trials."""
    found = []
    for block in bootstrap.row_weights(len(labels), resamples, seed):
        for weights in block:
            rows = np.repeat(np.arange(len(labels)), weights.astype(int))
            found.append([one(metric, labels[rows], model[rows]) for model in predicted])
    return np.array(found).T


def one(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    regression = metric in metrics.REGRESSION
    logits = predicted[:, None] if regression else np.eye(8)[predicted]
    return metrics.compute((metric,), logits, labels)[metric]


def rows_of(values: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """Labels and three models, [4, rows]."""
    row = st.tuples(values, values, values, values)
    return st.lists(row, min_size=1, max_size=25).map(lambda rows: np.array(rows).T)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("metric", "classes"), [("accuracy", 4), ("matthews", 2), ("matthews", 4), ("f1", 2)]
)
def test_agreements_are_those_of_the_metrics(metric: str, classes: int) -> None:
    @EXAMPLES
    @given(rows_of(st.integers(0, classes - 1)), st.integers(0, 9))
    def check(rows: np.ndarray, seed: int) -> None:
        labels, predicted = rows[0].astype(np.uint8), rows[1:].astype(np.uint8)
        found = bootstrap.scores(metric, labels, predicted, 6, seed)
        assert found == pytest.approx(explicit(metric, labels, predicted, 6, seed), abs=1e-12)

    check()


@pytest.mark.parametrize("metric", metrics.REGRESSION)
def test_correlations_are_those_of_the_metrics(metric: str) -> None:
    @EXAMPLES
    @given(rows_of(st.sampled_from([-1.0, 0.0, 0.1, 0.1, 2.5, 5.0, 4e4])), st.integers(0, 9))
    def check(rows: np.ndarray, seed: int) -> None:
        labels, predicted = rows[0].astype(np.float32), rows[1:].astype(np.float32)
        found = bootstrap.scores(metric, labels, predicted, 6, seed)
        assert found == pytest.approx(explicit(metric, labels, predicted, 6, seed), abs=1e-9)

    check()


@pytest.mark.parametrize("metric", metrics.REGRESSION)
def test_correlations_of_many_different_values(metric: str, rng: np.random.Generator) -> None:
    labels = rng.normal(size=300).astype(np.float32)
    predicted = np.stack([labels + rng.normal(size=300), 1e6 + labels, np.round(labels), -labels])
    found = bootstrap.scores(metric, labels, predicted, 20, 1)
    assert found == pytest.approx(explicit(metric, labels, predicted, 20, 1), abs=1e-9)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("metric", bootstrap.METRICS)
def test_a_models_resamples_do_not_depend_on_the_others_nor_on_blocks(
    metric: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = rng.integers(2, size=50).astype(np.uint8)
    predicted = rng.integers(2, size=(3, 50)).astype(np.uint8)
    all_at_once = bootstrap.scores(metric, labels, predicted, 30, 7)
    monkeypatch.setattr(bootstrap, "BLOCK", 7 * 50)
    monkeypatch.setattr(weighted, "CACHED", 2 * 50)
    alone = bootstrap.scores(metric, labels, predicted[1:2], 12, 7)
    assert alone == pytest.approx(all_at_once[1:2, :12], abs=1e-12)
    assert not np.allclose(bootstrap.scores(metric, labels, predicted, 30, 8), all_at_once)
    assert bootstrap.scores(metric, labels, predicted[:0], 30, 7).shape == (0, 30)


def test_a_resample_has_as_many_rows_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", 100)
    blocks = list(bootstrap.row_weights(30, 10, 0))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    assert all((block.sum(axis=1) == 30).all() for block in blocks)


def test_intervals_contain_the_truth_as_often_as_they_say(rng: np.random.Generator) -> None:
    hits, labels = 0, np.ones(400, dtype=np.uint8)
    for seed in range(300):
        right = (rng.random((1, 400)) < 0.8).astype(np.uint8)
        low, high = bootstrap.interval(bootstrap.scores("accuracy", labels, right, 400, seed)[0])
        hits += low <= 0.8 <= high
    assert 0.91 <= hits / 300 <= 0.98


def test_intervals_of_a_correlation_contain_the_truth(rng: np.random.Generator) -> None:
    hits = 0
    for seed in range(150):
        labels = rng.normal(size=400)
        predicted = 0.8 * labels + 0.6 * rng.normal(size=400)  # correlation 0.8
        low, high = bootstrap.interval(bootstrap.scores("pearson", labels, predicted[None], 400, seed)[0])
        hits += low <= 0.8 <= high
    assert 0.88 <= hits / 150 <= 0.99


def test_an_interval_holds_its_level() -> None:
    samples = np.arange(101.0)
    assert bootstrap.interval(samples) == pytest.approx((2.5, 97.5))
    assert bootstrap.interval(samples, 0.5) == pytest.approx((25.0, 75.0))
    assert bootstrap.interval(np.full(5, 0.3)) == (0.3, 0.3)


def test_pairs_tell_models_apart_that_fail_on_the_same_rows(rng: np.random.Generator) -> None:
    labels = rng.integers(2, size=1000).astype(np.uint8)
    hard = rng.random(1000) < 0.3
    first = np.where(hard, 1 - labels, labels)
    second = np.where(rng.random(1000) < 0.02, 1 - first, first).astype(np.uint8)
    both = bootstrap.scores("matthews", labels, np.stack([first, second]), 1000, 0)
    other = bootstrap.scores("matthews", labels, second[None], 1000, 1)[0]
    low, high = bootstrap.interval(both[0] - both[1])
    unpaired_low, unpaired_high = bootstrap.interval(both[0] - other)
    assert high - low < 0.5 * (unpaired_high - unpaired_low)


def shares(
    scores: list[list[float]], speedups: list[float], errors: list[float], seed: int = 0
) -> list[float]:
    return bootstrap.front_shares(np.array(scores), np.array(speedups), np.array(errors), seed)


def test_a_model_that_dominates_all_is_on_every_front() -> None:
    scores = [[0.9] * 200, [0.8] * 200, [0.7] * 200]
    assert shares(scores, [8.0, 2.0, 1.0], [0.01] * 3) == [1.0, 0.0, 0.0]


def test_equal_models_are_both_on_the_front_unless_a_measurement_tells_them_apart() -> None:
    scores = [[0.9, 0.8] * 1000] * 2
    assert shares(scores, [2.0, 2.0], [0.0, 0.0]) == [1.0, 1.0]
    first, second = shares(scores, [2.0, 2.0], [0.1, 0.1])
    assert first + second == pytest.approx(1.0)
    assert first == pytest.approx(0.5, abs=0.05)


def test_a_share_is_the_chance_to_be_faster(rng: np.random.Generator) -> None:
    _, second = shares([[0.5] * 20_000] * 2, [1.0, 1.1], [0.06, 0.08])
    assert second == pytest.approx(0.5 * math.erfc(-math.log(1.1) / 0.1 / math.sqrt(2)), abs=0.015)


@EXAMPLES
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 2.0, 4.0])), min_size=1)
)
def test_shares_count_the_fronts(models: list[tuple[int, int, float]]) -> None:
    fronts = [pareto.front([(model[b], model[2]) for model in models]) for b in (0, 1)]
    counted = [sum(m in kept for kept in fronts) / 2 for m in range(len(models))]
    assert (
        shares([[*model[:2]] for model in models], [model[2] for model in models], [0.0] * len(models))
        == counted
    )


def test_the_seed_decides(rng: np.random.Generator) -> None:
    scores = rng.random((6, 100))
    first, again, other = (
        bootstrap.front_shares(scores, np.ones(6), np.full(6, 0.1), seed) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert all(0 <= share <= 1 for share in first)


def test_a_speedups_error_is_that_of_repeated_runs(rng: np.random.Generator) -> None:
    ratios = 3.0 * np.exp(0.1 * rng.normal(size=(4000, 50)))
    low, high = np.quantile(ratios, (0.25, 0.75), axis=1)
    said = [bootstrap.speedup_error(*edges, 50) for edges in zip(low, high, strict=True)]
    assert np.mean(said) == pytest.approx(np.log(np.median(ratios, axis=1)).std(), rel=0.05)
    assert bootstrap.speedup_error(2.0, 2.0, 9) == 0.0


@pytest.mark.parametrize(
    "spread", [(2.0, 1.0, 9), (0.0, 1.0, 9), (1.0, 2.0, 0), (math.nan, 1.0, 9), (1.0, math.inf, 9)]
)
def test_no_error_without_a_spread(spread: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="no spread of speedups"):
        bootstrap.speedup_error(*spread)


def test_noise_is_pooled_within_points_not_between_them(rng: np.random.Generator) -> None:
    runs = [[*(level + 0.02 * rng.normal(size=4))] for level in np.linspace(0.1, 0.9, 200)]
    assert bootstrap.seed_noise([*runs, [0.4]]) == pytest.approx(0.02, rel=0.1)
    assert bootstrap.seed_noise([[0.5, 0.6]]) == pytest.approx(0.1 / math.sqrt(2))
    assert bootstrap.seed_noise([[0.5], [], [0.6]]) is None
    assert bootstrap.seed_noise([]) is None


def test_noise_widens_an_interval_as_squares_add() -> None:
    assert bootstrap.widened(0.47, 0.5, 0.53, 0.04 / 1.96) == pytest.approx((0.45, 0.55))
    assert bootstrap.widened(0.4, 0.5, 0.55, 0.0) == pytest.approx((0.4, 0.55))
    assert bootstrap.widened(0.51, 0.5, 0.55, 0.0) == pytest.approx((0.5, 0.55))  # the score is in it


@pytest.mark.parametrize(
    ("metric", "labels", "predicted", "message"),
    [
        ("bleu", np.zeros(3), np.zeros((1, 3)), "unknown metric 'bleu'; metrics: accuracy, matthews"),
        ("accuracy", np.zeros(3), np.zeros((1, 4)), "do not fit"),
        ("accuracy", np.zeros(0), np.zeros((1, 0)), "no rows"),
        ("spearman", np.zeros(3), np.full((1, 3), np.nan), "must be finite"),
    ],
)
def test_what_cannot_be_scored(metric: str, labels: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap.scores(metric, labels, predicted, 10, 0)


def file(dtype: type = np.uint8, **parts: np.ndarray) -> bytes:
    columns = {name: np.array([0, 1, 1], dtype) for name in ("labels", "predicted", "dense")} | parts
    return save({f"dev/{name}": values for name, values in columns.items()})


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_predictions_are_read_as_they_were_written(dtype: type) -> None:
    read = bootstrap.read_predictions(file(dtype, dense=np.array([1, 0, 1], dtype)), "dev")
    assert [[*part] for part in (read.labels, read.predicted, read.dense)] == [
        [0, 1, 1],
        [0, 1, 1],
        [1, 0, 1],
    ]
    assert read.labels.dtype == dtype


def of_header(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


DAMAGED = {
    "empty": (b"", "damaged"),
    "text": (b"Traceback (most recent call last):\n  File", "damaged"),
    "cut": (file()[:-2], "damaged"),
    "longer": (file() + b"x", "damaged"),
    "a type numpy lacks": (
        of_header({"dev/labels": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"ab"),
        "damaged",
    ),
    "no type": (
        of_header({"a": {"dtype": "line\nbreak", "shape": [1], "data_offsets": [0, 2]}}, b"ab"),
        "damaged",
    ),
    "huge": (
        of_header({"a": {"dtype": "U8", "shape": [2**62, 8], "data_offsets": [0, 2]}}, b"ab"),
        "damaged",
    ),
    "another split": (
        save({"test/labels": np.zeros(2, np.uint8)}),
        "lack dev/labels, dev/predicted, dev/dense",
    ),
    "shorter": (file(dense=np.zeros(2, np.uint8)), r"do not fit each other.*: \[3\], \[3\], \[2\]"),
    "square": (file(labels=np.zeros((3, 1), np.uint8)), "do not fit"),
    "no rows": (
        save({f"dev/{n}": np.zeros(0, np.uint8) for n in ("labels", "predicted", "dense")}),
        "no rows",
    ),
    "mixed": (file(dense=np.zeros(3, np.float32)), "neither all uint8 nor all float32"),
    "wide": (file(np.int64), "neither all uint8 nor all float32"),
    "not finite": (file(np.float32, dense=np.array([0, np.inf, 1], np.float32)), "not all finite"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_predictions_are_said_in_one_line(name: str) -> None:
    content, message = DAMAGED[name]
    with pytest.raises(ValueError, match=message) as caught:
        bootstrap.read_predictions(content, "dev")
    assert "\n" not in str(caught.value)


def test_no_cut_is_taken_for_a_whole() -> None:
    whole = file()
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="the predictions"):
            bootstrap.read_predictions(whole[:length], "dev")


def test_a_changed_byte_is_read_or_refused() -> None:
    whole, refused = file(), []
    for at, byte in itertools.product(range(len(whole)), (0, 34, 57, 255)):
        try:
            bootstrap.read_predictions(whole[:at] + bytes([byte]) + whole[at + 1 :], "dev")
        except ValueError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in message for message in refused)


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from analysis import bootstrap\n"
        "try: bootstrap.read_predictions(b'', 'dev')\n"
        "except ValueError: print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False False\n", "")

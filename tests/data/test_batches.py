"""Rows become packed batches: all of them, once an epoch, in an order that is the seed's alone."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cofi_tune.data import batches
from cofi_tune.data.batches import Batch, RowStream, by_length, collate, epoch, steps_per_epoch
from cofi_tune.data.encoded import EncodedSplit, EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification, pack
from cofi_tune.ranks import Ranks

MakeModel = Callable[..., CofiForSequenceClassification]

CPU = torch.device("cpu")


def split_of(lengths: list[int] | NDArray[np.int64]) -> EncodedSplit:
    """Rows of these lengths; every token tells its row and place."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.arange(len(rows)) - offsets[rows]
    labels = np.arange(len(lengths)) % 3
    return EncodedSplit(
        (rows * 100 + places).astype(np.int32),
        (places % 2).astype(np.uint8),
        offsets,
        labels.astype(np.int64),
    )


def random_split(num_rows: int, seed: int = 0) -> EncodedSplit:
    return split_of(np.random.Generator(np.random.PCG64(seed)).integers(3, 40, num_rows))


def one_epoch(split: EncodedSplit, batch_size: int, seed: int = 0) -> list[NDArray[np.int64]]:
    return list(epoch(split, batch_size, np.random.Generator(np.random.PCG64(seed))))


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
@pytest.mark.parametrize("num_rows", [1, 31, 64, 999, 2300])
def test_every_row_once_an_epoch(num_rows: int, batch_size: int) -> None:
    made = one_epoch(random_split(num_rows), batch_size)
    assert sorted(np.concatenate(made).tolist()) == list(range(num_rows))
    sizes = [len(rows) for rows in made]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1 or min(sizes) >= 0.8 * batch_size


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("num_rows", [1, 64, 999, 1056, 2300])
def test_an_epoch_has_as_many_steps_as_it_says(num_rows: int, batch_size: int) -> None:
    assert len(one_epoch(random_split(num_rows), batch_size)) == steps_per_epoch(num_rows, batch_size)


def test_a_stream_is_epoch_after_epoch() -> None:
    split = random_split(50)
    made = list(itertools.islice(RowStream(split, 8, seed=1), 3 * steps_per_epoch(50, 8)))
    epochs = [np.concatenate(made[start : start + 7]).tolist() for start in (0, 7, 14)]
    assert all(sorted(rows) == list(range(50)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def order(seed: int) -> list[list[int]]:
    return [rows.tolist() for rows in itertools.islice(RowStream(random_split(200), 16, seed), 30)]


def test_order_belongs_to_the_seed_alone() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = order(3)
    np.random.seed(2)
    torch.manual_seed(2)
    torch.rand(10)
    assert order(3) == first
    assert order(4) != first


def test_rows_of_a_batch_are_of_like_length() -> None:
    """Within a window of batches; else padding inside attention would cost what packing saves."""
    split = random_split(32 * batches.WINDOW)
    spread = [np.ptp(split.lengths[rows]) for rows in one_epoch(split, 32)]
    unsorted = np.ptp(split.lengths)
    assert np.mean(spread) < unsorted / 3
    assert len({len(rows) for rows in one_epoch(split, 32)}) == 1


def test_batches_of_a_window_come_in_random_order() -> None:
    split = random_split(32 * 20)
    means = [split.lengths[rows].mean() for rows in one_epoch(split, 32)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


def test_evaluation_order_is_every_row_longest_first() -> None:
    split = random_split(100)
    made = list(by_length(split, 33))
    assert [len(rows) for rows in made] == [33, 33, 33, 1]
    flat = np.concatenate(made)
    assert sorted(flat.tolist()) == list(range(100))
    assert (np.diff(split.lengths[flat]) <= 0).all()


def naive(split: EncodedSplit, rows: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """Padded tensors as any tokenizer makes them, and the labels."""
    pieces = [slice(split.offsets[row], split.offsets[row + 1]) for row in rows]
    padded = {
        name: torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(array[piece].astype(np.int64)) for piece in pieces], batch_first=True
        )
        for name, array in (
            ("input_ids", split.input_ids),
            ("token_type_ids", split.token_type_ids),
            ("attention_mask", np.ones_like(split.input_ids)),
        )
    }
    return padded, torch.tensor(split.labels[rows])


@pytest.mark.parametrize("lengths", [[4, 9, 3, 9, 5], [6], [5, 5, 5]])
def test_collate_equals_packing_a_padded_batch(lengths: list[int]) -> None:
    split = split_of([2, *lengths, 8])
    rows = list(range(1, len(lengths) + 1))[::-1]
    batch, (padded, labels) = collate(split, np.array(rows), CPU), naive(split, rows)
    packing, positions = pack(padded["attention_mask"], padded["input_ids"])
    assert packing.position_N is not None
    assert packing.key_mask_B11T is not None
    assert torch.equal(batch.ids_N, padded["input_ids"].flatten()[packing.position_N])
    assert torch.equal(batch.types_N, padded["token_type_ids"].flatten()[packing.position_N])
    assert torch.equal(batch.positions_N, positions)
    assert torch.equal(batch.labels_B, labels)
    assert torch.equal(batch.packing.first_B, packing.first_B)
    assert batch.packing[:2] == packing[:2] == (len(rows), max(lengths))
    assert (batch.num_rows, batch.num_tokens) == (len(rows), sum(lengths))
    if len(set(lengths)) == 1:  # nothing is padded: nothing to scatter, nothing to mask
        assert batch.packing.position_N is None
        assert batch.packing.key_mask_B11T is None
    else:
        assert batch.packing.position_N is not None
        assert batch.packing.key_mask_B11T is not None
        assert torch.equal(batch.packing.position_N, packing.position_N)
        assert torch.equal(batch.packing.key_mask_B11T, packing.key_mask_B11T)


def test_collated_logits_equal_padded_ones(make_model: MakeModel, toy: EncodedTask) -> None:
    model, split = make_model(), toy.splits["dev"]
    rows = np.arange(24)
    batch, (padded, _) = collate(split, rows, CPU), naive(split, rows.tolist())
    with torch.no_grad():
        packed = model.encode(batch.ids_N, batch.types_N, batch.positions_N, batch.packing).logits_BC
        torch.testing.assert_close(packed, model(**padded).logits, atol=1e-5, rtol=1e-5)


def rows_of(batch: Batch) -> list[int]:
    """Which rows a batch holds: the first token of each tells."""
    return (batch.ids_N[batch.packing.first_B] // 100).tolist()


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_share_every_batch(size: int) -> None:
    split = random_split(64)
    for rows in one_epoch(split, 15):
        shares = [collate(split, rows, CPU, Ranks(rank, size)) for rank in range(size)]
        held = [rows_of(share) for share in shares]
        assert sorted(row for share in held for row in share) == sorted(rows.tolist())
        assert max(map(len, held)) - min(map(len, held)) <= 1
        tokens = sum(len(share.ids_N) for share in shares)
        assert all((s.num_rows, s.num_tokens) == (len(rows), tokens) for s in shares)
        for share, mine in zip(shares, held, strict=True):
            assert share.labels_B.tolist() == split.labels[mine].tolist()
            assert share.packing.num_rows == len(mine)


def test_arrays_on_disk_are_read_not_written(toy_on_disk: EncodedTask) -> None:
    split = toy_on_disk.splits["train"]
    assert not split.labels.flags.writeable
    batch = collate(split, np.arange(4), CPU)
    before = split.labels[:4].copy()
    batch.labels_B.add_(1)
    batch.ids_N.add_(1)
    assert (split.labels[:4] == before).all()

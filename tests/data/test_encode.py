"""Tokenised once, packed, mapped; the same for everybody who asks."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cofi_tune import tasks
from cofi_tune.data import encode as encode_module
from cofi_tune.data import tokenizer
from cofi_tune.data.encode import EncodedTask, encode, open_encoded, tokenise
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source, content_hash, read
from cofi_tune.data.task import Rows, Task

ARRAYS = ("input_ids", "token_type_ids", "offsets", "labels")
PAIRS = Task(
    name="pairs",
    text_columns=("first", "second"),
    label_column="label",
    labels=("no", "yes"),
    metric="accuracy",
    metrics=("accuracy",),
    max_length=16,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("files")
    for name, count in (("train", 60), ("dev", 7)):
        lines = ["first\tsecond\tlabel"]
        for row in range(count):
            lines.append(f"{'a word ' * (row % 5)}{name}\tanother {row}\t{('no', 'yes')[row % 2]}")
        (folder / f"{name}.tsv").write_text("\n".join(lines))
    return Source.files(folder / "train.tsv", folder / "dev.tsv")


def arrays(encoded: EncodedTask) -> dict[str, bytes]:
    return {
        f"{name}.{array}": getattr(split, array).tobytes()
        for name, split in encoded.splits.items()
        for array in ARRAYS
    }


def test_rows_come_back_from_the_arrays(source: Source, tmp_path: Path) -> None:
    encoded = encode(PAIRS, source, None, tmp_path)
    splits = read(PAIRS, source)
    made = tokenizer.load(encoded.tokenizer_directory)
    assert list(encoded.splits) == ["train", "selection", "dev"]
    for name, split in encoded.splits.items():
        assert split.input_ids.dtype == np.int32
        assert split.token_type_ids.dtype == np.uint8
        assert split.offsets.dtype == np.int64
        assert split.labels.dtype == np.int64
        assert len(split) == len(splits[name])
        assert split.lengths.sum() == len(split.input_ids) == len(split.token_type_ids)
        np.testing.assert_array_equal(split.labels, splits[name].labels)
        for row, texts in enumerate(splits[name].texts):
            expected = made(*texts, truncation=True, max_length=16)
            here = slice(split.offsets[row], split.offsets[row + 1])
            assert split.input_ids[here].tolist() == expected["input_ids"]
            assert split.token_type_ids[here].tolist() == expected["token_type_ids"]
    assert encoded.vocab_size == len(made)
    assert encoded.pad_token_id == made.pad_token_id == 0
    assert encoded.task == PAIRS
    assert encoded.content_hash == content_hash(splits)


def test_long_rows_are_cut_and_counted(source: Source, tmp_path: Path) -> None:
    whole = encode(replace(PAIRS, max_length=64), source, None, tmp_path)
    cut = encode(replace(PAIRS, max_length=10), source, None, tmp_path)
    assert set(whole.truncated.values()) == {0}
    for name, split in cut.splits.items():
        long = whole.splits[name].lengths > 10
        assert cut.truncated[name] == long.sum() > 0
        np.testing.assert_array_equal(split.lengths, np.minimum(whole.splits[name].lengths, 10))
    # Truncation is a matter of these arrays; the tokenizer that a model is shipped with has none.
    made = json.loads((cut.tokenizer_directory / "tokenizer.json").read_text())
    assert made["truncation"] is None
    assert made["padding"] is None


def test_the_second_call_finds_what_the_first_made(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(PAIRS, source, None, tmp_path / "one")
    elsewhere = encode(PAIRS, source, None, tmp_path / "two")
    assert arrays(first) == arrays(elsewhere)
    assert first.directory.name == elsewhere.directory.name

    def refuse(*_: object) -> None:
        raise AssertionError("tokenised again")

    monkeypatch.setattr(encode_module, "tokenise", refuse)
    monkeypatch.setattr(tokenizer, "train", refuse)
    again = encode(PAIRS, source, None, tmp_path / "one")
    assert again.directory == first.directory
    assert arrays(again) == arrays(first)
    assert [path.name for path in (tmp_path / "one").iterdir()] == [first.directory.name]


def test_whatever_changes_the_arrays_changes_the_directory(source: Source, tmp_path: Path) -> None:
    first = encode(PAIRS, source, None, tmp_path)
    others = [
        encode(replace(PAIRS, max_length=10), source, None, tmp_path),
        encode(replace(PAIRS, selection_seed=1), source, None, tmp_path),
        encode(PAIRS, source, None, tmp_path, max_train_samples=20),
        encode(PAIRS, source, first.tokenizer_directory, tmp_path),
    ]
    assert len({first.directory, *(other.directory for other in others)}) == 5
    assert others[3].content_hash == first.content_hash
    assert arrays(others[3]) == arrays(first)
    limited = others[2]
    assert len(limited.splits["train"]) == 20
    assert limited.content_hash != first.content_hash  # a teacher of fewer rows is another teacher
    np.testing.assert_array_equal(limited.splits["dev"].labels, first.splits["dev"].labels)


def test_arrays_are_mapped_and_read_only(source: Source, tmp_path: Path) -> None:
    encoded = open_encoded(encode(PAIRS, source, None, tmp_path).directory)
    for split in encoded.splits.values():
        for array in ARRAYS:
            mapped = getattr(split, array)
            assert isinstance(mapped, np.memmap)
            assert mapped.mode == "r"
            with pytest.raises(ValueError, match="read-only"):
                mapped[0] = 1


def test_directories_that_hold_no_encoded_task(source: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no encoded task that can be opened"):
        open_encoded(tmp_path)
    directory = encode(PAIRS, source, None, tmp_path).directory
    for name in ("train.input_ids.npy", "dev.offsets.npy", "meta.json"):
        whole = (directory / name).read_bytes()
        for torn in (whole[: len(whole) // 2], b""):
            (directory / name).write_bytes(torn)
            with pytest.raises(DataError, match="delete it, and it is made again"):
                open_encoded(directory)
        (directory / name).write_bytes(whole)
    np.save(directory / "dev.labels.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects in dtype"):
        open_encoded(directory)
    (directory / "dev.labels.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="pickled"):
        open_encoded(directory)


def test_a_failure_leaves_nothing_behind(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="No space"):
        encode(PAIRS, source, None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_encode_at_once_get_the_same(source: Source, tmp_path: Path) -> None:
    program = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from cofi_tune.data.encode import encode\n"
        "from cofi_tune.data.sources import Source\n"
        "from cofi_tune.data.task import Task\n"
        "import transformers, tokenizers\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "task, source = (json.loads(text) for text in sys.argv[1:3])\n"
        "made = encode(Task.from_json(task), Source.from_json(source), None, sys.argv[3])\n"
        "print(made.directory, len(made.splits['train'].input_ids))\n"
    )
    arguments = [json.dumps(PAIRS.to_json()), json.dumps(source.to_json()), str(tmp_path)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = {process.communicate("go\n", timeout=300)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1
    [directory] = tmp_path.iterdir()
    assert said.pop().startswith(f"{directory} ")


def test_whoever_comes_second_takes_what_is_there(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(PAIRS, source, None, tmp_path)
    monkeypatch.setattr(Path, "is_dir", lambda self: False)  # looked before the other was done
    with pytest.raises(OSError, match="not empty"):
        encode(PAIRS, source, None, tmp_path)
    monkeypatch.undo()
    seen = iter([False])
    is_dir = Path.is_dir
    monkeypatch.setattr(
        Path,
        "is_dir",
        lambda self: next(seen, None) is None and is_dir(self),
    )
    assert encode(PAIRS, source, None, tmp_path).directory == first.directory
    assert os.listdir(tmp_path) == [first.directory.name]


def test_tokenizers_without_token_types_give_zeros(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizer

    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(["a b c"], vocab_size=300, special_tokens=special)
    pieces.save_model(str(tmp_path))
    roberta = RobertaTokenizer.from_pretrained(tmp_path)
    rows = Rows((("a b", "c"), ("c", "")), np.zeros(2, dtype=np.int64))
    split, num_truncated = tokenise(rows, roberta, 16)
    assert num_truncated == 0
    assert not split.token_type_ids.any()
    first = split.input_ids[: split.offsets[1]].tolist()
    assert first == roberta("a b", "c")["input_ids"]


def test_hard_texts_are_tokenised(tmp_path: Path, source: Source) -> None:
    made = tokenizer.load(encode(PAIRS, source, None, tmp_path).tokenizer_directory)
    texts = [
        "",
        " ",
        "x" * 5_000,
        "word " * 5_000,
        "[SEP] [CLS]",
        "\x0b\u2028",
        "漢字",
        "🤗",
        "\ufeff",
    ]
    rows = Rows(tuple((text, "b") for text in texts), np.zeros(len(texts), dtype=np.int64))
    split, num_truncated = tokenise(rows, made, 12)
    assert len(split) == len(texts)
    assert split.lengths.min() >= 3
    assert split.lengths.max() == 12
    assert num_truncated == 1


def test_the_embedded_task_is_encoded(tmp_path: Path) -> None:
    encoded = encode(tasks.load("grammar"), Source.generated(), None, tmp_path, 200)
    assert len(encoded.splits["train"]) == 200
    assert set(encoded.splits["dev"].labels.tolist()) == {0, 1}
    assert encoded.source == "generated by this package"

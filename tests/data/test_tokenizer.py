"""Tokenizers: found, refused, or trained on the task's own text."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cofi_tune import tasks
from cofi_tune.data import tokenizer
from cofi_tune.data.reader import DataError

TEXTS = [
    "The cats who sleep near the river admire themselves.",
    'She said: "the dogs sleep!" and the cats sneezed.',
    "Die Katzen überqueren den Fluß near the naïve dogs.",
] * 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    tokenizer.train(TEXTS).save_pretrained(directory)
    return directory


def test_a_trained_tokenizer_is_found_by_transformers(trained: Path) -> None:
    from transformers import AutoTokenizer

    assert {"tokenizer.json", "tokenizer_config.json"} <= {file.name for file in trained.iterdir()}
    loaded = AutoTokenizer.from_pretrained(trained, local_files_only=True)
    made = tokenizer.train(TEXTS)
    assert loaded.get_vocab() == made.get_vocab()
    pair = loaded("The CATS sleep.", "unseenzzz dogs")
    assert pair == made("The CATS sleep.", "unseenzzz dogs")
    tokens = loaded.convert_ids_to_tokens(pair["input_ids"])
    assert tokens[:6] == ["[CLS]", "the", "cats", "sleep", ".", "[SEP]"]
    assert tokens[-1] == "[SEP]"
    assert pair["token_type_ids"] == [0] * 6 + [1] * (len(tokens) - 6)
    assert loaded.convert_ids_to_tokens(range(5)) == list(tokenizer.SPECIAL)
    assert loaded.pad_token_id == 0


def test_the_vocabulary_is_the_same_in_every_process() -> None:
    # tokenizers itself numbers pieces in the order of a hash map.
    program = (
        "from cofi_tune import tasks; from cofi_tune.data import tokenizer; import json, sys;"
        "rows = tasks.load('grammar').generate()['train'].texts[:1500];"
        "json.dump(tokenizer.train(row[0] for row in rows).get_vocab(), sys.stdout, sort_keys=True)"
    )
    digests = {
        hashlib.sha256(subprocess.check_output([sys.executable, "-c", program])).hexdigest() for _ in range(2)
    }
    generate = tasks.load("grammar").generate
    assert generate is not None
    here = tokenizer.train(row[0] for row in generate()["train"].texts[:1500]).get_vocab()
    digests.add(hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest())
    assert len(digests) == 1


def test_the_vocabulary_has_a_size_and_only_frequent_characters() -> None:
    words = [f"word{number} " * 3 for number in range(3000)]
    assert len(tokenizer.train(words, vocab_size=300)) == 300
    # More characters than are kept, each its own word; the rarest are unknown.
    rare = ["ab ab " + "".join(chr(0x1000 + n) for n in range(1200))]
    vocab = tokenizer.train(rare * 2).get_vocab()
    assert len([piece for piece in vocab if len(piece) == 1]) <= tokenizer.MOST_CHARACTERS
    assert "ab" in vocab
    assert len(vocab) <= tokenizer.VOCAB_SIZE


def test_texts_without_letters_still_give_a_tokenizer() -> None:
    made = tokenizer.train(["", " "])
    assert len(made) == len(tokenizer.SPECIAL)
    assert made("hello")["input_ids"] == [2, 1, 3]


def test_directories_that_do_not_do(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(DataError, match=r"no tokenizer here; expected one of tokenizer\.json"):
        tokenizer.load(tmp_path)
    with pytest.raises(DataError, match="no such directory"):
        tokenizer.load("/no/such/directory")
    with pytest.raises(DataError, match="no such directory"):
        tokenizer.load("../x")
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "tokenizer.json").write_text('{"model":')
    with pytest.raises(DataError, match=r"cannot be loaded \([^\n]+\)$"):
        tokenizer.load(broken)


def test_code_that_a_tokenizer_brings_is_never_run(tmp_path: Path, trained: Path) -> None:
    evil = tmp_path / "evil"
    shutil.copytree(trained, evil)
    touched = tmp_path / "touched"
    (evil / "tokenization_evil.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(touched)!r}).touch()\n"
        "from transformers import BertTokenizer\nclass Evil(BertTokenizer): pass\n"
    )
    config = json.loads((evil / "tokenizer_config.json").read_text())
    config |= {
        "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]},
        "tokenizer_class": "Evil",
    }
    (evil / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(DataError):
        tokenizer.load(evil)
    assert not touched.exists()


def test_a_hub_id_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match=r":9: the hub cannot be reached .*--tokenizer DIR"):
        tokenizer.load("nobody/no-such-tokenizer")


def test_fingerprints_tell_tokenizers_apart(tmp_path: Path, trained: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(trained, same)
    (same / "model.safetensors").write_bytes(b"not of the tokenizer")
    tokenizer.train([*TEXTS, "more words more words"]).save_pretrained(other)
    assert tokenizer.fingerprint(same) == tokenizer.fingerprint(trained)
    known = {tokenizer.fingerprint(name) for name in (None, trained, other)}
    assert len(known) == 3

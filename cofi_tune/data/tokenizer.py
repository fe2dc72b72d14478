"""A tokenizer for a task: a directory's, the hub's, or one trained on the task's own text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofi_tune.data.hub import one_line, probe
from cofi_tune.data.table import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""One of these makes a directory a tokenizer's."""
BESIDE = ("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB_SIZE = 8000
MOST_CHARACTERS = 1000


def load(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory (a model's will do), or of a hub id.

    A hub id is looked for in the local cache first; code that a repository brings is never run.

    Raises:
        DataError: there is none, it is broken, or the hub is out of reach.
    """
    if Path(name).is_dir():
        if not any((Path(name) / file).is_file() for file in FILES):
            raise DataError(f"{name}: no tokenizer here; expected one of {', '.join(FILES)}")
        return _from_pretrained(str(name), offline=True)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name), re.ASCII):
        raise DataError(f"{name}: no such directory (--tokenizer takes one, or a hub id)")
    try:
        return _from_pretrained(str(name), offline=True)
    except DataError:
        problem = probe(f"models/{name}")
    if problem:
        raise DataError(f"tokenizer {name}: no such directory, and {problem}; give --tokenizer DIR")
    return _from_pretrained(str(name), offline=False)


def train(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece tokenizer whose vocabulary is made from these texts alone.

    The same texts give the same vocabulary, in every process.

    Args:
        texts: the train split; other splits would tell the model about rows it is judged by.
        vocab_size: most entries; few texts give fewer.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertTokenizer

    normalizer = normalizers.BertNormalizer(lowercase=True)
    normalised = [normalizer.normalize_str(text) for text in texts]
    counts: Counter[str] = Counter()
    for text in normalised:
        counts.update(text)
    frequent = sorted(counts, key=lambda letter: (-counts[letter], letter))[:MOST_CHARACTERS]
    rare = str.maketrans(dict.fromkeys(counts.keys() - set(frequent), " "))
    # tokenizers numbers the ##-letters in the order of a hash map, which differs between processes,
    # and breaks ties between merges by these numbers (its issue 1794). Special tokens keep theirs.
    inner = sorted(f"##{letter}" for letter in frequent if not letter.isspace())
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIAL, *inner],
        show_progress=False,
    )
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.train_from_iterator((text.translate(rare) for text in normalised), trainer)
    return BertTokenizer(vocab=pieces.get_vocab(), do_lower_case=True, model_max_length=512)


def fingerprint(name: str | Path | None) -> str:
    """What tells two tokenizers apart: sha256 (hex) of their files, or of what a hub id loads.

    None stands for `train`, which the texts determine.
    """
    if name is None:
        return f"wordpiece 1 {VOCAB_SIZE}"
    directory = Path(name)
    digest = hashlib.sha256()
    if directory.is_dir():
        for file in sorted({*FILES, *BESIDE}):
            if (directory / file).is_file():
                digest.update(f"{file}\n".encode())
                digest.update(hashlib.sha256((directory / file).read_bytes()).digest())
    else:
        loaded: Any = load(name)
        digest.update(f"{type(loaded).__name__}\n{loaded.backend_tokenizer.to_str()}".encode())
    return digest.hexdigest()


def _from_pretrained(name: str, offline: bool) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, local_files_only=offline, trust_remote_code=False
        )
    except Exception as error:  # a broken file shows in many ways; the user gets one line
        raise DataError(f"tokenizer {name}: cannot be loaded ({one_line(error)})") from None
    if tokenizer.pad_token_id is None or not tokenizer.is_fast:
        raise DataError(f"tokenizer {name}: has no padding token, or is not of the fast kind")
    return tokenizer

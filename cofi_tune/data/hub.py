"""GLUE from the Hugging Face hub: asked once whether it is there, then read through `datasets`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cofi_tune.data.reader import DataError, Table, Wanted, to_rows
from cofi_tune.data.task import Rows, Task

REPOSITORY = "nyu-mll/glue"
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
"""The commit that is read; another one may hold other rows."""
PROBE_SECONDS = 2.5
REFUSALS = {
    401: "there is no such thing, or it asks for a token",
    403: "it refuses",
    404: "there is no such thing",
    429: "too many requests for now",
}
MODEL_FILES = (
    *("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab.*"),
    *("merges.txt", "special_tokens_map.json", "*.model"),
)
INSTEAD = "give --data-dir DIR with the official files, or --task grammar, which needs none"


def read_hub(task: Task) -> dict[str, Rows]:
    """Train and the dev splits of a GLUE task.

    With HF_HUB_OFFLINE set nothing is asked, and the local cache answers alone.

    Raises:
        DataError: the hub cannot be reached or answers something else; within 5 seconds if it is
            silent. Rows that the task does not allow.
    """
    if task.hub_config is None:
        raise DataError(f"{task.name} is not on the hub; give --data-dir")
    problem = probe(f"datasets/{REPOSITORY}")
    if problem:
        raise DataError(f"{problem}; {INSTEAD}")
    import datasets

    try:
        loaded = datasets.load_dataset(REPOSITORY, task.hub_config, revision=REVISION)
        return {name: _rows(task, loaded[_hub_name(name)], name) for name in _file_splits(task)}
    except DataError:
        raise
    except Exception as error:  # whatever a network and a cache may do, the user gets one line
        raise DataError(f"{REPOSITORY} cannot be read: {one_line(error)}; {INSTEAD}") from None


def fetch_model(model: str, hint: str = "") -> Path:
    """The directory of a model's configuration, safetensors and tokenizer: cached, or fetched.

    Args:
        model: a hub id, such as "bert-base-uncased".
        hint: for the message, if there is no such model.

    Raises:
        DataError: not cached, and the hub cannot be reached or has no such model.
    """
    from huggingface_hub import snapshot_download

    def fetched(offline: bool) -> Path:
        patterns = list(MODEL_FILES)
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=offline))

    try:
        cached = fetched(offline=True)
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except Exception:  # not cached, which has several shapes
        pass
    instead = f"{hint}give --model a directory, or one of the sizes with random weights"
    problem = probe(f"models/{model}")
    if problem:
        raise DataError(f"model {model}: no such directory, and {problem}; {instead}")
    try:
        return fetched(offline=False)
    except Exception as error:  # as in read_hub
        raise DataError(f"model {model} cannot be fetched: {one_line(error)}; {instead}") from None


def probe(address: str) -> str | None:
    """Ask the hub once, for at most `PROBE_SECONDS`, whether it has a repository.

    Args:
        address: "datasets/<id>" or "models/<id>".

    Returns:
        None if it has (or if HF_HUB_OFFLINE forbids asking), else what is wrong, on one line.
    """
    from huggingface_hub import constants

    # Not in the thread: a slow import is no silence of the hub.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
    )

    if constants.HF_HUB_OFFLINE:
        return None
    answers: list[str | None] = []

    def get(url: str) -> Any:
        return get_session().get(url, headers=build_hf_headers(), timeout=PROBE_SECONDS)

    # In a thread, since neither looking up a name nor a slow drip of bytes minds a time-out.
    asking = threading.Thread(target=lambda: answers.append(_ask(address, get)), daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    problem = answers[0] if answers else f"no answer within {PROBE_SECONDS:g} s"
    return None if problem is None else f"{constants.ENDPOINT}: {problem}"


def one_line(error: Exception) -> str:
    """An exception's kind and the first line of what it says, at most 200 characters."""
    lines = str(error).strip().split("\n", 1)
    return f"{type(error).__name__}: {lines[0][:200]}".removesuffix(": ")


def _ask(address: str, get: Callable[[str], Any]) -> str | None:
    from huggingface_hub import constants

    try:
        answer = get(f"{constants.ENDPOINT}/api/{address}")
    except Exception as error:  # the client's kinds of error differ between versions
        return f"the hub cannot be reached ({one_line(error)})"
    if answer.status_code != 200:
        reason = REFUSALS.get(answer.status_code, "it cannot")
        return f"the hub answers {answer.status_code} for {address}: {reason}"
    try:
        known = "id" in answer.json()
    except (ValueError, TypeError):
        known = False
    return None if known else "this is not the hub: it does not say what it has"


def _file_splits(task: Task) -> tuple[str, ...]:
    return ("train", *task.dev_splits)


def _hub_name(split: str) -> str:
    return split.replace("dev", "validation", 1)


def _rows(task: Task, dataset: Any, split: str) -> Rows:
    """The rows of a `datasets.Dataset`; labels are ids there."""
    feature = dataset.features[task.label_column]
    names = getattr(feature, "names", None)
    if names is not None and tuple(names) != task.labels:
        raise DataError(f"{REPOSITORY} {task.hub_config}: classes {names}, not {task.labels}")
    columns = dataset[:]
    table = Table(f"{REPOSITORY} {task.hub_config} {split}", Wanted(task.text_columns, "label"))
    texts = (columns[name] for name in task.text_columns)
    for row, values in enumerate(zip(*texts, columns[task.label_column], strict=True), 1):
        table.add(row, [*values[:-1], str(values[-1])])
    spellings = tuple(str(label) for label in range(task.num_labels))
    return to_rows(task, table, spellings)

"""Trials as a table: what runs say, wherever they are kept, one row per trial with typed columns.

Columns are named as in MLflow: the objectives and sizes by their names, `<scenario>/speedup` and
`<scenario>/latency_ms` for timings, `score/<metric>` and `dense/<metric>` for scores, `param/<name>` for
settings, `contract/<name>` for what a measurement is comparable under.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cofi_tune.records import SCENARIOS, TIMED

if TYPE_CHECKING:
    import pandas as pd

Curves = dict[str, list[tuple[int, float]]]
"""By name: (step, value), in order of steps."""

WORDS = ("study", "trial", "run_id", "method", "state", "reason", "message")
LINKS = ("parent", "root", "chain", "timed_as")
SIZES = ("score", "speedup", "sparsity", "model_sparsity", "num_parameters", "macs")
CONTRACT, TIMING = "contract.", "timing."
WORDS_OF_PYTHON = {"None": None, "True": True, "False": False}
LARGEST_MEASURED = 1e15
"""MLflow keeps infinity as the largest float."""
LARGEST_WHOLE = 2**53
"""From here on a float does not tell neighbours apart, and a table's whole numbers come to an end."""


@dataclass(frozen=True)
class Run:
    """One run as MLflow keeps it."""

    run_id: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each."""
    tags: Mapping[str, str]
    place: str = ""
    """Where its artifacts are, for the source that it comes from."""


class Source(Protocol):
    """Where the runs of some studies are kept."""

    def runs(self) -> list[Run]:
        """Every run of the studies, the studies' own runs among them."""

    def curves(self, runs: Sequence[Run]) -> dict[str, Curves]:
        """All curves of these runs, by run id."""

    def artifact(self, run: Run, name: str) -> bytes | None:
        """The content of a run's file; None where it has none of that name."""


@dataclass(frozen=True)
class Study:
    """What a study's own run says."""

    name: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    def tag(self, name: str, default: str = "") -> str:
        """One of the `cofi.` tags."""
        return self.tags.get(f"cofi.{name}", default)

    def number(self, name: str) -> float | None:
        """A tag that is a number, or None."""
        return _number(self.tag(name))


def studies_of(runs: Iterable[Run]) -> list[Study]:
    """The studies in the order of their names; what their own run lacks, their trials' runs say."""
    found: dict[str, Study] = {}
    for run in runs:
        name = run.tags.get("cofi.study", "")
        own = run.tags.get("cofi.kind") == "study"
        if own or name not in found:
            found[name] = Study(name, run.tags, run.metrics if own else {})
    return [found[name] for name in sorted(found)]


def trials_of(runs: Iterable[Run]) -> list[Run]:
    """The runs that are trials, in the order of studies and proposals."""
    trials = (run for run in runs if run.tags.get("cofi.kind") == "trial")
    return sorted(trials, key=lambda run: (run.tags.get("cofi.study", ""), trial_of(run)))


def trial_of(run: Run) -> str:
    """The trial's id."""
    return run.tags.get("cofi.trial_id", run.name)


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per trial.

    Args:
        runs: any runs; only trials become rows.

    Returns:
        Text columns `study`, `trial` (the id), `run_id`, `method`, `state` (complete, pruned, fail, running,
        interrupted), `reason`, `message`; `parent`, `root`, `chain` of a link, else ""; `heard_ms`: when it
        reported last, since 1970; `seconds` of training; float columns for everything measured, NaN
        where there is nothing; a column per setting, typed by what it holds; `contract/...` as text;
        `searched`: names of the params that were drawn, as a JSON list; `timings`: see `timings`.
    """
    import pandas as pd

    rows = trials_of(runs)
    columns: dict[str, Any] = {
        "study": [run.tags.get("cofi.study", "") for run in rows],
        "trial": [trial_of(run) for run in rows],
        "run_id": [run.run_id for run in rows],
        **{name: [run.tags.get(f"cofi.{name}", "") for run in rows] for name in (*WORDS[3:], *LINKS)},
        "heard_ms": [_number(run.tags.get("cofi.heard_ms", "")) for run in rows],
        "seconds": [run.metrics.get("seconds", run.metrics.get("train_seconds")) for run in rows],
        "searched": [run.tags.get("cofi.searched", "[]") for run in rows],
    }
    columns |= {name: [run.metrics.get(name) for run in rows] for name in SIZES}
    for name in sorted({name for run in rows for name in run.metrics if _is_measured(name)}):
        columns[name.replace("teacher/", "dense/")] = [run.metrics.get(name) for run in rows]
    for name in sorted({name for run in rows for name in run.tags if name.startswith((CONTRACT, TIMING))}):
        kind, _, rest = name.partition(".")
        columns[f"{kind}/{rest}"] = [run.tags.get(name) for run in rows]
    for name in sorted({name for run in rows for name in run.params}):
        columns[f"param/{name}"] = _typed([run.params.get(name) for run in rows])
    for name in [n for n in columns if n in SIZES or _is_measured(n)]:
        least = 0.0 if name.rpartition("/")[2] in (*TIMED, "speedup") else None
        columns[name] = [value if _possible(value, least) else None for value in columns[name]]
    numeric = [
        name for name in columns if name in SIZES or _is_measured(name) or name in ("seconds", "heard_ms")
    ]
    words = [
        name for name in columns if name in (*WORDS, *LINKS) or name.startswith(("contract/", "timing/"))
    ]
    frame = pd.DataFrame(columns)
    return frame.astype(dict.fromkeys(numeric, "float64") | dict.fromkeys([*words, "searched"], "string"))


def columns(frame: pd.DataFrame, prefix: str = "") -> list[str]:
    """Names of the columns that start so, in their order."""
    return [name for name in map(str, frame.columns) if name.startswith(prefix)]


def searched(frame: pd.DataFrame) -> list[str]:
    """Names of the params that any trial of a table drew."""
    return sorted({name for text in frame["searched"].unique() for name in _names(str(text))})


def _names(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _is_measured(name: str) -> bool:
    """Whether a metric belongs to a measurement, not to the training's curves."""
    first, slash, last = name.rpartition("/")
    if not slash:
        return False
    return first.split("/")[0] in ("score", "teacher", "dense") or (
        first.split("/")[-1] in SCENARIOS and last in TIMED
    )


def _possible(value: float | None, least: float | None) -> bool:
    """Whether a number can have been measured: no infinity, and no time that is not above 0."""
    if value is None or not abs(value) < LARGEST_MEASURED:
        return False
    return least is None or value > least


def _typed(texts: Sequence[str | None]) -> Any:
    """Texts of a param as numbers, truths or words, whichever all of them are."""
    import pandas as pd

    known = {text: None if text is None else _literal(text) for text in set(texts)}
    values = [known[text] for text in texts]
    kinds = {type(value) for value in known.values() if value is not None}
    if kinds <= {int, float} and kinds:
        return pd.array(values, dtype="Int64" if kinds == {int} else "Float64")
    if kinds == {bool}:
        return pd.array(values, dtype="boolean")
    words = [None if text in (None, "None") else text for text in texts]
    return pd.array(words, dtype="string")


def _number(text: str) -> float | None:
    value = _literal(text)
    return float(value) if isinstance(value, (int, float)) else None


def _literal(text: str) -> Any:
    """What a text means: a number, a truth, None; or itself."""
    if text in WORDS_OF_PYTHON:
        return WORDS_OF_PYTHON[text]
    try:
        value = float(text)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    whole = text.lstrip("-").isdecimal() and abs(value) < LARGEST_WHOLE
    return int(text) if whole else value

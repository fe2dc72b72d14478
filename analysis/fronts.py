"""Fronts of a table of trials: one for each contract under which models were measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis import contracts, hypervolume, pareto
from analysis.contracts import Contract
from analysis.runs import Study, columns, searched
from analysis.sureness import Sureness, nothing_known
from cofi_tune.records import SCENARIOS

if TYPE_CHECKING:
    import pandas as pd

KEEP = 0.95
"""Share of the dense model's score below which a fast model is called too dull to recommend."""


@dataclass(frozen=True)
class Demands:
    """What a model must have to be of use."""

    min_score: float | None = None
    min_speedup: float | None = None

    def met_by(self, score: float, speedup: float) -> bool:
        """Whether a model has it."""
        return (self.min_score is None or score >= self.min_score) and (
            self.min_speedup is None or speedup >= self.min_speedup
        )


def measured(frame: pd.DataFrame) -> Iterator[tuple[Contract, pd.DataFrame]]:
    """The complete trials under each contract; the one that most were measured under when they ended first.

    Args:
        frame: of `analysis.runs.table`.

    Yields:
        A contract, and its trials with that contract's `<scenario>/...` columns.
    """
    complete = frame[is_measured(frame)]
    own = columns(frame, "contract/")
    groups: dict[str, tuple[Contract, list[int]]] = {}
    for place, values in zip(complete.index, complete[own].itertuples(index=False, name=None), strict=True):
        contract = _told(own, values)
        groups.setdefault(contracts.contract_id(contract), (contract, []))[1].append(place)
    for contract, places in sorted(groups.values(), key=lambda group: (-len(group[1]), str(group[0]))):
        yield contract, complete.loc[places]
    for name in sorted(columns(frame, "timing/")):
        again = complete[complete[name].notna()]
        key = name.partition("/")[2]
        for text in sorted(again[name].unique()):
            found = _contract(text)
            timed = _retimed(again[again[name] == text], key)
            if found is not None and _objective(found, timed).notna().any():
                yield found, timed[_objective(found, timed).notna()]


def is_measured(frame: pd.DataFrame) -> pd.Series[bool]:
    """Which trials of a table are complete and have objectives that can be."""
    possible = frame["score"].abs().le(1 + 1e-9) & frame["speedup"].gt(0)
    return (frame["state"] == "complete") & possible


def own_contracts(frame: pd.DataFrame) -> list[Contract]:
    """The contracts under which searches measured these trials, each once."""
    names = columns(frame, "contract/")
    rows = frame[names].drop_duplicates().itertuples(index=False, name=None)
    return [_told(names, values) for values in rows]


def _told(names: Sequence[str], values: Sequence[Any]) -> Contract:
    pairs = zip(names, values, strict=True)
    return contracts.as_text({name.partition("/")[2]: v for name, v in pairs if isinstance(v, str)})


def _contract(text: str) -> Contract | None:
    """A contract from a tag; None if it is none."""
    try:
        return contracts.as_text(json.loads(text))
    except (ValueError, AttributeError):
        return None


def _objective(contract: Contract, frame: pd.DataFrame) -> pd.Series[float]:
    """The speedups of a contract's own scenario."""
    name = f"{contract.get('scenario', SCENARIOS[0])}/speedup"
    return frame[name] if name in frame else frame["speedup"] * float("nan")


def _retimed(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """The trials with the columns of another contract's timings in place of their own."""
    theirs = {name: name.removeprefix(f"{key}/") for name in columns(frame, f"{key}/")}
    without = frame.drop(columns=[name for name in columns(frame) if name.split("/")[0] in SCENARIOS])
    return without.rename(columns=theirs)


def front(
    contract: Contract,
    frame: pd.DataFrame,
    study: Study,
    place_of: Callable[[str, str], str],
    sureness: Callable[[pd.DataFrame, Sequence[float]], Sureness] = nothing_known,
) -> dict[str, Any]:
    """All that is to be said of the models of one contract, as JSON.

    Args:
        contract: what they were measured under.
        frame: the models, with at least one row.
        study: says which scenario is the objective, and what is demanded.
        place_of: the directory of a model, by study and trial.
        sureness: how sure scores are, for a frame in the order of rows and their speedups.

    Raises:
        ValueError: the models were measured under several contracts; names the difference.
    """
    if contract.get("timed") != "again":  # those have the search's contract too
        contracts.the_one([contract, *own_contracts(frame)])
    metric, scenario = metric_of(study, frame), contract.get("scenario", SCENARIOS[0])
    speedups = _column(frame, f"{scenario}/speedup", frame["speedup"])
    order = sorted(range(len(frame)), key=lambda i: (-frame["score"].iloc[i], -speedups[i], i))
    frame, speedups = frame.iloc[order], [speedups[i] for i in order]
    scores = [float(score) for score in frame["score"]]
    demands = Demands(study.number("min_score"), study.number("min_speedup"))
    useful = [i for i, one in enumerate(zip(scores, speedups, strict=True)) if demands.met_by(*one)]
    points = [(scores[i], speedups[i]) for i in useful]
    kept = [useful[i] for i in pareto.front(points)]
    reference = {"score": study.number("reference_score") or 0.0, "speedup": 1.0}
    corner = (reference["score"], reference["speedup"])
    shares = dict(zip(useful, hypervolume.contributions(points, corner), strict=True))
    known = sureness(frame, speedups)
    rows = _rows(frame, metric, scenario, speedups, place_of)
    for i, row in enumerate(rows):
        row |= known.of(i) | {"on_front": i in kept, "meets_demands": i in shares}
        row["contribution"] = shares[i] if i in kept else None
    on_front = [rows[i] for i in sorted(kept, key=lambda i: (speedups[i], -scores[i]))]
    knee = hypervolume.knee([(row["score"], row["speedup"]) for row in on_front])
    chosen = _recommended(on_front, demands)
    return {
        "id": contracts.contract_id(contract),
        "label": contracts.label(contract),
        "task": study.tag("task"),
        "metric": metric,
        "scenario": scenario,
        "contract": contract,
        "dense": _dense(frame, metric, scenario) | known.dense,
        "keep": KEEP,
        "min_score": demands.min_score,
        "min_speedup": demands.min_speedup,
        "trials": rows,
        "hypervolume": hypervolume.hypervolume(points, corner),
        "reference": reference,
        "knee": None if knee is None else on_front[knee]["trial"],
        "fastest_keeping": (_recommended(on_front, Demands()) or {}).get("trial"),
        "recommended": chosen and chosen["trial"],
        "recommendation": _recommendation(chosen, demands),
        "neighbours": [
            pair | {name: rows[pair[name]]["trial"] for name in ("better", "faster")}
            for pair in known.neighbours(sorted(kept, key=lambda i: (speedups[i], -scores[i])))
        ],
        "uncertainty": known.about,
    }


def metric_of(study: Study, frame: pd.DataFrame) -> str:
    """The score's name: what the study says, or the metric that is the score in every trial."""
    told = study.tag("metric")
    same = (name for name in columns(frame, "score/") if (frame[name] == frame["score"]).all())
    return told or next(same, "score/score").partition("/")[2]


def _recommended(on_front: Sequence[dict[str, Any]], demands: Demands) -> dict[str, Any] | None:
    """The fastest of the front, slowest first, that is good enough; the best where only speed is demanded."""
    if not on_front:
        return None
    if demands != Demands():
        points = [(row["score"], row["speedup"]) for row in on_front]
        place = hypervolume.best(points, demands.min_score, demands.min_speedup)
        return None if place is None else on_front[place]
    keeping = [row for row in on_front if row["score_share"] is not None and row["score_share"] >= KEEP]
    return keeping[-1] if keeping else None


def _recommendation(chosen: Mapping[str, Any] | None, demands: Demands) -> str:
    asked = [] if demands.min_score is None else [f"a score of {demands.min_score:g}"]
    asked += [] if demands.min_speedup is None else [f"{demands.min_speedup:g}x"]
    what = (
        f"with at least {' and '.join(asked)}"
        if asked
        else f"that keeps {KEEP:.0%} of the dense model's score"
    )
    what = what.replace("%", " %")
    if chosen is None:
        return f"There is no model {what}."
    which = "Best" if asked and demands.min_score is None else "Fastest"
    return f"{which} {what}: {chosen['trial']}, {chosen['speedup']:.2f}x with {chosen['score']:.3f}."


def _dense(frame: pd.DataFrame, metric: str, scenario: str) -> dict[str, Any]:
    """The dense model: its scores are those of one trial, its times the median of all trials' timings."""
    one = frame.iloc[0]
    scores = {
        name.partition("/")[2]: float(one[name])
        for name in columns(frame, "dense/")
        if name not in ("dense/num_parameters", "dense/macs") and one[name] == one[name]
    }
    timed = [name for name in SCENARIOS if f"{name}/dense_ms" in frame]
    return {
        "score": scores.get(metric),
        "scores": scores,
        "num_parameters": _whole(one.get("dense/num_parameters")),
        "macs": _whole(one.get("dense/macs")),
        "latency_ms": {name: plain(frame[f"{name}/dense_ms"].median()) for name in timed},
        "dense_ms": [plain(value) for value in _ends(frame.get(f"{scenario}/dense_ms"))],
    }


def _ends(column: pd.Series[float] | None) -> tuple[Any, Any]:
    """The least and the largest of a column."""
    return (None, None) if column is None else (column.min(), column.max())


def _rows(
    frame: pd.DataFrame,
    metric: str,
    scenario: str,
    speedups: Sequence[float],
    place_of: Callable[[str, str], str],
) -> list[dict[str, Any]]:
    names = columns(frame, "score/")
    timed = [name for name in (scenario, *SCENARIOS) if f"{name}/speedup" in frame]
    params = searched(frame)
    dense = f"dense/{metric}"
    rows = []
    records: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    for one, speedup in zip(records, speedups, strict=True):
        teacher = one.get(dense, float("nan"))
        rows.append(
            {
                "trial": one["trial"],
                "study": one["study"],
                "method": one["method"],
                "parent": one["parent"] or None,
                "chain": _chain(one),
                "timed_as": one["timed_as"] or None,
                "score": one["score"],
                "score_share": one["score"] / teacher if teacher > 0 else None,
                "scores": {name.partition("/")[2]: one[name] for name in names if one[name] == one[name]},
                "speedup": speedup,
                "scenarios": {name: _timing(one, name) for name in dict.fromkeys(timed)},
                **{name: plain(one[name]) for name in ("sparsity", "model_sparsity", "seconds")},
                "num_parameters": _whole(one["num_parameters"]),
                "macs": _whole(one["macs"]),
                "settings": {name: plain(one.get(f"param/{name}")) for name in params},
                "path": place_of(one["study"], one["trial"]),
            }
        )
    return rows


def _chain(one: Mapping[str, Any]) -> str | None:
    """Which link of which chain a model is, and the sparsities on the way to it."""
    targets = str(one["chain"] or "").split(" > ")
    return f"link {len(targets)} of {one['root']}: {' > '.join(targets)}" if targets != [""] else None


def _timing(one: Mapping[str, Any], scenario: str) -> dict[str, float | None]:
    names = {"speedup": "speedup", "low": "speedup_low", "high": "speedup_high", "latency_ms": "latency_ms"}
    return {said: plain(one.get(f"{scenario}/{name}")) for said, name in names.items()}


def plain(value: Any) -> Any:
    """A cell of a table as JSON knows it; None where it is empty."""
    if value is None or str(value) == "<NA>" or value != value:
        return None
    return value.item() if hasattr(value, "item") else value


def _whole(value: Any) -> int | None:
    return None if value is None or value != value else int(value)


def _column(frame: pd.DataFrame, name: str, otherwise: pd.Series[float]) -> list[float]:
    column = frame[name].fillna(otherwise) if name in frame else otherwise
    return [float(value) for value in column]

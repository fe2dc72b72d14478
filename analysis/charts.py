"""Charts of the chosen models as plotly's JSON: bars, scores over steps, layers, curves.

Colours are names of the page's style (`var(--accent)`), which the page looks up when it draws. plotly reads a
subset of HTML in every text, so `plain` takes the meaning from each that comes from data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, TypeVar

from analysis.columns import rounded, scenarios
from analysis.names import clipped

T = TypeVar("T")

SERIES = 6
"""Colours for lines, `--c1` on; then they repeat, dashed."""
MOST_BARS = 24
"""Models in a chart of bars; of more, some evenly from end to end."""
CURVE_POINTS = 60_000
"""Points of all curves together: a page stays small."""


@dataclass(frozen=True)
class Chart:
    """One picture that plotly draws."""

    id: str
    title: str
    words: str
    """The same for those who do not see it."""
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    height: int = 300

    def to_json(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {
            "data": self.traces,
            "layout": self.layout | {"height": self.height},
            "title": self.title,
            "words": self.words,
        }


def plain(words: object, most: int = 80) -> str:
    """A text as plotly is to show it: as it is, and not too long."""
    return escape(clipped(str(words), most), quote=False)


def bars(front: Mapping[str, Any], names: Mapping[str, str], prefix: str) -> list[Chart]:
    """Scores and speedups of the dense model and of the front's, beside each other."""
    best = some([row for row in front["trials"] if row["on_front"]], MOST_BARS)
    labels = ["dense", *(plain(names[row["trial"]], 24) for row in best)]
    dense, height = front["dense"], 84 + 30 * len(labels)
    scores: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "y": labels,
        "x": [rounded(one["score"]) for one in (dense, *best)],
        "error_x": _error([dense, *best], "score", "score_low", "score_high"),
        "marker": {"color": ["var(--dense)"] + ["var(--accent)"] * len(best)},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
    }
    speeds: list[dict[str, Any]] = []
    for number, scenario in enumerate(scenarios(front)):
        found = [row["scenarios"].get(scenario, {}) for row in best]
        speeds.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(scenario),
                "y": labels,
                "x": [1.0, *(rounded(one.get("speedup")) for one in found)],
                "error_x": _error([{}, *found], "speedup", "low", "high"),
                "marker": {"color": ("var(--accent)", "var(--pale)")[number % 2]},
                "hovertemplate": "%{y}: %{x:.2f}x",
            }
        )
    models = {"type": "category", "autorange": "reversed", "automargin": True}
    metric = plain(front["metric"])
    return [
        Chart(
            f"{prefix}-scores",
            f"Score: {front['metric']} on the dev rows",
            f"Bars: {_listed(labels, scores['x'], '{:.3f}')}.",
            [scores],
            {"yaxis": models, "xaxis": {"title": {"text": metric}}, "showlegend": False},
            height,
        ),
        Chart(
            f"{prefix}-speedups",
            "Speedup over the dense model, measured",
            "Bars. " + " ".join(f"{t['name']}: {_listed(labels, t['x'], '{:.2f}')}." for t in speeds),
            speeds,
            {"yaxis": models, "xaxis": {"title": {"text": "speedup"}, "ticksuffix": "x"}, "barmode": "group"},
            height + 24,  # its legend
        ),
    ]


def published(figures: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """What a paper reports, for itself: measured elsewhere, so never beside our own."""
    labels = [plain(one["model"], 30) for one in figures]
    charts = []
    for key, title in (("score", "Score, as published"), ("speedup", "Speedup, as published")):
        values = [rounded(one[key]) for one in figures]
        trace: dict[str, Any] = {"type": "bar", "orientation": "h", "y": labels, "x": values}
        trace |= {"marker": {"color": "var(--pale)"}, "hovertemplate": "%{y}: %{x}<extra></extra>"}
        layout = {"yaxis": {"type": "category", "autorange": "reversed", "automargin": True}}
        words = f"Bars: {_listed(labels, values, '{}')}."
        charts.append(Chart(f"published-{key}", title, words, [trace], layout, 84 + 30 * len(labels)))
    return charts


def scores_over_steps(curves: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Chart | None:
    """Scores on the selection rows while the chosen models were trained; None if nobody kept them."""
    kept = {trial: one["selection_score"] for trial, one in curves.items() if one.get("selection_score")}
    if not kept:
        return None
    chosen = some(list(kept.items()), 12)
    traces = [_line(names.get(trial, trial), curve, i) for i, (trial, curve) in enumerate(chosen)]
    words = f"Lines over steps for {len(chosen)} models; where they end is where their scores stand."
    layout = {
        "xaxis": {"title": {"text": "step"}},
        "yaxis": {"title": {"text": "score on the selection rows"}},
    }
    return Chart("steps", "Score over steps, on the selection rows", words, traces, layout, 340)


def layers(structures: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> list[Chart]:
    """Share of heads and of FFN units that every layer has kept, a row per model."""
    if not structures:
        return []
    labels = [
        f"{plain(names.get(trial, trial), 24)}<br>hidden {one['hidden']} of {one['hidden_size']}"
        for trial, one in structures.items()
    ]
    made = []
    for key, whole, title in (("heads", "num_heads", "Attention heads"), ("ffn", "num_ffn", "FFN units")):
        kept = [one[key] for one in structures.values()]
        shares = [[rounded(n / (one[whole] or 1), 3) for n in one[key]] for one in structures.values()]
        trace = {
            "type": "heatmap",
            "x": [str(i + 1) for i in range(max(map(len, kept)))],
            "y": labels,
            "z": shares,
            "text": kept,
            "texttemplate": "%{text}",
            "zmin": 0,
            "zmax": 1,
            "xgap": 2,
            "ygap": 2,
            "colorscale": [[0, "var(--paper)"], [1, "var(--pale)"]],
            "textfont": {"color": "var(--ink)"},
            "showscale": False,
            "hovertemplate": "%{y}, layer %{x}: %{text} kept, %{z:.0%}<extra></extra>",
        }
        layout = {
            "xaxis": {"type": "category", "title": {"text": "layer"}, "showgrid": False},
            "yaxis": {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False},
        }
        words = f"Heat map: {'; '.join(f'{a}: {b}' for a, b in zip(structures, kept, strict=True))}."
        made.append(
            Chart(f"layers-{key}", f"{title} kept, per layer", words, [trace], layout, 84 + 30 * len(labels))
        )
    return made


def training(trial: str, curves: Mapping[str, Sequence[Sequence[float]]], number: int) -> list[Chart]:
    """Sparsity and losses of one model over steps."""
    sparsity = [name for name in ("target_sparsity", "expected_sparsity") if curves.get(name)]
    losses = sorted(name for name in curves if name not in (*sparsity, "selection_score") and curves[name])
    steps = {"title": {"text": "step"}}
    return [
        Chart(
            f"sparsity-{number}",
            "Sparsity over steps",
            f"Lines over steps for {trial}: {', '.join(sparsity)}.",
            [_line(name.replace("_", " "), curves[name], i) for i, name in enumerate(sparsity)],
            {"xaxis": steps, "yaxis": {"title": {"text": "sparsity"}, "rangemode": "tozero"}},
        ),
        Chart(
            f"losses-{number}",
            "Losses over steps",
            f"Lines over steps for {trial}: {', '.join(losses)}.",
            [_line(name.replace("_", " "), curves[name], i) for i, name in enumerate(losses)],
            {"xaxis": steps, "yaxis": {"title": {"text": "loss"}, "rangemode": "tozero"}},
        ),
    ]


def thinned(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Sequence[float]]]]:
    """The same curves with as few points as a page can bear; first and last stay."""
    number = sum(len(one) for one in curves.values())
    most = max(40, min(300, CURVE_POINTS // max(number, 1)))
    return {
        trial: {name: some(list(curve), most) for name, curve in one.items()} for trial, one in curves.items()
    }


def some(items: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _line(name: str, curve: Sequence[Sequence[float]], number: int) -> dict[str, Any]:
    dash = ("solid", "dash", "dot")[number // SERIES % 3]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plain(name, 28),
        "x": [step for step, _ in curve],
        "y": [rounded(value) for _, value in curve],
        "line": {"color": f"var(--c{number % SERIES + 1})", "dash": dash, "width": 1.75},
        "hovertemplate": "step %{x}: %{y:.4g}",
    }


def _error(rows: Sequence[Mapping[str, Any]], middle: str, low: str, high: str) -> dict[str, Any]:
    """Plotly's error bar; nothing where a row has no interval."""
    known = [row.get(low) is not None and row.get(high) is not None for row in rows]
    pairs = list(zip(rows, known, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [rounded(row[high] - row[middle]) if there else 0 for row, there in pairs],
        "arrayminus": [rounded(row[middle] - row[low]) if there else 0 for row, there in pairs],
        "visible": any(known),
        "color": "var(--ink)",
        "thickness": 1.25,
        "width": 3,
    }


def _listed(labels: Sequence[str], values: Sequence[Any], form: str) -> str:
    pairs = zip(labels, values, strict=True)
    return ", ".join(f"{label} {'unknown' if v is None else form.format(v)}" for label, v in pairs)

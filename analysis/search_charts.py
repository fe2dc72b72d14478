"""Charts of a search as plotly's JSON: how far it got, what mattered, what it tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.axis import LOG_FROM, doublings
from analysis.charts import Chart, plain
from analysis.columns import rounded

SHADES = 5
"""Colours for scores, `--s1` on: from the worst fifth to the best."""
OBJECTIVES = ("score", "speedup")


def course(study: Mapping[str, Any], prefix: str) -> list[Chart]:
    """Hypervolume over finished trials and over their compute; it only changes where a trial helped."""
    rows = study["course"]
    if not rows:
        return []
    ends = {0, len(rows) - 1}
    kept = [i for i in range(len(rows)) if i in ends or rows[i]["hypervolume"] != rows[i - 1]["hypervolume"]]
    last = rows[-1]
    hours = [row.get("compute_hours", row["seconds"] / 3600) for row in rows]
    unit, scale = ("hours", 1) if hours[-1] >= 1 else ("minutes", 60)
    spent = f"{study.get('processor', 'CPU')} {unit} of training"
    words = f"A stair that ends at {last['hypervolume']:.4g} after {len(rows)} trials"
    words += f", {scale * hours[-1]:.3g} {spent}."
    made = []
    for key, title, unit, along in (
        ("number", "Hypervolume over trials", "trial", [row["number"] for row in rows]),
        ("compute", "Hypervolume over compute", spent, [scale * one for one in hours]),
    ):
        trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [rounded(along[i]) for i in kept],
            "y": [rounded(rows[i]["hypervolume"]) for i in kept],
            "hovertext": [plain(rows[i]["trial"]) for i in kept],
            "hovertemplate": "%{hovertext}<br>%{y:.4g}<extra></extra>",
            "line": {"shape": "hv", "color": "var(--accent)", "width": 1.75},
            "marker": {"size": 5, "color": "var(--accent)"},
        }
        layout = {
            "xaxis": {"title": {"text": unit}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "hypervolume"}, "rangemode": "tozero"},
        }
        made.append(Chart(f"{prefix}-{key}", title, words, [trace], layout))
    return made


def importance(study: Mapping[str, Any], prefix: str) -> list[Chart]:
    """How much of each objective's variance a parameter explains, per objective."""
    made: list[Chart] = []
    for objective, shares in (study["importance"] or {}).items():
        ordered = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
        labels = [plain(name, 28) for name, _ in ordered]
        values = [rounded(share) for _, share in ordered]
        trace: dict[str, Any] = {"type": "bar", "orientation": "h", "y": labels, "x": values}
        trace |= {"marker": {"color": "var(--accent)"}, "hovertemplate": "%{y}: %{x:.1%}<extra></extra>"}
        listed = ", ".join(f"{name} {share:.0%}" for name, share in ordered)
        layout = {
            "xaxis": {"tickformat": ".0%", "rangemode": "tozero"},
            "yaxis": {"type": "category", "autorange": "reversed", "automargin": True},
        }
        title, height = f"What decides the {objective}", 84 + 26 * len(labels)
        made.append(
            Chart(f"{prefix}-importance-{len(made)}", title, f"Bars: {listed}.", [trace], layout, height)
        )
    return made


def slices(study: Mapping[str, Any], best: set[str], prefix: str) -> list[Chart]:
    """Each objective against each searched parameter; the models of the front in colour."""
    made = []
    for place, name in enumerate(study["searched"]):
        for objective in OBJECTIVES:
            points = [
                point
                for point in study["points"]
                if _is_number(point.get(objective)) and point["settings"].get(name) is not None
            ]
            if len({str(point["settings"][name]) for point in points}) < 2:
                continue  # what never varied shows nothing
            axis = _axis([point["settings"][name] for point in points], name in study["logarithmic"])
            traces = [
                _points([p for p in points if (p["trial"] in best) == chosen], name, objective, axis, chosen)
                for chosen in (False, True)
            ]
            values = [point[objective] for point in points]
            layout = {"xaxis": axis, "yaxis": _objective(objective, values), "showlegend": False}
            title = f"{objective} against {name}"
            words = f"{len(points)} trials; {objective} from {min(values):.3g} to {max(values):.3g}."
            made.append(Chart(f"{prefix}-slice-{place}-{objective}", title, words, traces, layout, 240))
    return made


def parallel(study: Mapping[str, Any], prefix: str) -> Chart | None:
    """Parallel coordinates: a line per trial through all its settings and both objectives.

    plotly's own need WebGL and code made at run time, which the page forbids; these are plain lines.
    """
    points = [p for p in study["points"] if all(_is_number(p.get(name)) for name in OBJECTIVES)]
    searched = [name for name in study["searched"] if any(name in point["settings"] for point in points)]
    if len(points) < 2 or not searched:
        return None
    points.sort(key=lambda point: (point["score"], point["trial"]))
    columns = [[point["settings"].get(name) for point in points] for name in searched]
    columns += [[point[name] for point in points] for name in OBJECTIVES]
    names = [*searched, *OBJECTIVES]
    scales = [
        _Scale(column, name in study["logarithmic"]) for name, column in zip(names, columns, strict=True)
    ]
    groups: list[dict[str, Any]] = []
    for shade in range(SHADES):
        part = range(shade * len(points) // SHADES, (shade + 1) * len(points) // SHADES)
        x: list[Any] = []
        y: list[Any] = []
        hover: list[Any] = []
        for i in part:
            x += [*range(len(names)), None]
            y += [*(rounded(s(c[i]), 4) for s, c in zip(scales, columns, strict=True)), None]
            trial = plain(points[i]["trial"], 40)
            hover += [
                *(f"{trial}<br>{plain(n, 30)}: {shown(c[i])}" for n, c in zip(names, columns, strict=True)),
                "",
            ]
        groups.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": x,
                "y": y,
                "hovertext": hover,
                "hoverinfo": "text",
                "line": {"color": f"var(--s{shade + 1})", "width": 1.25 if len(points) < 100 else 0.75},
            }
        )
    ends = [
        {"x": i, "y": at, "yshift": shift, "text": words, "showarrow": False, "font": {"size": 11}}
        for i, scale in enumerate(scales)
        for at, shift, words in ((0, -11, scale.low), (1, 11, scale.high))
    ]
    layout = {
        "annotations": ends,
        "showlegend": False,
        "hovermode": "closest",
        "xaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [plain(name, 20) for name in names],
            "range": [-0.35, len(names) - 0.65],
            "tickangle": 0,
            "ticklen": 16,
            "tickcolor": "rgba(0,0,0,0)",
        },
        "yaxis": {"visible": False, "range": [-0.09, 1.09]},
    }
    words = f"A line for each of {len(points)} trials through {', '.join(names)}; darker: better score."
    return Chart(f"{prefix}-parallel", "All settings at once", words, groups, layout, 380)


class _Scale:
    """Maps the values of a column to 0 .. 1 and names both ends."""

    def __init__(self, column: Sequence[Any], log: bool) -> None:
        there = [value for value in column if value is not None]
        self.numeric = all(_is_number(value) for value in there)
        self.log = log and self.numeric and all(value > 0 for value in there)
        if self.numeric:
            self.ends = (min(there, default=0), max(there, default=1))
            self.low, self.high = (f"{value:.3g}" for value in self.ends)
        else:
            self.order = sorted({shown(value) for value in there})
            self.low, self.high = self.order[0], self.order[-1]

    def __call__(self, value: Any) -> float | None:
        if value is None:
            return None
        if not self.numeric:
            return self.order.index(shown(value)) / max(len(self.order) - 1, 1)
        low, high, value = (math.log(v) if self.log else v for v in (*self.ends, value))
        return (value - low) / (high - low) if high > low else 0.5


def _axis(values: Sequence[Any], log: bool) -> dict[str, Any]:
    if not all(_is_number(value) for value in values):
        order = sorted({shown(value) for value in values})
        edges = [-0.5, len(order) - 0.5]
        return {"type": "category", "categoryorder": "array", "categoryarray": order, "range": edges}
    log = log and all(value > 0 for value in values)
    return (
        {"type": "log", "dtick": 1}
        if log and max(values) >= 100 * min(values)
        else {"type": "log" if log else "linear"}
    )


def _objective(name: str, values: Sequence[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": name}}
    if name == "speedup" and min(values) > 0 and max(values) / min(values) > LOG_FROM:
        ticks = doublings(min(values) * 0.9, max(values) * 1.1)
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}x" for tick in ticks]}
    return axis


def _points(
    points: Sequence[Mapping[str, Any]], name: str, objective: str, axis: Mapping[str, Any], chosen: bool
) -> dict[str, Any]:
    is_text = axis["type"] == "category"
    values = [point["settings"][name] for point in points]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [shown(value) if is_text else rounded(value) for value in values],
        "y": [rounded(point[objective]) for point in points],
        "hovertext": [plain(point["trial"], 40) for point in points],
        "hovertemplate": "%{hovertext}<br>%{x}: %{y:.3g}<extra></extra>",
        "marker": {
            "size": 7 if chosen else 5,
            "color": "var(--accent)" if chosen else "var(--rest)",
            "opacity": 1 if chosen else 0.6,
        },
    }


def shown(value: Any) -> str:
    """A setting as plotly shows it; different values may share a name that is too long to be shown."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if _is_number(value) else plain(value, 24)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

"""Static pictures, written by hand as SVG: a few kilobytes, no library, no script, no network.

They follow the reader's colour scheme and say in words what they show (`<title>`, `<desc>`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from analysis import labels
from analysis.axis import LOG_FROM, Axis
from analysis.labels import Box
from analysis.names import clipped, short_names
from analysis.svg import FRONT_STYLE, Frame, text

MANY = 200
"""More dominated models than that are drawn without bars and words: a picture stays small."""


@dataclass(frozen=True)
class Dot:
    """One model in the picture."""

    label: str
    score: float
    speedup: float
    low: float
    """Lower end of the speedup's spread."""
    high: float
    on_front: bool
    score_low: float | None = None
    """Lower end of the score's interval, if there is one."""
    score_high: float | None = None
    recommended: bool = False


def of_front(
    front: Mapping[str, Any],
    frame: Frame | None = None,
    name: str = "front",
    names: Mapping[str, str] | None = None,
) -> str:
    """The picture of a front.

    Args:
        front: one of the document's `fronts`.
        frame: `BARE` or `NARROW` inside a page; None: a picture of its own, with a heading.
        name: starts the ids inside the picture; unique in a page.
        names: what to call the trials; None: as short as can be.
    """
    dense = front["dense"]
    return front_svg(
        dots_of(front, names or short_names(front["trials"])),
        dense["score"],
        f"{front['task']}: what pruning keeps, and what it gains",
        score_name=front["metric"],
        speedup_name=f"{front['scenario']}, {front['label']}",
        keep=front["keep"],
        interval=(dense.get("score_low"), dense.get("score_high")),
        frame=frame,
        name=name,
    )


def dots_of(front: Mapping[str, Any], names: Mapping[str, str]) -> list[Dot]:
    """The models of a front as dots."""
    return [
        Dot(
            names[row["trial"]],
            row["score"],
            row["speedup"],
            *_spread(row, front["scenario"]),
            row["on_front"],
            row.get("score_low"),
            row.get("score_high"),
            row["trial"] == front.get("recommended"),
        )
        for row in front["trials"]
    ]


def _spread(row: Mapping[str, Any], scenario: str) -> tuple[float, float]:
    """Both ends of a speedup's spread; none where it was not kept."""
    timing = row["scenarios"][scenario]
    low, high = (row["speedup"] if timing[end] is None else timing[end] for end in ("low", "high"))
    return low, high


def front_svg(
    dots: Sequence[Dot],
    dense: float,
    title: str,
    *,
    score_name: str = "score",
    speedup_name: str = "measured",
    keep: float | None = None,
    interval: tuple[float | None, float | None] = (None, None),
    frame: Frame | None = None,
    name: str = "front",
) -> str:
    """A front as SVG: score against speedup, the dense model, dominated models in grey.

    Args:
        dots: the models.
        dense: score of the uncompressed model, whose speedup is 1.
        title: heading.
        score_name: of the vertical axis.
        speedup_name: how the speedup was measured.
        keep: share of the dense score at which a line is drawn; None or a score below 0: no line.
        interval: of the dense score.
        frame: None: `Frame()`, with heading and legend; any other: without.
        name: starts the ids inside the picture.
    """
    of = frame or Frame()
    x, y = _axes(dots, [dense, *(end for end in interval if end is not None)], of)
    kept = sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.speedup)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {of.width} {of.height}" '
        f'role="img" aria-labelledby="{name}-title {name}-desc">',
        f'<title id="{name}-title">{escape(title)}</title>',
        f'<desc id="{name}-desc">{escape(_in_words(kept, dots, dense, score_name))}</desc>',
        f"<style>{FRONT_STYLE}</style>",
        f'<rect class="paper" width="{of.width}" height="{of.height}"/>',
    ]
    if frame is None:
        parts += [text(of.left, 26, title, "heading"), text(of.left, 44, legend(dots), "soft")]
    parts += [*_grid(x, y), *_names(x, y, score_name, speedup_name, of)]
    solid = []
    if keep is not None and dense > 0:
        at = y(keep * dense)
        words = f"{100 * keep:.0f} % of the dense score"
        parts.append(f'<line class="keep" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(x.end, at - 5, words, "label", "end"))
        solid.append(Box(x.end - 7.2 * len(words), at - 16, x.end, at - 1))
    parts += _rest([dot for dot in dots if not dot.on_front], x, y)
    parts.append(_steps(kept, x, y))
    parts += [_dot(dot, x, y) for dot in kept]
    parts.append(_diamond(x(1.0), y(dense), interval, y, f"dense model: {score_name} {dense:.3f}"))
    parts += _labels(dots, dense, solid, x, y)
    return "\n".join([*parts, "</svg>", ""])


def legend(dots: Sequence[Dot]) -> str:
    """What the marks of a front mean."""
    kept = sum(dot.on_front for dot in dots)
    others = len(dots) - kept
    grey = f"; {others:,} in grey" if others else ""
    bars = "bars: quartiles of paired timings"
    if any(dot.score_low is not None for dot in dots if dot.on_front):
        bars += ", 95 % of scores"
    return f"{kept} {'model' if kept == 1 else 'models'} that nobody beats on both{grey}; {bars}"


def _axes(dots: Sequence[Dot], dense: Sequence[float], of: Frame) -> tuple[Axis, Axis]:
    speedups = [1.0, *(dot.speedup for dot in dots)]
    ends = [end for dot in dots if dot.on_front for end in (dot.score_low, dot.score_high) if end is not None]
    scores = [*dense, *(dot.score for dot in dots), *ends]
    low, high = min(speedups), max(speedups)
    log = high / low > LOG_FROM
    margin = 0.08 * ((max(scores) - min(scores)) or 0.1)
    width = high - low + 1
    edges = (low * 0.87, high * 1.25) if log else (low - 0.06 * width, high + 0.12 * width)
    return (
        Axis(*edges, of.left, of.width - of.right, log),
        Axis(min(scores) - margin, max(scores) + margin, of.height - of.bottom, of.top),
    )


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.end}"/>')
        parts.append(text(at, y.start + 19, f"{value:g}x", "soft", "middle"))
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(x.start - 8, at + 4, f"{round(value, 6):g}", "soft", "end"))
    return parts


def _names(x: Axis, y: Axis, score_name: str, speedup_name: str, of: Frame) -> list[str]:
    middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
    across = f"speedup over the dense model ({speedup_name})"
    if 7 * len(across) > x.end - x.start:
        across = "speedup over the dense model"
    return [
        text(middle_x, of.height - 14, across, anchor="middle"),
        f'<g transform="rotate(-90 16 {middle_y:.1f})">',
        text(16, middle_y, f"{clipped(score_name)} on the dev rows", anchor="middle"),
        "</g>",
    ]


def _rest(dots: Sequence[Dot], x: Axis, y: Axis) -> list[str]:
    if len(dots) <= MANY:
        return [_dot(dot, x, y) for dot in dots]
    places = sorted({(round(x(dot.speedup)), round(y(dot.score))) for dot in dots})
    return [f'<path class="many" d="{"".join(f"M{at_x} {at_y}h0" for at_x, at_y in places)}"/>']


def _steps(kept: Sequence[Dot], x: Axis, y: Axis) -> str:
    """The best score to be had at every speedup: past a model's own, the next one's."""
    if len(kept) < 2:
        return ""
    path = f"M{x(kept[0].speedup):.1f} {y(kept[0].score):.1f}"
    for dot in kept[1:]:
        path += f"V{y(dot.score):.1f}H{x(dot.speedup):.1f}"
    return f'<path class="step" d="{path}"/>'


def _dot(dot: Dot, x: Axis, y: Axis) -> str:
    kind = "front" if dot.on_front else "rest"
    at_x, at_y = x(dot.speedup), y(dot.score)
    words = f"{dot.label}: score {dot.score:.3f}, {dot.speedup:.2f}x ({dot.low:.2f} to {dot.high:.2f})"
    parts = [
        f"<title>{escape(words)}</title>",
        f'<line class="bar" x1="{x(dot.low):.1f}" x2="{x(dot.high):.1f}" y1="{at_y:.1f}" y2="{at_y:.1f}"/>',
        _interval(at_x, dot.score_low, dot.score_high, y) if dot.on_front else "",
        f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{5 if dot.on_front else 3.5}"/>',
    ]
    if dot.recommended:
        parts.append(f'<circle class="ring" cx="{at_x:.1f}" cy="{at_y:.1f}" r="9"/>')
    return f'<g class="{kind}">{"".join(parts)}</g>'


def _interval(at_x: float, low: float | None, high: float | None, y: Axis) -> str:
    if low is None or high is None:
        return ""
    return f'<line class="interval" x1="{at_x:.1f}" x2="{at_x:.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}"/>'


def _diamond(
    at_x: float, at_y: float, interval: tuple[float | None, float | None], y: Axis, words: str
) -> str:
    path = f'<path d="M{at_x:.1f} {at_y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
    return f'<g class="dense"><title>{escape(words)}</title>{_interval(at_x, *interval, y)}{path}</g>'


def _labels(dots: Sequence[Dot], dense: float, solid: Sequence[Box], x: Axis, y: Axis) -> list[str]:
    kept = sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.speedup)
    rest = [dot for dot in dots if not dot.on_front]
    first = sorted(kept, key=lambda dot: (not dot.recommended, dot not in (kept[0], kept[-1])))
    if len(first) > labels.MOST:
        first = first[:3] + first[3 :: math.ceil(len(first) / labels.MOST)]
    wanted = [(x(1.0), y(dense), "dense")]
    wanted += [(x(dot.speedup), y(dot.score), clipped(dot.label)) for dot in first]
    places = [(x(1.0), y(dense)), *((x(dot.speedup), y(dot.score)) for dot in kept)]
    marks = [Box(at_x - 7, at_y - 7, at_x + 7, at_y + 7) for at_x, at_y in places]
    bars = [
        Box(x(dot.speedup) - 2, y(dot.score_high), x(dot.speedup) + 2, y(dot.score_low))
        for dot in kept
        if dot.score_low is not None and dot.score_high is not None
    ]
    frame = Box(x.start, y.end, x.end, y.start)
    if len(rest) <= MANY:
        bars += [Box(x(dot.low) - 3, y(dot.score) - 3, x(dot.high) + 3, y(dot.score) + 3) for dot in rest]
    parts = []
    for label in labels.place(wanted, frame, [*solid, *marks], bars):
        if label.far:
            (from_x, from_y), middle = label.point, (label.box.top + label.box.bottom) / 2
            ends = f'x1="{from_x:.1f}" y1="{from_y:.1f}" x2="{label.x:.1f}" y2="{middle:.1f}"'
            parts.append(f'<line class="lead" {ends}/>')
        parts.append(text(label.x, label.y, label.text, "label", label.anchor))
    return parts


def _in_words(kept: Sequence[Dot], dots: Sequence[Dot], dense: float, score_name: str) -> str:
    listed = "; ".join(f"{dot.label} {dot.score:.3f} at {dot.speedup:.2f}x" for dot in kept)
    return (
        f"{score_name} against speedup of {len(dots)} pruned models. The dense model scores {dense:.3f} "
        f"at 1x. On the front: {listed}."
    )

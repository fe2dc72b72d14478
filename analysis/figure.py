"""Static pictures, written by hand as SVG: a few kilobytes, no library, no script, no network.

They follow the reader's colour scheme and say in words what they show (`<title>`, `<desc>`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 470
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 58, 62
"""Margins of the plot, in pixels."""
LOG_FROM = 4.0
"""Ratio of largest to smallest speedup from which the axis counts in doublings."""

STYLE = """
  svg { --ink: #1f2933; --soft: #66727f; --grid: #e3e8ee; --paper: #ffffff; --front: #0b6e99;
        --dense: #c2410c; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6ebf0; --soft: #9aa7b4; --grid: #2b3540; --paper: #14191f; --front: #56b8e6;
          --dense: #fb923c; }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
  .heading { font-size: 16px; font-weight: 600; }
  .soft { fill: var(--soft); font-size: 12px; }
  .paper { fill: var(--paper); }
  .grid { stroke: var(--grid); }
  .front { fill: var(--front); stroke: var(--front); }
  .step { fill: none; stroke: var(--front); stroke-width: 1.5; stroke-opacity: .5; }
  .rest { fill: var(--soft); stroke: var(--soft); opacity: .55; }
  .dense { fill: var(--dense); stroke: var(--dense); }
  .keep { stroke: var(--dense); stroke-dasharray: 3 5; stroke-opacity: .7; }
  .bar { stroke-width: 6; stroke-opacity: .3; stroke-linecap: round; }
"""


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


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, cut off at the ends."""
        low, high, value = (math.log2(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, about five."""
        if self.log:
            exponents = range(math.ceil(math.log2(self.low)), math.floor(math.log2(self.high)) + 1)
            return [2.0**exponent for exponent in exponents]
        step = _round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def of_summary(document: Mapping[str, Any]) -> str:
    """The picture of what `analysis.pareto.summary` returns, with at least one trial."""
    scenario = document["scenario"]
    dots = [
        Dot(
            row["trial"].removeprefix(f"{document['study']}-"),
            row["score"],
            row["speedup"],
            row["scenarios"][scenario]["low"],
            row["scenarios"][scenario]["high"],
            row["on_front"],
        )
        for row in document["trials"]
    ]
    return front_svg(
        dots,
        document["teacher"]["score"],
        f"{document['task']}: what pruning keeps, and what it gains",
        score_name=document["metric"],
        speedup_name=f"{scenario}, {_where(document['contract'])}",
        keep=document["keep"],
    )


def front_svg(
    dots: Sequence[Dot],
    dense: float,
    title: str,
    *,
    score_name: str = "score",
    speedup_name: str = "measured",
    keep: float | None = None,
) -> str:
    """A front as SVG: score against speedup, the dense model, dominated models in grey.

    Args:
        dots: the models; at least one.
        dense: score of the uncompressed model, whose speedup is 1.
        title: heading.
        score_name: of the vertical axis.
        speedup_name: how the speedup was measured.
        keep: share of the dense score at which a line is drawn; None or a score below 0: no line.
    """
    x, y = _axes(dots, dense)
    kept = sorted((dot for dot in dots if dot.on_front), key=lambda dot: dot.speedup)
    middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="front-title front-desc">',
        f'<title id="front-title">{escape(title)}</title>',
        f'<desc id="front-desc">{escape(_in_words(kept, dots, dense, score_name))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
        _text(LEFT, 26, title, "heading"),
        _text(LEFT, 44, _legend(kept, dots), "soft"),
        *_grid(x, y),
        _text(middle_x, HEIGHT - 16, f"speedup over the dense model ({speedup_name})", anchor="middle"),
        f'<g transform="rotate(-90 20 {middle_y:.1f})">',
        _text(20, middle_y, f"{score_name} on the dev rows", anchor="middle"),
        "</g>",
    ]
    if keep is not None and dense > 0:
        at = y(keep * dense)
        parts.append(f'<line class="keep" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(x.end, at - 5, f"{100 * keep:.0f} % of the dense score", "soft", "end"))
    parts += [_dot(dot, x, y) for dot in dots if not dot.on_front]
    parts.append(_steps(kept, x, y))
    parts += [_dot(dot, x, y) for dot in kept]
    parts.append(_diamond(x(1.0), y(dense), f"dense model: {score_name} {dense:.3f}"))
    return "\n".join([*parts, "</svg>", ""])


def _axes(dots: Sequence[Dot], dense: float) -> tuple[Axis, Axis]:
    speedups = [1.0, *(dot.speedup for dot in dots)]
    scores = [dense, *(dot.score for dot in dots)]
    low, high = min(speedups), max(speedups)
    log = high / low > LOG_FROM
    margin = 0.08 * ((max(scores) - min(scores)) or 0.1)
    width = high - low + 1
    edges = (low * 0.87, high * 1.25) if log else (low - 0.06 * width, high + 0.12 * width)
    return (
        Axis(*edges, LEFT, WIDTH - RIGHT, log),
        Axis(min(scores) - margin, max(scores) + margin, HEIGHT - BOTTOM, TOP),
    )


def _grid(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.end}"/>')
        parts.append(_text(at, y.start + 19, f"{value:g}x", "soft", "middle"))
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(_text(x.start - 8, at + 4, f"{round(value, 6):g}", "soft", "end"))
    return parts


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
    bar = f'<line class="bar" x1="{x(dot.low):.1f}" x2="{x(dot.high):.1f}" y1="{at_y:.1f}" y2="{at_y:.1f}"/>'
    circle = f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="{5 if dot.on_front else 4}"/>'
    label = _text(at_x + 8, at_y - 8, dot.label, "soft") if dot.on_front else ""
    return f'<g class="{kind}"><title>{escape(words)}</title>{bar}{circle}</g>{label}'


def _diamond(at_x: float, at_y: float, words: str) -> str:
    path = f"M{at_x:.1f} {at_y - 7:.1f}l7 7l-7 7l-7 -7z"
    label = _text(at_x + 11, at_y + 4, "dense", "soft")
    return f'<g class="dense"><title>{escape(words)}</title><path d="{path}"/></g>{label}'


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>'


def _legend(kept: Sequence[Dot], dots: Sequence[Dot]) -> str:
    others = len(dots) - len(kept)
    grey = f"; {others} in grey {'is' if others == 1 else 'are'} beaten on both" if others else ""
    models = "model" if len(kept) == 1 else "models"
    return f"{len(kept)} {models} that nobody beats on both{grey}; bars: quartiles of paired timings"


def _in_words(kept: Sequence[Dot], dots: Sequence[Dot], dense: float, score_name: str) -> str:
    listed = "; ".join(f"{dot.label} {dot.score:.3f} at {dot.speedup:.2f}x" for dot in kept)
    return (
        f"{score_name} against speedup of {len(dots)} pruned models. The dense model scores {dense:.3f} "
        f"at 1x. On the front: {listed}."
    )


def _where(contract: Mapping[str, Any]) -> str:
    threads = contract.get("num_threads")
    device = str(contract.get("device", "this machine"))
    if not threads:
        return str(contract.get("device_name", device))
    return f"{device.upper()}, {threads} thread{'s' if threads != 1 else ''}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)

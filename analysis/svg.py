"""What the static pictures share: colours, sizes, texts."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

COLOURS = """
  .figure { --ink: #1d252c; --soft: #59656f; --grid: #e4e8ec; --paper: #ffffff; --accent: #0b5f8a;
    --pale: #93bdd3; }
  @media screen and (prefers-color-scheme: dark) {
    .figure { --ink: #e3e8ed; --soft: #a1adb8; --grid: #2a333b; --paper: #13181d; --accent: #63b9e4;
      --pale: #2f6583; }
  }
  .figure text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--ink); }
  .figure .heading { font-size: 16px; font-weight: 600; }
  .figure .soft { fill: var(--soft); font-size: 12px; }
  .figure .paper { fill: var(--paper); }
"""
"""What all pictures share. Every rule names the picture's class: inside a page it changes nothing else."""

FRONT_STYLE = (
    COLOURS
    + """
  .figure .grid { stroke: var(--grid); }
  .figure .front { fill: var(--accent); stroke: var(--accent); }
  .figure .step { fill: none; stroke: var(--accent); stroke-width: 1.5; stroke-opacity: .45; }
  .figure .rest { fill: var(--soft); stroke: var(--soft); opacity: .5; }
  .figure .many { fill: none; stroke: var(--soft); stroke-width: 4; stroke-linecap: round; opacity: .35; }
  .figure .dense { fill: var(--ink); stroke: var(--ink); }
  .figure .keep { stroke: var(--ink); stroke-dasharray: 2 4; stroke-opacity: .55; }
  .figure .bar { stroke-width: 6; stroke-opacity: .28; stroke-linecap: round; }
  .figure .interval { stroke-width: 1.5; stroke-opacity: .6; }
  .figure .ring { fill: none; stroke-width: 1.5; }
  .figure .lead { stroke: var(--soft); stroke-width: .75; }
  .figure .label { fill: var(--soft); font-size: 12px; paint-order: stroke; stroke: var(--paper);
    stroke-width: 3px; stroke-linejoin: round; }
"""
)


@dataclass(frozen=True)
class Frame:
    """Size of a picture and margins of its plot, in pixels."""

    width: int = 760
    height: int = 470
    left: int = 74
    right: int = 24
    top: int = 58
    bottom: int = 62


BARE = Frame(height=440, top=14)
"""In a page, whose own text is the heading."""
NARROW = Frame(width=400, height=380, left=58, right=12, top=10, bottom=54)
"""The same on a telephone, where a smaller copy could not be read."""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A text of a picture, its baseline at y."""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(words)}</text>'

"""What of every layer a model has kept, as a static picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from analysis.names import clipped
from analysis.svg import COLOURS, text

STYLE = (
    COLOURS
    + """
  .figure .cell { fill: var(--pale); stroke: var(--grid); }
  .figure .count { font-size: 11px; }
"""
)
WIDTH, LEFT, TOP = 760, 210, 30
ROW, GAP, WIDEST = 22, 14, 46
"""Heights of a row and between models, and the widest cell, in pixels."""


def structure_svg(structures: Mapping[str, Mapping[str, Any]], name: str = "structure") -> str:
    """Heads and FFN units that each layer has kept, two rows per model; "" without models.

    Args:
        structures: by model: `heads` and `ffn` (numbers kept, per layer), `num_heads`, `num_ffn`, `hidden`
            and `hidden_size`.
        name: starts the ids inside the picture; unique in a page.
    """
    if not structures:
        return ""
    layers = max(len(one["heads"]) for one in structures.values())
    cell = min(WIDEST, (WIDTH - LEFT - 10) / max(layers, 1))
    height = TOP + len(structures) * (2 * ROW + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}-title {name}-desc">',
        f'<title id="{name}-title">Heads and FFN units kept, per layer</title>',
        f'<desc id="{name}-desc">{escape(in_words(structures))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        text(LEFT - 44, 20, "layer", "soft", "end"),
    ]
    parts += [text(LEFT + (i + 0.5) * cell, 20, str(i + 1), "soft", "middle") for i in range(layers)]
    for number, (model, one) in enumerate(structures.items()):
        parts += _block(model, one, TOP + number * (2 * ROW + GAP), cell)
    return "\n".join([*parts, "</svg>", ""])


def in_words(structures: Mapping[str, Mapping[str, Any]]) -> str:
    """The same as text."""
    return " ".join(
        f"{model}: hidden {one['hidden']} of {one['hidden_size']}; heads {_listed(one['heads'])} "
        f"of {one['num_heads']}; FFN units {_listed(one['ffn'])} of {one['num_ffn']}."
        for model, one in structures.items()
    )


def _block(model: str, one: Mapping[str, Any], top: float, cell: float) -> list[str]:
    parts = [
        text(0, top + 15, clipped(model, 21)),
        text(0, top + ROW + 15, f"hidden {one['hidden']} of {one['hidden_size']}", "soft"),
        text(LEFT - 8, top + 15, "heads", "soft", "end"),
        text(LEFT - 8, top + ROW + 15, "FFN", "soft", "end"),
    ]
    parts += _cells("heads", one["heads"], one["num_heads"], top, cell)
    parts += _cells("FFN units", one["ffn"], one["num_ffn"], top + ROW, cell)
    return parts


def _cells(what: str, kept: Sequence[int], whole: int, top: float, cell: float) -> list[str]:
    parts = []
    for i, number in enumerate(kept):
        share = number / whole if whole else 0.0
        words = f"layer {i + 1}: {number} of {whole} {what}"
        box = f'x="{LEFT + i * cell:.1f}" y="{top}" width="{cell - 1:.1f}" height="{ROW - 1}"'
        parts.append(
            f'<g><title>{escape(words)}</title><rect class="cell" {box} fill-opacity="{share:.2f}"/>'
            f"{text(LEFT + (i + 0.5) * cell - 0.5, top + 15, str(number), 'count', 'middle')}</g>"
        )
    return parts


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)

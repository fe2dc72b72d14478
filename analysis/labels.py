"""Where the labels of a picture go, so that none lies on another or on a dot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ADVANCE = 0.6
"""Width of a character in font sizes, on the safe side."""
MOST = 24
"""Of more labels than that only a part can be told apart."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether both share some area."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def within(self, other: Box) -> bool:
        """Whether all of this one lies in the other."""
        across = self.left >= other.left and self.right <= other.right
        return across and self.top >= other.top and self.bottom <= other.bottom


@dataclass(frozen=True)
class Label:
    """A text beside the point that it names; `far`: so far off that a line leads to it."""

    text: str
    point: tuple[float, float]
    x: float
    y: float
    """Of the baseline."""
    anchor: str
    box: Box
    far: bool


def place(
    wanted: Sequence[tuple[float, float, str]],
    frame: Box,
    solid: Sequence[Box],
    thin: Sequence[Box] = (),
    font_px: float = 12,
) -> list[Label]:
    """Labels for as many points as there is room for, the first ones first.

    Args:
        wanted: x and y of a point in pixels, and its text; the most important first.
        frame: no label leaves it.
        solid: what no label may cover: dots, other texts.
        thin: what it had better not cover: bars.
        font_px: size of the type.
    """
    placed: list[Label] = []
    for x, y, text in wanted:
        taken = [*solid, *(label.box for label in placed)]
        free = [
            label
            for label in _candidates(x, y, text, font_px)
            if label.box.within(frame) and not any(label.box.overlaps(box) for box in taken)
        ]
        clear = (label for label in free if not any(label.box.overlaps(box) for box in thin))
        best = next(clear, free[0] if free else None)
        if best is not None:
            placed.append(best)
    return placed


def _candidates(x: float, y: float, text: str, font_px: float) -> Iterator[Label]:
    width = ADVANCE * font_px * len(text)
    for away in (0, 12, 24, 40, 58):
        for dx, dy, anchor in (
            (8, -8 - away, "start"),
            (8, 17 + away, "start"),
            (-8, -8 - away, "end"),
            (-8, 17 + away, "end"),
            (10 + away, 4, "start"),
            (-10 - away, 4, "end"),
        ):
            left = x + dx - (width if anchor == "end" else 0)
            top = y + dy - 0.85 * font_px
            box = Box(left, top, left + width, top + 1.1 * font_px)
            yield Label(text, (x, y), x + dx, y + dy, anchor, box, far=away > 0)

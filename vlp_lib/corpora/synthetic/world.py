"""The world of the embedded corpus: its settings, what exists in it, in which colours, and the outlines of things."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import numpy as np

from vlp_lib.config import CorpusConfig
from vlp_lib.errors import UserError
from vlp_lib.ranges import Range

SHAPES = ("ball", "box", "cone", "cross", "gem", "ring", "star", "moon")
"""The classes of things; COCO category ids 1 to 8 in this order."""

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 35, 40),
    "orange": (242, 130, 20),
    "yellow": (240, 222, 45),
    "green": (40, 165, 60),
    "blue": (40, 85, 220),
    "purple": (120, 45, 165),
    "pink": (248, 140, 190),
    "white": (244, 244, 244),
}
"""Colour names of things with their RGB before jitter and light."""

COLOR_NAMES = tuple(COLORS)

GROUNDS = ("grass", "sand", "water", "snow", "stone", "wood")
BACKGROUNDS = ("sky", "brick", "hedge", "curtain")
STUFFS = GROUNDS + BACKGROUNDS
"""The classes of stuff; COCO category ids 9 to 18 in this order."""

# Every tone serves several stuffs and no stuff has one tone only: the mean colour must not name the class.
_TONES: dict[str, tuple[int, int, int]] = {
    "green": (92, 140, 70),
    "straw": (186, 168, 105),
    "brown": (132, 100, 68),
    "grey": (138, 138, 138),
    "blue": (96, 132, 178),
    "pale": (200, 204, 208),
    "teal": (84, 140, 132),
    "rust": (158, 92, 76),
}
_WORN: dict[str, tuple[str, ...]] = {
    "grass": ("green", "straw", "brown", "teal"),
    "sand": ("straw", "grey", "brown", "pale", "rust"),
    "water": ("blue", "teal", "green", "grey"),
    "snow": ("pale", "grey", "blue", "straw"),
    "stone": ("grey", "brown", "teal", "rust", "pale"),
    "wood": ("brown", "straw", "rust", "grey", "blue"),
    "sky": ("blue", "pale", "grey", "rust", "teal"),
    "brick": ("rust", "grey", "brown", "straw", "pale"),
    "hedge": ("green", "teal", "brown", "rust", "straw"),
    "curtain": ("rust", "blue", "green", "pale", "straw", "teal"),
}
PALETTES: dict[str, tuple[tuple[int, int, int], ...]] = {
    stuff: tuple(_TONES[tone] for tone in tones) for stuff, tones in _WORN.items()
}
"""The base colours, RGB, that each stuff may have; the first is the typical one."""


def thing_category(shape: int) -> int:
    """COCO category id of a shape index."""
    return shape + 1


def stuff_category(stuff: int) -> int:
    """COCO category id of a stuff index."""
    return len(SHAPES) + stuff + 1


@dataclass(frozen=True)
class CorpusSpec(CorpusConfig):
    """A corpus to draw; two equal specs give the same bytes. Raises UserError for a value that cannot be drawn.

    Attributes:
        image_size: edge of the square images in pixels, a multiple of 8, at least 32.
        questions_per_image: VQA questions for each captioned image.
    """

    image_size: Annotated[int, Range(32, 1_024)] = 64
    questions_per_image: Annotated[int, Range(1, 10)] = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):  # as JSON has them, unequal to tuples
                object.__setattr__(self, field.name, tuple(value))
        super().__post_init__()
        if self.image_size % 8:
            raise UserError(f"image_size is {self.image_size}; give a multiple of 8.")


# Five outer corners and five inner ones (0.46 of the radius), clockwise, in thousandths.
_STAR = (
    (0, -1000), (270, -372), (951, -309), (437, 142), (588, 809),
    (0, 460), (-588, 809), (-437, 142), (-951, -309), (-270, -372),
)  # fmt: skip


@cache
def shape_mask(shape: int, size: int) -> np.ndarray:
    """[h, w] bool: the shape cut from a square of `size` pixels, without empty rows and columns."""
    axis = 2 * np.arange(size, dtype=np.int64) + 1 - size  # half pixels from the centre: −size < u < size
    u, v, s = axis[None, :], axis[:, None], size
    square = u * u + v * v
    match SHAPES[shape]:
        case "ball":
            mask = square <= s * s
        case "box":
            mask = np.ones((size, size), dtype=bool)
        case "cone":
            mask = 2 * abs(u) <= v + s + 1
        case "cross":
            mask = (5 * abs(u) <= 2 * s) | (5 * abs(v) <= 2 * s)
        case "gem":
            mask = abs(u) + abs(v) <= s
        case "ring":
            mask = (square <= s * s) & (100 * square >= 16 * s * s)
        case "star":
            mask = _in_star(1000 * u, 1000 * v, s)
        case _:  # moon: a disc less another one to its right
            mask = (square <= s * s) & (100 * ((2 * u - s) ** 2 + 4 * v * v) >= 4 * 64 * s * s)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _in_star(x: np.ndarray, y: np.ndarray, scale: int) -> np.ndarray:
    """Even–odd rule: a point is inside where a ray to the right crosses an odd number of edges."""
    inside = np.zeros(np.broadcast(x, y).shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(_STAR, _STAR[1:] + _STAR[:1], strict=True):
        ax, ay, bx, by = ax * scale, ay * scale, bx * scale, by * scale
        crosses = (ay > y) != (by > y)
        side = (x - ax) * (by - ay) - (bx - ax) * (y - ay)
        inside ^= crosses & ((side < 0) == (by > ay))
    return inside

"""The vocabulary of the embedded corpus: what exists in its world, and in which colours."""

from __future__ import annotations

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


def thing_categories() -> list[dict[str, object]]:
    """The `categories` of the instances JSON."""
    return [{"supercategory": "shape", "id": thing_category(i), "name": name} for i, name in enumerate(SHAPES)]


def stuff_categories() -> list[dict[str, object]]:
    """The `categories` of the stuff JSON."""
    return [
        {"supercategory": "ground" if name in GROUNDS else "background", "id": stuff_category(i), "name": name}
        for i, name in enumerate(STUFFS)
    ]

"""A scene as one likes it, drawn as those of the corpus are: what stands where, in which colour, on which ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.draw import Painter
from vlp_lib.corpora.synthetic.scenes import Scene, Thing, sample_scene
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, COLORS, PALETTES, SHAPES, STUFFS, CorpusSpec, shape_mask
from vlp_lib.corpora.synthetic.write import scene_key

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
"""The nine parts of an image, row by row."""

SIZES = ("small", "large")


@dataclass(frozen=True)
class Wanted:
    """A thing in words: of `SIZES`, the names of colours and of shapes, and `PLACES`."""

    size: str
    color: str
    shape: str
    place: str


def wanted_of(thing: Thing, image_size: int) -> Wanted:
    """A thing of a scene in words."""
    column, row = (min(2, 3 * middle // (2 * image_size)) for middle in thing.center)
    return Wanted(SIZES[thing.large], COLOR_NAMES[thing.color], SHAPES[thing.shape], PLACES[3 * row + column])


def compose(
    spec: CorpusSpec, number: int, ground: str = "", background: str = "", things: Sequence[Wanted] | None = None
) -> tuple[Scene, np.ndarray]:
    """The validation scene of that number with what is wanted in it, and its picture, [S, S, 3] uint8.

    What is wanted as it is stays as it is, to the pixel. New stuffs and things have the typical colours of their names;
    things may hide one another.
    """
    dice = Dice(*scene_key(spec, "val", number))
    scene, size = sample_scene(dice, spec), spec.image_size
    for field, stuff in (("ground", ground), ("background", background)):
        if stuff and STUFFS.index(stuff) != getattr(scene, field):
            changed = {field: STUFFS.index(stuff), f"{field}_rgb": PALETTES[stuff][0]}
            scene = replace(scene, **changed)  # type: ignore[arg-type]
    if things is not None:
        own = {wanted_of(thing, size): thing for thing in scene.things}
        stand = sorted((own.get(one) or _thing(spec, one) for one in things), key=lambda thing: thing.y + thing.h)
        scene = replace(scene, things=tuple(stand), void_thing=0)
    return scene, _painter(size).image(scene, dice)


_painter = cache(Painter)  # which makes its textures once


def _thing(spec: CorpusSpec, wanted: Wanted) -> Thing:
    """A thing of the middle size of its kind in the middle of its place."""
    large, shape, side = wanted.size == "large", SHAPES.index(wanted.shape), spec.image_size
    size = sum(spec.large if large else spec.small) // 2 * side // 64
    h, w = shape_mask(shape, size).shape
    row, column = divmod(PLACES.index(wanted.place), 3)
    x, y = (
        min(max(1, (2 * part + 1) * side // 6 - long // 2), side - long - 1) for part, long in ((column, w), (row, h))
    )
    return Thing(shape, COLOR_NAMES.index(wanted.color), large, size, x, y, w, h, COLORS[wanted.color])

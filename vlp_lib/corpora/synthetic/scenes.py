"""What stands where in an image: the ground truth that pictures, captions, questions and labels are made from."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.world import (
    BACKGROUNDS,
    COLOR_NAMES,
    COLORS,
    GROUNDS,
    PALETTES,
    SHAPES,
    STUFFS,
    CorpusSpec,
    shape_mask,
)

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """One shape in the image.

    Attributes:
        shape, color: indices into `SHAPES` and `COLOR_NAMES`.
        large: the other size is small.
        size: edge of the square that the shape was cut from, in pixels.
        x, y, w, h: its tight box in pixels, from the left and the top.
        rgb: its colour with jitter, before the image's light.
    """

    shape: int
    color: int
    large: bool
    size: int
    x: int
    y: int
    w: int
    h: int
    rgb: RGB

    @property
    def center(self) -> tuple[int, int]:
        """Twice the centre of the box, which keeps it an integer, in half pixels."""
        return 2 * self.x + self.w, 2 * self.y + self.h

    @property
    def bbox(self) -> list[int]:
        """COCO's box: x, y, width, height in pixels."""
        return [self.x, self.y, self.w, self.h]


@dataclass(frozen=True)
class Scene:
    """Everything about one image.

    Attributes:
        image_size: edge of the square image in pixels.
        background, ground: indices into `STUFFS`: above and below the horizon.
        horizon: for each column the first row that belongs to the ground.
        things: in drawing order, the nearest last.
        background_rgb, ground_rgb: their colours with jitter.
        windows: (row, column) offsets into the background's and the ground's texture tiles, in pixels.
        light: gain at the centre, 256 is neutral, and its change over half of the image to the right and downwards.
        void_thing: index of the thing whose rim is void in the label map.
        has_map: whether a label map is published.
    """

    image_size: int
    background: int
    ground: int
    horizon: tuple[int, ...]
    things: tuple[Thing, ...]
    background_rgb: RGB
    ground_rgb: RGB
    windows: tuple[tuple[int, int], tuple[int, int]]
    light: tuple[int, int, int]
    void_thing: int
    has_map: bool

    def stands_on_ground(self, thing: Thing) -> bool | None:
        """True on the ground, False before the background only, None where that is not clear to the eye."""
        margin = self.image_size // 21
        gap = thing.y + thing.h - self.horizon[thing.x + thing.w // 2]
        return True if gap >= margin else False if gap <= -margin else None

    def shows(self, *stuffs: int) -> bool:
        """Whether each of the stuffs is the ground or the background."""
        return all(stuff in (self.ground, self.background) for stuff in stuffs)

    def at_edge(self, side: str) -> list[Thing]:
        """The things beyond doubt in the left or right part of the image."""
        s = self.image_size  # of half pixels the image has twice as many
        if side == "left":
            return [thing for thing in self.things if 5 * thing.center[0] <= 4 * s]
        return [thing for thing in self.things if 5 * thing.center[0] >= 6 * s]

    def is_clear(self, relation: str, a: Thing, b: Thing) -> bool:
        """Whether a stands in the relation ("left", "right", "above", "below") to b beyond doubt."""
        return self._gap(relation, a, b) >= self.image_size // 4  # an eighth of the image: gaps are in half pixels

    def is_wrong(self, relation: str, a: Thing, b: Thing) -> bool:
        """Whether a does not stand in the relation to b beyond doubt; neither holds for the cases in between."""
        return self._gap(relation, a, b) <= 0

    def _gap(self, relation: str, a: Thing, b: Thing) -> int:
        (ax, ay), (bx, by) = a.center, b.center
        return {"left": bx - ax, "right": ax - bx, "above": by - ay, "below": ay - by}[relation]


RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def sample_scene(dice: Dice, spec: CorpusSpec, *, fewest: int = 0, like: Scene | None = None) -> Scene:
    """Draw a scene of at least `fewest` things; `like` is a scene that it shares some of its contents with."""
    image_size = spec.image_size
    background = len(GROUNDS) + dice.ranked(len(BACKGROUNDS), spec.skew)
    ground = dice.ranked(len(GROUNDS), spec.skew)
    if like is not None:
        background = like.background if dice.chance(40) else background
        ground = like.ground if dice.chance(40) else ground
    things: list[Thing] = []
    fewest = max(fewest, spec.things[0])
    for _ in range(dice.between(fewest, max(fewest, spec.things[1]))):
        shape, color = dice.ranked(len(SHAPES), spec.skew), dice.ranked(len(COLOR_NAMES), spec.skew)
        if like is not None and dice.chance(50):
            twin = dice.choice(like.things)
            shape, color = twin.shape, twin.color
        # Without repetitions "how many balls" would nearly always be answered by 0 or 1.
        if things and dice.chance(35):
            shape = dice.choice(things).shape
        if things and dice.chance(15):
            color = dice.choice(things).color
        things.append(_place(dice, spec, things, shape, color))
    things.sort(key=lambda thing: thing.y + thing.h)  # what stands lower is nearer and drawn later

    def window() -> tuple[int, int]:
        return dice.below(3 * image_size), dice.below(3 * image_size)

    return Scene(
        image_size=image_size,
        background=background,
        ground=ground,
        horizon=_sample_horizon(dice, image_size),
        things=tuple(things),
        background_rgb=_sample_color(dice, background, spec.typical),
        ground_rgb=_sample_color(dice, ground, spec.typical),
        windows=(window(), window()),
        light=(dice.between(212, 285), dice.between(-26, 26), dice.between(-26, 26)),
        void_thing=dice.below(len(things)),
        has_map=dice.chance(100 * spec.maps),
    )


def _place(dice: Dice, spec: CorpusSpec, others: list[Thing], shape: int, color: int) -> Thing:
    """A thing where it hides no other; a crowded image still has room for a small one, and at last for a tiny one."""
    wants_large = dice.chance(50)
    for tries in count():
        large = wants_large and tries < 50
        size = max(8, dice.between(*(spec.large if large else spec.small)) - tries // 50) * spec.image_size // 64
        h, w = shape_mask(shape, size).shape
        x, y = dice.between(1, spec.image_size - w - 1), dice.between(1, spec.image_size - h - 1)
        thing = Thing(shape, color, large, size, x, y, w, h, _jitter(dice, COLORS[COLOR_NAMES[color]], 14))
        if all(_overlap(thing, other) <= 10 for other in others):
            return thing
    raise AssertionError("unreachable: the loop has no end")


def _overlap(a: Thing, b: Thing) -> int:
    """Common area of the boxes in per cent of the smaller box: so a small thing never vanishes behind a large one."""
    width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    return 100 * max(width, 0) * max(height, 0) // min(a.w * a.h, b.w * b.h)


def _sample_horizon(dice: Dice, image_size: int) -> tuple[int, ...]:
    """Straight pieces between nine points, an eighth of the image apart."""
    level, step = dice.between(32, 62), image_size // 8
    knots = [(level + dice.between(-6, 6)) * image_size // 100 for _ in range(9)]
    return tuple((knots[k] * (step - r) + knots[k + 1] * r) // step for k in range(8) for r in range(step))


def _sample_color(dice: Dice, stuff: int, typical: float) -> RGB:
    palette = PALETTES[STUFFS[stuff]]
    return _jitter(dice, palette[0] if dice.chance(100 * typical) else dice.choice(palette), 24)


def _jitter(dice: Dice, rgb: RGB, spread: int) -> RGB:
    red, green, blue = (min(255, max(0, channel + dice.between(-spread, spread))) for channel in rgb)
    return red, green, blue

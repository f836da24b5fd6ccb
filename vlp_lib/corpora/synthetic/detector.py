"""What an imperfect object detector would say about a scene."""

from __future__ import annotations

from dataclasses import dataclass

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.scenes import Scene
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, SHAPES, STUFFS

DETECTOR_CLASSES = SHAPES + STUFFS
"""Things and stuffs, as Bottom-Up names grass and sky too; index = COCO category id − 1."""

MOST_DETECTIONS = 16


@dataclass(frozen=True)
class Detection:
    """One box of the detector.

    Attributes:
        label: index into `DETECTOR_CLASSES`.
        score: in thousandths.
        box: x1, y1, x2, y2 in quarters of a pixel; integers, so that float32 holds them exactly.
        attribute: index into the colours, or −1.
    """

    label: int
    score: int
    box: tuple[int, int, int, int]
    attribute: int


def detect(scene: Scene, dice: Dice, noise: float = 1.0) -> list[Detection]:
    """Boxes, best score first: some things are missed, doubled, misnamed; now and then a box shows nothing.

    `noise` is a factor on how often.
    """
    found: list[Detection] = []
    for thing in scene.things:
        if dice.chance(noise * (8 if thing.large else 15)):
            continue
        for double in range(2 if dice.chance(15 * noise) else 1):
            score = dice.between(550, 990)
            label, attribute = thing.shape, thing.color
            if dice.chance(6 * noise):
                label, score = dice.below(len(SHAPES)), score * 6 // 10
            if dice.chance(6 * noise):
                attribute, score = dice.below(len(COLOR_NAMES)), score * 8 // 10
            if double:
                score = score * 7 // 10
            box = (thing.x, thing.y, thing.x + thing.w, thing.y + thing.h)
            found.append(Detection(label, score, _shaken(dice, scene, box, max(2, thing.size // 3)), attribute))
    s = scene.image_size
    above, below = (0, 0, s, max(scene.horizon)), (0, min(scene.horizon), s, s)
    for stuff, box in ((scene.background, above), (scene.ground, below)):
        if dice.chance(12 * noise):
            continue
        score = dice.between(400, 950)
        if dice.chance(6 * noise):
            stuff, score = dice.below(len(STUFFS)), score * 6 // 10
        found.append(Detection(len(SHAPES) + stuff, score, _shaken(dice, scene, box, s // 8), -1))
    for _ in range(2):
        if not dice.chance(28 * noise):
            continue
        w, h = dice.between(s // 8, s // 3), dice.between(s // 8, s // 3)
        x, y = dice.below(s - w), dice.below(s - h)
        label = dice.below(len(DETECTOR_CLASSES))
        attribute = dice.below(len(COLOR_NAMES)) if label < len(SHAPES) else -1
        found.append(Detection(label, dice.between(50, 350), _shaken(dice, scene, (x, y, x + w, y + h), 1), attribute))
    return sorted(found, key=lambda detection: -detection.score)[:MOST_DETECTIONS]


def _shaken(dice: Dice, scene: Scene, box: tuple[int, int, int, int], quarters: int) -> tuple[int, int, int, int]:
    """Pixels to quarters of a pixel, each edge moved by up to so many quarters, within the image."""
    x1, y1, x2, y2 = (min(4 * scene.image_size, max(0, 4 * v + dice.between(-quarters, quarters))) for v in box)
    return x1, y1, x2, y2

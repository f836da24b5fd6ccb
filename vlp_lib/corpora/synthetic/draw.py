"""From a scene to pixels: the image and its label map.

Integers and comparisons only: sines, powers and sums of floats may differ in their last bit between machines, and one
bit would change the corpus's fingerprint.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.scenes import Scene
from vlp_lib.corpora.synthetic.world import STUFFS, shape_mask, stuff_category, thing_category

VOID = 255
"""COCO-Stuff's value of a pixel without class."""

_BASE = 64  # textures and the sizes of things are designed for images of 64 pixels and scaled from there
_TILE = 4 * _BASE
_NEUTRAL = 256  # a brightness factor of one


@cache
def _shading(shape: int, size: int) -> np.ndarray:
    """[h, w] int32 brightness of the shape's pixels: lit from the upper left, with a dark outline.

    The outline keeps a thing visible that has the colour of what lies behind it.
    """
    mask = shape_mask(shape, size)
    h, w = mask.shape
    shade = _NEUTRAL + 36 - 72 * np.add.outer(np.arange(h), np.arange(w)) // (h + w)
    core = binary_erosion(mask, iterations=max(1, size // 24))
    return np.where(core, shade, 108).astype(np.int32)


class Painter:
    """Draws scenes of one image size; it holds the texture tiles, which are made once.

    Attributes:
        tiles: one [4·image_size, 4·image_size] int32 array a stuff, in the order of `STUFFS`: brightness around 0.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        nearest = np.arange(4 * image_size) * _BASE // image_size
        self.tiles = [np.ascontiguousarray(tile[nearest][:, nearest]) for tile in map(_texture, STUFFS)]
        axis = 2 * np.arange(image_size, dtype=np.int32) + 1 - image_size
        self._x, self._y = axis[None, :], axis[:, None]
        self._rows = np.arange(image_size, dtype=np.int64)[:, None]

    def image(self, scene: Scene, dice: Dice) -> np.ndarray:
        """[S, S, 3] uint8 RGB; the dice give the noise of the pixels."""
        s = self.image_size
        below = self._rows >= np.array(scene.horizon)
        (by, bx), (gy, gx) = scene.windows
        factor = np.where(
            below,
            self.tiles[scene.ground][gy : gy + s, gx : gx + s],
            self.tiles[scene.background][by : by + s, bx : bx + s],
        )
        factor += _NEUTRAL
        # 16 bits hold everything and are twice as fast as 32: at most 255 · 256 is stored before the last shift.
        colors = np.array([scene.background_rgb, scene.ground_rgb], dtype=np.uint16)[below.view(np.uint8)]
        for thing in scene.things:
            box = (slice(thing.y, thing.y + thing.h), slice(thing.x, thing.x + thing.w))
            mask = shape_mask(thing.shape, thing.size)
            np.copyto(factor[box], _shading(thing.shape, thing.size), where=mask)
            np.copyto(colors[box], np.array(thing.rgb, dtype=np.uint16), where=mask[..., None])
        gain, right, down = scene.light
        factor *= gain + (right * self._x + down * self._y) // s
        factor >>= 9  # from 256 · 256 to 128: factors stay below two
        colors *= factor.astype(np.uint16)[..., None]
        colors >>= 7
        # The two halves of a byte add up to triangular noise: −15 … 15, deviation 6.5, most often near 0.
        noise = np.frombuffer(dice.bytes(3 * s * s), dtype=np.uint8).reshape(s, s, 3)
        colors += (noise >> 4) + (noise & 15)
        return (np.clip(colors, 15, 270) - 15).astype(np.uint8)

    def label_map(self, scene: Scene) -> np.ndarray:
        """[S, S] uint8, COCO-Stuff's values: category id − 1, 255 = void at the horizon and around one thing."""
        horizon = np.array(scene.horizon)
        ground, background = stuff_category(scene.ground) - 1, stuff_category(scene.background) - 1
        labels = np.where(self._rows >= horizon, ground, background).astype(np.uint8)
        labels[horizon, np.arange(self.image_size)] = VOID
        for i, thing in enumerate(scene.things):
            mask = shape_mask(thing.shape, thing.size)
            if i == scene.void_thing:
                rim = labels[thing.y - 1 : thing.y + thing.h + 1, thing.x - 1 : thing.x + thing.w + 1]
                rim[binary_dilation(np.pad(mask, 1))] = VOID
            labels[thing.y : thing.y + thing.h, thing.x : thing.x + thing.w][mask] = thing_category(thing.shape) - 1
        return labels


def _texture(stuff: str) -> np.ndarray:
    """[256, 256] int32 brightness pattern that wraps around, mean 0: what tells a stuff from the others."""
    # The tiles belong to the world, not to a corpus: their randomness has a key of its own.
    rng = np.random.RandomState([20230117, STUFFS.index(stuff)])
    y, x = np.mgrid[0:_TILE, 0:_TILE].astype(np.int32)
    match stuff:
        case "grass":  # upright blades
            return _level(_smear(_noise(rng), rows=6, columns=1), 44)
        case "sand":  # grains: many dark and light specks
            specks = _noise(rng)
            return _level(40 * (specks > 222).astype(np.int32) - 60 * (specks < 34) + _soft(rng, 8) // 12, 20)
        case "water":  # long, bending, horizontal waves
            return _level(_wave(2 * y + _soft(rng, 10) // 14, 12) * 12 + _smear(_noise(rng), 1, 9) // 60, 36)
        case "snow":  # smooth drifts with a few sparks
            return _level(_soft(rng, 7) // 5 + 150 * (_noise(rng) > 251), 9)
        case "stone":  # rounded cells with dark joints
            return _level(_cells(rng, 8), 38)
        case "wood":  # planks: dark seams between boards of different brightness, grain along them
            boards = _noise(rng)[y // 8, (x + 24 * (y // 8 % 3)) // 64] // 4
            seams = (y % 8 == 0) | ((x + 24 * (y // 8 % 3)) % 64 == 0)
            return _level(boards + _smear(_noise(rng), 1, 14) // 14 - 130 * seams, 26)
        case "sky":  # soft clouds
            return _level(_soft(rng, 11), 26)
        case "brick":  # light joints
            course, shift = y // 5, 5 * (y // 5 % 2)
            joints = (y % 5 == 0) | ((x + shift) % 10 == 0)
            # 250 columns hold whole bricks; the last ones begin anew, which no window of the image sees as a fault.
            return _level(_noise(rng)[course, (x + shift) // 10] // 4 * ~joints + 130 * joints, 38)
        case "hedge":  # leaves: round blots, some in deep shade
            leaves = _smear(_noise(rng), 3, 3)
            return _level(np.where(leaves > 1180, 3, np.where(leaves > 1040, 0, -3)).astype(np.int32) * 40, 48)
        case _:  # curtain: upright folds
            return _level(_wave(2 * x + _soft(rng, 10) // 24, 16) * 10, 40)


def _noise(rng: np.random.RandomState) -> np.ndarray:
    return rng.randint(0, 256, size=(_TILE, _TILE), dtype=np.int64).astype(np.int32)


def _smear(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Sums over windows that wrap around."""
    values = np.stack([np.roll(values, i, axis=0) for i in range(rows)]).sum(0, dtype=np.int32)
    return np.stack([np.roll(values, i, axis=1) for i in range(columns)]).sum(0, dtype=np.int32)


def _soft(rng: np.random.RandomState, radius: int) -> np.ndarray:
    """Cloudy noise: smeared twice, then spread to a mean magnitude of 64."""
    return _level(_smear(_smear(_noise(rng), radius, radius) // radius, radius, radius), 64, most=255)


def _wave(phase: np.ndarray, period: int) -> np.ndarray:
    """A triangle wave between 0 and period / 2."""
    return abs(phase % period - period // 2)


def _cells(rng: np.random.RandomState, pitch: int) -> np.ndarray:
    """Cells around jittered grid points: brightness of its own for each, dark where the two nearest are as near."""
    n = _TILE // pitch
    py = rng.randint(0, pitch, size=(n, n), dtype=np.int64)
    px = rng.randint(0, pitch, size=(n, n), dtype=np.int64)
    tone = rng.randint(0, 60, size=(n, n), dtype=np.int64)
    y, x = np.mgrid[0:_TILE, 0:_TILE]
    distances, tones = [], []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            i, j = y // pitch + dy, x // pitch + dx
            distances.append((i * pitch + py[i % n, j % n] - y) ** 2 + (j * pitch + px[i % n, j % n] - x) ** 2)
            tones.append(tone[i % n, j % n])
    nearest = np.sort(distances, axis=0)
    own = np.take_along_axis(np.array(tones), np.argmin(distances, axis=0)[None], axis=0)[0]
    return np.where(nearest[1] - nearest[0] < 9, -70, own).astype(np.int32)


def _level(values: np.ndarray, spread: int, most: int = 120) -> np.ndarray:
    """Mean 0 and mean magnitude `spread`, cut at `most`; sums of integers are exact in any order."""
    values = values.astype(np.int64)
    values -= int(values.sum()) // values.size
    magnitude = max(1, int(abs(values).sum()) // values.size)
    return np.clip(values * spread // magnitude, -most, most).astype(np.int32)

"""The outlines of the things, in integers."""

from __future__ import annotations

from functools import cache

import numpy as np

from vlp_lib.corpora.synthetic.world import SHAPES

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
            mask = (abs(u) < s) & (abs(v) < s)
        case "cone":
            mask = 2 * abs(u) <= v + s + 1
        case "cross":
            mask = (5 * abs(u) <= 2 * s) | (5 * abs(v) <= 2 * s)
        case "gem":
            mask = abs(u) + abs(v) <= s
        case "ring":
            mask = (square <= s * s) & (100 * square >= 16 * s * s)
        case "star":
            mask = _inside(_STAR, 1000 * u, 1000 * v, s)
        case _:  # moon: a disc less another one to its right
            mask = (square <= s * s) & (100 * ((2 * u - s) ** 2 + 4 * v * v) >= 4 * 64 * s * s)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _inside(corners: tuple[tuple[int, int], ...], x: np.ndarray, y: np.ndarray, scale: int) -> np.ndarray:
    """Even–odd rule: a point is inside where a ray to the right crosses an odd number of edges."""
    inside = np.zeros(np.broadcast(x, y).shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ax, ay, bx, by = ax * scale, ay * scale, bx * scale, by * scale
        crosses = (ay > y) != (by > y)
        side = (x - ax) * (by - ay) - (bx - ax) * (y - ay)
        inside ^= crosses & ((side < 0) == (by > ay))
    return inside

"""Views of prepared images, drawn for a whole batch on the device that trains.

The same pixels as `augment.show_image` gives one by one on a CPU: a view of an image is linear along each side, so two
products with small matrices of the triangle filter's weights resize, crop, flip and place a batch. That is some 0.9
GFLOP an image at 384 px, work for a GPU, and leaves to the loader's processes one copy of the bytes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from vlp_lib.batches.augment import FILL
from vlp_lib.batches.sample import Batch
from vlp_lib.corpora.records import IGNORED

_AT_ONCE = 64
"""Images whose float copies exist at the same time."""


class _Side(NamedTuple):
    """One side of the views: the output pixels' places in the stored image.

    Attributes:
        centre: [B, S] float64, the centre of each output pixel in stored pixels.
        step: [B, 1] float64, stored pixels an output pixel.
        inside: [B, S] bool, False where the canvas lies outside of the image.
        length: [B, 1] float64, stored pixels.
    """

    centre: torch.Tensor
    step: torch.Tensor
    inside: torch.Tensor
    length: torch.Tensor


def _side(scale: torch.Tensor, shift: torch.Tensor, length: torch.Tensor, size: int) -> _Side:
    """The side of views whose image is `scale` canvases long and begins at `shift` (all [B, 1] float64)."""
    canvas = torch.arange(size, device=scale.device, dtype=torch.float64)
    crops = scale >= 1
    shown = torch.where(crops, size, (size * scale).round().clamp(min=1))  # output pixels of the box
    begin = torch.where(crops, 0.0, (shift * size).round())  # where they begin on the canvas
    step = torch.where(crops, length / scale, length) / shown
    place = canvas - begin
    centre = torch.where(crops, -shift / scale * length, 0.0) + (place + 0.5) * step
    return _Side(centre, step, (place >= 0) & (place < shown), length)


def _weights(side: _Side, width: int) -> torch.Tensor:
    """[B, S, width]: the share of each stored pixel in each output pixel, Pillow's bilinear filter; 0 outside."""
    stored = torch.arange(width, device=side.centre.device, dtype=torch.float64)
    reach = side.step.clamp(min=1)[..., None]
    weights = (1 - (stored + 0.5 - side.centre[..., None]).abs() / reach).clamp(min=0)
    weights = weights * (stored < side.length[..., None])
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-9) * side.inside[..., None]


def _images(stored: torch.Tensor, x: _Side, y: _Side, dtype: torch.dtype) -> torch.Tensor:
    """[B, 3, S, S] float32 in whole levels 0 … 255; rounded after each side, halves upwards, as Pillow does."""
    count, height, width, _ = stored.shape
    planes = stored.permute(0, 3, 1, 2).to(dtype).reshape(count, 3 * height, width)
    across = torch.bmm(planes, _weights(x, width).to(dtype).transpose(1, 2)).add(0.5).floor()
    down = _weights(y, height).to(dtype)[:, None] @ across.reshape(count, 3, height, -1)
    covered = (y.inside[:, :, None] & x.inside[:, None])[:, None]
    fill = torch.tensor(FILL, device=stored.device, dtype=torch.float32)[:, None, None]
    return torch.where(covered, down.float().add(0.5).floor().clamp(0, 255), fill)


def _label_maps(stored: torch.Tensor, x: _Side, y: _Side) -> torch.Tensor:
    """[B, S, S] int64, the nearest stored pixel; 255 outside."""
    rows = y.centre.floor().long().clamp(0, stored.shape[1] - 1)
    columns = x.centre.floor().long().clamp(0, stored.shape[2] - 1)
    image = torch.arange(len(stored), device=stored.device)[:, None, None]
    labels = stored[image, rows[:, :, None], columns[:, None]].long()
    return torch.where(y.inside[:, :, None] & x.inside[:, None], labels, IGNORED)


def show(batch: Batch, size: int) -> Batch:
    """The batch with the views drawn that its loader left to the device; a batch without such views as it is.

    Args:
        batch: with `views`, its images are [B, H, W, 3] uint8 and its label maps [B, H, W] uint8.
        size: side of the canvas in pixels.

    Returns:
        A batch whose images are [B, 3, size, size] float32 in [0, 1] and label maps [B, size, size] int64, equal to
        those of `show_image` and `show_label_map` up to one level of 255 in a pixel (two where it rounds twice).
    """
    if batch.views is None:
        return batch
    # Whole levels and the fp16 weights' rounding (2⁻¹¹) stay within a level; on a CPU, half precision gains nothing.
    dtype = torch.float16 if batch.images.device.type == "cuda" else torch.float32
    images, maps = [], []
    with torch.autocast(batch.images.device.type, enabled=False):
        for first in range(0, len(batch), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            scale, left, top, flip, height, width = batch.views[rows].unsqueeze(-1).unbind(1)
            x, y = _side(scale, left, width, size), _side(scale, top, height, size)
            # A mirrored canvas reads its columns backwards.
            mirrored = flip.bool()
            x = x._replace(
                centre=torch.where(mirrored, x.centre.flip(1), x.centre),
                inside=torch.where(mirrored, x.inside.flip(1), x.inside),
            )
            images.append(_images(batch.images[rows], x, y, dtype) / 255)
            if batch.label_maps is not None:
                maps.append(_label_maps(batch.label_maps[rows], x, y))
    return replace(batch, images=torch.cat(images), label_maps=torch.cat(maps) if maps else None, views=None)

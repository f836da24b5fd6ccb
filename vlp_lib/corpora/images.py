"""Decoding of image files and of pixel maps, with errors that name the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from vlp_lib.errors import UnreadableImageError, UserError

# What Pillow raises on broken files, by format; none of them names the file.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@contextmanager
def _opened(path: Path, file: BinaryIO | None = None) -> Iterator[Image.Image]:
    """The image of a file, its header read; whatever Pillow raises inside the block becomes a UserError.

    An open file is read where one is given; the path then only names it.
    """
    try:
        with Image.open(path if file is None else file) as image:
            yield image
    except FileNotFoundError:
        raise UnreadableImageError(f"{path} is missing: fetch it again") from None
    except PermissionError:
        raise UserError(f"{path} may not be read: give yourself read permission") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise UnreadableImageError(
            f"{path} is truncated or not an image ({reason}): fetch it again or delete it"
        ) from error


def image_size(path: Path, file: BinaryIO | None = None) -> tuple[int, int]:
    """Width and height in pixels as stored, read from the header alone.

    Args and errors as `read_image`.
    """
    with _opened(path, file) as image:
        return image.size


def read_image(path: Path, file: BinaryIO | None = None) -> Image.Image:
    """An image file as 8-bit RGB, decoded at once so that a truncated file fails here.

    Grey, palette, CMYK, alpha and 16-bit images are converted. EXIF orientation is not applied: COCO's boxes, masks
    and sizes were drawn on the pixels as stored.

    Args:
        path: the file; where `file` is given, what errors call it.
        file: an open file to read instead, such as one within an archive.

    Raises UserError where the file is missing, truncated or no image.
    """
    with _opened(path, file) as image:
        if image.mode.startswith("I"):
            # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
            grey = np.asarray(image).astype(np.int64) >> 8
            return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
        return image.convert("RGB")


def read_label_values(path: Path) -> np.ndarray:
    """The raw values of an 8-bit grey or palette PNG as [H, W] uint8; of a palette the indices, not the colours.

    Raises UserError where the file is missing, broken, or an image with colours instead of values.
    """
    with _opened(path) as image:
        mode = image.mode
        values = np.array(image)
    if mode not in ("L", "P"):
        raise UserError(f"{path} is no pixel map (its mode is {mode}): it must be an 8-bit grey or palette PNG")
    return values

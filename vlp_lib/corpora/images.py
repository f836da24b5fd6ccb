"""Decoding of image files and of pixel maps, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from vlp_lib.errors import UnreadableImageError, UserError, reason

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What is read, whatever a file's name says. Pillow would hand others, such as EPS, to programs of the machine."""

MOST_SIDE, MOST_PIXELS = 65_535, 2**28 // 3
"""Of an image: JPEG's own limit, and Pillow's, a quarter of a GiB of colours."""

_LEAST_BRIGHT = 16
"""The brightest of 256 levels that a 16-bit image must reach: below, its values are not of 16 bits and look black."""


@contextmanager
def opened(path: Path, file: BinaryIO | None = None) -> Iterator[Image.Image]:
    """The image of a file, its header read; whatever Pillow raises inside the block becomes a UserError.

    An open file is read where one is given; the path then only names it.
    """
    try:
        if file is None and path.exists() and not path.is_file():
            raise ValueError("it is no file")
        with Image.open(path if file is None else file, formats=FORMATS) as image:
            if max(image.size) > MOST_SIDE or image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width:,} × {image.height:,} pixels are more than {MOST_PIXELS:,}")
            yield image
    except FileNotFoundError:
        raise UnreadableImageError(f"{path} is missing: fetch it again") from None
    except PermissionError:
        raise UserError(f"{path} may not be read: give yourself read permission") from None
    except UserError:
        raise
    except Exception as error:  # Pillow has one for each kind of broken bytes, and none of them names the file
        raise UnreadableImageError(
            f"{path} is truncated or not an image ({reason(error)}): fetch it again or delete it"
        ) from error


def image_size(path: Path, file: BinaryIO | None = None) -> tuple[int, int]:
    """Width and height in pixels as stored, read from the header alone.

    Args and errors as `read_image`.
    """
    with opened(path, file) as image:
        return image.size


def read_image(path: Path, file: BinaryIO | None = None) -> Image.Image:
    """An image file as `as_rgb` gives it, decoded at once so that a truncated file fails here.

    EXIF orientation is not applied: COCO's boxes, masks and sizes were drawn on the pixels as stored.

    Args:
        path: the file; where `file` is given, what errors call it.
        file: an open file to read instead, such as one within an archive.

    Raises UserError where the file is missing, truncated or no image, or `as_rgb` refuses it.
    """
    with opened(path, file) as image:
        # A PNG of 16-bit colours has lost half of the bits when it says its mode.
        deep = image.format == "PNG" and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        rgb = as_rgb(image)
        if deep and np.asarray(rgb).max() < _LEAST_BRIGHT:
            raise ValueError("its 16 bits hold small values and would look black; save it with 8 bits")
        return rgb


def as_rgb(image: Image.Image) -> Image.Image:
    """An image as 8-bit RGB: grey, palette and CMYK converted, 16 bits scaled, transparent pixels on white."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        shown = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(shown, mask=shown)
        return ground
    return image.convert("RGB")


def read_label_values(path: Path) -> np.ndarray:
    """The raw values of an 8-bit grey or palette PNG as [H, W] uint8; of a palette the indices, not the colours.

    Raises UserError where the file is missing, broken, or an image with colours instead of values.
    """
    with opened(path) as image:
        mode = image.mode
        values = np.array(image)
    if mode not in ("L", "P"):
        raise UserError(f"{path} is no pixel map (its mode is {mode}): it must be an 8-bit grey or palette PNG")
    return values

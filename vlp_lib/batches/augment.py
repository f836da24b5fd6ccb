"""Pretraining's image augmentation (section IV-A3): random resize and crop, and the description-aware flip."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vlp_lib.corpora.records import IGNORED, Detections

FILL = (124, 116, 104)
"""ImageNet's mean colour, 8 bit: what lies outside the image after it was made smaller."""

_FORBIDS_FLIP = re.compile(
    r"""
    \b (
        # directions and hands
        (left|right) (most|hand|handed|hander|y|ies|wards?)? | southpaw | (anti|counter)?clockwise
        | (north|south)? (east|west) (ern|ernmost|erly|wards?|bound)? | (north|south)bound
        # what is written, and what it is written on
        | says? | said | sayings? | reads? | reading | (spell|spelt) (s|ed|ing)? | writes? | writings? | written | wrote
        | handwritten | handwriting | inscribed | inscriptions? | engraved | words? | wording | text | alphabet
        | letter (s|ed|ing)? | initials | monogram (s|med)? | label (s|ed|led|ing|ling)? | captions? | captioned
        | titles? | titled | names? | named | nametags? | messages? | slogans? | quotes? | logos? | graffiti
        | numbers? | numbered | numerals? | digits? | clocks? | signs? | signage | sign(post|board)s? | jerseys?
        | (banner|billboard|placard|plaque|poster|scoreboard|advertisement) s? | advertising
        | (licen[cs]e|registration) \s plates?
    ) \b
    | \d:\d\d                          # the time that a clock shows
    | ["“”„«»] | ``                    # "quoted text"
    | (?<!\w) ['‘] [^'‘’]+ ['’] (?!\w) # 'quoted text', not the boys' or the girl's
    """,
    re.VERBOSE,
)
"""What a mirrored image can make false (the paper's "empirical dictionary"): directions, hands, and what is written."""


def may_flip(caption: str) -> bool:
    """Whether a caption stays true of the mirrored image: it tells of no direction, no hand and nothing written."""
    return _FORBIDS_FLIP.search(caption.lower()) is None


@dataclass(frozen=True)
class View:
    """How an image is shown: scaled, shifted and perhaps mirrored, on a square canvas.

    Attributes:
        scale: side of the (squared) image over side of the canvas.
        left, top: of the image's corner on the canvas, in canvas sides; negative where the canvas is a crop.
        flip: mirrored left to right, after the crop.
    """

    scale: float = 1.0
    left: float = 0.0
    top: float = 0.0
    flip: bool = False


def draw_view(rng: np.random.Generator, resize: tuple[float, float], flip: float) -> View:
    """A random view: the image resized by a factor from `resize`, a crop of it (or the canvas around it), a flip."""
    scale = float(rng.uniform(*resize))
    left, top = (float(v) for v in rng.random(2) * (1 - scale))
    return View(scale, left, top, bool(rng.random() < flip))


def show_image(image: Image.Image, view: View, size: int) -> np.ndarray:
    """The view of an RGB image as [size, size, 3] uint8 (bilinear, antialiased; the aspect ratio is not kept)."""
    return np.asarray(_show(image, view, size, Image.Resampling.BILINEAR, FILL))


def show_label_map(labels: np.ndarray, view: View, size: int) -> np.ndarray:
    """The view of a label map [h, w] as [size, size] uint8: nearest pixel, 255 outside the image."""
    return np.asarray(_show(Image.fromarray(labels), view, size, Image.Resampling.NEAREST, IGNORED))


def _show(
    image: Image.Image, view: View, size: int, filter_: Image.Resampling, fill: tuple[int, int, int] | int
) -> Image.Image:
    width, height = image.size
    if view.scale >= 1:
        box = (
            -view.left / view.scale * width,
            -view.top / view.scale * height,
            (1 - view.left) / view.scale * width,
            (1 - view.top) / view.scale * height,
        )
        shown = image.resize((size, size), filter_, box=box)
    else:
        side = max(1, round(size * view.scale))
        shown = Image.new(image.mode, (size, size), fill)
        shown.paste(image.resize((side, side), filter_), (round(view.left * size), round(view.top * size)))
    return shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else shown


def show_detections(detections: Detections, view: View) -> Detections:
    """Detections with their boxes moved into the view; those that fall outside of it altogether are left out."""
    boxes = detections.boxes * view.scale + np.array([view.left, view.top, view.left, view.top], dtype=np.float32)
    boxes = boxes.clip(0, 1)
    if view.flip:
        boxes = np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    seen = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return replace(detections, boxes=boxes.astype(np.float32)).chosen(seen)

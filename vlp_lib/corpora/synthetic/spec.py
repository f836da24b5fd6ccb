"""What the embedded corpus is to be."""

from __future__ import annotations

from dataclasses import dataclass

from vlp_lib.config import CorpusConfig
from vlp_lib.errors import UserError

MOST_IMAGES = 1_000_000
"""Of a split: the image ids of the next one begin there."""

MOST_SENTENCES = 100
"""Of an image: the sentence ids of the next one begin there."""


@dataclass(frozen=True)
class CorpusSpec(CorpusConfig):
    """A corpus to draw; two equal specs give the same bytes. Raises UserError for a value that cannot be drawn.

    Attributes:
        image_size: edge of the square images in pixels, a multiple of 8, at least 32.
        questions_per_image: VQA questions for each captioned image.
    """

    image_size: int = 64
    questions_per_image: int = 3

    def __post_init__(self) -> None:
        _whole("seed", self.seed, 0, 2**32 - 1)
        _whole("image_size", self.image_size, 32, 1024)
        if self.image_size % 8:
            raise UserError(f"image_size is {self.image_size}; give a multiple of 8.")
        for name in ("train_images", "val_images", "test_images"):
            _whole(name, getattr(self, name), 1, MOST_IMAGES)
        for name, least, most in (("nlvr_pairs", 0, MOST_IMAGES), ("vcr_images", 0, MOST_IMAGES)):
            self._tuple(name, 3, "three numbers, one for each split", least, most)
        # Beyond these limits the things do not find room beside each other.
        for name, least, most in (("things", 1, 4), ("large", 8, 32), ("small", 8, 20)):
            self._tuple(name, 2, "the fewest and the most", least, most)
            low, high = getattr(self, name)
            if low > high:
                raise UserError(f"{name} is {(low, high)}; give the fewest first.")
        self._tuple("sentences", 2, "captions with and without a label map", 1, MOST_SENTENCES)
        for name, high in (("named", 1), ("typical", 1), ("maps", 1), ("skew", 4), ("detector_noise", 6)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
                raise UserError(f"{name} is {value!r}; give a number from 0 to {high}.")
        _whole("questions_per_image", self.questions_per_image, 1, 10)

    def _tuple(self, name: str, length: int, what: str, least: int, most: int) -> None:
        values = getattr(self, name)
        if not isinstance(values, tuple | list) or len(values) != length:
            raise UserError(f"{name} is {values!r}; give {what}.")
        object.__setattr__(self, name, tuple(values))  # lists, as JSON has them, compare unequal to tuples
        for value in values:
            _whole(name, value, least, most)


def _whole(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(f"{name} is {value!r}; give a whole number from {least} to {most}.")

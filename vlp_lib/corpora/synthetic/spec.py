"""What the embedded corpus is to be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from vlp_lib.config import CorpusConfig
from vlp_lib.errors import UserError
from vlp_lib.ranges import Range

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

    image_size: Annotated[int, Range(32, 1_024)] = 64
    questions_per_image: Annotated[int, Range(1, 10)] = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), list):  # as JSON has them, unequal to tuples
                object.__setattr__(self, field.name, tuple(value))
        super().__post_init__()
        if self.image_size % 8:
            raise UserError(f"image_size is {self.image_size}; give a multiple of 8.")

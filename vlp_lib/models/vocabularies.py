"""The sizes of a model that its data decide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabularies:
    """The sizes that the data decide, not the configuration.

    Attributes:
        words: WordPiece tokens.
        segmentation: classes of the label maps (COCO-Stuff: 171).
        detector: classes of the detector (Bottom-Up: 1600).
        attributes: attributes of the detector (Bottom-Up: 400).
    """

    words: int
    segmentation: int
    detector: int
    attributes: int

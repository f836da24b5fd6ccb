"""What the readers of a corpus say of one image; nothing is decoded yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

IGNORED = 255
"""Value of a label-map pixel that has no class (COCO-Stuff's own void value)."""


@dataclass(frozen=True)
class Detections:
    """The output of an object detector on one image, best score first.

    Attributes:
        labels: [T] int64, class index into the detector's vocabulary.
        scores: [T] float32 in [0, 1].
        boxes: [T, 4] float32, (x1, y1, x2, y2) as fractions of the image's width and height.
        attributes: [T] int64, attribute index, or −1 where the detector gives none.
        features: [T, D] float32 region features, or None where only labels are known.
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    attributes: np.ndarray
    features: np.ndarray | None = None

    def chosen(self, rows: slice | np.ndarray) -> Detections:
        """Some of them: a slice, or [T] bool, or the places in their new order."""
        features = None if self.features is None else self.features[rows]
        return Detections(self.labels[rows], self.scores[rows], self.boxes[rows], self.attributes[rows], features)


NO_DETECTIONS = Detections(
    np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
)
"""Of an image on which the detector found nothing."""


@dataclass(frozen=True)
class ImageRecord:
    """One image as its annotation files describe it; nothing is decoded yet.

    Attributes:
        image_id: the data set's own id.
        path: the image file; of an annotation file as that names it, within the data set's folder.
        split: "train", "val" or "test" (Karpathy's "restval" is train); "" of an annotation file that divides nothing.
        width, height: in pixels, as the annotations declare them (0 where they do not, Karpathy's); the stored file may
            be a smaller copy.
        captions: the sentences, outer and repeated white space removed, in the order of the file.
        caption_ids: the data set's own id of each caption.
        coco_id, flickr_id: the same photograph's id in COCO and on flickr.com, where known: photographs are shared
            between data sets.
    """

    image_id: int
    path: Path
    split: str
    width: int
    height: int
    captions: tuple[str, ...]
    caption_ids: tuple[int, ...]
    coco_id: int | None = None
    flickr_id: int | None = None

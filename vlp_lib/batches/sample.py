"""What flows from the readers to the model: decoded samples, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Self

import torch

from vlp_lib.corpora.records import Detections

NO_MATCHED_TOKEN = -100
"""MLM target of a position that is not predicted (torch's and transformers' own convention)."""


@dataclass(frozen=True)
class Text:
    """A sentence in the words of the tokenizer; L tokens.

    Attributes:
        input_ids: [L] int64, MLM's replacements made.
        clean_ids: [L] int64, without them.
        mlm_labels: [L] int64, the original id where MLM predicts, −100 elsewhere.
        matched: whether the sentence is the image's own.
    """

    input_ids: torch.Tensor
    clean_ids: torch.Tensor
    mlm_labels: torch.Tensor
    matched: bool


@dataclass(frozen=True)
class Sample:
    """One image and the sentences it is joined with, decoded and augmented, not yet in a batch.

    The image is [3, H, W] and the label map [H, W], both uint8. `unreadable` names the image files that could not be
    read and that this sample stands in for.
    """

    image: torch.Tensor
    texts: tuple[Text, ...]
    label_map: torch.Tensor | None
    detections: Detections | None
    seed: int
    image_id: int
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """What a vision stream reads. B images, T detections at most.

    Attributes:
        images: [B, 3, H, W] float32 RGB in [0, 1], not normalised: each backbone knows its own mean and deviation.
        labels: [B, T] int64 detector class, −1 padding; None where the corpus has no detections.
        attributes: [B, T] int64 detector attribute, −1 none or padding.
        scores: [B, T] float32 in [0, 1].
        boxes: [B, T, 4] float32 (x1, y1, x2, y2) as fractions of the image.
        features: [B, T, D] float32 region features, where the detector gives them.
    """

    images: torch.Tensor
    _: KW_ONLY
    labels: torch.Tensor | None = None
    attributes: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    boxes: torch.Tensor | None = None
    features: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Self:
        """A copy on another device; a batch's seeds and ids stay on the CPU, where they are read."""
        stay = ("seeds", "image_ids")
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor) and name not in stay
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch(Pictures):
    """Pictures with their sentences: what the model reads and the losses compare with. P pairs, L tokens.

    Each text is joined with one image, an image with one or several texts: pair i is text i and image
    `image_of_text[i]`.

    Attributes:
        input_ids: [P, L] int64 WordPiece ids with [CLS] … [SEP], MLM's replacements made, padded with 0.
        clean_ids: [P, L] int64, the same sentences without replacements.
        attention_mask: [P, L] bool, True at tokens, False at padding.
        mlm_labels: [P, L] int64, the original id where MLM predicts, −100 elsewhere.
        matched: [P] int64, 1 where the sentence belongs to the image, 0 where it is another's.
        seeds: [B] int64 on the CPU; every random choice about a sample downstream is drawn from its seed, so that
            neither workers nor processes nor restarts change it.
        image_ids: [B] int64 on the CPU.
        image_of_text: [P] int64, the image's row; None where each image has one text (P = B, pair i is row i).
        sentences: [S] int64, rows of texts among which each different sentence stands: what the language stream reads,
            so that a sentence of two pairs is read once; None where all are read.
        sentence_of_text: [P] int64, the place of each text among `sentences`.
        label_maps: [B, H, W] int64 class index of each pixel, 255 without class; None where no sample has a map.
        extras: what a visual loss's `corrupt` keeps for its own `forward`, by name.
        shares: for a part of a batch, by loss, what it has of the terms that the loss is a mean over, as a multiple of
            an equal part's (scalars on the model's device); None where this is the whole batch.
        unreadable: image files that could not be read and that other samples stand in for.
    """

    input_ids: torch.Tensor
    clean_ids: torch.Tensor
    attention_mask: torch.Tensor
    mlm_labels: torch.Tensor
    matched: torch.Tensor
    seeds: torch.Tensor
    image_ids: torch.Tensor
    image_of_text: torch.Tensor | None = None
    sentences: torch.Tensor | None = None
    sentence_of_text: torch.Tensor | None = None
    label_maps: torch.Tensor | None = None
    extras: Mapping[str, torch.Tensor] = field(default_factory=dict)
    shares: Mapping[str, torch.Tensor] | None = None
    unreadable: tuple[str, ...] = ()

    def weighted(self, name: str, loss: torch.Tensor) -> torch.Tensor:
        """A loss of this part so weighted that the mean over all equal parts is the loss of the whole batch."""
        return loss if self.shares is None else loss * self.shares[name]

    def without_masks(self) -> Batch:
        """The same pairs with their whole sentences."""
        return replace(self, input_ids=self.clean_ids)

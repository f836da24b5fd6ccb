"""UNITER's exclusion rule: which images may be pretrained on, so that no downstream val or test image is.

The rule is that of github.com/lichengunc/pretrain-vl-data (section IV-A2 follows it): COCO images of Karpathy's test
split, of RefCOCO's (+, g) val and test, and all that are Flickr30k photographs (by the number in their Flickr address)
stay out; Karpathy's val images validate the pretraining; of Visual Genome go the images whose `coco_id` stays out or
whose `flickr_id` is Flickr30k's; web pairs that are such photographs by their Flickr address go, those of Karpathy's
val included.

UNITER did not pretrain on Flickr30k, the paper does. So the rule is closed here the other way too: an image of any data
set stays out where its Flickr number is that of a held-out COCO image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vlp_lib.corpora.table import SPLITS, RecordTable

DROPPED = -1
"""Split of an image that takes no part."""

COCO, FLICKR30K, VISUAL_GENOME = "coco", "flickr30k", "vg"

_TRAIN, _VAL, _TEST = (SPLITS.index(name) for name in ("train", "val", "test"))


@dataclass(frozen=True)
class HeldOut:
    """The images of downstream evaluation.

    Attributes:
        coco: COCO ids that no pretraining may see, by where they come from ("Karpathy test", "RefCOCO val", …).
        coco_validation: COCO ids that validate the pretraining (Karpathy's val).
        flickr30k: Flickr numbers of all of Flickr30k, and the split of each ("" where it is in none).
        flickr_of_coco: Flickr number of COCO ids, where known.
    """

    coco: Mapping[str, frozenset[int]] = field(default_factory=dict)
    coco_validation: frozenset[int] = frozenset()
    flickr30k: Mapping[int, str] = field(default_factory=dict)
    flickr_of_coco: Mapping[int, int] = field(default_factory=dict)

    def flickr_of(self, coco_ids: frozenset[int]) -> frozenset[int]:
        """The Flickr numbers of COCO ids."""
        return frozenset(self.flickr_of_coco[i] for i in coco_ids if i in self.flickr_of_coco)


def assign(source: str, records: RecordTable, held_out: HeldOut) -> tuple[np.ndarray, dict[str, int]]:
    """The part that each image of a data set takes in pretraining.

    Args:
        source: the data set's name; Flickr30k's own images are not kept out for being Flickr30k's.
        records: with the data set's own splits; images of its own test split stay there, for evaluation.
        held_out: what no pretraining may see.

    Returns:
        [N] int8 place in `SPLITS`, or `DROPPED`; and how many were dropped, by reason (the first that holds).
    """
    splits = records.splits.copy()
    dropped: dict[str, int] = {}

    def drop(hit: np.ndarray, reason: str) -> None:
        hit = hit & (splits != _TEST) & (splits != DROPPED)
        if hit.any():
            dropped[reason] = int(hit.sum())
            splits[hit] = DROPPED

    def by_flickr(ids: frozenset[int]) -> np.ndarray:
        return np.isin(records.flickr_ids, list(held_out.flickr_of(ids)))

    for name, banned in held_out.coco.items():
        drop(np.isin(records.coco_ids, list(banned)), name)
    if source != FLICKR30K:
        drop(np.isin(records.flickr_ids, list(held_out.flickr30k)), "Flickr30k")
    splits[(splits == _TRAIN) & np.isin(records.coco_ids, list(held_out.coco_validation))] = _VAL
    for name, banned in held_out.coco.items():
        drop(by_flickr(banned), f"{name} by Flickr number")
    drop((splits == _TRAIN) & by_flickr(held_out.coco_validation), "Karpathy val by Flickr number")
    return splits, dropped

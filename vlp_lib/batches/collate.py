"""Samples to a batch: padding, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch, Sample
from vlp_lib.corpora.records import IGNORED, Detections

_LENGTH_STEP = 8
"""Sentences are padded to a multiple of this many tokens: few different shapes, for which kernels are kept."""


def pad(rows: list[torch.Tensor], value: int | float, width: int) -> torch.Tensor:
    """Rows [n, …] of different n as one tensor [B, width, …]."""
    padded = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def detection_fields(found: list[Detections]) -> dict[str, Any]:
    """Label, attribute, score and box tensors, padded to the largest set (at least 1)."""
    width = max(1, *(len(d.labels) for d in found))
    fields = {
        "labels": pad([torch.from_numpy(d.labels).long() for d in found], -1, width),
        "attributes": pad([torch.from_numpy(d.attributes).long() for d in found], -1, width),
        "scores": pad([torch.from_numpy(d.scores).float() for d in found], 0.0, width),
        "boxes": pad([torch.from_numpy(d.boxes).float() for d in found], 0.0, width),
    }
    features = [d.features for d in found if d.features is not None]
    if features:
        nothing = np.zeros((0, features[0].shape[1]), np.float32)
        rows = [torch.from_numpy(nothing if d.features is None else d.features).float() for d in found]
        fields["features"] = pad(rows, 0.0, width)
    return fields


def padded_length(longest: int, lengths: Sequence[int]) -> int:
    """Tokens that sentences are padded to: the first of the (ascending) lengths that holds them, or without any the
    next multiple of 8.
    """
    if not lengths:
        return -(-longest // _LENGTH_STEP) * _LENGTH_STEP
    return next(length for length in lengths if length >= longest)


def _canvas(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    """Stored images [h, w, …] of different sizes in the upper left corners of one tensor [B, H, W, …]."""
    height, width = max(row.shape[0] for row in rows), max(row.shape[1] for row in rows)
    canvas = rows[0].new_full((len(rows), height, width, *rows[0].shape[2:]), value)
    for i, row in enumerate(rows):
        canvas[i, : row.shape[0], : row.shape[1]] = row
    return canvas


def collate(samples: list[Sample], lengths: Sequence[int] = ()) -> Batch:
    """A batch padded to its longest sentence and largest set of detections.

    The texts stand in this order: the first text of each sample, then the second of each that has one, and so on.

    Args:
        lengths: `DataConfig.text_lengths`.
    """
    most = max(len(s.texts) for s in samples)
    rows = [row for k in range(most) for row, sample in enumerate(samples) if k < len(sample.texts)]
    texts = [sample.texts[k] for k in range(most) for sample in samples if k < len(sample.texts)]
    longest = max(len(t.input_ids) for t in texts)
    length = padded_length(longest, lengths)
    stored = samples[0].view is not None  # and then of all: the data set decides
    maps = [s.label_map for s in samples if s.label_map is not None]
    detections = [s.detections for s in samples if s.detections is not None]
    return Batch(
        images=_canvas([s.image for s in samples], 0)
        if stored
        else torch.stack([s.image for s in samples]).float().div_(255),
        input_ids=pad([t.input_ids for t in texts], 0, length),
        clean_ids=pad([t.clean_ids for t in texts], 0, length),
        attention_mask=pad([torch.ones_like(t.input_ids) for t in texts], 0, length).bool(),
        mlm_labels=pad([t.mlm_labels for t in texts], NO_MATCHED_TOKEN, length),
        matched=torch.tensor([int(t.matched) for t in texts]),
        image_of_text=torch.tensor(rows) if most > 1 else None,
        seeds=torch.tensor([s.seed for s in samples]),
        image_ids=torch.tensor([s.image_id for s in samples]),
        label_maps=(_canvas(maps, IGNORED) if stored else torch.stack(maps).long()) if maps else None,
        views=torch.tensor([s.view for s in samples], dtype=torch.float64) if stored else None,
        unreadable=tuple(name for s in samples for name in s.unreadable),
        **(detection_fields(detections) if detections else {}),
    )

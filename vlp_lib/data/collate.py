"""Samples to a batch: padding, and nothing else."""

from __future__ import annotations

import numpy as np
import torch

from vlp_lib.data.sample import NO_MATCHED_TOKEN, Batch, Detections, Sample

_LENGTH_STEP = 8
"""Sentences are padded to a multiple of this many tokens: few different shapes, for which kernels are kept."""


def pad(rows: list[torch.Tensor], value: int | float, width: int) -> torch.Tensor:
    """Rows [n, …] of different n as one tensor [B, width, …]."""
    padded = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def detection_fields(found: list[Detections]) -> dict[str, torch.Tensor]:
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


def collate(samples: list[Sample]) -> Batch:
    """A batch padded to its longest sentence and largest set of detections.

    The texts stand in this order: the first text of each sample, then the second of each that has one, and so on.
    """
    most = max(len(s.texts) for s in samples)
    rows = [row for k in range(most) for row, sample in enumerate(samples) if k < len(sample.texts)]
    texts = [sample.texts[k] for k in range(most) for sample in samples if k < len(sample.texts)]
    longest = max(len(t.input_ids) for t in texts)
    length = -(-longest // _LENGTH_STEP) * _LENGTH_STEP
    maps = [s.label_map for s in samples if s.label_map is not None]
    detections = [s.detections for s in samples if s.detections is not None]
    return Batch(
        images=torch.stack([s.image for s in samples]).float() / 255,
        input_ids=pad([t.input_ids for t in texts], 0, length),
        clean_ids=pad([t.clean_ids for t in texts], 0, length),
        attention_mask=pad([torch.ones_like(t.input_ids) for t in texts], 0, length).bool(),
        mlm_labels=pad([t.mlm_labels for t in texts], NO_MATCHED_TOKEN, length),
        matched=torch.tensor([int(t.matched) for t in texts]),
        image_of_text=torch.tensor(rows) if most > 1 else None,
        seeds=torch.tensor([s.seed for s in samples]),
        image_ids=torch.tensor([s.image_id for s in samples]),
        label_maps=torch.stack(maps).long() if maps else None,
        unreadable=tuple(name for s in samples for name in s.unreadable),
        **(detection_fields(detections) if detections else {}),
    )

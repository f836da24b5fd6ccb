"""Samples to a batch: padding, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch, Sample, Text
from vlp_lib.corpora.records import Detections

_STEP = 8
"""Sentences are padded to a multiple of this many tokens: few different shapes, for which kernels are kept."""


def pad(rows: list[torch.Tensor], value: int, size: int) -> torch.Tensor:
    """Tensors whose first sides differ as one of [B, size, …], with `value` behind each."""
    padded = rows[0].new_full((len(rows), size, *rows[0].shape[1:]), value)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def detection_fields(found: list[Detections]) -> dict[str, Any]:
    """Label, attribute, score and box tensors, padded to the largest set (at least 1)."""
    width = max(1, *(len(d.labels) for d in found))

    def padded(rows: list[np.ndarray], kind: torch.dtype, value: int) -> torch.Tensor:
        return pad([torch.from_numpy(row).to(kind) for row in rows], value, width)

    values = {
        "labels": padded([d.labels for d in found], torch.int64, -1),
        "attributes": padded([d.attributes for d in found], torch.int64, -1),
        "scores": padded([d.scores for d in found], torch.float32, 0),
        "boxes": padded([d.boxes for d in found], torch.float32, 0),
    }
    features = [d.features for d in found if d.features is not None]
    if features:
        nothing = np.zeros((0, features[0].shape[1]), np.float32)
        every = [nothing if d.features is None else d.features for d in found]
        values["features"] = padded(every, torch.float32, 0)
    return values


def distinct(texts: Sequence[Text]) -> tuple[list[int], list[int]]:
    """Rows of texts among which each different sentence, masked as it is, stands; and the place of each text there.

    The rows are as many as a multiple of 8, for few different shapes; the last may be there more than once.
    """
    places: dict[tuple[bytes, bytes], int] = {}
    rows: list[int] = []
    place_of_text: list[int] = []
    for row, text in enumerate(texts):
        sentence = (text.input_ids.numpy().tobytes(), text.clean_ids.numpy().tobytes())
        if sentence not in places:
            places[sentence] = len(rows)
            rows.append(row)
        place_of_text.append(places[sentence])
    return rows + rows[-1:] * (-len(rows) % _STEP), place_of_text


def collate(samples: list[Sample], lengths: Sequence[int] = ()) -> Batch:
    """A batch padded to its longest sentence and largest set of detections.

    The texts stand in this order: the first text of each sample, then the second of each that has one, and so on.

    Args:
        lengths: `DataConfig.text_lengths`, ascending: texts are padded to the first that holds the longest; without
            any to the next multiple of 8 tokens.
    """
    most = max(len(s.texts) for s in samples)
    rows = [row for k in range(most) for row, sample in enumerate(samples) if k < len(sample.texts)]
    texts = [sample.texts[k] for k in range(most) for sample in samples if k < len(sample.texts)]
    longest = max(len(t.input_ids) for t in texts)
    rounded = -(-longest // _STEP) * _STEP
    length = next(length for length in lengths if length >= longest) if lengths else rounded
    sentences, sentence_of_text = distinct(texts)
    repeated = len(sentences) < len(texts)
    maps = [s.label_map for s in samples if s.label_map is not None]
    detections = [s.detections for s in samples if s.detections is not None]
    return Batch(
        images=torch.stack([s.image for s in samples]).float().div_(255),
        input_ids=pad([t.input_ids for t in texts], 0, length),
        clean_ids=pad([t.clean_ids for t in texts], 0, length),
        attention_mask=pad([torch.ones_like(t.input_ids) for t in texts], 0, length).bool(),
        mlm_labels=pad([t.mlm_labels for t in texts], NO_MATCHED_TOKEN, length),
        matched=torch.tensor([int(t.matched) for t in texts]),
        image_of_text=torch.tensor(rows) if most > 1 else None,
        sentences=torch.tensor(sentences) if repeated else None,
        sentence_of_text=torch.tensor(sentence_of_text) if repeated else None,
        seeds=torch.tensor([s.seed for s in samples]),
        image_ids=torch.tensor([s.image_id for s in samples]),
        label_maps=torch.stack(maps).long() if maps else None,
        unreadable=tuple(name for s in samples for name in s.unreadable),
        **(detection_fields(detections) if detections else {}),
    )

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from vlp_lib.batches.collate import collate, distinct
from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch, Sample, Text
from vlp_lib.corpora.records import IGNORED, NO_DETECTIONS, Detections


def text(words, matched=True):
    ids = torch.arange(5, 5 + words)
    labels = torch.full((words,), NO_MATCHED_TOKEN)
    labels[1] = 9
    return Text(ids, ids + 100, labels, matched)


def sample(*words, detections=None, label_map=None, matched=True, seed=0, image_id=1, shade=0):
    image = torch.full((3, 4, 4), shade, dtype=torch.uint8)
    return Sample(image, tuple(text(n, matched) for n in words), label_map, detections, seed, image_id)


def found(count, features=None):
    boxes = np.linspace(0, 1, 4 * count, dtype=np.float32).reshape(count, 4)
    rows = None if features is None else np.full((count, features), 2, np.float32)
    scores = np.full(count, 0.5, np.float32)
    return Detections(np.arange(count) + 1, scores, boxes, np.full(count, -1), rows)


def padded(rows, width, value=0):
    return [[*row, *[value] * (width - len(row))] for row in rows]


def test_sentences_are_padded_to_the_longest():
    batch = collate([sample(3), sample(5)])
    width = batch.input_ids.shape[1]
    assert 5 <= width <= 8  # a few more are allowed, for round shapes
    assert batch.input_ids.tolist() == padded([[5, 6, 7], [5, 6, 7, 8, 9]], width)
    assert batch.clean_ids.tolist() == padded([[105, 106, 107], [105, 106, 107, 108, 109]], width)
    assert batch.attention_mask.tolist() == padded([[True] * 3, [True] * 5], width, False)
    assert batch.mlm_labels.tolist() == padded([[-100, 9]] * 2, width, -100)
    assert batch.input_ids.dtype == batch.mlm_labels.dtype == batch.matched.dtype == torch.int64


def test_a_token_of_id_0_is_no_padding():
    """MLM changes words to id 0: the mask must come from the lengths, not from the ids."""
    one = sample(4)
    one.texts[0].input_ids[2] = 0
    assert collate([one, sample(2)]).attention_mask[:, :4].tolist() == [[True] * 4, [True, True, False, False]]


def test_images_are_between_0_and_1():
    batch = collate([sample(3, shade=255), sample(3, shade=51)])
    assert batch.images.dtype == torch.float32
    assert batch.images[0].unique().tolist() == [1.0]
    assert batch.images[1].unique().item() == pytest.approx(0.2)


def test_seeds_and_matches_keep_their_values():
    batch = collate([sample(3, seed=2**63 - 1, image_id=7), sample(3, matched=False, seed=5, image_id=8)])
    assert batch.seeds.tolist() == [2**63 - 1, 5]
    assert batch.image_ids.tolist() == [7, 8]
    assert batch.matched.tolist() == [1, 0]


def test_without_targets_there_are_none():
    batch = collate([sample(3)])
    absent = {f.name for f in fields(Batch) if getattr(batch, f.name) is None}
    assert absent == {
        "image_of_text", "sentences", "sentence_of_text", "label_maps", "labels", "attributes", "scores", "boxes",
        "features", "shares",
    }  # fmt: skip


def test_label_maps_are_stacked():
    maps = [torch.full((4, 4), value, dtype=torch.uint8) for value in (3, IGNORED)]
    batch = collate([sample(3, label_map=m) for m in maps])
    assert batch.label_maps.dtype == torch.int64
    assert batch.label_maps.unique().tolist() == [3, IGNORED]


def test_detections_are_padded_to_the_largest_set():
    batch = collate([sample(3, detections=d) for d in (found(2), NO_DETECTIONS, found(3))])
    assert batch.labels.tolist() == [[1, 2, -1], [-1, -1, -1], [1, 2, 3]]
    assert batch.scores[1].tolist() == [0, 0, 0]
    assert batch.boxes.shape == (3, 3, 4)
    assert not batch.boxes[1].any()
    assert batch.attributes.dtype == torch.int64
    assert batch.features is None


def test_nothing_detected_keeps_one_place():
    batch = collate([sample(3, detections=NO_DETECTIONS), sample(3, detections=NO_DETECTIONS)])
    assert batch.labels.tolist() == [[-1], [-1]]
    assert batch.boxes.shape == (2, 1, 4)


def test_features_of_images_without_detections_are_zero():
    batch = collate([sample(3, detections=found(2, features=5)), sample(3, detections=NO_DETECTIONS)])
    assert batch.features.shape == (2, 2, 5)
    assert batch.features[0].unique().tolist() == [2.0]
    assert not batch.features[1].any()


def test_moving_a_batch():
    batch = collate([sample(3, detections=found(2), seed=1), sample(5, detections=found(1), seed=2)])
    moved = batch.to(torch.device("meta"))
    assert moved.images.device.type == moved.labels.device.type == "meta"
    assert moved.seeds.device.type == moved.image_ids.device.type == "cpu"
    assert moved.label_maps is None
    assert torch.equal(batch.without_masks().input_ids, batch.clean_ids)
    assert torch.equal(batch.without_masks().mlm_labels, batch.mlm_labels)


def test_second_texts_stand_behind_all_first_ones():
    own, other = text(3), text(4, matched=False)
    pair = Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), (own, other), None, None, 0, 1)
    batch = collate([pair, sample(2), pair])
    assert batch.image_of_text.tolist() == [0, 1, 2, 0, 2]
    assert batch.attention_mask.sum(1).tolist() == [3, 2, 3, 4, 4]
    assert batch.matched.tolist() == [1, 1, 1, 0, 0]
    assert len(batch) == 3


def test_texts_are_found_among_the_different_sentences():
    """As different count those that are hidden otherwise, and those that read alike only because of what is hidden."""
    one, other = text(3), text(4)
    hidden = replace(one, clean_ids=one.clean_ids + 1)
    rows, places = distinct([one, other, replace(one, matched=False), hidden, other, one])
    assert rows[:3] == [0, 1, 3]
    assert len(rows) == 8
    assert set(rows) == {0, 1, 3}
    assert places == [0, 1, 0, 2, 1, 0]


def test_a_batch_says_where_its_sentences_stand_twice():
    texts = [text(n) for n in range(2, 10)]
    pairs = [
        Sample(torch.zeros(3, 4, 4, dtype=torch.uint8), (own, replace(other, matched=False)), None, None, 0, 1)
        for own, other in zip(texts, texts[1:] + texts[:1], strict=True)
    ]
    batch = collate(pairs)
    assert batch.sentences.tolist() == list(range(8))
    assert batch.sentence_of_text.tolist() == [*range(8), *range(1, 8), 0]
    read = batch.sentences[batch.sentence_of_text]
    for name in ("input_ids", "clean_ids", "attention_mask"):
        assert torch.equal(getattr(batch, name)[read], getattr(batch, name))


@pytest.mark.parametrize(("longest", "padded"), [(3, 5), (5, 5), (6, 9), (9, 9)])
def test_sentences_are_padded_to_given_lengths(longest, padded):
    assert collate([sample(2), sample(longest)], (5, 9)).input_ids.shape == (2, padded)

"""What the tasks share: cutting of texts, order of pairs, division of splits, and what is said of missing images."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.errors import UserError
from vlp_lib.tasks.common import Encoder, TaskSample, choose, collate, complete_splits, judge_missing

WORDS = [f"w{letter}" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def encoder():
    """Every word of WORDS is one token; a text may have 8."""
    return Encoder(train_tokenizer(WORDS * 2, 1_000_000), text_length=8, image_size=32)


def names(encoder, ids):
    return " ".join(encoder.tokenizer.token(int(i)) for i in ids)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (3, 0, "[CLS] wa wb wc [SEP]"),
        (7, 0, "[CLS] wa wb wc wd we wf [SEP]"),  # cut at the end
        (2, 3, "[CLS] wa wb [SEP] wa wb wc [SEP]"),
        (6, 3, "[CLS] wa wb [SEP] wa wb wc [SEP]"),  # the question gives way to the candidate
        (6, 9, "[CLS] [SEP] wa wb wc wd we [SEP]"),  # a candidate that is too long by itself
    ],
)
def test_a_candidate_stays_whole_where_it_can(encoder, first, second, expected):
    ids = encoder.text(" ".join(WORDS[:first]), " ".join(WORDS[:second]))
    assert names(encoder, ids) == expected
    assert ids.dtype == torch.int64


def test_cut_texts_are_counted(encoder):
    texts = [(" ".join(WORDS[:n]), " ".join(WORDS[:m])) for n in range(8) for m in range(8)]
    tokens = [n + m + (3 if m else 2) for n in range(8) for m in range(8)]
    assert encoder.count_cut(texts) == sum(t > 8 for t in tokens)


def test_an_encoded_text_is_the_tokenizers_own(encoder):
    assert encoder.text("wa wb", "wc").tolist() == encoder.tokenizer.engine.encode("wa wb", "wc").ids


def test_pairs_follow_pictures_then_texts():
    def sample(pictures, texts, value):
        return TaskSample(
            tuple(torch.full((3, 2, 2), value + i, dtype=torch.uint8) for i in range(pictures)),
            (),
            tuple(torch.full((j + 1,), value + j) for j in range(texts)),
            torch.tensor(value),
        )

    batch = collate([sample(2, 1, 10), sample(1, 4, 20)])
    assert (batch.pictures.images[:, 0, 0, 0] * 255).round().tolist() == [10, 11, 20]
    assert batch.input_ids[:, 0].tolist() == [10, 20, 21, 22, 23]
    assert batch.attention_mask.sum(1).tolist() == [1, 1, 2, 3, 4]
    assert batch.picture_of.tolist() == [0, 1, 2, 2, 2, 2]
    assert batch.text_of.tolist() == [0, 0, 1, 2, 3, 4]
    assert batch.targets.tolist() == [10, 20]
    assert len(batch) == 2


def test_a_choice_is_the_same_every_time_and_keeps_blocks_together():
    blocks = [block for block in range(20) for _ in range(3)]
    chosen = choose(blocks, 12)
    assert chosen == choose(blocks, 12) == sorted(chosen)
    assert len(chosen) == 12 and len({blocks[i] for i in chosen}) == 4


def questions(*images):
    return [SimpleNamespace(block=image) for image in images]


def test_without_validation_items_a_fifth_of_the_images_validates():
    items = questions(*(image for image in range(10) for _ in range(3)))
    notes = []
    splits = complete_splits({"train": items}, Path("vqav2"), notes)
    images = {name: {item.block for item in part} for name, part in splits.items()}
    assert len(images["val"]) == 2 and not images["val"] & images["train"]
    assert len(splits["train"]) + len(splits["val"]) == len(items)
    assert "vqav2 has no val split: 6 of the 30 items" in notes[0]
    whole = {"train": items, "val": items[:3]}
    assert complete_splits(whole, Path("vqav2"), []) == whole


@pytest.mark.parametrize(("split", "says"), [("test", "neither training nor validation"), ("val", "too few")])
def test_splits_that_cannot_be_completed(split, says):
    with pytest.raises(UserError, match=says):
        complete_splits({split: questions(1)}, Path("vqav2"), [])


def test_missing_images_are_left_out_of_training_and_refused_in_scoring():
    notes = []
    judge_missing("f, train", ["question 7 of image 3"], 4, training=True, allowed=0, notes=notes)
    assert notes == ["f, train: 1 of 4 items have no image (the first: question 7 of image 3) and are not trained on"]
    with pytest.raises(
        UserError, match=r"f, val: 1 of 4 items .*question 7.*: fetch the images, or raise allow_missing"
    ):
        judge_missing("f, val", ["question 7 of image 3"], 4, training=False, allowed=0.1, notes=notes)
    judge_missing("f, val", ["question 7 of image 3"], 4, training=False, allowed=0.25, notes=notes)
    assert notes[-1].endswith("and count as wrong")
    for training in (True, False):
        with pytest.raises(UserError, match="fetch"):
            judge_missing("f", ["a", "b"], 2, training=training, allowed=1.0, notes=notes)

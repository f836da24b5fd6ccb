"""VQA's reader: embedded and real files, soft targets by hand, and what is said of bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.split import Division
from vlp_lib.errors import UserError
from vlp_lib.tasks.common import Encoder
from vlp_lib.tasks.vqa import image_files, open_vqa

SMALL = DownstreamConfig(minimum_answers=2)


def encoder_of(corpus, text_length=24):
    return Encoder(train_tokenizer(training_texts(corpus), 1_000_000), text_length, image_size=32)


@pytest.fixture(scope="module")
def vqa(tiny_corpus):
    return open_vqa(tiny_corpus, encoder_of(tiny_corpus), SMALL)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def reopened(root, config=SMALL):
    corpus = open_corpus(root)
    return open_vqa(corpus, encoder_of(corpus), config)


def test_every_question_of_the_embedded_corpus(vqa, tiny_corpus):
    assert [len(s) for s in (vqa.train, vqa.val, vqa.test)] == [72, 36, 36]
    assert vqa.classes == len(vqa.answers) and {"yes", "no"} <= set(vqa.answers)
    sample = vqa.train[0]
    assert sample.pictures[0].shape == (3, 32, 32) and sample.pictures[0].dtype == torch.uint8
    record = next(r for r in tiny_corpus.records if r.image_id == vqa.train.items[0].question.image_id)
    pixels = np.asarray(tiny_corpus.read_image(record)).transpose(2, 0, 1)
    assert torch.equal(sample.pictures[0], torch.from_numpy(pixels.copy()))  # no augmentation
    assert sample.target.shape == (vqa.classes,)


def test_targets_by_hand(root):
    def change(content):
        words = ["yes"] * 1 + ["no"] * 2 + ["red"] * 3 + ["never seen"] * 4
        content["annotations"][0]["answers"] = [{"answer": word, "answer_id": i} for i, word in enumerate(words, 1)]

    edit(root / "vqav2" / "v2_mscoco_train2014_annotations.json", change)
    (root / "answers.txt").write_text("no\nyes\nblue\nred\n")
    data = reopened(root, DownstreamConfig(answer_list=str(root / "answers.txt")))
    assert data.answers == ("no", "yes", "blue", "red")
    assert data.train[0].target.tolist() == pytest.approx([0.6, 0.3, 0.0, 0.9])


def test_predictions_are_the_official_files(vqa, tmp_path):
    decisions = vqa.val.decide(torch.eye(vqa.classes)[torch.arange(36) % vqa.classes])
    [path] = vqa.val.write(decisions, tmp_path)
    results = json.loads(path.read_text())
    assert [row["question_id"] for row in results] == [a.question.question_id for a in vqa.val.questions]
    assert results[3]["answer"] == vqa.answers[3 % vqa.classes]


def test_a_limited_split_is_scored_over_its_own_questions(vqa):
    part = vqa.val.limited(12)
    assert len(part) == 12 and part.limited(100) is part
    assert part.score(np.zeros(12, int))["questions"] == 12
    assert [a.question.question_id for a in part.questions] == [
        a.question.question_id for a in vqa.val.limited(12).questions
    ]


def test_questions_go_with_their_images_where_the_kit_divides_these(root):
    """Those of train and val are dealt anew; those without an image are left out and counted."""
    whole = open_corpus(root)
    division = Division(4)
    corpus = replace(whole, records=division.of(whole.records), division=division)
    data = open_vqa(corpus, encoder_of(corpus), SMALL)
    splits = (data.train, data.val, data.test)
    for split in splits:
        assert {division[int(a.question.image_id)] for a in split.questions} == {split.name}
    assert sum(map(len, splits)) == 72 + 36
    assert any("the questions go with their images" in note and "of 108 answered ones" in note for note in data.notes)


def test_beside_val_images_alone_their_questions_are_divided(root):
    """As beside COCO's val2017: the training images are not there, and the official files divide nothing."""
    for path in (root / "images/train2017").iterdir():
        path.unlink()
    corpus = open_corpus(root)
    data = open_vqa(corpus, encoder_of(corpus), SMALL)
    assert 0 < len(data.val) < 36
    assert len(data.train) + len(data.val) == 36


def test_a_question_without_image(root):
    gone = json.loads((root / "vqav2" / "v2_mscoco_val2014_annotations.json").read_text())["annotations"][0]

    def change(content):
        for entry in content.get("questions", content.get("annotations")):
            if entry["question_id"] == gone["question_id"]:
                entry["image_id"] = 999

    for kind in ("OpenEnded_mscoco_val2014_questions", "mscoco_val2014_annotations"):
        edit(root / "vqav2" / f"v2_{kind}.json", change)
    with pytest.raises(UserError, match=f"1 of 36 items have no image .*question {gone['question_id']} of image 999"):
        reopened(root)
    data = reopened(root, DownstreamConfig(minimum_answers=2, allow_missing=0.1))
    assert "1 of 36 items have no image" in " ".join(data.notes) and "count as wrong" in " ".join(data.notes)
    # Right answers everywhere else, and still not 100 %: the question stays in the denominator.
    right = np.array([data.train.class_of.get(a.annotation.multiple_choice_answer, 0) for a in data.val.items])
    assert len(data.val) == 35
    said = data.val.predictions(right)
    assert len(said) == 36 and said[gone["question_id"]] == ""
    assert data.val.score(right)["questions"] == 36


def test_what_cannot_be_learned_is_counted(root):
    def change(content):
        content["annotations"][0]["answers"] = content["annotations"][0]["answers"][:3]
        content["annotations"][1]["multiple_choice_answer"] = "platypus"
        for answer in content["annotations"][1]["answers"]:
            answer["answer"] = "platypus"

    for subtype in ("train2014", "val2014"):
        edit(root / "vqav2" / f"v2_mscoco_{subtype}_annotations.json", change)
    corpus = open_corpus(root)
    data = open_vqa(corpus, encoder_of(corpus, text_length=5), DownstreamConfig(minimum_answers=3))
    notes = "\n".join(data.notes)
    assert "train: 1 questions have fewer than 10 answers (the first: question" in notes
    assert "have no answer in the list of" in notes and "and train with an all-zero target" in notes
    assert "and count, though they cannot be answered" in notes
    assert "texts are longer than 5 tokens" in notes
    assert len(data.train) == 72 and len(data.val) == 36
    assert data.train[1].target.sum() == 0


def test_files_that_do_not_belong_together(root):
    edit(root / "vqav2" / "v2_mscoco_val2014_annotations.json", lambda content: content["annotations"].pop())
    with pytest.raises(UserError, match=r"val2014_questions\.json against .*val2014_annotations\.json"):
        reopened(root)


def test_missing_annotations_and_answers(root):
    (root / "vqav2" / "v2_mscoco_test2015_annotations.json").unlink()
    assert not reopened(root).test.labelled  # as the real test split
    with pytest.raises(UserError, match=r"lower the minimum .*minimum_answers=….*answer_list=….* leave VQA out"):
        reopened(root, DownstreamConfig(minimum_answers=1000))
    (root / "vqav2" / "v2_mscoco_train2014_annotations.json").unlink()
    with pytest.raises(UserError, match=r"v2_mscoco_train2014_annotations\.json"):
        reopened(root)
    shutil.rmtree(root / "vqav2")
    with pytest.raises(UserError, match="vqav2 has neither training nor validation"):
        reopened(root)


def test_real_questions_find_images_without_captions(shared_data):
    corpus = open_corpus(shared_data / "coco")
    data = open_vqa(corpus, encoder_of(corpus), DownstreamConfig(minimum_answers=2, image_size=32))
    assert len(data.train) + len(data.val) == 56 and data.test is None
    assert "has no val split" in data.notes[0] and not any("no image" in note for note in data.notes)
    captioned = {record.image_id for record in corpus.records}
    assert {int(a.question.image_id) for a in data.train.items} - captioned
    assert len(image_files(corpus)) == 865
    assert data.train[0].pictures[0].shape == (3, 32, 32)

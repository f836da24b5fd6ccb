"""VCR's reader: embedded and real records, tags as words, bad input; its accuracies against counting."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.config import DownstreamConfig
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.tasks.common import NO_TARGET, Encoder
from vlp_lib.tasks.vcr import PERSON_NAMES, VcrItem, open_vcr, read_questions, tag_names, vcr_score, words


def encoder_of(corpus, text_length=60):
    return Encoder(train_tokenizer(training_texts(corpus), 1_000_000), text_length, 32)


@pytest.fixture(scope="module")
def vcr(tiny_corpus):
    return open_vcr(tiny_corpus, encoder_of(tiny_corpus), DownstreamConfig())


def reopened(root, text_length=60, **settings):
    corpus = open_corpus(root)
    return open_vcr(corpus, encoder_of(corpus, text_length), DownstreamConfig(**settings))


def edit(path, change):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("\n".join(json.dumps(line) for line in lines))


def test_each_question_is_two_choices(vcr):
    assert [len(s) for s in (vcr.train, vcr.val, vcr.test)] == [8, 4, 4]
    question = vcr.train.items[0].question
    assert [item.given for item in vcr.train.items[:2]] == [None, question.answer_label]
    answers, rationales = vcr.train[0], vcr.train[1]
    assert len(answers.texts) == 4 and len(answers.pictures) == 1
    assert (int(answers.target), int(rationales.target)) == (question.answer_label, question.rationale_label)
    first, second = vcr.train.items[1].texts()[0]
    asked = vcr.train.items[0].texts()
    assert first == f"{asked[0][0]} {asked[question.answer_label][1]}"  # question and right answer, then a rationale
    assert not any(isinstance(token, tuple) for token in second)


def test_tags_of_the_real_record(shared_data):
    [question] = read_questions(shared_data / "vcr" / "val.jsonl")
    answers = VcrItem(question, None).texts()
    # Answers and question speak of objects 0 and 1, numbered from 1: r2c's number 0 is the whole image.
    assert answers[0] == ("Does Riley live in this house ?", "No , Riley lives nowhere close .")
    assert answers[3][1] == "No Jessie does not belong here ."
    rationales = VcrItem(question, question.answer_label).texts()
    assert rationales[0][0] == "Does Riley live in this house ? No , Riley is a visitor ."
    assert [text.split()[0] for _, text in rationales] == ["Riley", "Jackie", "Jessie", "Riley"]


def test_tags_by_the_rule():
    objects = ["car", "person", "person", "dog"]
    assert tag_names(objects, [("is", (3,), "near", (0,))]) == {0: "car", 3: "dog"}
    assert tag_names(objects, [((2,), "smiles")]) == {2: "Riley"}
    assert tag_names(objects, [("Everyone", "and", (0,))]) == {0: "car", 1: "Jessie", 2: "Jackie"}
    assert tag_names(objects, [("nobody",)]) == {1: "Riley", 2: "Jessie"}
    assert words(((1, 2), "wave"), {1: "Riley", 2: "Jessie"}) == "Riley Jessie wave"
    crowd = tag_names(["person"] * 16, [tuple((i,) for i in range(16))])
    assert crowd[14] == PERSON_NAMES[0] and len(PERSON_NAMES) == 15  # the sixteenth number begins anew


def test_predictions_and_missing_images(root, tmp_path):
    questions = read_questions(root / "vcr" / "val.jsonl")
    questions[0].picture.unlink()
    with pytest.raises(UserError, match=f"1 of 2 items have no image .*{questions[0].identifier}"):
        reopened(root)
    val = reopened(root, allow_missing=0.5).val
    right = np.eye(4, dtype=np.float32)[[int(item.label) for item in val.items]]
    assert val.score(right) == {
        "task": "vcr", "unit": "percent", "q_to_a": 50.0, "qa_to_r": 50.0, "q_to_ar": 50.0, "questions": 2
    }  # fmt: skip
    answers, rationales = (np.load(path) for path in val.write(right, tmp_path))
    assert answers.shape == rationales.shape == (2, 4)
    assert answers[0].argmax() != questions[0].answer_label and answers[1].argmax() == questions[1].answer_label


def test_a_blind_test_split_gets_the_leaderboards_csv(root, tmp_path):
    def blind(lines):
        for line in lines:
            del line["answer_label"], line["rationale_label"]

    edit(root / "vcr" / "test.jsonl", blind)
    test = reopened(root).test
    assert not test.labelled and len(test) == 2 * 5
    assert int(test[0].target) == NO_TARGET
    assert [item.given for item in test.items[:5]] == [None, 0, 1, 2, 3]
    [path] = test.write(np.full((10, 4), 0.25, np.float32), tmp_path)
    header, *rows = path.read_text().splitlines()
    names = header.split(",")
    assert names[0] == "annot_id" and names[1] == "answer_0" and names[-1] == "rationale_conditioned_on_a3_3"
    assert len(names) == 21 and len(rows) == 2 and len(rows[0].split(",")) == 21
    edit(root / "vcr" / "val.jsonl", blind)
    with pytest.raises(UserError, match="no answer_label"):
        reopened(root)


def test_candidates_longer_than_the_limit_are_counted(root):
    data = reopened(root, text_length=12)
    notes = [note for note in data.notes if "texts are longer than 12 tokens" in note]
    assert len(notes) == 3
    assert all(len(text) <= 12 for text in data.train[0].texts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line.update(question=["what", [9]]), r"line 1: \[9\] is neither a word nor places among the"),
        (lambda line: line["answer_choices"].pop(), "answer_choices has 3 candidates, not 4"),
        (lambda line: line.update(answer_label=4), "answer_label is 4"),
        (lambda line: line.pop("objects"), "'objects' is missing"),
    ],
)
def test_broken_records(root, change, says):
    edit(root / "vcr" / "val.jsonl", lambda lines: change(lines[0]))
    with pytest.raises(UserError, match=says):
        reopened(root)


def test_no_files(root):
    shutil.rmtree(root / "vcr")
    with pytest.raises(UserError, match=r"no vcr/train\.jsonl"):
        reopened(root)


# ------------------------------------------------------------------------------------------------- accuracies


CHOICE = st.integers(0, 3)


def test_both_have_to_be_right():
    answers, rationales = np.eye(4)[[0, 1, 2, 3]], np.eye(4)[[3, 0, 0, 0]]
    labels = np.array([[0, 3], [1, 0], [2, 1], [0, 0]])
    score = vcr_score(np.stack([answers, rationales], 1), labels)
    assert [score[name] for name in ("q_to_a", "qa_to_r", "q_to_ar", "questions")] == [75.0, 75.0, 50.0, 4]


@given(st.lists(st.tuples(CHOICE, CHOICE, CHOICE, CHOICE), min_size=1, max_size=20))
def test_equals_counting(rows):
    chosen = np.array(rows)
    score = vcr_score(np.eye(4, dtype=np.float32)[chosen[:, [0, 2]]], chosen[:, [1, 3]])
    assert score["q_to_a"] == pytest.approx(100 * sum(a == b for a, b, _, _ in rows) / len(rows), abs=1e-6)
    assert score["qa_to_r"] == pytest.approx(100 * sum(c == d for _, _, c, d in rows) / len(rows), abs=1e-6)
    assert score["q_to_ar"] == pytest.approx(100 * sum(a == b and c == d for a, b, c, d in rows) / len(rows), abs=1e-6)

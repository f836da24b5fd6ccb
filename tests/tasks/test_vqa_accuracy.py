"""VQA files, accuracy, answer lists and targets, against a plain transcription of the official rules."""

import gzip
import hashlib
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.errors import UserError
from vlp_lib.tasks import vqa_accuracy as vqa

# What annotators and models write: words, digits, marks, white space.
WORDS = ["A", "the", "two", "none", "dont", "somebody'd", "dog", "1,000", "3.5", "n"]
PIECES = [*WORDS, ".", "...", ",", "-", "?", " ", "\t"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


# ------------------------------------------------------- the oracle: vqaEval.py's rules, one step after the other


DIGITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def oracle_normalised(text):
    result = text
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        beside_space = re.search(re.escape(mark) + " | " + re.escape(mark), text)
        result = result.replace(mark, "" if beside_space or re.search(r"\d,\d", text) else " ")
    kept, removed = [], 0
    for place, letter in enumerate(result):
        if letter == "." and not result[place + 1 : place + 2].isdecimal() and removed < int(re.UNICODE):
            removed += 1
        else:
            kept.append(letter)
    words = []
    for word in "".join(kept).lower().split():
        word = "0" if word in ("none", "zero") else word
        word = str(DIGITS.index(word) + 1) if word in DIGITS else word
        if word not in ("a", "an", "the"):
            words.append(vqa._CONTRACTIONS.get(word, word))  # pinned by its own test
    return " ".join(words)


def oracle_score(prediction, answers):
    def clean(text):
        return text.replace("\n", " ").replace("\t", " ").strip()

    prediction, answers = clean(prediction), [clean(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = oracle_normalised(prediction), [oracle_normalised(answer) for answer in answers]
    scores = []
    for left_out in range(len(answers)):
        agreeing = sum(answer == prediction for place, answer in enumerate(answers) if place != left_out)
        scores.append(min(1, agreeing / 3))
    return sum(scores) / len(scores)


def oracle_accuracy(predictions, annotations, key):
    """In percent, by kind of question."""
    groups = {}
    for annotation in annotations:
        score = oracle_score(predictions[annotation["question_id"]], [a["answer"] for a in annotation["answers"]])
        groups.setdefault(key(annotation), []).append(score)
    return {kind: 100 * sum(scores) / len(scores) for kind, scores in groups.items()}


def made_up_prediction(annotation, others, rng):
    """A guess of any kind: an annotator's own words, those words changed, someone else's, nothing."""
    answer = rng.choice(annotation["answers"])["answer"]
    return rng.choice(
        [
            answer,
            answer.upper(),
            f"the {answer}",
            f" {answer}.\n",
            answer.replace(" ", "-"),
            answer.replace("'", ""),
            answer.replace("2", "two"),
            f"{answer}, {answer}",
            rng.choice(others)["answers"][0]["answer"],
            "",
        ]
    )


def annotation(answers, question_id=1, **fields):
    given = {"image_id": 1, "multiple_choice_answer": answers[0], "question_type": "what", "answer_type": "other"}
    return vqa.VqaAnnotation(question_id=question_id, answers=tuple(answers), **(given | fields))


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# ------------------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("A  Dog, two cats.", "dog 2 cats"),
        ("black-and-white", "black and white"),
        ("black -and- white", "black and white"),
        ("1,000 a/b", "1000 ab"),
        ("3.5", "3.5"),
        ("U.S.", "us"),
        ("none", "0"),
        ("dont", "don't"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),  # the official table's entry is in upper case, the word is not
        ("the", ""),
        ("", ""),
        ("." * 40 + "x", "." * 8 + "x"),  # re.UNICODE, which is 32, passed as the count
        ("5.x", "5x"),  # the look-behind for a digit is mistyped in the official code and never holds
    ],
)
def test_normalise_answer(written, compared):
    assert vqa.normalise_answer(written) == compared == oracle_normalised(written)


@given(TEXTS)
def test_normalise_answer_equals_the_transcription(text):
    one_line = text.replace("\t", " ").strip()
    assert vqa.normalise_answer(text) == oracle_normalised(one_line)


def test_contractions_are_the_official_ones():
    # SHA-256 of vqaEval.py's table without its entries that never apply: upper-case keys, and let's and she's.
    lines = "\n".join(f"{misspelt} {word}" for misspelt, word in sorted(vqa._CONTRACTIONS.items()))
    assert (
        hashlib.sha256(lines.encode()).hexdigest() == "f2c800b1132e79302dd72686ce8bba16120f1873f98a85561222e89317336e7a"
    )
    assert len(vqa._CONTRACTIONS) == 114


# ------------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("matching", range(11))
def test_leave_one_out_has_a_closed_form_at_ten_annotators(matching):
    assert vqa.leave_one_out(matching, 10) == pytest.approx(min(0.3 * matching, 1))
    assert oracle_score("x", ["x"] * matching + ["y"] * (10 - matching)) == pytest.approx(min(0.3 * matching, 1))


def test_unanimous_answers_are_compared_as_they_are():
    annotations = [annotation(["two"] * 10), annotation(["two"] * 9 + ["2"], 2)]
    assert vqa.vqa_accuracy({1: "Two", 2: "Two"}, annotations)["overall"] == 50


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_accuracy_is_a_share_and_ignores_the_order_of_annotators(prediction, answers, rng):
    def accuracy(answers):
        return vqa.vqa_accuracy({1: prediction}, [annotation(answers)])

    shuffled = list(answers)
    rng.shuffle(shuffled)
    result = accuracy(answers)
    assert 0 <= result["overall"] <= 100
    assert result["overall"] == accuracy(shuffled)["overall"] == pytest.approx(100 * oracle_score(prediction, answers))
    assert result["questions_with_fewer_than_ten_answers"] == (len(answers) < 10)


REAL = {
    "vqa/vqav2_60k/vqa_annotatons_valid.json.gz": 3000,
    "vqa/vqav2_60k/vqa_annotatons_test.json.gz": 500,
    "vqa/textvqa/val_annotations_vqa_format.json.gz": 2000,
    "vqa/vizwiz/val_annotations_vqa_format.json.gz": 2000,
    "coco/vqav2/v2_mscoco_train2014_annotations.json": 56,
}


@pytest.mark.parametrize("name", REAL)
def test_accuracy_on_real_annotations_equals_the_transcription(shared_data, name):
    path = shared_data / name
    raw = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    raw = raw["annotations"][: REAL[name]]
    rng = random.Random(0)
    predictions = {entry["question_id"]: made_up_prediction(entry, raw, rng) for entry in raw}
    result = vqa.vqa_accuracy(predictions, vqa.read_annotations(path)[: len(raw)])
    assert result["overall"] == pytest.approx(oracle_accuracy(predictions, raw, lambda entry: "")[""])
    assert 10 < result["overall"] < 90
    expected = oracle_accuracy(predictions, raw, lambda entry: entry["question_type"])
    assert result["per_question_type"] == pytest.approx(expected)
    if "answer_type" in raw[0]:
        expected = oracle_accuracy(predictions, raw, lambda entry: entry["answer_type"])
        assert result["per_answer_type"] == pytest.approx(expected)
    else:
        assert not result["per_answer_type"]
    assert (result["questions"], result["questions_with_fewer_than_ten_answers"]) == (len(raw), 0)


def by_records(prediction, records):
    """vqaEval.py on the records of one question, as it stands: `otherGTAns = [item for ... if item != gtAnsDatum]`."""
    prediction = prediction.replace("\n", " ").replace("\t", " ").strip()
    records = [dict(record) for record in records]
    if len({record["answer"] for record in records}) > 1:
        prediction = oracle_normalised(prediction)
        for record in records:
            record["answer"] = oracle_normalised(record["answer"])
    scores = []
    for record in records:
        others = [other for other in records if other != record]
        scores.append(min(1, sum(other["answer"] == prediction for other in others) / 3))
    return sum(scores) / len(scores)


def test_vizwiz_is_scored_by_the_codes_of_vqa_and_of_vizwiz_too(shared_data):
    path = shared_data / "vqa/vizwiz/val_annotations_vqa_format.json.gz"
    raw = json.loads(gzip.decompress(path.read_bytes()))["annotations"][:2000]
    rng = random.Random(0)
    predictions = {entry["question_id"]: made_up_prediction(entry, raw, rng) for entry in raw}
    result = vqa.vqa_accuracy(predictions, vqa.read_annotations(path)[: len(raw)])
    vqa_code = [by_records(predictions[entry["question_id"]], entry["answers"]) for entry in raw]
    vizwiz_code = []
    for entry in raw:  # answers as they stand, the prediction normalised, annotators by place
        said = oracle_normalised(predictions[entry["question_id"]].replace("\n", " ").replace("\t", " ").strip())
        same = [answer["answer"] == said for answer in entry["answers"]]
        vizwiz_code.append(sum(min(1, (sum(same) - own) / 3) for own in same) / len(same))
    assert result["overall_by"] == pytest.approx(
        {"vqaEval.py": 100 * sum(vqa_code) / len(raw), "VizWiz": 100 * sum(vizwiz_code) / len(raw)}
    )
    assert result["overall_by"]["vqaEval.py"] < 0.9 * result["overall"]


def test_annotators_with_ids_have_one_rule(shared_data):
    path = shared_data / "coco/vqav2/v2_mscoco_train2014_annotations.json"
    annotations = vqa.read_annotations(path)
    assert "overall_by" not in vqa.vqa_accuracy({a.question_id: "yes" for a in annotations}, annotations)


def test_accuracy_refuses_other_questions():
    annotations = [annotation(["x"] * 10, i) for i in range(3)]
    with pytest.raises(UserError, match=r"2 of 3 questions have no prediction \(the first: 1\)"):
        vqa.vqa_accuracy({0: "x"}, annotations)
    with pytest.raises(UserError, match=r"1 predictions are for unknown questions \(the first: '0'\)"):
        vqa.vqa_accuracy({0: "x", 1: "x", 2: "x", "0": "x"}, annotations)
    with pytest.raises(UserError, match=r"3 of 3 questions have no prediction .* numbers as numbers"):
        vqa.vqa_accuracy({"0": "x", "1": "x", "2": "x"}, annotations)
    with pytest.raises(UserError, match="no annotated answer"):
        vqa.vqa_accuracy({1: "x"}, [vqa.VqaAnnotation(1, 1, (), "", None, None)])
    with pytest.raises(UserError, match="no annotation"):
        vqa.vqa_accuracy({}, [])


# ------------------------------------------------------------------------------------------- answer lists and targets


def test_build_answer_list_counts_normalised_common_answers():
    written = ["Two"] * 5 + ["2"] * 4 + ["the cat"] * 10 + ["1,5,dogs"] * 9 + ["rare"] * 8
    annotations = [annotation([answer], i) for i, answer in enumerate(written)]
    built = vqa.build_answer_list(annotations + annotations)  # a question counts once
    assert built == ("cat", "15dogs", "2")
    with pytest.raises(UserError, match="lower the minimum"):
        vqa.build_answer_list(annotations, minimum=11)


def test_frequent_answers_of_real_questions_are_in_the_official_list(shared_data):
    """The official 3,129 are those given to nine questions of train and val, to which these questions belong."""
    annotations = vqa.read_annotations(shared_data / "vqa/vqav2_60k/vqa_annotatons_train.json.gz")
    official = vqa.read_answer_list(shared_data / "vocab/lxmert_trainval_label2ans.json")
    built = vqa.build_answer_list(annotations)
    assert len(built) > 300
    assert set(built) <= set(official)


def test_the_forms_of_the_official_list_agree(shared_data, tmp_path):
    by_class = vqa.read_answer_list(shared_data / "vocab/lxmert_trainval_label2ans.json")
    by_answer = vqa.read_answer_list(shared_data / "vocab/lxmert_trainval_ans2label.json")
    uniter = vqa.read_answer_list(shared_data / "vocab/uniter_ans2label.json")
    text = vqa.read_answer_list(write(tmp_path / "answers.txt", "\n".join(by_class) + "\n"))
    assert len(by_class) == 3129
    assert by_class == by_answer == text
    assert set(by_class) == set(uniter)
    assert uniter[:3] == ("net", "pitcher", "orange")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", ["yes", "no", "yes"], r"1 answers stand more than once in .*a.json \(the first: 'yes'\)"),
        ("a.json", {"yes": 0, "no": 2}, "not 0 to 1"),
        ("a.json", {"yes": 0, "no": 0}, "not 0 to 1"),
        ("a.json", [{"ans": "yes"}], "no answer list"),
        ("a.json", 3, "no answer list"),
        ("a.txt", "yes\nno\n\nyes\n", "more than once"),
    ],
)
def test_read_answer_list_refuses(tmp_path, name, content, complaint):
    with pytest.raises(UserError, match=complaint):
        vqa.read_answer_list(write(tmp_path / name, content))


def test_soft_target_counts_answers_as_they_stand():
    classes = {"2": 0, "dog": 1, "cat": 2}
    given = ["dog"] * 3 + ["2", "two", "two", "two", "cat", "cat", "The dog"]
    assert vqa.soft_target(given, classes) == {1: 0.9, 0: 0.3, 2: 0.6}
    assert vqa.soft_target(["dog"] * 4, classes) == {1: 1.0}
    assert vqa.soft_target(["bird"] * 10, classes) == {}


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vqa/vqav2_60k/vqa_questions_test.json.gz", 2962),
        ("vqa/textvqa/val_questions_vqa_format.json.gz", 5000),
        ("vqa/vizwiz/val_questions_vqa_format.json.gz", 4319),
        ("vqa/okvqa/OpenEnded_mscoco_val2014_questions.json.gz", 5046),
        ("coco/vqav2/v2_OpenEnded_mscoco_train2014_questions.json", 56),
        ("coco/okvqa/OpenEnded_mscoco_val2014_questions.json", 92),
    ],
)
def test_real_questions_are_read(shared_data, name, count):
    questions = vqa.read_questions(shared_data / name)
    assert len(questions) == count
    assert all(question.question for question in questions)
    if "vizwiz" in name:
        assert questions[0].image_id == "VizWiz_val_00000000.jpg"


@pytest.mark.parametrize("part", ["vizwiz/val", "textvqa/val"])
def test_real_questions_and_annotations_fit(shared_data, part):
    questions = vqa.read_questions(shared_data / f"vqa/{part}_questions_vqa_format.json.gz")
    annotations = vqa.read_annotations(shared_data / f"vqa/{part}_annotations_vqa_format.json.gz")
    vqa.check_same_questions(questions, annotations)
    with pytest.raises(UserError, match="2 questions have no annotation"):
        vqa.check_same_questions(questions, annotations[2:])
    with pytest.raises(UserError, match="3 annotations are of unknown questions"):
        vqa.check_same_questions(questions[3:], annotations)


def test_annotations_without_a_common_answer_take_the_most_frequent(tmp_path):
    """OK-VQA has neither data_type nor multiple_choice_answer; its question types are numbers as words."""
    answers = [{"answer_id": i, "raw_answer": "r", "answer": a} for i, a in enumerate(["b", "a", "a"])]
    entry = {"image_id": 1, "answer_type": "other", "question_type": "four", "question_id": 5, "answers": answers}
    (read,) = vqa.read_annotations(write(tmp_path / "a.json", {"annotations": [entry]}))
    assert (read.multiple_choice_answer, read.answers, read.question_type) == ("a", ("b", "a", "a"), "four")
    (empty,) = vqa.read_annotations(write(tmp_path / "a.json", {"annotations": [entry | {"answers": []}]}))
    assert empty.multiple_choice_answer == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ([], "no list 'questions'"),
        ({"questions": {}}, "no list 'questions'"),
        ({"questions": [3]}, r"questions\[0\] is no object"),
        ({"questions": [{"question_id": 1, "image_id": 2}]}, r"questions\[0\]: field 'question' is missing"),
        ({"questions": [{"question_id": True, "image_id": 2, "question": "?"}]}, "field 'question_id' is True"),
        ({"questions": [{"question_id": 1, "image_id": 2, "question": "?"}] * 2}, "stand more than once"),
    ],
)
def test_read_questions_refuses(tmp_path, content, complaint):
    with pytest.raises(UserError, match=complaint) as caught:
        vqa.read_questions(write(tmp_path / "q.json", content))
    assert "q.json" in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ("yes", "field 'answers' is 'yes'"),
        (["yes"], "an answer is no object"),
        ([{"answer": 3}], "field 'answer' is 3"),
    ],
)
def test_read_annotations_refuses(tmp_path, answers, complaint):
    entry = {"question_id": 1, "image_id": 2, "answers": answers}
    with pytest.raises(UserError, match=complaint):
        vqa.read_annotations(write(tmp_path / "a.json", {"annotations": [entry]}))


def test_results_are_written_and_read(tmp_path):
    predictions = {3: "yes", 1: "", 2: "naïve"}
    vqa.write_results(tmp_path / "r.json", predictions)
    assert vqa.read_results(tmp_path / "r.json") == predictions
    assert json.loads((tmp_path / "r.json").read_text())[0] == {"question_id": 3, "answer": "yes"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"1": "yes"}, "no list of results"),
        (["yes"], r"results\[0\] is no object"),
        ([{"question_id": 1, "answer": 2}], "field 'answer' is 2"),
        ([{"question_id": 1.5, "answer": "2"}], "field 'question_id' is 1.5"),
        ([{"question_id": 1, "answer": "a"}, {"question_id": 1, "answer": "b"}], r"1 question ids .* \(the first: 1\)"),
    ],
)
def test_read_results_refuses(tmp_path, content, complaint):
    with pytest.raises(UserError, match=complaint):
        vqa.read_results(write(tmp_path / "r.json", content))

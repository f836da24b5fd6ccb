"""Scores of files: one JSON object each, and errors that name the file."""

import gzip
import json

import numpy as np
import pytest

from vlp_lib.errors import UserError
from vlp_lib.tasks import by_file
from vlp_lib.tasks import nlvr2_score as nlvr2
from vlp_lib.tasks import recalls as retrieval
from vlp_lib.tasks import vqa_accuracy as vqa


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def vqa_files(tmp_path):
    """Four questions: right, half agreed, wrong, and one with three annotators only."""
    given = {1: ["yes"] * 10, 2: ["two"] + ["3"] * 9, 3: ["red"] * 10, 4: ["cat"] * 2 + ["dog"]}
    questions = [{"question_id": i, "image_id": i, "question": "?"} for i in given]
    annotations = [
        {
            "question_id": i,
            "image_id": i,
            "question_type": "what",
            "answer_type": "number" if i == 2 else "other",
            "multiple_choice_answer": answers[0],
            "answers": [{"answer": answer, "answer_id": n} for n, answer in enumerate(answers, 1)],
        }
        for i, answers in given.items()
    ]
    predictions = {1: "yes", 2: "2", 3: "blue", 4: "the cat"}
    results = [{"question_id": i, "answer": answer} for i, answer in predictions.items()]
    return (
        write(tmp_path / "q.json", {"questions": questions}),
        write(tmp_path / "a.json", {"annotations": annotations}),
        write(tmp_path / "r.json", results),
    )


def test_score_vqa(vqa_files):
    report = by_file.score_vqa(*vqa_files)
    last = (1 / 3 + 1 / 3 + 2 / 3) / 3  # leave one of cat, cat, dog out
    assert json.loads(json.dumps(report)) == report
    assert report == {
        "task": "vqa",
        "unit": "percent",
        "overall": pytest.approx(100 * (1 + 0.3 + 0 + last) / 4),
        "per_answer_type": {"number": 30.0, "other": pytest.approx(100 * (1 + 0 + last) / 3)},
        "per_question_type": {"what": report["overall"]},
        "questions": 4,
        "questions_with_fewer_than_ten_answers": 1,
    }


def test_score_vqa_says_that_vizwiz_has_more_than_one_rule(vqa_files):
    _, annotations, _ = vqa_files
    content = json.loads(annotations.read_text())
    for entry in content["annotations"]:
        entry["answers"] = [{"answer": answer["answer"], "answer_confidence": "yes"} for answer in entry["answers"]]
    write(annotations, content)
    report = by_file.score_vqa(*vqa_files)
    # "yes" ten times over: each annotator leaves out all ten, so that vqaEval.py gives the right answer nothing.
    assert set(report["overall_by"]) == {"vqaEval.py", "VizWiz"} and "answer_id" in report["note"]
    assert report["overall_by"]["vqaEval.py"] < report["overall"]


def test_score_vqa_names_the_files_that_do_not_fit(vqa_files, tmp_path):
    questions, annotations, results = vqa_files
    write(results, json.loads(results.read_text())[1:])
    with pytest.raises(
        UserError, match=r"r.json against .*a.json: 1 of 4 questions have no prediction \(the first: 1\)"
    ):
        by_file.score_vqa(questions, annotations, results)
    write(questions, {"questions": json.loads(questions.read_text())["questions"][:3]})
    with pytest.raises(UserError, match=r"q.json against .*a.json: 1 annotations are of unknown questions"):
        by_file.score_vqa(questions, annotations, results)


def test_score_vqa_on_real_files(shared_data, tmp_path):
    folder = shared_data / "coco/vqav2"
    annotations = folder / "v2_mscoco_train2014_annotations.json"
    common = {a.question_id: a.multiple_choice_answer for a in vqa.read_annotations(annotations)}
    vqa.write_results(tmp_path / "r.json", common)
    questions = folder / "v2_OpenEnded_mscoco_train2014_questions.json"
    report = by_file.score_vqa(questions, annotations, tmp_path / "r.json")
    assert 80 < report["overall"] <= 100
    assert set(report["per_answer_type"]) == {"yes/no", "number", "other"}


def test_score_nlvr2(shared_data, tmp_path):
    data = shared_data / "nlvr/nlvr2/data/dev.json.gz"
    examples = nlvr2.read_examples(data)
    nlvr2.write_predictions(tmp_path / "p.csv", {e.identifier: e.label for e in examples})
    assert by_file.score_nlvr2(data, tmp_path / "p.csv") == {
        "task": "nlvr2",
        "unit": "percent",
        "accuracy": 100.0,
        "consistency": 100.0,
        "examples": 6982,
        "sentences": 2018,
    }
    nlvr2.write_predictions(tmp_path / "p.csv", {e.identifier: True for e in examples[:-3]})
    with pytest.raises(UserError, match=r"p.csv against .*dev.json.gz: 3 of 6,982 examples have no prediction"):
        by_file.score_nlvr2(data, tmp_path / "p.csv")


def captions_file(path, images, captions=5):
    annotations = [{"id": i, "image_id": i // captions, "caption": "x"} for i in range(images * captions)]
    return write(path, {"images": [{"id": i} for i in range(images)], "annotations": annotations})


def test_score_retrieval(tmp_path):
    captions = captions_file(tmp_path / "c.json", 3, captions=6)
    scores = np.zeros((3, 18), np.float32)
    scores[np.repeat(np.arange(3), 6), np.arange(18)] = 1
    for columns in (slice(None), [i for i in range(18) if i % 6 != 5]):  # all, or the first five of each image
        np.save(tmp_path / "s.npy", scores[:, columns])
        report = by_file.score_retrieval(tmp_path / "s.npy", captions)
        perfect = {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0}
        assert json.loads(json.dumps(report)) == report
        assert report["text_retrieval"] == report["image_retrieval"] == perfect
        assert report["images"] == 3
        assert "mean_of_folds" not in report


def test_score_retrieval_of_several_thousand_images_has_folds(tmp_path):
    captions = captions_file(tmp_path / "c.json", 2000)
    owners = np.repeat(np.arange(2000), 5)
    scores = np.random.default_rng(0).normal(size=(2000, 10000)).astype(np.float32)
    scores[owners, np.arange(10000)] += 3
    np.save(tmp_path / "s.npy", scores)
    report = by_file.score_retrieval(tmp_path / "s.npy", captions)
    folds = report["mean_of_folds"]
    assert (folds["folds"], folds["images"], folds["captions"]) == (2, 1000, 5000)
    expected = [
        retrieval.recalls(scores[f * 1000 : (f + 1) * 1000, f * 5000 : (f + 1) * 5000], np.repeat(np.arange(1000), 5))
        for f in (0, 1)
    ]
    assert folds["text_retrieval"]["R@1"] == pytest.approx(50 * sum(r["text_r1"] for r in expected))
    assert folds["image_retrieval"]["R@10"] == pytest.approx(50 * sum(r["image_r10"] for r in expected))
    assert folds["image_retrieval"]["R@1"] > report["image_retrieval"]["R@1"]  # a smaller gallery is easier


def test_score_retrieval_refuses(tmp_path):
    captions, scores = captions_file(tmp_path / "c.json", 3), tmp_path / "s.npy"
    with pytest.raises(UserError, match=r"no such file: .*s.npy"):
        by_file.score_retrieval(scores, captions)
    for content in (b"", b"not an array", b"\x93NUMPY\x01\x00"):
        scores.write_bytes(content)
        with pytest.raises(UserError, match=r"s.npy is no .npy array"):
            by_file.score_retrieval(scores, captions)
    np.save(scores, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"s.npy is no .npy array"):
        by_file.score_retrieval(scores, captions)
    with scores.open("wb") as file:
        np.savez(file, scores=np.zeros((3, 15)))
    with pytest.raises(UserError, match=r"s.npy is an archive"):
        by_file.score_retrieval(scores, captions)
    np.save(scores, np.zeros((3, 14), np.float32))
    with pytest.raises(UserError, match=r"s.npy against .*c.json: the scores are \[3, 14\] .* 15 columns \(all"):
        by_file.score_retrieval(scores, captions)
    np.save(scores, np.full((3, 15), np.nan, np.float32))
    with pytest.raises(UserError, match=r"s.npy against .*c.json: the scores contain NaN"):
        by_file.score_retrieval(scores, captions)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("q.json.gz", b"plain", "is not a whole gzip file"),
        ("q.json.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], "is not a whole gzip file"),
        ("q.json", b"\xff\xfe{", "is not UTF-8 text"),
        ("q.json", b"[" * 100_000, "is not JSON"),
        ("folder.json", None, "cannot read"),
        ("missing.json", None, "no such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, vqa_files, name, content, complaint):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name.startswith("folder"):
        path.mkdir()
    with pytest.raises(UserError, match=complaint) as caught:
        by_file.score_vqa(path, *vqa_files[1:])
    assert name in str(caught.value)


def test_a_byte_order_mark_is_no_fault(vqa_files):
    questions, *others = vqa_files
    questions.write_bytes(b"\xef\xbb\xbf" + questions.read_bytes())
    assert by_file.score_vqa(questions, *others)["questions"] == 4

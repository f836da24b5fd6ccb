"""`vlp evaluate`: one JSON object, or one sentence and status 2."""

import json

import numpy as np

from vlp_lib.cli import main
from vlp_lib.tasks import by_file


def test_vqa(tiny_corpus, tmp_path, capsys):
    folder = tiny_corpus.root / "vqav2"
    questions = folder / "v2_OpenEnded_mscoco_val2014_questions.json"
    annotations = folder / "v2_mscoco_val2014_annotations.json"
    results = tmp_path / "results.json"
    asked = json.loads(questions.read_text())["questions"]
    results.write_text(json.dumps([{"question_id": q["question_id"], "answer": "yes"} for q in asked]))
    files = ["--questions", str(questions), "--annotations", str(annotations), "--results", str(results)]
    assert main(["evaluate", "vqa", *files]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == by_file.score_vqa(questions, annotations, results)
    assert printed["questions"] == 36 and 0 < printed["overall"] < 100


def test_nlvr2(tiny_corpus, tmp_path, capsys):
    data, predictions = tiny_corpus.root / "nlvr2" / "data" / "dev.json", tmp_path / "predictions.csv"
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    predictions.write_text("".join(f"{line['identifier']},{line['label']}\n" for line in lines))
    assert main(["evaluate", "nlvr2", "--data", str(data), "--predictions", str(predictions)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["accuracy"] == printed["consistency"] == 100.0


def test_retrieval(tiny_corpus, tmp_path, capsys):
    captions, scores = tiny_corpus.root / "annotations" / "captions_val2017.json", tmp_path / "scores.npy"
    content = json.loads(captions.read_text())
    place = {image["id"]: i for i, image in enumerate(content["images"])}
    owners = np.array([place[a["image_id"]] for a in content["annotations"]])
    np.save(scores, (owners[None] == np.arange(len(place))[:, None]).astype(np.float32))
    assert main(["evaluate", "retrieval", "--scores", str(scores), "--captions", str(captions)]) == 0
    assert json.loads(capsys.readouterr().out)["text_retrieval"]["R@1"] == 100.0


def test_a_missing_file_is_one_sentence(refused):
    said = refused("evaluate", "nlvr2", "--data", "no.json", "--predictions", "no.csv")
    assert said.startswith("vlp: no such file: no.json")

"""NLVR2 files, accuracy and consistency, against the official script's rule written out."""

import gzip
import json
import random
from itertools import groupby

import pytest

from vlp_lib.errors import UserError
from vlp_lib.tasks import nlvr2_score as nlvr2

FILES = {"nlvr/nlvr2/data/dev.json.gz": 6982, "nlvr/nlvr2/data/test1.json.gz": 6967, "nlvr/nlvr/dev/dev.json": 250}


def raw_lines(path):
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def oracle(predictions, entries):
    """(accuracy, consistency): the sentence is the identifier without the pair, or (NLVR) without the picture."""

    def sentence(entry):
        split = entry["identifier"].split("-")
        return (split[0], split[1], split[3]) if len(split) == 4 else (split[0],)

    def right(entry):
        return predictions[entry["identifier"]].lower() == entry["label"].lower()

    groups = [list(group) for _, group in groupby(sorted(entries, key=sentence), key=sentence)]
    consistent = [all(right(entry) for entry in group) for group in groups]
    return sum(map(right, entries)) / len(entries), sum(consistent) / len(groups)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.5])
def test_score_on_real_files_equals_the_rule(shared_data, tmp_path, name, wrong):
    entries = raw_lines(shared_data / name)
    rng = random.Random(1)
    flipped = {"true": "False", "false": "True"}
    predictions = {
        entry["identifier"]: flipped[entry["label"].lower()] if rng.random() < wrong else entry["label"]
        for entry in entries
    }
    path = tmp_path / "predictions.csv"
    path.write_text("".join(f"{identifier},{label}\n" for identifier, label in predictions.items()))
    score = nlvr2.nlvr2_score(nlvr2.read_predictions(path), nlvr2.read_examples(shared_data / name))
    assert (score["accuracy"], score["consistency"]) == pytest.approx([100 * s for s in oracle(predictions, entries)])
    assert score["examples"] == len(entries) == FILES[name]
    assert (score["accuracy"] == 100) == (wrong == 0)


def example(identifier, label=True):
    return nlvr2.NlvrExample(identifier, "There is a dog.", label)


def test_one_wrong_pair_makes_its_sentence_inconsistent():
    examples = [example(f"dev-{s}-{p}-{n}") for s in range(2) for p in range(4) for n in range(2)]
    predictions = {e.identifier: e.identifier != "dev-1-2-0" for e in examples}
    score = nlvr2.nlvr2_score(predictions, examples)
    assert (score["accuracy"], score["consistency"], score["sentences"]) == (100 * 15 / 16, 75, 4)


def test_score_refuses_other_identifiers():
    examples = [example(f"dev-1-{pair}-0") for pair in range(4)]
    predictions = {e.identifier: True for e in examples}
    with pytest.raises(UserError, match=r"2 of 4 examples have no prediction \(the first: 'dev-1-2-0'\)"):
        nlvr2.nlvr2_score({i: True for i in list(predictions)[:2]}, examples)
    with pytest.raises(UserError, match=r"1 predictions are for unknown identifiers \(the first: 'identifier'\)"):
        nlvr2.nlvr2_score(predictions | {"identifier": True}, examples)
    with pytest.raises(UserError, match="no example"):
        nlvr2.nlvr2_score({}, [])


def test_predictions_are_written_and_read(tmp_path):
    predictions = {"dev-1-0-0": True, "dev-1-1-0": False}
    nlvr2.write_predictions(tmp_path / "p.csv", predictions)
    assert (tmp_path / "p.csv").read_text() == "dev-1-0-0,True\ndev-1-1-0,False\n"
    assert nlvr2.read_predictions(tmp_path / "p.csv") == predictions


def test_predictions_as_the_official_script_takes_them(tmp_path):
    (tmp_path / "p.csv").write_text("a-1-0-0,true,0.9\r\n\r\n a-1-1-0,FALSE\r\n")
    assert nlvr2.read_predictions(tmp_path / "p.csv") == {"a-1-0-0": True, "a-1-1-0": False}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a-1-0-0\n", "line 1 has no label"),
        ("identifier,label\n", "line 1: label 'label' is neither True nor False"),
        ("a,True\nb,1\n", "line 2: label '1'"),
        ("a, True\n", "label ' True'"),
        ("a,True\nb,True\na,False\n", r"1 identifiers stand more than once in .*p.csv \(the first: 'a'\)"),
    ],
)
def test_read_predictions_refuses(tmp_path, content, complaint):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        nlvr2.read_predictions(tmp_path / "p.csv")


LINE = {"identifier": "dev-0-0-0", "sentence": "A dog.", "label": "True"}


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["{"], "line 1 is not JSON"),
        (["[]"], "line 1 is no object"),
        ([json.dumps(LINE | {"label": "maybe"})], "label 'maybe'"),
        ([json.dumps({k: v for k, v in LINE.items() if k != "label"})], "field 'label' is missing"),
        ([json.dumps(LINE)] * 2, "stand more than once"),
    ],
)
def test_read_examples_refuses(tmp_path, lines, complaint):
    path = tmp_path / "dev.json"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=complaint) as caught:
        nlvr2.read_examples(path)
    assert "dev.json" in str(caught.value)


def test_read_examples_skips_blank_lines(tmp_path):
    path = tmp_path / "dev.json.gz"
    path.write_bytes(gzip.compress(f"{json.dumps(LINE)}\n\n".encode()))
    assert nlvr2.read_examples(path) == (nlvr2.NlvrExample("dev-0-0-0", "A dog.", True),)

"""Rules that see no picture, against counting by hand; scores of single questions, against the official means."""

from types import SimpleNamespace

import numpy as np
import pytest

from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.config import DownstreamConfig
from vlp_lib.items import by_block, read_items, write_items
from vlp_lib.tasks import open_task
from vlp_lib.tasks.baselines import baselines
from vlp_lib.tasks.common import NO_TARGET, Encoder
from vlp_lib.tasks.recalls import all_recalls, recalls_of_images


class Split:
    """Questions whose class is known, as `TaskSplit` has them."""

    labelled = True

    def __init__(self, name, pairs):
        self.name = name
        self.items = [SimpleNamespace(texts=lambda text=text: [(text, "")], truth=truth) for text, truth in pairs]

    def label(self, item):
        return item.truth

    def deciding(self, classes):
        return classes

    def scores_of_questions(self, decisions):
        return {"accuracy": 100.0 * (decisions == [item.truth for item in self.items])}


def test_by_hand():
    train = Split("train", [("is it red?", 1), ("is it red?", 1), ("is it blue?", 2), ("how many?", 0),
                            ("how many?", 0), ("how many?", 0), ("what?", NO_TARGET)])  # fmt: skip
    val = Split("val", [("is it red?", 1), ("is it green?", 1), ("how many?", 1), ("what?", 0)])
    found = baselines(SimpleNamespace(train=train, val=val, test=None))
    # The commonest class is 0 (right once); by text: 1, by the first two words 1, 0, and 0 again.
    assert found == {"guessing": {"val": {"accuracy": 25.0}}, "question only": {"val": {"accuracy": 75.0}}}


@pytest.mark.parametrize("task", ["vqa", "nlvr2", "vcr"])
def test_scores_of_questions_are_those_of_the_official_means(tiny_corpus, task):
    tokenizer = train_tokenizer(["what is the ball"], 40)
    encoder = Encoder(tokenizer, 40, 32, None, 0, 0.2)
    data = open_task(task, tiny_corpus, encoder, DownstreamConfig(image_size=32, minimum_answers=1))
    rng = np.random.default_rng(0)
    decisions = data.val.deciding(rng.integers(0, data.classes, len(data.val)))
    official, single = data.val.score(decisions), data.val.scores_of_questions(decisions)
    assert data.main_score in single
    for metric, values in single.items():
        assert len(values) == len(data.val.questions)
        assert values.mean() == pytest.approx(official[metric], abs=0.006)  # official ones are rounded
        blocks = by_block(values, [question.block for question in data.val.questions])
        assert blocks.mean() == pytest.approx(values.mean(), rel=1e-5)
    labels = np.array([data.val.label(item) for item in data.val.items]).clip(0)
    right = data.val.scores_of_questions(data.val.deciding(labels))[data.main_score]
    assert right.mean() > 90
    rules = baselines(data)
    assert set(rules) == {"guessing", "question only"} and 0 <= rules["guessing"]["val"][data.main_score] <= 100


def test_items_are_kept_as_they_are(tmp_path):
    assert read_items(tmp_path) == {}
    scores = {"val.accuracy": np.array([0.0, 100.0], np.float32)}
    write_items(tmp_path, scores)
    assert read_items(tmp_path)["val.accuracy"].tolist() == [0.0, 100.0]
    assert by_block([1.0, 2.0, 6.0], ["a", "b", "a"]).tolist() == pytest.approx([14 / 3, 4 / 3])


def test_recalls_of_images_have_the_recalls_as_their_means():
    rng = np.random.default_rng(3)
    owners = np.repeat(np.arange(9), 5)
    scores = (rng.normal(size=(9, 45)) + 2 * (owners == np.arange(9)[:, None])).astype(np.float32)
    found, singles = all_recalls(scores, owners, 4), recalls_of_images(scores, owners, 4)
    for gallery, images in (("all", 9), ("folds", 8)):
        for way in ("text_r1", "image_r1"):
            assert len(singles[f"{gallery}.{way}"]) == images
            assert singles[f"{gallery}.{way}"].mean() == pytest.approx(100 * found[gallery][way], rel=1e-5)
    assert set(recalls_of_images(scores, owners, 5)) == {"all.text_r1", "all.image_r1"}

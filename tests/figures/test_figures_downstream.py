"""Figures of a finetuning: examples in words and pictures, its course, its scores."""

import math

import numpy as np
import pytest
from PIL import Image

from vlp_lib.figures.one_run import draw_examples, draw_finetuning, score_table
from vlp_lib.tasks.common import Example


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i, size in enumerate(((40, 20), (10, 30))):
        paths.append(tmp_path / f"{i}.png")
        Image.new("RGB", size, (50 * i, 0, 0)).save(paths[-1])
    return tuple(paths)


def test_examples_of_one_and_two_pictures(pictures):
    examples = [
        Example(pictures[:1], "what is it?", "a dog", "a cat", 0.3),
        Example(pictures, "both are red", "True", "True", 1.0),
        Example(pictures[:1], "a blind question", "a dog", "", math.nan),
    ]
    figure, table = draw_examples(examples, columns=2)
    first, second, third, empty = figure.axes
    assert first.get_title() == "what is it?\nsays: a dog\ntrue: a cat"
    assert "true" not in third.get_title()
    assert len({axes.title.get_color() for axes in (first, second, third)}) == 3
    assert first.images[0].get_array().shape == (20, 40, 3)
    assert second.images[0].get_array().shape[0] == 20 and second.images[0].get_array().shape[1] > 40
    assert not empty.images
    assert table["score"].tolist()[:2] == [0.3, 1.0] and np.isnan(table["score"][2])
    figure.canvas.draw()


def test_course_and_scores():
    rows = [{"samples": s, "val_loss": 2.0 / (s + 1), "val_accuracy": s / 10} for s in (0, 5)]
    assert [axes.get_title() for axes in draw_finetuning(rows).axes] == ["validation loss", "validation accuracy"]
    score = {"task": "vqa", "unit": "percent", "overall": 50.123456, "per_answer_type": {"other": 1.0}, "questions": 3}
    table = score_table({"val": score, "test": score})
    assert list(table.index) == ["overall", "per_answer_type: other", "questions"]
    assert table.loc["overall", "test"] == 50.12

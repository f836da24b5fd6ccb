"""Pictures and tables of finetuning, retrieval, speed and attention: they draw, and say what their rows say."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from vlp_lib.attention.maps import grid_places
from vlp_lib.attention.pointing import Look, Pointing, read_panel, save_panel, summarise
from vlp_lib.errors import UserError
from vlp_lib.figures import attention_maps, bench_tables, one_run, plots
from vlp_lib.figures.style import save_figure
from vlp_lib.study import scores
from vlp_lib.tasks.common import Example
from vlp_lib.tasks.recalls import all_recalls
from vlp_lib.tasks.retrieval import gallery_of
from vlp_lib.variants import VARIANTS


def test_examples_of_one_and_two_pictures(tmp_path):
    pictures = tmp_path / "0.png", tmp_path / "1.png"
    for path, size in zip(pictures, ((40, 20), (10, 30)), strict=True):
        Image.new("RGB", size).save(path)
    examples = [
        Example(pictures[:1], "what is it?", "a dog", "a cat", 0.3),
        Example(pictures, "both are red", "True", "True", 1.0),
        Example(pictures[:1], "a blind question", "a dog", "", math.nan),
    ]
    figure, table = one_run.draw_examples(examples, columns=2)
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
    assert [axes.get_title() for axes in one_run.draw_finetuning(rows).axes] == [
        "validation loss",
        "validation accuracy",
    ]
    score = {"task": "vqa", "unit": "percent", "overall": 50.123456, "per_answer_type": {"other": 1.0}, "questions": 3}
    table = one_run.score_table({"val": score, "test": score})
    assert list(table.index) == ["overall", "per_answer_type: other", "questions"]
    assert table.loc["overall", "test"] == 50.12


def test_recalls_beside_chance(tiny_corpus):
    gallery = gallery_of(tiny_corpus, 6)
    perfect = (gallery.image_index == np.arange(6)[:, None]).astype(np.float32)
    table = one_run.recall_table(all_recalls(perfect, gallery.image_index, 3))
    assert table["gallery"].tolist() == ["all", "folds", "fold 0", "fold 1"]
    assert (table[["text R@1", "image R@1"]] == 100).all(axis=None)
    assert table["chance, image R@1"].tolist() == [16.7, 33.3, 33.3, 33.3]
    assert table["chance, text R@1"].tolist() == [16.7, 33.3, 33.3, 33.3]
    figure = one_run.draw_found(tiny_corpus, gallery, perfect, queries=2, best=3)
    assert len(figure.axes[1].texts) == 3


def test_inference_time(made_up, tmp_path):
    rows = [
        made_up.latency("naive_vit", 100.0, vision=60.0, language=10.0, cross=30.0),
        made_up.latency("spl_small", 80.0, vision=65.0, language=10.0, cross=5.0),
        made_up.latency("region_bottom_up", 900.0, detector=850.0, selection=30.0, language=10.0, cross=10.0),
        made_up.latency("visual_bert", 15.0, whole=15.0),
    ]
    table = bench_tables.latency_table(rows)
    assert table["times the naive ViT"].tolist() == [1.0, 0.8, 9.0, 0.15]
    assert table["paper (ms, P40)"].tolist() == ["40", "34", "~900", ""]
    note = scores.latency_note(rows, full_size=True)
    assert "random weights" in note and "600 px" in note
    figure = plots.draw_latency(rows, note)
    times, shares = figure.axes
    assert times.get_ylim() == shares.get_ylim()  # a model's stages stand beside its time
    assert save_figure(figure, table, tmp_path, "time").is_file()


@pytest.mark.parametrize("name", [v for v in VARIANTS if v != "region"])
def test_the_paper_has_a_time_for_every_variant(name):
    assert scores.paper_ms(name) in ("34", "37", "40")


def seen(number, right, score):
    places = grid_places(8, (2, 2), 4)
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    known = isinstance(score, Pointing)
    truth, image = "a ball" if right else "a box", np.full((8, 8, 3), 0.5)
    return Look(number, "what is it?", "a ball", truth, places.paint(weights), image, mask if known else None, score)


def test_figure_6_of_several_models_shares_questions_and_scale(tmp_path):
    right, wrong = seen(7, True, "no mask"), seen(7, False, "no mask")
    path = tmp_path / "attention/segl/seed0/panel.npz"
    save_panel(path, [right, seen(8, True, "no mask")])
    kept = read_panel(path)
    assert [(look.question_id, look.right) for look in kept] == [(7, True), (8, True)]
    assert np.array_equal(kept[0].map, right.map) and kept[0].mask is None
    brighter = dataclasses.replace(wrong, map=2 * wrong.map)
    figure, data = attention_maps.draw_panel({"segl": [right, seen(8, True, "no mask")], "naive_vit": [brighter]})
    assert data["run"].tolist() == ["segl", "naive_vit", "segl"]
    drawn = [axes.images[1] for axes in figure.axes if len(axes.images) == 2]
    assert len({image.get_clim() for image in drawn}) == 1
    # Twice as much attention everywhere is the same distribution over the image.
    assert np.allclose(drawn[0].get_array(), drawn[1].get_array())
    assert save_figure(figure, data, tmp_path, "figure_6").is_file()
    assert attention_maps.draw_panel({})[1].empty
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="run the notebook 14_attention again"):
        read_panel(path)


def test_pointing_table():
    rows, _ = summarise([("small", Pointing(1.0, 0.5, 0.25, 0.25, "boxes"))])
    table = one_run.pointing_table(rows)
    assert table["questions about"].tolist() == ["all", "small"]
    assert table["pointing accuracy"].tolist() == [1.0, 1.0]

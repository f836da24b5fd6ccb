"""Pictures and tables of retrieval, speed and attention: they draw, and say what their rows say."""

import dataclasses

import numpy as np
import pytest

from vlp_lib.attention.maps import grid_places
from vlp_lib.attention.pointing import Look, Pointing, read_panel, save_panel, summarise
from vlp_lib.bench.speed import METHODS
from vlp_lib.errors import UserError
from vlp_lib.figures import attention_maps, bench_tables, one_run, plots
from vlp_lib.figures.style import save_figure
from vlp_lib.study import scores
from vlp_lib.tasks.recalls import all_recalls
from vlp_lib.tasks.retrieval import gallery_of
from vlp_lib.variants import VARIANTS


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


def latency_row(name, median, **stages):
    return {
        "name": name,
        "median_ms": median,
        "p5_ms": 0.9 * median,
        "p95_ms": 1.2 * median,
        "runs": 5,
        "visual_tokens": 36,
        "parameters": 2_000_000,
        "stages_ms": stages,
        "note": "",
        "image_size": 600,
        "device": "cpu",
        "threads": 1,
    }


def test_inference_time(tmp_path):
    rows = [
        latency_row("naive_vit", 100.0, vision=60.0, language=10.0, cross=30.0),
        latency_row("spl_small", 80.0, vision=65.0, language=10.0, cross=5.0),
        latency_row("region_bottom_up", 900.0, detector=850.0, selection=30.0, vision=1.0, language=9.0, cross=10.0),
        latency_row("visual_bert", 15.0, whole=15.0),
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


def test_cost_beside_table_i():
    rows = [
        {
            "variant": name,
            "extra_parameters": 1_500_000,
            "extra_parameters_at_inference": 0,
            "tokens": {"384": 144, "600": 324},
            "step_ms": 10.0,
            "step_ratio": None if name == "segl" else 1.25,
            "extra_data": "label maps",
            "extra_data_share": 0.5,
            "note": "",
        }
        for name in METHODS
    ]
    table = bench_tables.cost_table(rows)
    assert table["method"].tolist()[0] == "No visual loss"
    assert table["time of a training step"].tolist() == ["1.25×", "1.25×", "", "1.25×", "1.25×"]
    assert table["paper: extra computation"].tolist()[2:4] == ["1 layer 1x1 Conv", "1 layer transformer decoder"]


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

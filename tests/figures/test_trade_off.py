import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from vlp_lib import paper
from vlp_lib.figures.plots import draw_trade_off
from vlp_lib.figures.style import save_figure
from vlp_lib.study.scores import not_shown, read_results, trade_off
from vlp_lib.variants import VARIANTS


def test_points_by_hand(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "ssul", 0.5)
    made_up.time(segl=400.0, region_bottom_up=9000.0)
    points = trade_off(read_results(made_up.root))
    own = points[points["source"] == "this run"].set_index("row")
    assert list(own.index) == list(VARIANTS)
    segl = own.loc["segl"]
    assert segl[["ms", "ms_low", "ms_high", "vqa", "seeds"]].tolist() == pytest.approx([400, 392, 408, 62, 3])
    assert segl["half"] == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)
    assert own.loc["region", "ms"] == 9000  # with its detector
    assert np.isnan(own.loc["region", "vqa"]) and own.loc["region", "seeds"] == 0
    assert np.isnan(own.loc["ssul", ["ms", "half"]].astype(float)).all()
    assert not_shown(points) == [
        "Region features (no VQA run)",
        "Naive (ViT) (not timed, no VQA run)",
        "Naive (ResNet) (not timed, no VQA run)",
        "SSUL (not timed)",
        "SEGL (ResNet) (not timed, no VQA run)",
        "SPL (small) (not timed, no VQA run)",
        "SPL (large) (not timed, no VQA run)",
    ]


def test_the_papers_points_are_those_of_its_tables(made_up):
    made_up.time(segl=400.0)
    points = trade_off(read_results(made_up.root))
    second = points[points["source"] == "paper, table II"].set_index("row")
    assert len(second) == len(paper.table("II").rows)
    assert second.loc["spl_small", ["ms", "vqa"]].tolist() == [34, 69.41]
    fourth = points[points["source"] == "paper, table IV"].set_index("row")
    assert fourth.loc["uniter_base", ["ms", "vqa"]].tolist() == [900, 72.70]
    assert fourth.loc["segl", ["ms", "vqa"]].tolist() == [40, 71.69]
    assert points[points["source"] != "this run"]["half"].isna().all()


def test_the_panels_share_no_axis(made_up, tmp_path):
    made_up.finetune("vqa", "segl", 0.60, 0.62)
    made_up.finetune("vqa", "naive_vit", 0.5)
    made_up.time(segl=400.0, naive_vit=410.0)
    points = trade_off(read_results(made_up.root))
    figure = draw_trade_off(points, "a note")
    own, published = figure.axes
    assert not own.get_shared_x_axes().joined(own, published)
    assert not own.get_shared_y_axes().joined(own, published)
    assert own.get_xscale() == published.get_xscale() == "log"
    assert [text.get_text() for text in own.get_legend().get_texts()] == ["Naive (ViT)", "SEGL"]
    assert len(published.texts) == len(paper.table("II").rows) + len(paper.table("IV").rows)
    assert len(own.containers) == 2
    # SEGL has two seeds and so an interval, the naive model one and none; both have a spread of times.
    bars = {round(float(c.lines[0].get_ydata()[0]), 6): (c.has_xerr, c.has_yerr) for c in own.containers}
    assert bars == {61.0: (True, True), 50.0: (True, False)}
    note = figure.get_supxlabel()
    assert note.startswith("a note\nnot shown: Region features (not timed, no VQA run), ")
    assert save_figure(figure, points, tmp_path, "figure_5_right").is_file()
    assert len(pd.read_csv(tmp_path / "figure_5_right.csv")) == len(points)


def test_nothing_to_show_says_so(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    figure = draw_trade_off(trade_off(read_results(made_up.root)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no model has both"]
    assert len(figure.axes[1].containers) > 0


@pytest.mark.parametrize("slowest", [360.0, 460.0, 4600.0, 460_000.0])
def test_the_times_can_be_read(made_up, slowest):
    made_up.finetune("vqa", "segl", 0.6)
    made_up.finetune("vqa", "naive_vit", 0.5)
    made_up.time(segl=350.0, naive_vit=slowest)
    figure = draw_trade_off(trade_off(read_results(made_up.root)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
        assert not any(tick.label1.get_text() for tick in axes.xaxis.get_minor_ticks())

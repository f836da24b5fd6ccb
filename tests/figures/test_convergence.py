import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats

from vlp_lib.config import VARIANTS
from vlp_lib.errors import UserError
from vlp_lib.figures.one_run import draw_run, first_and_last
from vlp_lib.figures.palette import colours
from vlp_lib.figures.plots import draw_convergence
from vlp_lib.figures.style import save_figure, save_table
from vlp_lib.io import write_json, write_lines
from vlp_lib.study.convergence import (
    LN2,
    ORDER,
    ablation_table,
    convergence_curves,
    order_table,
    samples_until,
    speed_table,
)
from vlp_lib.study.runs import describe, in_order, read_runs
from vlp_lib.study.verdicts import Estimate, difference, estimate, higher, over_seeds

SAMPLES = (0, 100, 200, 300, 400)


def made_up(**losses):
    """Rows as of metrics.jsonl: for each variant a list of loss curves, one a seed."""
    rows = [
        {
            "name": variant,
            "variant": variant,
            "seed": seed,
            "synthetic": True,
            "samples": samples,
            "val_itm": loss,
            "val_itm_accuracy": 1 - loss / 2,
        }
        for variant, curves in losses.items()
        for seed, curve in enumerate(curves)
        for samples, loss in zip(SAMPLES, curve, strict=False)
    ]
    return pd.DataFrame(rows)


def falling(last, shift=0.0):
    return [0.7, 0.69, 0.65 + shift, 0.5 + shift, last]


# How long it takes


@pytest.mark.parametrize(
    ("losses", "threshold", "expected"),
    [
        ([0.7, 0.6, 0.4, 0.2], 0.5, 150.0),  # halfway between 100 and 200
        ([0.7, 0.6, 0.4, 0.2], 0.45, 175.0),
        ([0.7, 0.6, 0.4, 0.2], 0.6, 100.0),  # at 100 it is reached, not yet below
        ([0.7, 0.6, 0.4, 0.2], 0.8, 0.0),  # from the start
        ([0.7, 0.6, 0.4, 0.2], 0.2, math.inf),  # never below
        ([0.7, 0.4, 0.6, 0.2], 0.5, 200 / 3),  # the first time counts
        ([0.7], 0.5, math.inf),
    ],
)
def test_samples_until_by_hand(losses, threshold, expected):
    samples = np.array(SAMPLES[: len(losses)], float)
    assert samples_until(samples, np.array(losses), threshold) == pytest.approx(expected)


def test_speed_table_by_hand():
    runs = made_up(
        naive_vit=[[0.7, 0.7, 0.6, 0.4, 0.3], [0.7, 0.7, 0.7, 0.6, 0.4]],
        segl=[[0.7, 0.4, 0.3, 0.2, 0.1], [0.7, 0.6, 0.4, 0.3, 0.2]],
        ssul=[[0.7, 0.4, 0.3, 0.2, 0.1], [0.7, 0.7, 0.7, 0.7, 0.6]],
    )
    table = speed_table(runs, 0.5).set_index("variant")
    assert list(table.index) == ["Naive (ViT)", "SSUL", "SEGL"]
    assert table["seeds"].tolist() == [2, 2, 2]
    assert table["seeds below"].tolist() == [2, 1, 2]
    # Naive: (250 + 350) / 2; SEGL: (66.7 + 150) / 2; of SSUL one seed never gets there in its 400.
    assert table["images until 0.5"].tolist() == ["300", "> 233", "108"]
    assert table["speed-up over naive ViT"].tolist() == ["1.0×", "not decidable", "2.8×"]
    half = 12.706204736 * np.std([0.1, 0.2], ddof=1) / math.sqrt(2)
    assert table.loc["SEGL", "final matching loss"] == f"0.150 ± {half:.3f}"


def test_speed_up_over_a_baseline_that_never_gets_there_is_a_bound():
    table = speed_table(made_up(naive_vit=[[0.7] * 5], segl=[[0.7, 0.4, 0.3, 0.2, 0.1]]), 0.5).set_index("variant")
    assert table["speed-up over naive ViT"].tolist() == ["not decidable", "> 6.0×"]
    assert table.loc["Naive (ViT)", "images until 0.5"] == "> 400"
    assert table.loc["SEGL", "final matching loss"] == "0.100"  # one seed has no interval
    assert speed_table(made_up(segl=[falling(0.1)]), 0.5)["speed-up over naive ViT"].tolist() == ["not decidable"]


# Intervals


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.3, 0.1, 0.7, 0.2], [5.0, 5.0, 5.0]])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_interval_is_students(values, level):
    mean, half, _ = estimate(np.array(values), level)
    assert mean == pytest.approx(np.mean(values))
    error = stats.sem(values)
    if error == 0:
        assert half == 0
    else:
        low, high = stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=error)
        assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))


def test_interval_of_one_value_is_unknown():
    mean, half, _ = estimate(pd.Series([0.4]))
    assert mean == 0.4
    assert math.isnan(half)


def test_over_seeds_groups_and_counts():
    runs = made_up(segl=[[0.7, 0.2], [0.5, 0.4]], ssul=[[0.6, 0.1]])
    table = over_seeds(runs, ["name", "samples"], "val_itm").set_index(["name", "samples"])
    assert len(table) == 4
    assert table.loc[("segl", 0), "mean"] == pytest.approx(0.6)
    assert table.loc[("segl", 100), "mean"] == pytest.approx(0.3)
    assert table.loc[("segl", 0), "half"] == pytest.approx(estimate(np.array([0.7, 0.5])).half)
    assert table["seeds"].to_dict() == {("segl", 0): 2, ("segl", 100): 2, ("ssul", 0): 1, ("ssul", 100): 1}
    assert np.isnan(table.loc[("ssul", 0), "half"])
    accuracy = convergence_curves(runs, "val_itm_accuracy").set_index(["name", "samples"])
    assert accuracy.loc[("segl", 0), "mean"] == pytest.approx(0.7)


# The paper's order


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ([0.1, 0.12, 0.11], [0.5, 0.52, 0.5], "confirmed"),
        ([0.5, 0.52, 0.5], [0.1, 0.12, 0.11], "contradicted"),
        ([0.1, 0.5, 0.3], [0.2, 0.4, 0.35], "not decidable with these seeds"),
        ([0.1], [0.5], "not decidable with these seeds"),
        # Far apart between seeds but always in the same order: the pairs decide, not the two means.
        ([0.1, 0.3, 0.5], [0.2, 0.41, 0.59], "confirmed"),
    ],
)
def test_verdict(lower, upper, expected):
    found, decision = higher(np.array(upper), np.array(lower))
    assert found.mean == pytest.approx(np.mean(upper) - np.mean(lower))
    assert decision == expected
    if len(lower) > 1:
        significant = stats.ttest_rel(upper, lower).pvalue < 0.05
        assert (decision != "not decidable with these seeds") == significant
    else:
        assert math.isnan(found.half)


def test_order_table_of_made_up_runs():
    runs = made_up(
        region=[falling(0.10), falling(0.11), falling(0.12)],
        segl=[falling(0.30), falling(0.31), falling(0.30)],
        ssul=[falling(0.20), falling(0.21), falling(0.22)],
        naive_vit=[[0.7, 0.69, 0.69, 0.69, 0.6], [0.7, 0.7, 0.69, 0.68, 0.61], [0.7, 0.7, 0.69, 0.68, 0.61]],
    )
    table = order_table(runs).set_index("the paper's order")
    decided = table["verdict"].to_dict()
    assert decided.pop("Region features < SEGL") == "confirmed"
    assert decided.pop("SEGL < SSUL") == "contradicted"
    assert decided.pop("SSUL < Naive (ViT)") == "confirmed"
    assert decided.pop("Naive (ViT) within 10 % of ln 2 at half of the run") == "confirmed"
    # At half of the run (200) SEGL's loss is 0.65, above 0.9 ln 2 = 0.624.
    assert decided.pop("SEGL more than 10 % below ln 2 at half of the run") == "contradicted"
    assert decided == {}  # pairs of which one was not run are left out
    assert table.loc["Region features < SEGL", "seeds"] == 3
    difference = table.loc["Region features < SEGL", "difference of the final matching loss"]
    assert difference.startswith("0.193 ± ")


def test_an_order_of_nothing_that_was_run_can_be_read_again(tmp_path):
    """Two variants that no statement compares: a table without rows, but with its columns."""
    rows = [(name, 0, step, 0.6) for name in ("region", "segl_resnet") for step in SAMPLES]
    runs = pd.DataFrame(rows, columns=["variant", "seed", "samples", "val_itm"])
    runs = runs.assign(name=runs["variant"], step=runs["samples"], synthetic=True)
    save_table(order_table(runs), tmp_path, "order", "")
    again = pd.read_csv(tmp_path / "order.csv")
    assert again.empty and "verdict" in again.columns


def test_order_table_pairs_equal_seeds():
    runs = made_up(region=[falling(0.1), falling(0.1)], segl=[falling(0.3), falling(0.3), falling(0.3)])
    row = order_table(runs).iloc[0]
    assert row["seeds"] == 2
    assert row["verdict"] == "confirmed"
    alone = runs[(runs["variant"] == "segl") | (runs["seed"] == 0)]
    assert order_table(alone).iloc[0]["verdict"] == "not decidable with these seeds"


def test_order_table_without_a_common_seed_decides_nothing():
    runs = made_up(region=[falling(0.1)], segl=[falling(0.3), falling(0.3)])
    apart = runs[(runs["variant"] == "region") | (runs["seed"] == 1)]
    row = order_table(apart).iloc[0]
    assert (row["seeds"], row["verdict"]) == (0, "not decidable with these seeds")


def test_the_papers_order_names_variants():
    assert all(name in VARIANTS for pair in ORDER for name in pair)
    assert pytest.approx(math.log(2)) == LN2


@pytest.mark.parametrize("samples", [(0, 100, 200, 300), (0, 100, 200, 300, 400)])
def test_each_seed_counts_once_at_half_of_the_run(samples):
    """Also where two evaluations are equally near to it: the loss between them counts."""
    curve = [0.7, 0.68, 0.66, 0.64, 0.62][: len(samples)]
    rows = order_table(made_up(naive_vit=[curve])).set_index("the paper's order")
    row = rows.loc["Naive (ViT) within 10 % of ln 2 at half of the run"]
    assert (row["seeds"], row["verdict"]) == (1, "not decidable with these seeds")
    assert row["difference of the final matching loss"] == ("loss 0.670" if len(samples) == 4 else "loss 0.660")


def test_a_zero_is_zero():
    """The mean of 0.1, 0.2 and −0.3 is noise of binary fractions, and a small loss has no minus zero."""
    found = difference([0.3, 0.5, 0.1], [0.2, 0.3, 0.4])
    assert found.mean == 0 and math.copysign(1, found.mean) == 1
    noise, decision = higher([0.1 + 0.2, 0.1 + 0.2], [0.3, 0.3])  # 5.6e-17 in both
    assert (noise.mean, noise.half, decision) == (0, 0, "not decidable with these seeds")
    assert Estimate(-0.0001, 0.0002, 3).written(3) == "0.000 ± 0.000"


def test_named_runs_stand_beside_the_variants():
    runs = made_up(naive_vit=[falling(0.4), falling(0.41)], segl=[falling(0.2), falling(0.21)])
    named = runs[runs["variant"] == "segl"].assign(name="majority")
    named["val_itm"] -= 0.1 * (named["samples"] == SAMPLES[-1]) + 0.002 * named["seed"]
    alone = runs[runs["variant"] == "segl"].assign(name="alone", variant="ssul")  # SSUL itself was not run
    runs = pd.concat([runs, named, alone])
    assert speed_table(runs, 0.5)["variant"].tolist() == ["Naive (ViT)", "SEGL", "alone", "majority"]
    assert order_table(runs)["the paper's order"].tolist() == order_table(made_up(naive_vit=[falling(0.4)],
        segl=[falling(0.2)]))["the paper's order"].tolist()  # the paper says nothing of them  # fmt: skip
    (row,) = ablation_table(runs).to_dict("records")
    assert row["named run"] == "majority < SEGL"
    assert row["difference of the final matching loss"].startswith("0.101 ± ")
    assert (row["seeds"], row["verdict"]) == (2, "confirmed")
    drawn = draw_convergence(convergence_curves(runs)).axes[0].lines
    assert [line.get_label() for line in drawn[:-1]] == ["Naive (ViT)", "SEGL", "alone", "majority"]
    assert len({line.get_color() for line in drawn[:-1]}) == 4


def test_colours_are_fixed_for_the_paper_and_in_turn_for_others():
    fixed = colours()
    assert set(fixed) == set(VARIANTS) and fixed["segl"] == "#0072B2"
    others = [f"run {i}" for i in range(20)]
    tints = colours(["segl", *others])
    assert {name: tints[name] for name in fixed} == fixed
    assert tints == colours([*others, "segl"]) | fixed
    assert len({tints[name] for name in others[:8]} - set(fixed.values())) == 8


# Drawing


def test_a_line_a_variant_and_one_for_chance(tmp_path):
    runs = made_up(**{name: [falling(0.1), falling(0.2)] for name in VARIANTS}, **{"segl+ssul": [falling(0.1)]})
    curves = convergence_curves(runs)
    figure = draw_convergence(curves, title="all")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert len(axes.lines) == len(VARIANTS) + 2
    assert len(axes.collections) == len(VARIANTS) + 1
    assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "segl+ssul"
    assert axes.lines[-1].get_ydata()[0] == LN2
    first = axes.lines[0]
    assert first.get_label() == "Region features"
    assert list(first.get_xdata()) == list(SAMPLES)
    assert first.get_ydata() == pytest.approx([0.7, 0.69, 0.65, 0.5, 0.15])
    shown = {line.get_label(): line.get_linestyle() for line in axes.lines}
    assert (shown["SEGL"], shown["SEGL (ResNet)"]) == ("-", "--")
    path = save_figure(figure, curves, tmp_path, "figure")
    assert {p.name for p in tmp_path.iterdir()} == {"figure.png", "figure.pdf", "figure.csv"}
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(tmp_path / "figure.csv")) == len(curves)


def test_only_the_asked_variants_are_drawn():
    curves = convergence_curves(made_up(naive_vit=[falling(0.3)], segl=[falling(0.1)], ssul=[falling(0.2)]))
    figure = draw_convergence(curves, names=("segl", "naive_vit", "region"))
    assert [line.get_label() for line in figure.axes[0].lines[:-1]] == ["Naive (ViT)", "SEGL"]


@pytest.mark.parametrize(("highest", "top"), [(0.7, 0.8), (1.4, 1.47)])
def test_no_curve_leaves_its_axes(highest, top):
    """A model that over-fits to few images ends far above chance."""
    curves = convergence_curves(made_up(naive_vit=[[0.69, 0.68, 0.66, 0.7, highest]], segl=[falling(0.1)]))
    assert draw_convergence(curves).axes[0].get_ylim() == (0, pytest.approx(top))
    rows = [{"samples": s, "val_itm": loss} for s, loss in enumerate((0.69, highest))]
    assert draw_run(rows).axes[0].get_ylim() == (0, pytest.approx(top))
    # What is not drawn does not count.
    assert draw_convergence(curves, names=["segl"]).axes[0].get_ylim() == (0, 0.8)


def test_order_of_variants_is_the_papers():
    assert in_order(["zebra", "segl", "region", "segl", "a+b"]) == ["region", "segl", "a+b", "zebra"]


def test_a_runs_panels_are_its_losses():
    rows = [{"samples": s, "val_itm": 0.7, "val_mlm": 5.0 - s, "val_loss": 6.0} for s in (0, 1)]
    assert len(draw_run(rows).axes) == 2
    assert len(draw_run([row | {"val_visual": 1.0} for row in rows]).axes) == 3
    table = first_and_last(rows)
    assert table.loc["val_mlm"].tolist() == [5.0, 4.0, 4.0]


def test_tables_are_saved_for_people_and_programs(tmp_path):
    path = save_table(pd.DataFrame({"a": [1.5, math.nan], "c": ["x|y", "z"]}), tmp_path, "table", "a note")
    assert path.read_text() == "| a | c |\n| --- | --- |\n| 1.5 | x\\|y |\n|  | z |\n\na note\n"
    assert (tmp_path / "table.csv").read_text().splitlines()[0] == "a,c"


# Runs on disk


def test_finished_runs_are_read(tmp_path):
    for variant, seed, finished in (("segl", 0, True), ("segl", 1, True), ("ssul", 0, False)):
        folder = tmp_path / "pretrain" / variant / f"seed{seed}"
        write_lines(folder / "metrics.jsonl", [{"samples": s, "val_itm": 0.1 * seed} for s in SAMPLES])
        if finished:
            # An older record has no name.
            name = {"name": "majority"} if seed else {}
            write_json(folder / "run.json", {"variant": variant, "seed": seed, "synthetic": seed == 0, **name})
    runs = read_runs(tmp_path, "pretrain")
    assert len(runs) == 2 * len(SAMPLES)
    assert set(runs["variant"]) == {"segl"}
    assert runs.groupby("seed")["name"].unique().map(list).to_dict() == {0: ["segl"], 1: ["majority"]}
    assert runs.groupby("seed")["val_itm"].mean().to_dict() == pytest.approx({0: 0.0, 1: 0.1})
    assert describe(runs, "tiny") == "profile tiny, real images, 2 seeds"
    assert describe(runs[runs["seed"] == 0], "tiny") == "profile tiny, embedded synthetic corpus, 1 seed"
    with pytest.raises(UserError, match="no finished finetune run under"):
        read_runs(tmp_path, "finetune")

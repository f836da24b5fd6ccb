import math

import numpy as np
import pandas as pd
import pytest
from made_curves import SAMPLES, falling, made_up
from matplotlib.figure import Figure
from scipy.stats import binomtest

from vlp_lib.errors import UserError
from vlp_lib.figures.one_run import draw_run, first_and_last
from vlp_lib.figures.plots import draw_ablations, draw_convergence
from vlp_lib.figures.style import colours, save_figure, save_table
from vlp_lib.io import write_json, write_lines
from vlp_lib.study import convergence
from vlp_lib.study.changes import ablation_table
from vlp_lib.study.convergence import (
    LN2,
    convergence_curves,
    order_table,
    samples_until,
    speed_table,
)
from vlp_lib.study.runs import describe, in_order, label, read_runs
from vlp_lib.study.verdicts import AT_CHANCE, estimate, undecided
from vlp_lib.variants import VARIANTS

UNDECIDED = undecided()


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
    naive, segl = (estimate(np.array(images)).half for images in ([250, 350], [200 / 3, 150]))
    assert table["images until 0.5"].tolist() == [f"300 ± {naive:,.0f}", "> 233", f"108 ± {segl:,.0f}"]
    assert table["speed-up over naive ViT"].tolist() == ["1.0×", "not decidable", "2.8×"]
    half = 12.706204736 * np.std([0.1, 0.2], ddof=1) / math.sqrt(2)
    assert table.loc["SEGL", "final matching loss"] == f"0.150 ± {half:.3f}"


def test_speed_up_over_a_baseline_that_never_gets_there_is_a_bound():
    table = speed_table(made_up(naive_vit=[[0.7] * 5], segl=[[0.7, 0.4, 0.3, 0.2, 0.1]]), 0.5).set_index("variant")
    assert table["speed-up over naive ViT"].tolist() == ["not decidable", "> 6.0×"]
    assert table.loc["Naive (ViT)", "images until 0.5"] == "> 400"
    assert table.loc["SEGL", "final matching loss"] == "0.100"  # one seed has no interval
    assert speed_table(made_up(segl=[falling(0.1)]), 0.5)["speed-up over naive ViT"].tolist() == ["not decidable"]


def test_curves_group_by_name_and_count_seeds():
    runs = made_up(segl=[[0.7, 0.2], [0.5, 0.4]], ssul=[[0.6, 0.1]])
    table = convergence_curves(runs).set_index(["name", "samples"])
    assert len(table) == 4
    assert table.loc[("segl", 0), "mean"] == pytest.approx(0.6)
    assert table.loc[("segl", 100), "mean"] == pytest.approx(0.3)
    assert table.loc[("segl", 0), "half"] == pytest.approx(estimate(np.array([0.7, 0.5])).half)
    assert table["seeds"].to_dict() == {("segl", 0): 2, ("segl", 100): 2, ("ssul", 0): 1, ("ssul", 100): 1}
    assert np.isnan(table.loc[("ssul", 0), "half"])
    accuracy = convergence_curves(runs, "val_itm_accuracy").set_index(["name", "samples"])
    assert accuracy.loc[("segl", 0), "mean"] == pytest.approx(0.7)


def verdicts_of(**losses):
    table = order_table(made_up(**losses)).set_index("the paper's claim")
    return table, table["verdict"].to_dict()


def test_order_table_of_made_up_runs():
    table, decided = verdicts_of(
        region=[[0.7, 0.3 + shift, 0.2, 0.2, 0.1] for shift in (0, 0.01, 0.02)],
        segl=[[0.7, 0.5 + shift, 0.4, 0.2, 0.1] for shift in (0, 0.03, 0.04)],
        ssul=[[0.7, 0.4 + shift, 0.3, 0.2, 0.1] for shift in (0, 0.01, 0.02)],
        naive_vit=[[0.7, 0.69, 0.69, 0.6, 0.4 + shift] for shift in (0, 0.02, 0.04)],
    )
    assert decided == {
        "Region features falls below 0.5 before SEGL": "confirmed",
        "SEGL falls below 0.5 before SSUL": "contradicted",
        "SSUL falls below 0.5 before Naive (ViT)": "confirmed",
        "SEGL takes at most 1.5 times the images of Region features, or as much fewer": "contradicted",
        "Naive (ViT) takes more than 2 times the images of SEGL to leave the plateau": "confirmed",
    }  # pairs of which one was not run are left out
    # Region: 100 · 0.2 / (0.4, 0.39, 0.38); SEGL: 100, 100 + 100 · 0.03 / 0.13, 100 + 100 · 0.04 / 0.14.
    region, segl = 20 / np.array([0.4, 0.39, 0.38]), np.array([100, 100 + 3 / 0.13, 100 + 4 / 0.14])
    logs = np.log(segl / region)
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)
    row = table.loc["Region features falls below 0.5 before SEGL"]
    ends = [math.exp(x) for x in (logs.mean(), logs.mean() - half, logs.mean() + half)]
    assert row["ratio of images (95 %)"] == "{:.2f} ({:.2f}–{:.2f})".format(*ends)
    assert row["seeds"] == 3
    # SEGL passes 0.9 ln 2 in the first hundred images, the naive model in the third: the ratio itself is written.
    late = table.loc["Naive (ViT) takes more than 2 times the images of SEGL to leave the plateau"]
    assert float(late["ratio of images (95 %)"].split()[0]) > 5


def test_a_run_that_never_gets_there_is_a_bound():
    """The ratio to the last of its images: enough to confirm that it is slower, not that it is faster."""
    never, soon = [[0.7] * 5, [0.7] * 4 + [0.6]], [[0.7, 0.4 + s, 0.3, 0.2, 0.1] for s in (0, 0.02)]
    # 400 images over 100 · 0.2 / 0.3 and 100 · 0.2 / 0.28; the far end of the interval is not known.
    logs = np.log(400 / np.array([20 / 0.3, 20 / 0.28]))
    half, words = 12.706205 * logs.std(ddof=1) / math.sqrt(2), "SSUL falls below 0.5 before Naive (ViT)"
    for slower, faster, verdict, sign, side in (
        ("naive_vit", "ssul", "confirmed", 1, "> {:.2f} (from {:.2f})"),
        ("ssul", "naive_vit", "contradicted", -1, "< {:.2f} (to {:.2f})"),
    ):
        table, decided = verdicts_of(**{slower: never, faster: soon})
        assert decided[words] == verdict
        written = side.format(math.exp(sign * logs.mean()), math.exp(sign * (logs.mean() - half)))
        assert table.loc[words, "ratio of images (95 %)"] == written
    # The first seeds agree and in the third the slower one did not finish: it might as well have been much slower.
    mixed = [[0.7, 0.5, 0.3, 0.2, 0.1], [0.7, 0.52, 0.3, 0.2, 0.1], [0.7, 0.7, 0.7, 0.7, 0.51]]
    _, decided = verdicts_of(region=[[0.7, 0.4, 0.3, 0.2, 0.1], [0.7, 0.41, 0.3, 0.2, 0.1], mixed[1]], segl=mixed)
    assert decided["SEGL takes at most 1.5 times the images of Region features, or as much fewer"] == UNDECIDED


def test_two_runs_at_chance_decide_nothing():
    flat = [[0.7, 0.693, 0.693, 0.692, 0.691]] * 3
    table, decided = verdicts_of(ssul=flat, naive_vit=flat, segl=flat)
    assert decided["SSUL falls below 0.5 before Naive (ViT)"] == "neither falls below 0.5"
    assert set(table["ratio of images (95 %)"]) == {"not known"}
    runs = made_up(ssul=flat, naive_vit=flat, segl=flat)
    assert {decision.p for _, decision in convergence.statements(runs) if decision} == {1.0}  # in Holm's family, too
    assert decided["Naive (ViT) takes more than 2 times the images of SEGL to leave the plateau"] == AT_CHANCE


def test_almost_the_same_is_an_equivalence():
    near = [[0.7, 0.5 + s, 0.3, 0.2, 0.1] for s in (0, 0.02, 0.01)]
    other = [[0.7, 0.5 + s, 0.3, 0.2, 0.1] for s in (0.02, 0.01, 0.02)]
    words = "SEGL takes at most 1.5 times the images of Region features, or as much fewer"
    assert verdicts_of(region=near, segl=other)[1][words] == "confirmed"


def test_an_order_of_nothing_that_was_run_can_be_read_again(tmp_path):
    """Two variants that no statement compares: a table without rows, but with its columns."""
    runs = made_up(region=[[0.6] * 5], segl_resnet=[[0.6] * 5])
    save_table(order_table(runs), tmp_path, "order")
    again = pd.read_csv(tmp_path / "order.csv")
    assert again.empty and "verdict" in again.columns


def test_order_table_pairs_equal_seeds():
    runs = made_up(region=[[0.7, s, 0.1, 0.1, 0.1] for s in (0.3, 0.31)], segl=[falling(0.3, s) for s in (0, 0.01, 0)])
    row = order_table(runs).iloc[0]
    assert (row["seeds"], row["verdict"]) == (2, "confirmed")
    alone = runs[(runs["variant"] == "segl") | (runs["seed"] == 0)]
    assert order_table(alone).iloc[0]["verdict"] == UNDECIDED


def test_order_table_without_a_common_seed_decides_nothing():
    runs = made_up(region=[falling(0.1)], segl=[falling(0.3), falling(0.3)])
    apart = runs[(runs["variant"] == "region") | (runs["seed"] == 1)]
    assert (order_table(apart)["seeds"] == 0).all()
    assert set(order_table(apart)["verdict"]) == {UNDECIDED}


def test_the_papers_order_names_variants():
    assert all(name in VARIANTS for pair in convergence.ORDER for name in pair)
    assert pytest.approx(math.log(2)) == LN2


def test_named_runs_stand_beside_the_variants():
    runs = made_up(naive_vit=[falling(0.4), falling(0.41)], segl=[falling(0.2), falling(0.21)])
    named = runs[runs["variant"] == "segl"].assign(name="majority")
    named["val_itm"] -= 0.1 * (named["samples"] == SAMPLES[-1]) + 0.002 * named["seed"]
    alone = runs[runs["variant"] == "segl"].assign(name="alone", variant="ssul")  # SSUL itself was not run
    runs = pd.concat([runs, named, alone])
    assert speed_table(runs, 0.5)["variant"].tolist() == ["Naive (ViT)", "SEGL", "alone", "majority"]
    alike = order_table(made_up(naive_vit=[falling(0.4)], segl=[falling(0.2)]))
    assert order_table(runs)["the paper's claim"].tolist() == alike["the paper's claim"].tolist()
    (row,) = ablation_table(runs).query("run == 'majority'").to_dict("records")
    assert (row["run"], row["beside"], row["seeds"], row["ends"]) == ("majority", "SEGL", 2, "lower")
    assert row["final matching loss"].startswith("-0.101 ± ")
    flat = runs.assign(val_itm=0.69 + 0.001 * runs["seed"])
    (row,) = ablation_table(flat).query("run == 'majority'").to_dict("records")
    assert (row["leaves it"], row["ends"]) == (AT_CHANCE, AT_CHANCE)
    drawn = draw_convergence(convergence_curves(runs)).axes[0].lines
    assert [line.get_label() for line in drawn[:-1]] == ["Naive (ViT)", "SEGL", "alone", "majority"]
    panels = draw_ablations(runs.assign(val_entropy=0.9)).axes
    assert [axes.get_title() for axes in panels] == ["SSUL", "SEGL", "", ""]
    labels = [[line.get_label() for line in axes.lines if not line.get_label().startswith("_")] for axes in panels]
    assert labels == [["alone"], ["as it is", "majority"]] * 2
    assert len({line.get_color() for line in drawn[:-1]}) == 4


@pytest.mark.parametrize(("right", "pairs"), [(0, 20), (20, 20), (200, 256), (3, 500)])
def test_the_accuracy_of_one_seed_has_wilsons_interval(right, pairs):
    runs = made_up(segl=[falling(0.3)]).assign(val_itm_accuracy=right / pairs, images=pairs)
    expected = binomtest(right, pairs).proportion_ci(method="wilson")
    written = speed_table(runs, 0.5)["final matching accuracy"].item()
    low, high = map(float, written.partition("(")[2].rstrip(")").split("–"))
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=6e-4)


def test_colours_are_fixed_for_the_paper_and_in_turn_for_others():
    fixed = colours()
    assert set(fixed) == {*VARIANTS, "naive"} and fixed["segl"] == "#0072B2"
    others = [f"run {i}" for i in range(20)]
    tints = colours(["segl", *others])
    assert {name: tints[name] for name in fixed} == fixed
    assert tints == colours([*others, "segl"]) | fixed
    assert len({tints[name] for name in others[:8]} - set(fixed.values())) == 8


def test_a_line_a_variant_and_one_for_chance(tmp_path):
    runs = made_up(**{name: [falling(0.1), falling(0.2)] for name in VARIANTS}, **{"segl+ssul": [falling(0.1)]})
    curves = convergence_curves(runs)
    figure = draw_convergence(curves, title="all")
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    assert len(axes.lines) == len(VARIANTS) + 2
    assert len(axes.collections) == len(VARIANTS) + 1
    named = {text.get_text(): text for text in axes.texts}
    assert {label(name) for name in (*VARIANTS, "segl+ssul")} <= named.keys()
    # All of them end at two losses; their names stand one above the other.
    heights = sorted(text.get_position()[1] for name, text in named.items() if name != "chance (ln 2)")
    assert min(np.diff(heights)) > 0.03
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
    path = save_table(pd.DataFrame({"a": [1.23456, math.nan], "c": ["x|y", "z"]}), tmp_path, "table", "a note")
    assert path.read_text() == "| a | c |\n| --- | --- |\n| 1.235 | x\\|y |\n|  | z |\n\na note\n"
    assert (tmp_path / "table.csv").read_text().splitlines()[0] == "a,c"


def test_finished_runs_are_read(tmp_path):
    for variant, seed, finished in (("segl", 0, True), ("segl", 1, True), ("ssul", 0, False)):
        folder = tmp_path / "pretrain" / variant / f"seed{seed}"
        write_lines(folder / "metrics.jsonl", [{"samples": s, "val_itm": 0.1 * seed} for s in SAMPLES])
        if finished:
            name = "majority" if seed else variant
            write_json(folder / "run.json", {"variant": variant, "name": name, "seed": seed, "synthetic": seed == 0})
    runs = read_runs(tmp_path, "pretrain")
    assert len(runs) == 2 * len(SAMPLES)
    assert set(runs["variant"]) == {"segl"}
    assert runs.groupby("seed")["name"].unique().map(list).to_dict() == {0: ["segl"], 1: ["majority"]}
    assert runs.groupby("seed")["val_itm"].mean().to_dict() == pytest.approx({0: 0.0, 1: 0.1})
    assert describe(runs, "tiny") == "profile tiny, real images, 2 seeds"
    assert describe(runs[runs["seed"] == 0], "tiny") == "profile tiny, embedded synthetic corpus, 1 seed"
    with pytest.raises(UserError, match="no finished finetune run under"):
        read_runs(tmp_path, "finetune")

import math

import numpy as np
import pandas as pd
import pytest
from made_curves import falling, made_up
from scipy.stats import t as student

from vlp_lib.figures.plots import draw_ends
from vlp_lib.study.changes import ablation_table, ends_table
from vlp_lib.study.convergence import LN2
from vlp_lib.study.verdicts import SAME, undecided


def straight(**curves: list[float]) -> pd.DataFrame:
    """Runs of SEGL whose losses are straight lines, below 0.9 ln 2 after these shares of 1,000 images, seed by seed."""
    steps = np.linspace(0, 1, 11)
    return pd.concat(
        pd.DataFrame(
            {"name": name, "variant": "segl", "seed": seed, "samples": 1_000 * steps,
             "val_itm": LN2 - 0.1 * LN2 * steps / end}
        )
        for name, ends in curves.items()
        for seed, end in enumerate(ends)
    )  # fmt: skip


def test_where_each_run_ends_is_drawn_with_its_interval_and_who_stays_as_an_arrow():
    runs = straight(**{"segl": [0.4, 0.41, 0.42], "segl-never": [2, 2.1, 2.2], "segl-two": [0.5, 0.52]})
    ends = ends_table(runs.assign(settings=runs["name"].map({"segl-two": "data.flip=0"}).fillna(""))).set_index("name")
    assert ends["change"].to_dict() == {"segl": "as it is", "segl-never": "never", "segl-two": "two"}
    assert ends["left"].to_dict() == {"segl": 3, "segl-never": 0, "segl-two": 2}
    logs = np.log([400, 410, 420])
    half = student.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    found = ends.loc["segl", ["images_low", "images", "images_high"]].to_list()
    assert found == pytest.approx(np.exp([logs.mean() - half, logs.mean(), logs.mean() + half]), rel=1e-6)
    assert ends.loc["segl-never", "images"] == pytest.approx(1_000)
    assert ends.loc["segl-two", "loss"] == pytest.approx(LN2 - 0.05 * LN2 * (1 / 0.5 + 1 / 0.52))
    left, right = draw_ends(ends.reset_index()).axes
    assert [line.get_marker() for line in left.lines if line.get_marker() != "None"] == ["^", ">", "^"]
    assert [line.get_marker() for line in right.lines if line.get_marker() != "None"] == ["^"] * 3
    assert [text.get_text() for text in left.get_yticklabels()] == ["as it is", "never", "two\ndata.flip=0"]
    assert (
        sum(len(line.get_xdata()) == 2 and line.get_color() == left.lines[0].get_color() for line in right.lines) == 2
    )


def test_every_run_is_drawn_where_it_is_on_whatever_backbone():
    runs = straight(**{"segl": [0.4] * 3, "segl-x": [0.5] * 3, "x": [0.6] * 3})
    high = runs[runs["name"] == "segl"].assign(name="naive", variant="naive", val_itm=1.1)
    timm = runs[runs["name"] == "x"].assign(name="segl@timm-resnet18-x", variant="segl@timm:resnet18")
    ends = ends_table(pd.concat([runs, high, timm]))
    changes = dict(zip(ends["name"], ends["change"], strict=True))
    assert changes == {"segl": "as it is", "naive": "as it is", "segl-x": "x", "x": "x", "segl@timm-resnet18-x": "x"}
    _, right = draw_ends(ends).axes
    assert len([line for line in right.lines if line.get_marker() != "None"]) == 5
    assert right.get_xlim()[1] > 1.1


def test_a_named_run_leaves_the_plateau_sooner_or_later_than_its_variant():
    runs = straight(segl=[0.40, 0.41, 0.42], slow=[0.8, 0.83, 0.85], never=[2, 2.1, 2.2], same=[0.4, 0.41, 0.43])
    table = ablation_table(runs).set_index("run")
    assert table.loc["slow", "images until the plateau ends"].startswith("2.02 (1.98–2.05)")
    assert table["leaves it"].to_dict() == {"never": "later", "same": SAME, "slow": "later"}
    assert table.loc["never", "images until the plateau ends"].startswith("> 2.44")
    assert table.loc["never", "ends"] == "higher"


def test_a_named_run_stands_beside_what_shares_its_backbone_and_setting():
    names = ("naive_vit", "naive_resnet", "segl_resnet", "region", "segl", "segl+ssul")
    runs = made_up(**{name: [falling(0.4), falling(0.41)] for name in names})
    table = ablation_table(pd.concat([runs, runs.assign(name=runs["variant"] + "-m")]))
    beside = table.groupby("run")["beside"].apply(list).to_dict()
    assert beside["segl_resnet-m"] == ["SEGL (ResNet)", "naive_resnet-m"]
    assert beside["region-m"] == ["Region features"]
    assert beside["segl+ssul-m"] == ["segl+ssul", "segl-m", "naive_vit-m"]


def test_only_seeds_of_both_are_compared():
    runs = made_up(naive_vit=[falling(0.4)] * 2, segl=[falling(0.2)] * 2)
    alone = runs[(runs["name"] == "segl") & (runs["seed"] == 1)].assign(name="segl-m", seed=7)
    assert ablation_table(pd.concat([runs, alone])).empty


def test_a_mix_stands_beside_each_of_its_losses_and_a_plug_in_beside_the_naive_model():
    names = ("naive_vit", "ssul", "segl", "segl+0.3*ssul", "my_loss")
    table = ablation_table(made_up(**{name: [falling(0.4), falling(0.41)] for name in names}))
    assert table[["run", "beside"]].to_numpy().tolist() == [
        ["my_loss", "Naive (ViT)"],
        ["segl+0.3*ssul", "SEGL"],
        ["segl+0.3*ssul", "SSUL"],
        ["segl+0.3*ssul", "Naive (ViT)"],
    ]
    assert set(table["final matching loss"]) == {"+0.000"}


def test_a_named_run_stands_beside_the_naive_models_under_the_same_setting():
    runs = made_up(naive_vit=[falling(0.4)] * 2, ssul=[falling(0.3)] * 2)
    changed = runs.assign(name=runs["variant"] + "-mlm15", val_itm=runs["val_itm"] + 0.05)
    table = ablation_table(pd.concat([runs, changed]))
    assert table[["run", "beside"]].to_numpy().tolist() == [
        ["naive_vit-mlm15", "Naive (ViT)"],
        ["ssul-mlm15", "SSUL"],
        ["ssul-mlm15", "naive_vit-mlm15"],
        ["mlm15, 2 variants", "as it is"],
    ]
    assert table["final matching loss"].str[:6].tolist() == ["+0.050", "+0.050", "-0.100", "+0.050"]


def test_a_change_of_several_variants_is_judged_by_the_mean_of_their_losses():
    """What each seed does to one variant and undoes to the other says nothing of the change."""
    runs = made_up(naive_vit=[falling(0.4)] * 3, segl=[falling(0.3)] * 3)
    noise = 0.1 * (runs["seed"] - 1) * (1 - 2 * (runs["variant"] == "segl"))
    changed = runs.assign(name=runs["variant"] + "-x", val_itm=runs["val_itm"] + 0.05 + noise + 0.001 * runs["seed"])
    table = ablation_table(pd.concat([runs, changed])).set_index("run")
    assert table.loc["segl-x", "ends"].iloc[0] == undecided()
    half = student.ppf(0.975, 2) * 0.001 / math.sqrt(3)
    assert table.loc["x, 2 variants", "final matching loss"] == f"+0.051 ± {half:.3f}"
    assert table.loc["x, 2 variants", "ends"] == "higher"

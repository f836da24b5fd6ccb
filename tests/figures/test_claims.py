import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vlp_lib.bench.speed import LATENCY
from vlp_lib.figures.plots import _claimed, draw_claims
from vlp_lib.figures.style import save_figure
from vlp_lib.io import read_json, write_json
from vlp_lib.items import write_items
from vlp_lib.paper import CLAIMS, Ranking
from vlp_lib.study.claims import claims_table, overview, smallest_step
from vlp_lib.study.scores import read_results
from vlp_lib.study.verdicts import AT_CHANCE, DECIDED, SAME, holm
from vlp_lib.variants import VARIANTS

CONFIRMED, CONTRADICTED, NOT_RUN = "confirmed", "contradicted", "not run"
NO_SEEDS, NO_ROUNDS = "not decidable with these seeds", "not decidable with these rounds"


def claims(made_up, claim):
    """The comparisons of one claim by their words; where a metric matters, use the table."""
    table = claims_table(read_results(made_up.root))
    return table[table["claim"] == claim].set_index("comparison")


def test_the_margin_is_the_papers_smallest_step():
    vqa = next(claim for claim in CLAIMS if claim.id == "vqa").rankings
    assert smallest_step(vqa[0]) == pytest.approx(69.41 - 68.95)
    assert smallest_step(vqa[1]) == pytest.approx(70.53 - 68.52)
    coco = Ranking("coco_1k_ir_r1", "segl_resnet > naive_resnet")
    assert smallest_step(coco) == pytest.approx(53.5 - 32)  # fractions in the paper


def test_vqa_by_hand(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "ssul", 0.58, 0.605, 0.62)
    made_up.finetune("vqa", "spl_large", 0.581, 0.604, 0.62)
    made_up.finetune("vqa", "naive_vit", 0.59, 0.62, 0.63)
    rows = claims(made_up, "vqa")
    assert set(rows["metric"]) == {"VQA accuracy, test"}
    first = rows.loc["SEGL > SSUL"]
    # Differences 2, 1.5, 2: mean 11/6, standard deviation 0.288675, t 4.302653.
    half = 4.302653 * 0.28867513 / math.sqrt(3)
    assert first[["estimate", "low", "high"]].tolist() == pytest.approx([11 / 6, 11 / 6 - half, 11 / 6 + half])
    assert first[["paper", "unit", "from", "verdict"]].tolist() == [
        "70.92 and 70.26", "points of %", "3 seeds", CONFIRMED,
    ]  # fmt: skip
    assert rows.loc["SSUL > Naive (ViT)", "verdict"] == CONTRADICTED  # −1, −1.5, −1
    assert rows.loc["SEGL > Naive (ViT)", "verdict"] == NO_SEEDS  # 1, 0, 1
    assert rows.loc["SSUL ≈ SPL (large) within 0.46", "verdict"] == CONFIRMED  # −0.1, 0.1, 0
    missing = rows[rows["verdict"] == NOT_RUN]
    assert set(missing.index) == {
        "SSUL > SPL (small)", "SPL (large) > SPL (small)", "SPL (small) > Naive (ViT)",
        "SEGL (ResNet) > Naive (ResNet)",
    }  # fmt: skip
    assert missing[["estimate", "low", "high"]].isna().all(axis=None)
    assert len(rows) == 10


def test_on_a_profiles_own_backbone_its_naive_model_stands_for_the_papers(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "naive", 0.58, 0.605, 0.62)
    made_up.pretrain("segl", 0.20, 0.21, 0.23)
    made_up.pretrain("naive", 0.60, 0.59, 0.58)
    assert claims(made_up, "vqa").loc["SEGL > Naive", "verdict"] == CONFIRMED
    takes = claims(made_up, "convergence").filter(like="Naive takes more than", axis=0)
    assert takes["verdict"].ne(NOT_RUN).all() and len(takes) == 1


def test_one_seed_decides_nothing(made_up):
    for variant in VARIANTS:
        made_up.finetune("vqa", variant, 0.9 if variant == "segl" else 0.1)
    rows = claims(made_up, "vqa")
    assert set(rows["verdict"]) == {NO_SEEDS}
    assert rows.loc["SEGL > SSUL", ["estimate", "from"]].tolist() == [pytest.approx(80.0), "1 seed"]
    assert rows["low"].isna().all()


def test_only_common_seeds_are_compared(made_up):
    made_up.finetune("vqa", "segl", 0.6, 0.7, 0.8)
    made_up.finetune("vqa", "ssul", 0.5, 0.61)
    row = claims(made_up, "vqa").loc["SEGL > SSUL"]
    assert (row["from"], row["estimate"]) == ("2 seeds", pytest.approx(9.5))


def test_retrieval_by_hand(made_up):
    made_up.retrieve("segl", 0.50, 0.51, 0.52)
    made_up.retrieve("ssul", 0.46, 0.48, 0.48)
    made_up.retrieve("spl_small", 0.42, 0.43, 0.45)
    made_up.retrieve("spl_large", 0.42, 0.43, 0.44)
    made_up.retrieve("naive_vit", 0.20, 0.22, 0.22)
    rows = claims(made_up, "retrieval").reset_index().set_index(["metric", "comparison"])
    metrics = rows.index.get_level_values(0).unique()
    assert len(metrics) == 4
    for metric in metrics:  # made up so that all four are alike
        assert rows.loc[(metric, "SEGL > SSUL"), "verdict"] == CONFIRMED  # 4, 3, 4
        assert rows.loc[(metric, "SSUL > SPL (small)"), "verdict"] == CONFIRMED  # 4, 5, 3
        assert rows.loc[(metric, "SEGL (ResNet) > Naive (ResNet)"), "verdict"] == NOT_RUN
    whole = metrics[0]
    assert whole == "text R@1, whole gallery"
    # In text retrieval of 5k the paper has both SPLs at 0.42, nearer than 2, its smallest step; in 1k they lie apart.
    assert rows.loc[(whole, "SPL (small) ≈ SPL (large) within 2"), "verdict"] == CONFIRMED  # 0, 0, 1: 0.33 ± 1.43
    assert not any("≈" in words for metric, words in rows.index if "folds" in metric)
    behind = rows.loc[(whole, "Naive (ViT) further behind the next than the others lie apart")]
    # The gaps 22, 21, 22 less the others' range 8, 8, 8.
    assert behind["estimate"] == pytest.approx((14 + 13 + 14) / 3)
    assert (behind["paper"], behind["verdict"]) == ("17 and 8", CONFIRMED)


def test_a_gallery_without_folds_is_not_scored(made_up):
    for variant in VARIANTS:
        made_up.retrieve(variant, 0.3, 0.4, folds=False)
    rows = claims(made_up, "retrieval")
    folds = rows["metric"].str.endswith("folds")
    assert set(rows[folds]["verdict"]) == {"not scored"}
    assert set(rows[~folds]["verdict"]) <= {NO_SEEDS, CONFIRMED}


def test_convergence_by_hand(made_up):
    made_up.pretrain("region", 0.10, 0.11, 0.12)
    made_up.pretrain("segl", 0.20, 0.21, 0.23)
    made_up.pretrain("naive_vit", 0.69, 0.68, 0.69)
    made_up.time(segl=1.0)
    rows = claims(made_up, "convergence")
    # From 0.7 at 0 to the loss at 100 images: 0.5 is crossed at 100 · 0.2 / (0.7 − loss).
    logs = np.log([0.60 / 0.50, 0.59 / 0.49, 0.58 / 0.47])
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)
    first = rows.loc["Region features falls below 0.5 before SEGL"]
    expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    assert first[["estimate", "low", "high"]].tolist() == pytest.approx(expected)
    assert (first["unit"], first["from"], first["verdict"]) == ("times", "3 seeds", CONFIRMED)
    assert first["p"] == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)
    # The naive model stays above 0.9 ln 2: that it takes more than twice the images is a bound from below.
    late = rows.loc["Naive (ViT) takes more than 2 times the images of SEGL to leave the plateau"]
    assert late["unit"] == "times, at least" and math.isnan(late["high"]) and 2 < late["low"] < late["estimate"]
    # Nothing is dropped that was not run.
    assert rows.loc["SEGL falls below 0.5 before SSUL", "verdict"] == NOT_RUN
    assert len(rows) == 10


def test_inference_by_hand(made_up):
    made_up.time(
        naive_vit=100.0, naive_resnet=101.0, ssul=100.0, segl=150.0, spl_small=80.0, spl_large=82.0,
        region_bottom_up=1010.0,
    )  # fmt: skip
    rows = claims(made_up, "inference")
    assert len(rows) == 1 + 5 + 7 + 4
    faster = rows.loc["SPL (small) faster than SPL (large)"]
    large, small = (made_up.latency(name, ms)["times_ms"] for name, ms in (("spl_large", 82.0), ("spl_small", 80.0)))
    logs = np.log(np.array(large) / small)
    half = 2.776445 * logs.std(ddof=1) / math.sqrt(5)
    expected = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    assert faster[["estimate", "low", "high"]].tolist() == pytest.approx(expected)
    assert faster["p"] == pytest.approx(stats.ttest_1samp(logs, 0).pvalue)
    assert faster[["paper", "unit", "from", "verdict"]].tolist() == ["34 and 37 ms", "times", "5 rounds", NO_ROUNDS]
    assert rows.loc["SPL (large) faster than Naive (ViT)", "verdict"] == CONFIRMED
    slower = "Region features takes more than 10× as long as "
    assert rows.loc[f"{slower}SPL (small)", "verdict"] == CONFIRMED  # 12.6
    assert rows.loc[f"{slower}Naive (ViT)", "verdict"] == NO_ROUNDS  # about 10
    assert rows.loc[f"{slower}SEGL", "verdict"] == CONTRADICTED  # 6.7
    assert rows.loc[f"{slower}SEGL", "paper"] == "40 and ~900 ms"
    # 40 / 37 is the smallest step between times of the paper.
    same = " as fast as Naive (ViT) within a factor of 1.08"
    assert rows.loc[f"SSUL{same}", "verdict"] == CONFIRMED
    assert rows.loc[f"SEGL{same}", "verdict"] == CONTRADICTED
    assert rows.loc[f"SEGL (ResNet){same}", "verdict"] == NOT_RUN


def test_times_without_rounds_are_not_scored_and_one_round_decides_nothing(made_up):
    """Those of an earlier version, and of a measurement that was made but once."""
    made_up.time(spl_small=80.0, spl_large=82.0, ssul=100.0)
    path = made_up.root / "speed" / LATENCY
    record = read_json(path)
    small, large, ssul = record["rows"]
    small["times_ms"] = [1.0, None, None, None, None]
    del ssul["times_ms"]
    write_json(path, record | {"rows": [small, large, ssul]})
    rows = claims(made_up, "inference")
    assert rows.loc["SPL (large) faster than SSUL", "verdict"] == "not scored"
    once = rows.loc["SPL (small) faster than SPL (large)"]
    assert (once["from"], once["verdict"], once["survives"]) == ("1 round", NO_ROUNDS, False)
    assert rows.loc["SPL (large) faster than SEGL", "verdict"] == NOT_RUN


def test_a_mix_is_compared_with_the_best_single_loss(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "ssul", 0.50, 0.52, 0.54)
    made_up.finetune("vqa", "segl_resnet", 0.90, 0.92, 0.94)  # another vision stream
    made_up.finetune("vqa", "naive_vit", 0.80, 0.82, 0.84)  # no loss
    made_up.finetune("vqa", "segl+0.5*ssul", 0.65, 0.67, 0.70)
    made_up.pretrain("segl", 0.3)
    made_up.pretrain("ssul", 0.4)  # which decides, not the scores that are compared
    rows = claims(made_up, "joint_losses")
    row = rows.loc["segl+0.5*ssul gains less than 0.46 over SEGL"]
    assert row["estimate"] == pytest.approx(16 / 3)
    assert (row["metric"], row["verdict"]) == ("VQA accuracy, test", CONTRADICTED)  # 5, 5, 6 ahead
    assert rows["verdict"].tolist().count(NOT_RUN) == 4  # retrieval's
    assert len(rows) == 5


def test_joint_losses_are_not_run_without_a_mix(made_up):
    made_up.finetune("vqa", "segl", 0.6, 0.62, 0.64)
    (row,) = claims(made_up, "joint_losses").to_dict("records")
    assert row["verdict"] == NOT_RUN


@pytest.fixture
def everything(made_up):
    """The comparisons of a study in which every variant was run."""
    for place, variant in enumerate(VARIANTS):
        shares = [0.3 + 0.02 * place + 0.01 * seed + 0.003 * ((seed * place) % 2) for seed in range(3)]
        made_up.finetune("vqa", variant, *shares)
        made_up.retrieve(variant, *shares)
        made_up.pretrain(variant, *shares)
    made_up.time(**{v: 100.0 for v in VARIANTS if v != "region"}, region_bottom_up=2000.0)
    return claims_table(read_results(made_up.root))


def test_overview_counts_every_comparison(everything):
    counted = overview(everything)
    assert counted["claim"].tolist() == [claim.text for claim in CLAIMS]
    kinds = [CONFIRMED, CONTRADICTED, SAME, "neither got there", "not decidable", "not run or scored"]
    assert counted[kinds].sum(axis=1).tolist() == counted["comparisons"].tolist()
    assert counted["comparisons"].sum() == len(everything)
    assert counted["not run or scored"].tolist() == [0, 0, 0, 0, 1]
    survivors = everything.groupby("claim", sort=False)["survives"].sum()
    assert counted["decided, with Holm"].tolist() == survivors.tolist()


def test_what_neither_reached_is_counted(made_up):
    for variant in ("ssul", "naive_vit"):
        made_up.pretrain(variant, 0.69, 0.69)
    made_up.time(segl=1.0)
    table = claims_table(read_results(made_up.root))
    assert overview(table)["neither got there"].tolist() == [1, 0, 0, 0, 0]


def test_holm_is_of_each_claims_family(everything):
    for _, rows in everything.groupby("claim"):
        assert rows["Holm"].to_numpy() == pytest.approx(holm(rows["p"]), nan_ok=True)
        lost = rows[rows["verdict"].isin(DECIDED) & ~rows["survives"]]
        assert (lost["Holm"] >= 0.05).all()


def test_scores_of_guessing_decide_nothing(made_up):
    made_up.finetune("vqa", "segl", 0.400, 0.401, 0.402, guess=40.0)
    made_up.finetune("vqa", "ssul", 0.390, 0.392, 0.393, guess=40.0)
    made_up.finetune("vqa", "naive_vit", 0.30, 0.31, 0.33, guess=40.0)
    made_up.finetune("vqa", "spl_small", 0.60, 0.61, 0.64, guess=40.0)
    rows = claims(made_up, "vqa")
    assert rows.loc["SEGL > SSUL", "verdict"] == AT_CHANCE
    assert rows.loc["SPL (small) > Naive (ViT)", "verdict"] == CONFIRMED  # one side has learned


def test_items_widen_an_interval(made_up):
    """Where the test set is small, another one might have said something else."""
    rng = np.random.default_rng(0)
    for variant, mean in (("segl", 62.0), ("ssul", 60.0)):
        items = [np.clip(rng.normal(mean, 30, 100), 0, 100) for _ in range(3)]
        made_up.finetune("vqa", variant, *(one.mean() / 100 for one in items))
        for seed, one in enumerate(items):
            write_items(made_up.root / f"finetune-vqa/{variant}/seed{seed}", {"test.overall": one})
    row = claims(made_up, "vqa").loc["SEGL > SSUL"]
    assert row["from"] == "3 seeds, 100 items"
    with_items = row["high"] - row["low"]
    (made_up.root / "finetune-vqa/ssul/seed2/items.npz").unlink()
    row = claims(made_up, "vqa").loc["SEGL > SSUL"]
    assert row["from"] == "3 seeds" and row["high"] - row["low"] <= with_items * 4


def test_every_claim_says_not_run_where_nothing_was(made_up):
    made_up.cost()
    table = claims_table(read_results(made_up.root))
    assert set(table["claim"]) == {claim.id for claim in CLAIMS}
    assert set(table["verdict"]) == {NOT_RUN}
    assert len(draw_claims(table).axes) == 1


def test_picture_and_files(everything, tmp_path):
    figure = draw_claims(everything, "a note")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "VQA accuracy, test", "text R@1, whole gallery", "image R@1, whole gallery", "text R@1, folds",
        "image R@1, folds",
    ]  # fmt: skip
    drawn = everything[(everything["unit"] == "points of %") & (everything["verdict"] != NOT_RUN)]
    assert sum(len(axes.get_yticks()) for axes in figure.axes) == len(drawn)
    assert save_figure(figure, everything, tmp_path, "claims").stat().st_size < 1_000_000
    assert len(pd.read_csv(tmp_path / "claims.csv")) == len(everything)


@pytest.mark.parametrize(
    ("words", "claimed"),
    [
        ("SEGL > SSUL", (0, 9)),
        ("SSUL ≈ SPL (large) within 0.46", (-0.46, 0.46)),
        ("segl+ssul gains less than 1.5 over SEGL", (-9, 1.5)),
    ],
)
def test_the_band_of_a_claim_is_what_its_words_say(words, claimed):
    assert _claimed(words, 9) == claimed

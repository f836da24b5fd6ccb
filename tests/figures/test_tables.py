import math
import re

import pandas as pd
import pytest

from vlp_lib import paper
from vlp_lib.bench.speed import COST, LATENCY, METHODS
from vlp_lib.errors import UserError
from vlp_lib.figures import tables
from vlp_lib.figures.index import TITLES, write_index
from vlp_lib.figures.plots import draw_claims
from vlp_lib.figures.style import markdown, save_figure, save_table
from vlp_lib.io import read_json, write_json
from vlp_lib.profiles import PROFILES
from vlp_lib.study import scores
from vlp_lib.study.claims import claims_table, overview
from vlp_lib.study.runs import CHECK_ONLY, stamped
from vlp_lib.study.scores import read_results
from vlp_lib.variants import VARIANTS

NOT_RUN, NOT_SCORED = "not run", "not scored"


def half(spread):
    """Half-width for three values that lie `spread` apart: their standard deviation is the spread."""
    return 4.302653 * spread / math.sqrt(3)  # Student's t of 0.975 with two degrees of freedom, from a printed table


def test_nothing_but_pretraining_names_the_command(made_up):
    message = r"no finished finetuning.* under .*tiny: run `vlp reproduce --until tables`"
    with pytest.raises(UserError, match=message):
        read_results(made_up.root)
    made_up.pretrain("segl", 0.3)
    with pytest.raises(UserError, match=message):
        read_results(made_up.root)


def test_a_broken_record_is_named(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    (made_up.root / "finetune-vqa" / "segl" / "seed0" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"seed0/run\.json is not JSON"):
        read_results(made_up.root)


def test_the_files_are_those_that_the_measurements_write():
    assert (f"speed/{LATENCY}", f"speed/{COST}") == (scores.LATENCY, scores.COST)
    assert tables._COMPARED == METHODS


def test_scores_of_every_kind_in_percent(made_up):
    made_up.finetune("vqa", "segl", 0.6, 0.7)
    made_up.retrieve("segl", 0.3)
    made_up.attend("segl", 0.4)
    results = read_results(made_up.root)
    assert results.values("vqa", "segl", "test", "overall").to_dict() == pytest.approx({0: 60.0, 1: 70.0})
    assert results.values("retrieval", "segl", "all", "text_r5").tolist() == pytest.approx([34.0])
    assert results.values("retrieval", "segl", "folds", "image_r1").tolist() == pytest.approx([40.0])
    assert results.values("attention", "segl", "all", "mass").tolist() == pytest.approx([20.0])
    assert results.values("vqa", "ssul", "test", "overall").empty
    # Counts, and the means of one type of question, are no scores.
    assert set(results.scores[results.scores["task"] == "vqa"]["metric"]) == {"overall"}
    assert results.galleries == {"all": "all 80 images", "folds": "5 folds of 16 images"}
    assert results.provenance == "profile tiny, embedded corpus"
    assert results.names == list(VARIANTS)


def test_mixes_stand_after_the_papers_variants(made_up):
    made_up.finetune("vqa", "segl+0.5*ssul", 0.6)
    results = read_results(made_up.root)
    assert results.names == [*VARIANTS, "segl+0.5*ssul"]
    assert tables.table_ii(results)["model"].tolist()[-1] == "segl+0.5*ssul"


def test_real_images_are_told_from_the_embedded_corpus(made_up):
    made_up.finetune("vqa", "segl", 0.6, synthetic=False)
    assert read_results(made_up.root).provenance == "profile tiny, real images (results/tiny)"


def test_table_i_beside_the_papers_words(made_up):
    made_up.cost()
    made_up.time(naive_vit=100.0, ssul=99.0, spl_small=80.0)
    table = tables.table_i(read_results(made_up.root)).set_index("method")
    assert table["time of a training step"].tolist() == ["1.25×", "1.25×", NOT_RUN, "1.25×", "1.25×"]
    assert table["time of an answer"].tolist() == ["1.00×", "0.99×", NOT_RUN, "0.80×", NOT_RUN]
    assert table["paper: inference"].tolist() == ["-", "Same", "Same", "Faster", "Faster"]
    assert table["paper: extra computation"].tolist()[2:4] == ["1 layer 1x1 Conv", "1 layer transformer decoder"]
    assert table.loc["SEGL", "extra parameters (million)"] == 1.5 and table.index[0] == "No visual loss"
    assert set(table["this run"]) == {"profile tiny, embedded corpus"}


def test_table_i_without_measurements(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    table = tables.table_i(read_results(made_up.root)).set_index("method")
    assert len(table) == len(METHODS)
    measured = table.drop(columns=["this run", *(c for c in table if c.startswith("paper: "))])
    assert (measured == NOT_RUN).all(axis=None)
    assert table.loc["SPL (small)", "paper: extra data"] == "Pretrained detector"


def test_table_ii_by_hand(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "naive_vit", 0.5)
    made_up.time(segl=400.0, region_bottom_up=9000.0)
    table = tables.table_ii(read_results(made_up.root)).set_index("model")
    assert list(table.index) == [
        "Region features", "Naive (ViT)", "Naive (ResNet)", "SSUL", "SEGL", "SEGL (ResNet)", "SPL (small)",
        "SPL (large)",
    ]  # fmt: skip
    assert table.loc["SEGL"].tolist() == ["400.0 (392.0–408.0)", f"62.00 ± {half(2):.2f}", "40", "70.92",
                                          "profile tiny, embedded corpus, 3 seeds"]  # fmt: skip
    assert table.loc["Naive (ViT)"].tolist() == [NOT_RUN, "50.00", "40", "68.95",
                                                 "profile tiny, embedded corpus, 1 seed"]  # fmt: skip
    assert table.loc["Region features"].tolist() == ["9000.0 (8820.0–9180.0)", NOT_RUN, "~900", "-", NOT_RUN]
    assert "the architectures as published, float32, on cpu, 1 thread(s)" in read_results(made_up.root).timing
    assert table["VQA, test (%)"].tolist().count(NOT_RUN) == 6
    assert table["paper: inference time (ms, P40)"].tolist()[1:] == ["40", "40", "40", "40", "40", "34", "37"]


def test_val_stands_where_tests_labels_are_not_public(made_up):
    made_up.finetune("vqa", "segl", 0.9, val=0.55, public=False)
    table = tables.table_ii(read_results(made_up.root)).set_index("model")
    assert table.loc["SEGL", "VQA, val (%)"] == "55.00"


def test_table_iii_by_hand(made_up):
    made_up.retrieve("segl", 0.30, 0.32, 0.34)
    table = tables.table_iii(read_results(made_up.root))
    segl = table[table["model"] == "SEGL"].set_index("gallery")
    whole, folds = segl.loc["all 80 images"], segl.loc["5 folds of 16 images"]
    assert whole["text R@1 (%)"] == f"32.00 ± {half(2):.2f}"
    assert whole["image R@1 (%)"] == f"22.00 ± {half(2):.2f}"
    assert folds["text R@1 (%)"] == f"52.00 ± {half(2):.2f}"
    assert whole[["paper: gallery", "paper: text R@1 (%)", "paper: image R@1 (%)"]].tolist() == ["COCO 5K", "50", "37"]
    assert folds[["paper: gallery", "paper: text R@1 (%)", "paper: image R@1 (%)"]].tolist() == ["COCO 1K", "67", "54"]
    resnet = table[table["model"] == "SEGL (ResNet)"]
    assert resnet["paper: image R@1 (%)"].tolist() == ["37", "53.5"]
    assert set(resnet["text R@1 (%)"]) == {NOT_RUN}
    # One of 80 images; five of 400 captions: 5 / 400.
    guessing = table[table["model"] == "guessing"]
    assert guessing["image R@1 (%)"].tolist() == ["1.25", "6.25"]
    assert guessing["text R@1 (%)"].tolist() == ["1.25", "6.25"]


def test_a_gallery_without_folds_says_so(made_up):
    made_up.retrieve("segl", 0.3, folds=False)
    results = read_results(made_up.root)
    table = tables.table_iii(results)
    folds = table[(table["model"] == "SEGL") & (table["paper: gallery"] == "COCO 1K")].iloc[0]
    assert (folds["gallery"], folds["text R@1 (%)"]) == ("no folds", NOT_SCORED)
    # As of Flickr30k's 1,000 images, the whole gallery is what a fold is.
    own = tables.table_v(results).set_index("Method").loc["SEGL, this run"]
    assert (own["gallery"], own["text R@1"]) == ("all 80 images", "30.00")


def test_table_iv_by_hand(made_up, machine):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64, val=0.61)
    made_up.finetune("nlvr2", "segl", 0.7, public=False, val=0.66)
    made_up.finetune("vqa", "ssul", 0.9)  # better here, but the paper's best is SEGL
    made_up.pretrain("segl", 0.3, 0.3)
    table = tables.table_iv(read_results(made_up.root)).set_index("Method")
    own = table.loc["SEGL, this run"]
    assert own["VQAv2 / test-dev"] == "61.00 (val)"
    assert own["VQAv2 / test-std"] == f"62.00 ± {half(2):.2f} (test)"
    assert own["NLVR2 / val"] == "66.00 (val)"
    assert own["NLVR2 / test-P"] == NOT_SCORED
    assert own["VCR / Q → AR"] == NOT_RUN
    assert own["Inference Time (ms)"] == NOT_RUN
    assert own["Pretrain GPU hrs"] == f"0.5 ({machine['device']}, {machine['threads']} thread(s))"
    assert own["Images"] == f"{PROFILES['tiny'].corpus.train_images:,}"
    said = "profile tiny, embedded corpus, "
    assert own["from"] == f"{said}3 seeds; {said}1 seed"
    published = table.drop(index="SEGL, this run")
    assert set(published["from"]) == {"paper"}
    assert published["VQAv2 / test-dev"].to_dict() == {row.label: row.cells[3] for row in paper.table("IV").rows}
    assert published.loc["Ours (SEGL)", "Inference Time (ms)"] == "~40"


def test_table_iv_of_vcr_takes_the_scored_split(made_up):
    made_up.finetune("vcr", "segl", 0.8)
    own = tables.table_iv(read_results(made_up.root)).set_index("Method").loc["SEGL, this run"]
    assert own[["VCR / Q → A", "VCR / QA → R", "VCR / Q → AR"]].tolist() == [
        "80.00 (test)", "70.00 (test)", "40.00 (test)",
    ]  # fmt: skip


def test_tables_v_and_vi_by_hand(made_up):
    made_up.retrieve("segl", 0.3)
    results = read_results(made_up.root)
    fifth, sixth = tables.table_v(results), tables.table_vi(results)
    heads = ["image R@1", "image R@5", "image R@10", "text R@1", "text R@5", "text R@10"]
    own = fifth[fifth["Method"] == "SEGL, this run"].iloc[0]
    assert own["gallery"] == "5 folds of 16 images"
    assert own[heads].tolist() == ["40.00", "44.00", "49.00", "50.00", "54.00", "59.00"]
    assert own["from"] == "profile tiny, embedded corpus, 1 seed"
    own = sixth[sixth["Method"] == "SEGL, this run"].iloc[0]
    assert own["gallery"] == "all 80 images"
    assert own[heads].tolist() == ["20.00", "24.00", "29.00", "30.00", "34.00", "39.00"]
    ours = fifth[fifth["Method"] == "Ours (SEGL)"].set_index("gallery")
    assert ours.loc["Flickr 30k (1k image)", heads].tolist() == ["62.46", "86.71", "92.80", "82.70", "96.50", "98.00"]
    assert ours.loc["MSCOCO (1k image)", heads].tolist() == ["54", "86", "94.8", "67.1", "92.2", "97.1"]
    # ViLBERT has no numbers for COCO 1k.
    counts = fifth[fifth["from"] == "paper"]["gallery"].value_counts().to_dict()
    assert counts == {"Flickr 30k (1k image)": 5, "MSCOCO (1k image)": 2}
    assert sixth["Method"].tolist() == [
        "ViLBERT [4]", "ImageBERT [33]", "ViT [32]", "Ours (SEGL)", "SEGL, this run", "guessing",
    ]  # fmt: skip
    guess = fifth[fifth["Method"] == "guessing"].iloc[0]
    assert guess[heads[:3]].tolist() == ["6.25", "31.25", "62.50"]
    assert guess["text R@5"] == f"{100 * (1 - math.prod((75 - i) / (80 - i) for i in range(5))):.2f}"


def test_what_was_not_run_says_so(made_up):
    made_up.finetune("vqa", "ssul", 0.6)
    results = read_results(made_up.root)
    for make in (tables.table_iv, tables.table_v, tables.table_vi):
        table = make(results).set_index("Method")
        assert set(table.loc["SEGL, this run"]) == {NOT_RUN} and "guessing" not in table.index


def test_pointing_by_hand(made_up):
    made_up.attend("segl", 0.40, 0.42, 0.44)
    table = tables.pointing_scores(read_results(made_up.root)).set_index("model")
    assert table.loc["SEGL"].tolist() == [
        f"42.00 ± {half(2):.2f}", f"21.00 ± {half(1):.2f}", "25.00", "30.00",
        "profile tiny, embedded corpus, 3 seeds",
    ]  # fmt: skip
    assert set(table.loc["SSUL"]) == {NOT_RUN}


def test_tables_are_saved_in_two_forms_and_titled(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    results = read_results(made_up.root)
    for number in paper.TABLES:
        name = f"table_{number.lower()}"
        table = getattr(tables, name)(results)
        path = save_table(table, made_up.root / "tables", name, results.provenance)
        assert path.read_text(encoding="utf-8").endswith("profile tiny, embedded corpus\n")
        assert len(pd.read_csv(path.parent / f"{name}.csv")) == len(table)
        assert TITLES["16_tables"][name] == f"Table {number} – {paper.table(number).title}"
    page = write_index(made_up.root).read_text(encoding="utf-8")
    assert page.index("id='table_i'>") < page.index("id='table_ii'>") < page.index("id='table_vi'>")


def test_every_link_of_the_page_leads_somewhere(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    folder = made_up.root / "tables"
    for name, rows in {"order": 3, "of_my_own": 3, "claims": 60}.items():
        save_table(pd.DataFrame({"row": range(rows)}), folder, name)
    page = write_index(made_up.root).read_text(encoding="utf-8")
    links = re.findall(r"href='([^']+)'", page)
    assert {"#order", "#claims", "#of_my_own", "tables/order.csv", "tables/of_my_own.md"} <= set(links)
    for link in links:
        assert f"id='{link[1:]}'" in page if link.startswith("#") else (made_up.root / link).is_file()
    assert page.index("id='order'") < page.index("id='claims'") < page.index("id='of_my_own'")
    # A long table is folded away.
    assert page.count("<details>") == 1 and page.index("id='claims'") < page.index("all 60 rows")


def test_a_figure_of_the_page_has_words_and_says_how_it_was_made(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    figure = draw_claims(claims_table(read_results(made_up.root)))
    save_figure(figure, pd.DataFrame(), made_up.root / "figures", "claims")
    page = write_index(made_up.root).read_text(encoding="utf-8")
    (image,) = re.findall(r"<img [^>]*>", page)
    assert "the band that the paper claims" in image
    (caption,) = re.findall(r"<figcaption.*?</figcaption>", page, re.DOTALL)
    assert "figures/claims.csv" in caption and "the embedded synthetic corpus" in caption
    assert "vlp run notebooks/17_claims.ipynb executed.ipynb -p profile=tiny" in caption and "code " in caption


def test_a_named_run_has_its_row(made_up):
    made_up.finetune("vqa", "segl", 0.6)
    path = made_up.root / "finetune-vqa" / "segl" / "seed0" / "run.json"
    write_json(path.parents[2] / "majority" / "seed0" / "run.json", read_json(path) | {"name": "majority"})
    results = read_results(made_up.root)
    assert results.names == [*VARIANTS, "majority"]
    row = tables.table_ii(results).set_index("model").loc["majority"]
    assert row.tolist() == [NOT_RUN, "60.00", "-", "-", "profile tiny, embedded corpus, 1 seed"]
    assert results.seeds("vqa", "segl") == 1  # and the variant's own is not mixed with it


def test_a_tables_cells_have_four_figures():
    table = pd.DataFrame({"a head": ["x", "y"], "number": [1.23456, math.nan]})
    assert markdown(table).splitlines()[2:] == ["| x | 1.235 |", "| y |  |"]


def test_rules_that_see_no_picture_stand_below(made_up):
    made_up.finetune("vqa", "segl", 0.6, guess=31.5)
    made_up.finetune("nlvr2", "segl", 0.6, guess=50.0)
    results = read_results(made_up.root)
    ii = tables.table_ii(results).set_index("model")
    assert ii.loc["guessing", "VQA, test (%)"] == "31.50" and ii.loc["question only", "VQA, test (%)"] == "1.00"
    iv = tables.table_iv(results).set_index("Method").loc["guessing"]
    assert (iv["VQAv2 / test-std"], iv["NLVR2 / test-P"], iv["VCR / Q → A"]) == ("31.50 (test)", "50.00 (test)", "-")
    assert results.chance("vqa", "test", "overall") == 31.5


def test_an_installation_check_gives_no_verdict(made_up):
    made_up.finetune("vqa", "segl", 0.60, 0.62, 0.64)
    made_up.finetune("vqa", "ssul", 0.50, 0.52, 0.541)
    table = claims_table(read_results(made_up.root))
    assert "confirmed" in set(table["verdict"]) and stamped(table, "tiny") is table
    checked = stamped(table, "smoke")
    assert set(checked["verdict"]) == {CHECK_ONLY, NOT_RUN} and not checked["survives"].any()
    assert overview(checked)[["confirmed", "contradicted", "decided, with Holm"]].to_numpy().sum() == 0
    assert len(draw_claims(checked).axes) == 1


def test_the_page_is_written_over_no_page_of_another_hand(made_up):
    save_table(pd.DataFrame({"row": [1]}), made_up.root / "tables", "order")
    page = made_up.root / "index.html"
    page.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(UserError, match="did not write"):
        write_index(made_up.root)
    assert page.read_text() == "<!doctype html><title>mine</title>"
    page.unlink()
    assert write_index(made_up.root) == write_index(made_up.root) == page


def test_no_page_is_written_into_a_folder_without_results(tmp_path):
    with pytest.raises(UserError, match=r"no figures/ and no tables/"):
        write_index(tmp_path)
    assert not list(tmp_path.iterdir())

"""The published numbers, against the text of the paper where it lies beside the shared data."""

import dataclasses
from itertools import pairwise

import pytest

from vlp_lib import paper
from vlp_lib.errors import UserError
from vlp_lib.variants import VARIANTS

SIZES = {"I": (4, 4), "II": (7, 2), "III": (7, 5), "IV": (6, 10), "V": (5, 13), "VI": (4, 7)}


def test_every_table_is_whole():
    assert {number: (len(t.rows), len(t.columns)) for number, t in paper.TABLES.items()} == SIZES
    for found in paper.TABLES.values():
        assert all(len(row.cells) == len(found.columns) for row in found.rows)
        for things in (found.rows, found.columns):
            assert len({thing.name for thing in things}) == len(things)
    assert len(list(paper.values())) == sum(rows * columns for rows, columns in SIZES.values())


def test_every_row_stands_in_the_text_of_the_paper(shared_data):
    text = shared_data.parent / "paper.txt"
    if not text.is_file():
        pytest.skip("the paper's text is not here")
    lines = text.read_text(encoding="utf-8").splitlines()
    for number, found in paper.TABLES.items():
        # The rows stand right above the table's caption.
        end = lines.index(f"TABLE {number}")
        above = {tuple(line.split("\t")) for line in lines[end - 15 : end]}
        for row in found.rows:
            assert (row.label, *row.cells) in above


def test_rows_of_the_ablations_are_the_variants():
    for number in ("II", "III"):
        assert {row.name for row in paper.TABLES[number].rows} == set(VARIANTS) - {"region"}


@pytest.mark.parametrize(
    ("printed", "number"),
    [
        ("0.25", 0.25),
        ("54", 54.0),
        ("~900", 900.0),
        ("3m", 3e6),
        ("4.2m", 4_200_000.0),
        ("230k", 230_000.0),
        ("-", None),
    ],
)
def test_parse(printed, number):
    assert paper.parse(printed) == number


def test_value():
    assert paper.value("II", "segl", "vqa") == 70.92
    assert paper.value("III", "segl_resnet", "coco_1k_ir_r1") == 0.535
    assert paper.value("IV", "uniter_base", "vcr_q_to_ar") == 57.76
    assert paper.value("V", "segl", "flickr30k_1k_tr_r1") == 82.70
    assert paper.value("VI", "vilbert", "coco_5k_tr_r1") is None
    assert paper.value("I", "spl", "inference_speed") == "Faster"
    with pytest.raises(UserError, match=r"table II has no cell \('segl', 'nlvr2'\): .* columns inference_ms, vqa"):
        paper.value("II", "segl", "nlvr2")
    with pytest.raises(UserError, match="unknown table 'VII'"):
        paper.value("VII", "segl", "vqa")


def test_the_paper_confirms_its_own_claims():
    assert [claim.id for claim in paper.CLAIMS] == ["convergence", "vqa", "retrieval", "inference", "joint_losses"]
    cells = {(v.row, v.column): v.value for v in paper.values() if v.table in ("II", "III")}
    cells["region", "inference_ms"] = paper.value("IV", "uniter_base", "inference_ms")
    for claim in paper.CLAIMS:
        assert claim.text and claim.where
        for ranking in claim.rankings:
            if ranking.metric == "itm_loss":
                continue  # a curve, not a table
            sign = 1 if ">" in ranking.order else -1
            groups = [[sign * cells[row, ranking.metric] for row in group] for group in ranking.groups]
            for better, worse in pairwise(groups):
                assert min(better) > max(worse)


def test_an_order_is_read():
    ranking = paper.Ranking("ms", "a < b = c < d")
    assert ranking.groups == (("a",), ("b", "c"), ("d",))
    assert ranking.neighbours == [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]


def test_data_cannot_be_changed():
    with pytest.raises(TypeError):
        paper.TABLES["II"] = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        paper.TABLES["II"].rows[0].label = "x"

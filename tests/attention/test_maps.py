"""Attention maps: distributions, where tokens lie, pointing accuracy on hand-made maps, missing masks, the rule."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from made_runs import pretrained, run_of
from torch import nn

from vlp_lib.attention import maps as attention
from vlp_lib.attention import pointing
from vlp_lib.attention.maps import Places, box_places, grid_places, look, places_of
from vlp_lib.attention.pointing import Asked, Pointing, choose_panel, object_mask, point, read_asked, summarise
from vlp_lib.batches.sample import Pictures
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.records import IGNORED
from vlp_lib.errors import UserError
from vlp_lib.figures import attention_maps as figures
from vlp_lib.io import read_json, read_lines
from vlp_lib.losses.base import VisualLoss
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.tasks.common import TaskBatch
from vlp_lib.trainers.finetune import finetune, load_finetuned
from vlp_lib.variants import parse_variant

SIZES = Vocabularies(words=40, segmentation=6, detector=10, attributes=4)


@pytest.fixture(scope="module")
def questions(make_batch):
    """Three questions of 9, 5 and 7 words about three pictures with 3, 0 and 5 regions."""
    batch = make_batch()
    pictures = Pictures(
        batch.images, labels=batch.labels, attributes=batch.attributes, scores=batch.scores, boxes=batch.boxes
    )
    order = torch.arange(3)
    return TaskBatch(pictures, batch.clean_ids, batch.attention_mask, order, order, torch.zeros(3, 2))


@pytest.fixture(scope="module")
def seen(small_model, questions):
    torch.manual_seed(0)

    def seen(name):
        model = VLPModel(small_model, parse_variant(name), SIZES).eval()
        return model, look(model, questions)

    return seen


# ---------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("variant", ["segl", "naive_resnet", "spl_small", "region"])
@pytest.mark.parametrize("query", ["cls", "mean", 3])
def test_a_view_is_a_distribution_over_places(seen, questions, variant, query):
    model, found = seen(variant)
    for row in range(3):
        for layer, head in ((-1, None), (0, 1)):
            weights = found.on_image(row, query, layer, head)
            assert weights.sum() == pytest.approx(1, abs=1e-5)
            assert (weights >= 0).all()
        places = places_of(model, found.features, questions, row)
        assert len(weights) == len(places.shares(np.ones((32, 32), bool)))
    assert len(weights) == (5 if variant == "region" else 16)


def test_looking_gives_the_same_features_as_the_model(seen, questions):
    model, found = seen("segl")
    with torch.inference_mode():
        _, tokens = model.encode_vision(questions.pictures)
        language = model.language(questions.input_ids, questions.attention_mask)
        pooled = model.join(language, questions.attention_mask, tokens)[0]
    torch.testing.assert_close(found.pooled, pooled, atol=1e-5, rtol=1e-5)


def test_which_word_and_which_layer(seen):
    _, found = seen("segl")
    maps = found.layers[-1].to_vision[1].double()  # the question of 5 tokens: three words
    np.testing.assert_allclose(found.on_image(1, "cls"), maps.mean(0)[0])
    np.testing.assert_allclose(found.on_image(1, "mean"), maps.mean(0)[1:4].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.on_image(1, 2, head=1), maps[1, 2])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((5,), "no word 5: choose from 0 to 4"),
        (("cls", 2), "no layer 2"),
        (("cls", 0, 2), "no head 2"),
    ],
)
def test_views_that_there_are_not(seen, arguments, text):
    _, found = seen("segl")
    with pytest.raises(UserError, match=text):
        found.on_image(1, *arguments)


def test_set_predictions_are_spread_over_the_grid(seen, questions):
    model, found = seen("spl_small")
    assert found.layers[-1].to_vision.shape[-1] == 4
    assert found.decoder.shape == (3, 4, 16)
    torch.testing.assert_close(found.decoder.sum(-1), torch.ones(3, 4))
    expected = found.layers[-1].to_vision[0].mean(0)[0] @ found.decoder[0]
    np.testing.assert_allclose(found.on_image(0, "cls"), expected, rtol=1e-5)
    # The decoder's own output is what the model reads.
    loss = model.visual_loss.losses["spl_small"]
    with torch.inference_mode():
        features, tokens = model.encode_vision(questions.pictures)
        x, _ = loss.self_attention(*[loss.queries.expand(3, -1, -1)] * 2)
        x, weights = loss.cross_attention(x, features.tokens, None, need_weights=True)
        decoded = loss.feed_forward(x)
    torch.testing.assert_close(decoded, tokens.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.mean(1), found.decoder)


def test_a_set_made_without_attention_has_no_place(small_model, questions):
    class Mean(VisualLoss):
        def __init__(self):
            nn.Module.__init__(self)

        def tokens(self, features):
            return VisionFeatures(features.tokens.mean(1, keepdim=True), None)

    model = VLPModel(small_model, parse_variant("naive_vit"), SIZES).eval()
    model.visual_loss = Mean()
    with pytest.raises(UserError, match="no place on the image"):
        look(model, questions)


def test_parameters_of_a_notebook():
    assert [attention.parse_query(text) for text in ("cls", "mean", "3", 2)] == ["cls", "mean", 3, 2]
    with pytest.raises(UserError, match="'verb' is no word"):
        attention.parse_query("verb")


# ---------------------------------------------------------------------------------------------------- places


def test_grid_that_fills_the_image():
    places = grid_places(4, (2, 2), 2)
    assert places.corners.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2], [0, 2, 2, 4], [2, 2, 4, 4]]
    mask = np.zeros((4, 4), bool)
    mask[0, :3] = True
    assert places.shares(mask).tolist() == [0.5, 0.25, 0, 0]
    painted = places.paint(np.array([0.4, 0.2, 0.4, 0.0]))
    assert painted.sum() == pytest.approx(1)
    assert painted[0].tolist() == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_a_vit_leaves_a_border_out(small_model):
    """600 px and patches of 32: 18 × 18 tokens and 12 px on each side; here 35 px and patches of 8."""
    model = VLPModel(small_model, parse_variant("naive_vit"), SIZES).eval()
    ids, first = torch.ones(1, 3, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    batch = TaskBatch(Pictures(torch.rand(1, 3, 35, 35)), ids, ids.bool(), first, first, torch.zeros(1, 1))
    found = look(model, batch)
    places = places_of(model, found.features, batch, 0)
    assert len(places.corners) == 16
    assert places.corners[[0, 15]].tolist() == [[1, 1, 9, 9], [25, 25, 33, 33]]
    weights = np.zeros(16)
    weights[0] = 1
    rows, columns = np.nonzero(places.paint(weights))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 8, 1, 8)


def test_a_resnets_last_cells_stick_out():
    places = grid_places(10, (3, 3), 4)
    assert places.corners[:3].tolist() == [[0, 0, 4, 4], [4, 0, 8, 4], [8, 0, 10, 4]]
    assert places.shares(np.ones((10, 10), bool)).tolist() == [1] * 9


def test_boxes():
    places = box_places(10, np.array([[0.0, 0.0, 0.2, 0.5], [0.1, 0.0, 0.3, 0.5], [0.0, 0.0, 0.0, 0.0]], np.float32))
    assert places.corners.tolist() == [[0, 0, 2, 5], [1, 0, 3, 5], [0, 0, 0, 0]]
    mask = np.zeros((10, 10), bool)
    mask[:, 1] = True
    assert places.shares(mask).tolist() == [0.5, 0.5, 0]
    painted = places.paint(np.array([0.5, 0.5, 0]))
    assert painted.sum() == pytest.approx(1)
    assert painted[0, :4].tolist() == pytest.approx([0.05, 0.1, 0.05, 0])


# ---------------------------------------------------------------------------------------------------- pointing


def quarters():
    mask = np.zeros((4, 4), bool)
    mask[:2, :3] = True  # all of cell 0, half of cell 1
    return grid_places(4, (2, 2), 2), mask


def test_pointing_at_the_object():
    found = point(np.array([0.7, 0.2, 0.1, 0.0]), *quarters())
    assert dataclasses.astuple(found)[:3] == pytest.approx((1, 0.8, 6 / 16))


def test_pointing_half_at_it_and_beside_it():
    assert point(np.array([0.1, 0.7, 0.1, 0.1]), *quarters()).pointing == 0.5
    assert point(np.array([0.1, 0.1, 0.1, 0.7]), *quarters()).pointing == 0


def test_a_map_that_says_nothing_is_at_chance():
    found = point(np.full(4, 0.25), *quarters())
    assert (found.pointing, found.mass, found.even) == (found.chance,) * 3


def test_boxes_on_the_object_are_above_chance_before_anything_is_learned():
    mask = np.zeros((10, 10), bool)
    mask[:2, :2] = True
    corners = np.array([[0, 0, 2, 2], [0, 0, 4, 4], [0, 0, 0, 0]])
    found = point(np.array([0.5, 0.5, 0.0]), Places(corners, 10), mask)
    assert (found.chance, found.even, found.mass) == pytest.approx((0.04, 0.625, 0.625))


def test_random_maps_are_at_chance():
    rng = np.random.default_rng(0)
    places, mask = grid_places(32, (8, 8), 4), np.zeros((32, 32), bool)
    mask[5:17, 3:20] = True
    found = [point(rng.dirichlet(np.ones(64)), places, mask) for _ in range(2000)]
    assert np.mean([one.pointing for one in found]) == pytest.approx(mask.mean(), abs=0.03)
    assert np.mean([one.mass for one in found]) == pytest.approx(mask.mean(), abs=0.005)


@pytest.fixture
def pictured(tiny_corpus):
    record = tiny_corpus.split("test")[0]
    labels = np.full((32, 32), IGNORED, np.uint8)
    labels[4:8, 4:8] = 0  # the first class of the corpus
    return record, labels, tiny_corpus.segmentation_classes.ids[0]


def test_mask_of_an_object(tiny_corpus, pictured):
    record, labels, category = pictured
    boxes = np.array([[3.0, 3.0, 6.0, 6.0]])
    exact, source = object_mask(Asked("color", category, boxes), record, labels, tiny_corpus, 32)
    assert (exact.sum(), source) == (16, "label map")
    for asked, known in ((Asked("count", None, boxes), labels), (Asked("color", category, boxes), None)):
        whole, source = object_mask(asked, record, known, tiny_corpus, 32)
        assert (whole.sum(), source) == (36, "boxes")
    assert object_mask(Asked("color", category, boxes), record, None, tiny_corpus, 64)[0].sum() == 144


def test_why_there_is_no_mask(tiny_corpus, pictured):
    record, labels, category = pictured
    reasons = [
        object_mask(Asked("other", None, None), record, labels, tiny_corpus, 32)[1],
        object_mask(Asked("count", category, np.zeros((0, 4))), record, labels, tiny_corpus, 32)[1],
        object_mask(Asked("small", category, np.array([[3.0, 3.0, 0.1, 0.1]])), record, None, tiny_corpus, 32)[1],
    ]
    assert reasons == [
        "the annotations do not say where the object is",
        "what is asked for is not in the image",
        "the object is smaller than a pixel of the model's image",
    ]


def test_missing_masks_are_counted():
    one, other = Pointing(1.0, 0.5, 0.2, 0.2, "label map"), Pointing(0.0, 0.1, 0.4, 0.4, "boxes")
    rows, missing = summarise([("small", one), ("count", other), ("count", "no mask"), ("yesno", "no mask")])
    assert missing == {"no mask": 2}
    assert [(row["kind"], row["questions"], row["pointing"], row["from_label_maps"]) for row in rows] == [
        ("all", 2, 0.5, 1),
        ("small", 1, 1.0, 1),
        ("count", 1, 0.0, 0),
    ]
    assert summarise([("other", "no mask")]) == ([], {"no mask": 1})


# ---------------------------------------------------------------------------------------------------- questions


def test_what_official_questions_ask_for_is_read_off_them(tmp_path, shared_data):
    corpus = open_corpus(shared_data / "coco")
    files = json.loads((shared_data / "coco/vqav2/v2_OpenEnded_mscoco_train2014_questions.json").read_text())
    texts = {q["question_id"]: q["question"] for q in files["questions"]}
    asked = read_asked(corpus, texts)
    assert asked.keys() == texts.keys()
    assert all(one.boxes is None for one in asked.values())
    for number, one in asked.items():
        assert (one.kind == "count") == texts[number].lower().startswith("how many")
    assert {one.kind for one in asked.values()} >= {"count", "other"}
    named = read_asked(corpus, {1: "What is on the floor?", 2: "How many sheep stand on the grass?", 3: "Who?"})
    assert [one.kind for one in named.values()] == ["stuff", "count", "other"]


def test_what_embedded_questions_ask_for(tiny_corpus):
    path = tiny_corpus.root / "vqav2" / "v2_mscoco_test2015_annotations.json"
    entries = {entry["question_id"]: entry for entry in json.loads(path.read_text())["annotations"]}
    asked = read_asked(tiny_corpus, dict.fromkeys(entries, "what is it?"))
    assert {number: one.kind for number, one in asked.items()} == {n: entry["kind"] for n, entry in entries.items()}
    assert all(len(asked[n].boxes) == len(entry["bboxes"]) for n, entry in entries.items())


def test_the_rule_of_figure_6():
    kinds = ["yesno", "count", "count", "small", "count", "count", "small"]
    usable = [True, False, True, True, True, True, True]
    assert choose_panel(kinds, usable) == [3, 2]  # none asks for stuff, and question 1's object nobody knows
    assert choose_panel(kinds, [False] * 7) == [3, 1]


# ---------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def finetuned(tiny_corpus, small_profile, shared_results):
    """An SPL model after a few steps on VQA."""
    vqa = dataclasses.replace(small_profile.downstream.vqa, steps=2, precision="float32")
    chosen = dataclasses.replace(
        small_profile,
        training=dataclasses.replace(small_profile.training, steps=1, evaluations=1, checkpoints=1),
        downstream=dataclasses.replace(small_profile.downstream, vqa=vqa, minimum_answers=1),
    )
    pretrained(chosen, "spl_small", tiny_corpus)
    finetune(run_of(chosen, "finetune-vqa", "spl_small"), "vqa", tiny_corpus)
    return run_of(chosen, "attention", "spl_small")


def test_attend(tiny_corpus, finetuned, capsys):
    done, folder = pointing.attend(finetuned, tiny_corpus), finetuned.folder("attention")
    run, lines = read_json(folder / "run.json"), read_lines(folder / "questions.jsonl")
    assert run["questions"] == len(lines) == 36
    assert [line["question_id"] for line in lines] == sorted(line["question_id"] for line in lines)
    assert read_lines(folder / "metrics.jsonl") == done.rows
    scored = [line for line in lines if "not_scored" not in line]
    assert done.rows[0]["questions"] == len(scored)
    assert sum(done.missing.values()) == 36 - len(scored) > 0
    assert run["not_scored"] == done.missing
    assert "not scored" in capsys.readouterr().out
    panel = pointing.read_panel(folder / pointing.PANEL)
    of_kinds = [next(x for x in lines if x["kind"] == kind and x in scored) for kind in ("stuff", "small", "count")]
    assert [(look.question_id, look.answer, look.right) for look in panel] == [
        (line["question_id"], line["answer"], line["right"]) for line in of_kinds
    ]
    assert all(look.map.shape == look.mask.shape == look.image.shape[:2] for look in panel)
    assert [look.question_id for look in done.panel] == [look.question_id for look in panel]
    assert done.panel[0].map.shape == (32, 32) and done.panel[0].map.sum() == pytest.approx(1, abs=1e-5)

    with pytest.raises(UserError, match="was begun with questions = 1500"):
        pointing.attend(finetuned, tiny_corpus, questions=5)
    fewer = pointing.attend(finetuned, tiny_corpus, "mean", 5, restart=True)
    assert read_json(next(folder.parent.glob("old-*-seed0")) / "run.json") == run  # moved aside as it was
    assert fewer.rows[0]["questions"] <= 5


def test_scores_do_not_depend_on_the_batch(tiny_corpus, finetuned, monkeypatch):
    together = pointing.attend(finetuned, tiny_corpus, restart=True)
    monkeypatch.setattr(pointing, "_AT_ONCE", 5)
    apart = pointing.attend(finetuned, tiny_corpus)
    for one, other in zip(together.rows, apart.rows, strict=True):
        assert one["mass"] == pytest.approx(other["mass"], abs=1e-5)


def test_view_of_one_question(tiny_corpus, finetuned):
    view = pointing.view_question(finetuned, tiny_corpus, 3)
    assert (view.pieces[0], view.pieces[-1]) == ("[CLS]", "[SEP]")
    assert len(view.places.corners) == 16
    heads = figures.draw_heads(view, "cls")
    layers, columns = len(view.attention.layers), 3  # two heads and their mean
    assert len(heads.axes) == layers * columns
    assert all(len(axes.images) == 2 for axes in heads.axes)
    words = figures.draw_words(view, -1, None)
    assert words.axes[1].get_title() == "0  [CLS]"
    with pytest.raises(UserError, match="no question 36: choose from 0 to 35"):
        pointing.view_question(finetuned, tiny_corpus, 36)


def test_a_model_of_the_kit_is_looked_at_and_nothing_is_written(tiny_corpus, finetuned):
    model, encoder = load_finetuned(finetuned, "vqa", tiny_corpus)
    other = dataclasses.replace(finetuned, seed=7, settings=())  # which has no model of its own
    vars(other)["config"] = finetuned.config
    given = pointing.attend(other, tiny_corpus, of_the_kit=lambda run: (model, encoder.tokenizer))
    assert not given.kept and not other.folder("attention").exists()
    assert given.rows == pointing.attend(finetuned, tiny_corpus, restart=True).rows
    view = pointing.view_question(other, tiny_corpus, 3, lambda run: (model, encoder.tokenizer))
    assert view.text == pointing.view_question(finetuned, tiny_corpus, 3).text


def test_attend_needs_a_finetuned_model(tiny_corpus, small_profile, results):
    with pytest.raises(UserError, match=r"no finished finetune-vqa in .*: run `vlp finetune --task vqa --variant segl"):
        pointing.attend(run_of(small_profile, "attention", "segl"), tiny_corpus)

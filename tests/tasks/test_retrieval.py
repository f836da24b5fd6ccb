"""Zero-shot retrieval: the matrix equals one forward pass a pair; galleries, folds, records; real COCO test images."""

import dataclasses

import numpy as np
import pytest
import torch
from made_runs import run_of

from vlp_lib.batches.whole import pad_texts, whole_pictures
from vlp_lib.config import RetrievalConfig, to_dict
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines, write_json
from vlp_lib.losses.itm import itm_score
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.tasks import retrieval
from vlp_lib.tasks.recalls import recalls
from vlp_lib.trainers import zero_shot
from vlp_lib.trainers.checkpoint import save_weights
from vlp_lib.trainers.pretrain import make_tokenizer, vocabularies
from vlp_lib.trainers.trained import regions_of
from vlp_lib.variants import parse_variant


@pytest.fixture(scope="module")
def build(small_profile):
    """A random model of a variant for a corpus; as far from initialisation as it takes for scores to differ."""

    def build(corpus, variant):
        torch.manual_seed(0)
        tokenizer = make_tokenizer(small_profile, corpus)
        model = PretrainingModel(VLPModel(small_profile.model, parse_variant(variant), vocabularies(corpus, tokenizer)))
        with torch.no_grad():
            model.itm_head.classify.weight.mul_(20)
        return model.eval(), tokenizer

    return build


def pair_by_pair(model, corpus, gallery, tokenizer, size, regions=0):
    scores = np.empty((len(gallery.records), len(gallery.captions)), np.float32)
    with torch.inference_mode():
        for i, record in enumerate(gallery.records):
            for j, caption in enumerate(gallery.captions):
                ids, mask = pad_texts([tokenizer.encode(caption)[0]])
                _, vision = model.vlp.encode_vision(whole_pictures(corpus, [record], size, regions))
                pooled = model.vlp.join(model.vlp.language(ids, mask), mask, vision)[0]
                scores[i, j] = itm_score(model.itm_head(pooled)).item()
    return scores


@pytest.mark.parametrize("variant", ["segl", "naive_resnet", "spl_small", "region"])
def test_matrix_equals_pair_by_pair(tiny_corpus, small_profile, build, variant):
    model, tokenizer = build(tiny_corpus, variant)
    regions = regions_of(small_profile, parse_variant(variant))
    gallery = retrieval.gallery_of(tiny_corpus, 4)
    # Blocks of 7 pairs cut the 20 sentences unevenly, and no two blocks have the same length.
    scores = retrieval.score_matrix(model, tiny_corpus, gallery, tokenizer, 32, block=7, regions=regions)
    expected = pair_by_pair(model, tiny_corpus, gallery, tokenizer, 32, regions)
    assert scores.dtype == np.float32
    assert expected.std() > 0.01
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_autocast_keeps_scores_apart(tiny_corpus, build):
    model, tokenizer = build(tiny_corpus, "segl")
    gallery = retrieval.gallery_of(tiny_corpus, 4)
    exact = retrieval.score_matrix(model, tiny_corpus, gallery, tokenizer, 32)
    rough = retrieval.score_matrix(model, tiny_corpus, gallery, tokenizer, 32, bf16=True)
    np.testing.assert_allclose(rough, exact, atol=0.1 * exact.std() + 0.02)
    assert len(np.unique(rough)) == len(np.unique(exact))


def test_gallery_is_in_the_order_of_ids(tiny_corpus):
    gallery = retrieval.gallery_of(tiny_corpus, 5)
    assert [r.image_id for r in gallery.records] == sorted(r.image_id for r in tiny_corpus.split("test"))[:5]
    assert gallery.captions[5:10] == gallery.records[1].captions[:5]
    assert gallery.image_index.tolist() == [i for i in range(5) for _ in range(5)]


def test_gallery_refuses_images_with_few_captions(tiny_corpus):
    first, *others = tiny_corpus.records
    record = tiny_corpus.split("test")[0]
    short = dataclasses.replace(record, captions=record.captions[:4])
    records = tuple(short if r is record else r for r in (first, *others))
    with pytest.raises(UserError, match=rf"1 test images .* fewer than 5 captions .*{record.image_id}"):
        retrieval.gallery_of(dataclasses.replace(tiny_corpus, records=records), 5)


@pytest.fixture
def segl(tiny_corpus, small_profile, build, results):
    """A run whose pretraining is there, with random weights."""
    model, tokenizer = build(tiny_corpus, "segl")
    run = run_of(small_profile, "pretrain", "segl")
    folder = run.folder("pretrain")
    save_weights(folder / "model.safetensors", model, {})
    tokenizer.save(folder / "tokenizer.json")
    made = {"variant": "segl", "model": to_dict(run.config.model), "settings": list(run.settings)}
    write_json(folder / "config.json", made)
    write_json(folder / "run.json", {})
    return run


def test_retrieve_writes_its_record(tiny_corpus, small_profile, segl):
    settings = RetrievalConfig(images=6, fold=3, block=16, precision="float32")
    chosen = dataclasses.replace(small_profile, retrieval=settings)
    folder = segl.folder("retrieval")
    found = zero_shot.retrieve(run_of(chosen, "retrieval", "segl"), tiny_corpus).recalls
    run = read_json(folder / "run.json")
    assert (run["images"], run["captions"], run["pairs"], run["precision"]) == (6, 30, 180, "float32")
    assert run["recalls"]["all"]["text_r1"] == found["all"]["text_r1"]
    assert [row["gallery"] for row in read_lines(folder / "metrics.jsonl")] == ["all", "folds", "fold 0", "fold 1"]
    scores = np.load(folder / "scores.npy")
    assert recalls(scores, np.repeat(np.arange(6), 5)) == found["all"]

    fewer = dataclasses.replace(chosen, retrieval=dataclasses.replace(settings, images=5))
    with pytest.raises(UserError, match=r"retrieval\.images"):
        zero_shot.retrieve(run_of(fewer, "retrieval", "segl"), tiny_corpus)
    zero_shot.retrieve(run_of(fewer, "retrieval", "segl"), tiny_corpus, restart=True)
    assert read_json(folder / "run.json")["images"] == 5
    assert read_json(next(folder.parent.glob("old-*-seed0")) / "run.json") == run


def test_retrieve_needs_a_pretrained_model(tiny_corpus, small_profile, results):
    with pytest.raises(UserError, match=r"no finished pretrain in .*: run `vlp pretrain --variant segl"):
        zero_shot.retrieve(run_of(small_profile, "retrieval", "segl"), tiny_corpus)


def test_real_coco_test_images(shared_data, small_profile, build):
    corpus = open_corpus(shared_data / "coco")
    model, tokenizer = build(corpus, "segl")
    gallery = retrieval.gallery_of(corpus, 3)
    assert [len(r.captions) >= 5 for r in gallery.records] == [True] * 3
    scores = retrieval.score_matrix(model, corpus, gallery, tokenizer, 32)
    np.testing.assert_allclose(scores, pair_by_pair(model, corpus, gallery, tokenizer, 32), atol=1e-4)
    assert len(retrieval.gallery_of(corpus, 5000).records) == 99

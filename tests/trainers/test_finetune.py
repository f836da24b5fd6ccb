"""Finetuning end to end on the embedded corpus and on real files; the written files score as run.json says."""

import json
import shutil

import numpy as np
import pytest
import torch
from made_runs import run_of

from vlp_lib.config import to_dict
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_json
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.settings import override
from vlp_lib.tasks import by_file
from vlp_lib.tasks.common import collate
from vlp_lib.tasks.vcr import read_questions, vcr_score
from vlp_lib.trainers.checkpoint import save_weights
from vlp_lib.trainers.finetune import finetune, load_finetuned
from vlp_lib.trainers.pretrain import TOKENIZER, make_tokenizer, vocabularies
from vlp_lib.trainers.trained import restore_pretrained
from vlp_lib.variants import VARIANTS

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture(scope="module")
def scale(small_profile):
    """The small profile with two steps of finetuning, in float32 on every machine."""
    settings = {}
    for task in ("vqa", "nlvr2", "vcr"):
        settings |= {f"downstream.{task}.steps": 2, f"downstream.{task}.precision": "float32"}
        settings |= {f"downstream.{task}.evaluations": 1}
    return override(small_profile, settings)


def pretrained(scale, variant, corpus):
    """A pretraining's folder as it leaves it, with random weights."""
    run = run_of(scale, "pretrain", variant)
    folder = run.folder("pretrain")
    tokenizer = make_tokenizer(scale, corpus)
    torch.manual_seed(0)
    model = PretrainingModel(VLPModel(scale.model, VARIANTS[variant], vocabularies(corpus, tokenizer)))
    save_weights(folder / "model.safetensors", model, {"stage": "pretrain", "variant": variant})
    tokenizer.save(folder / TOKENIZER)
    made = {"variant": variant, "model": to_dict(run.config.model), "settings": list(run.settings)}
    write_json(folder / "config.json", made)
    write_json(folder / "run.json", {})


def run(scale, task, variant, corpus, **options):
    """A finetuning, its record, and its folder."""
    pretrained(scale, variant, corpus)
    made = run_of(scale, f"finetune-{task}", variant)
    done, folder = finetune(made, task, corpus, **options), made.folder(f"finetune-{task}")
    return done, read_json(folder / "run.json"), folder


@pytest.mark.parametrize("variant", ["segl", "spl_small", "naive_resnet", "region"])
def test_vqa_and_its_files(scale, tiny_corpus, tmp_path, variant):
    done, record, folder = run(scale, "vqa", variant, tiny_corpus)
    files, vqav2 = folder / "predictions", tiny_corpus.root / "vqav2"
    for split, subtype in (("val", "val2014"), ("test", "test2015")):
        score = by_file.score_vqa(
            vqav2 / f"v2_OpenEnded_mscoco_{subtype}_questions.json",
            vqav2 / f"v2_mscoco_{subtype}_annotations.json",
            files / f"{split}_results.json",
        )
        assert record[split] == done.scores[split] == score
    assert {"step", "val_loss", "val_accuracy", "train_loss"} <= set(done.rows[-1])
    assert record["stage"] == "finetune-vqa" and record["synthetic"] and record["variant"] == variant
    assert done.examples and done.examples[0].truth


def test_nlvr2_and_its_files(scale, tiny_corpus, tmp_path):
    _, record, folder = run(scale, "nlvr2", "segl", tiny_corpus)
    for split, name in (("val", "dev"), ("test", "test1")):
        data = tiny_corpus.root / "nlvr2" / "data" / f"{name}.json"
        assert record[split] == by_file.score_nlvr2(data, folder / "predictions" / f"{split}_predictions.csv")


def test_vcr_and_its_files(scale, tiny_corpus, tmp_path):
    _, record, folder = run(scale, "vcr", "segl", tiny_corpus)
    for split in ("val", "test"):
        questions = read_questions(tiny_corpus.root / "vcr" / f"{split}.jsonl")
        answers, rationales = (
            np.load(folder / "predictions" / f"{split}_{what}_preds.npy") for what in ("answer", "rationale")
        )
        labels = np.array([[q.answer_label, q.rationale_label] for q in questions])
        assert record[split] == vcr_score(np.stack([answers, rationales], 1), labels)


def test_a_finetuned_model_comes_back_as_it_was(scale, tiny_corpus, tmp_path):
    first, _, _ = run(scale, "vqa", "segl", tiny_corpus)
    model, encoder = load_finetuned(run_of(scale, "finetune-vqa", "segl"), "vqa", tiny_corpus)
    from vlp_lib.tasks import open_task

    test = open_task("vqa", tiny_corpus, encoder, scale.downstream).test
    with torch.inference_mode():
        decisions = test.decide(model(collate([test[i] for i in range(len(test))])))
    assert test.score(decisions) == first.scores["test"]
    # The same command again trains no further and says the same.
    again = finetune(run_of(scale, "finetune-vqa", "segl"), "vqa", tiny_corpus)
    assert again.scores == first.scores and again.rows == first.rows


def test_a_test_split_without_labels_is_written_but_not_scored(scale, tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus.root, tmp_path / "corpus")
    (tmp_path / "corpus" / "vqav2" / "v2_mscoco_test2015_annotations.json").unlink()
    _, record, folder = run(scale, "vqa", "naive_vit", open_corpus(tmp_path / "corpus"))
    assert "val" in record and "test" not in record
    assert len(json.loads((folder / "predictions" / "test_results.json").read_text())) == 36


def test_what_is_scored_can_be_limited(scale, tiny_corpus, tmp_path, capsys):
    limited = override(scale, {"downstream.scored": 10})
    _, record, _ = run(limited, "vqa", "naive_vit", tiny_corpus)
    assert record["test"]["questions"] == 10
    assert "test: 10 of 36 items are scored" in capsys.readouterr().out


def test_without_pretrained_weights_the_command_is_named(scale, tiny_corpus):
    ssul = run_of(scale, "finetune-vqa", "ssul", 3)
    with pytest.raises(UserError, match=r"run `vlp pretrain --variant ssul --seed 3 --profile smoke` first"):
        finetune(ssul, "vqa", tiny_corpus)
    with pytest.raises(UserError, match="unknown task 'vqq': did you mean 'vqa'"):
        finetune(ssul, "vqq", tiny_corpus)
    with pytest.raises(UserError, match=r"no finished finetune-vqa in .*vlp finetune --task vqa --variant ssul"):
        load_finetuned(ssul, "vqa", tiny_corpus)


def test_weights_of_another_model_are_refused(scale, tiny_corpus):
    pretrained(scale, "naive_vit", tiny_corpus)
    wider = override(scale, {"model.cross_layers": 3})
    with pytest.raises(UserError, match=r"was made with model\.cross_layers = 2 and now it is 3"):
        finetune(run_of(wider, "finetune-vqa", "naive_vit"), "vqa", tiny_corpus)
    folder = run_of(scale, "pretrain", "naive_vit").folder("pretrain")
    made = read_json(folder / "config.json")
    write_json(folder / "config.json", made | {"model": to_dict(wider.model), "settings": ["model.cross_layers=3"]})
    with pytest.raises(UserError, match="holds another model"):
        restore_pretrained(run_of(wider, "pretrain", "naive_vit"), tiny_corpus)


def test_real_vqa(scale, shared_data, tmp_path):
    corpus = open_corpus(shared_data / "coco")
    done, record, _ = run(scale, "vqa", "naive_vit", corpus)
    assert not record["synthetic"] and record["items"]["train"] + record["items"]["val"] == 56
    assert "has no val split" in done.notes[0]
    assert record["val"]["questions"] == record["items"]["val"]


def test_real_nlvr_and_vcr(scale, shared_data, tiny_corpus, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus.root, root, ignore=shutil.ignore_patterns("nlvr2", "vcr"))
    (root / "nlvr").symlink_to(shared_data / "nlvr" / "nlvr")
    # The one real VCR record, whose image is not public, with a photograph in its place; its text trains and validates.
    line = (shared_data / "vcr" / "val.jsonl").read_text()
    (root / "vcr").mkdir()
    for split in ("train", "val"):
        (root / "vcr" / f"{split}.jsonl").write_text(line)
    image = root / "vcr" / "vcr1images" / json.loads(line)["img_fn"]
    image.parent.mkdir(parents=True)
    shutil.copy(next((shared_data / "coco" / "images" / "val2017").iterdir()), image)
    corpus = open_corpus(root)
    _, record, _ = run(override(scale, {"downstream.scored": 20}), "nlvr2", "naive_vit", corpus)
    assert record["items"]["train"] + record["items"]["val"] == 250 and record["val"]["examples"] == 20
    _, record, _ = run(scale, "vcr", "naive_vit", corpus)
    assert record["val"]["questions"] == 1

"""Finetuning end to end on the embedded corpus and on real files; the written files score as run.json says."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from vlp_lib.config import VARIANTS, override
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.tasks import by_file
from vlp_lib.tasks.common import collate
from vlp_lib.tasks.vcr import read_questions
from vlp_lib.tasks.vcr_score import vcr_score
from vlp_lib.trainers.checkpoint import save_weights
from vlp_lib.trainers.finetune import finetune, load_finetuned
from vlp_lib.trainers.pretrain import TOKENIZER, make_tokenizer, vocabularies


@pytest.fixture(scope="module")
def scale(small_profile):
    """The small profile with two steps of finetuning, in float32 on every machine."""
    settings = {}
    for task in ("vqa", "nlvr2", "vcr"):
        settings |= {f"downstream.{task}.steps": 2, f"downstream.{task}.precision": "float32"}
        settings |= {f"downstream.{task}.evaluations": 1}
    return override(small_profile, settings)


def pretrained(folder, scale, variant, corpus):
    """A run folder as pretraining leaves it, with random weights."""
    tokenizer = make_tokenizer(scale, corpus)
    torch.manual_seed(0)
    model = PretrainingModel(VLPModel(scale.model, VARIANTS[variant], vocabularies(corpus, tokenizer)))
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.safetensors", model, {"stage": "pretrain", "variant": variant})
    tokenizer.save(folder / TOKENIZER)
    return folder


def run(scale, task, variant, corpus, folder, **options):
    made = pretrained(folder / "pretrain", scale, variant, corpus)
    done = finetune(scale, task, VARIANTS[variant], corpus, 0, made, folder / task, **options)
    return done, json.loads((folder / task / "run.json").read_text())


@pytest.mark.parametrize("variant", ["segl", "spl_small", "naive_resnet", "region"])
def test_vqa_and_its_files(scale, tiny_corpus, tmp_path, variant):
    done, record = run(scale, "vqa", variant, tiny_corpus, tmp_path)
    files, vqav2 = tmp_path / "vqa" / "predictions", tiny_corpus.root / "vqav2"
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
    _, record = run(scale, "nlvr2", "segl", tiny_corpus, tmp_path)
    for split, name in (("val", "dev"), ("test", "test1")):
        data = tiny_corpus.root / "nlvr2" / "data" / f"{name}.json"
        assert record[split] == by_file.score_nlvr2(
            data, tmp_path / "nlvr2" / "predictions" / f"{split}_predictions.csv"
        )


def test_vcr_and_its_files(scale, tiny_corpus, tmp_path):
    _, record = run(scale, "vcr", "segl", tiny_corpus, tmp_path)
    for split in ("val", "test"):
        questions = read_questions(tiny_corpus.root / "vcr" / f"{split}.jsonl")
        answers, rationales = (
            np.load(tmp_path / "vcr" / "predictions" / f"{split}_{what}_preds.npy") for what in ("answer", "rationale")
        )
        labels = np.array([[q.answer_label, q.rationale_label] for q in questions])
        score = vcr_score(answers, labels[:, 0], rationales, labels[:, 1])
        assert record[split] == by_file.report_vcr(score)


def test_a_finetuned_model_comes_back_as_it_was(scale, tiny_corpus, tmp_path):
    first, _ = run(scale, "vqa", "segl", tiny_corpus, tmp_path)
    model, encoder, answers = load_finetuned(scale, "vqa", VARIANTS["segl"], tiny_corpus, tmp_path / "vqa")
    assert answers == tuple(json.loads((tmp_path / "vqa" / "answers.json").read_text()))
    from vlp_lib.tasks import open_task

    test = open_task("vqa", tiny_corpus, encoder, scale.downstream).test
    with torch.inference_mode():
        decisions = test.decide(model(collate([test[i] for i in range(len(test))])))
    assert test.score(decisions) == first.scores["test"]
    # The same command again trains no further and says the same.
    again = finetune(scale, "vqa", VARIANTS["segl"], tiny_corpus, 0, tmp_path / "pretrain", tmp_path / "vqa")
    assert again.scores == first.scores and again.rows == first.rows


def test_a_test_split_without_labels_is_written_but_not_scored(scale, tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus.root, tmp_path / "corpus")
    (tmp_path / "corpus" / "vqav2" / "v2_mscoco_test2015_annotations.json").unlink()
    _, record = run(scale, "vqa", "naive_vit", open_corpus(tmp_path / "corpus"), tmp_path)
    assert "val" in record and "test" not in record
    assert len(json.loads((tmp_path / "vqa" / "predictions" / "test_results.json").read_text())) == 36


def test_what_is_scored_can_be_limited(scale, tiny_corpus, tmp_path, capsys):
    limited = override(scale, {"downstream.scored": 10})
    _, record = run(limited, "vqa", "naive_vit", tiny_corpus, tmp_path)
    assert record["test"]["questions"] == 10
    assert "test: 10 of 36 items are scored" in capsys.readouterr().out


def test_without_pretrained_weights_the_command_is_named(scale, tiny_corpus, tmp_path):
    with pytest.raises(UserError, match=r"run `vlp pretrain --variant ssul --seed 3 --profile smoke` first"):
        finetune(scale, "vqa", VARIANTS["ssul"], tiny_corpus, 3, tmp_path / "nothing", tmp_path / "vqa")
    with pytest.raises(UserError, match="unknown task 'vqq': did you mean 'vqa'"):
        finetune(scale, "vqq", VARIANTS["ssul"], tiny_corpus, 3, tmp_path / "nothing", tmp_path / "vqa")
    with pytest.raises(UserError, match=r"no finetuned model in .*vlp finetune --task vqa --variant ssul"):
        load_finetuned(scale, "vqa", VARIANTS["ssul"], tiny_corpus, tmp_path / "vqa")


def test_weights_of_another_model_are_refused(scale, tiny_corpus, tmp_path):
    made = pretrained(tmp_path / "pretrain", scale, "naive_vit", tiny_corpus)
    wider = dataclasses.replace(scale, model=dataclasses.replace(scale.model, cross_layers=3))
    with pytest.raises(UserError, match="holds another model"):
        finetune(wider, "vqa", VARIANTS["naive_vit"], tiny_corpus, 0, made, tmp_path / "vqa")


def test_real_vqa(scale, shared_data, tmp_path):
    corpus = open_corpus(shared_data / "coco")
    done, record = run(scale, "vqa", "naive_vit", corpus, tmp_path)
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
    _, record = run(override(scale, {"downstream.scored": 20}), "nlvr2", "naive_vit", corpus, tmp_path)
    assert record["items"]["train"] + record["items"]["val"] == 250 and record["val"]["examples"] == 20
    _, record = run(scale, "vcr", "naive_vit", corpus, tmp_path)
    assert record["val"]["questions"] == 1

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import SIZES
from made_runs import pretrain_into, without_time
from safetensors import safe_open
from safetensors.torch import load_file

from vlp_lib.batches.pairs import load_batches
from vlp_lib.batches.tokenizer import load_tokenizer
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, read_lines
from vlp_lib.losses.base import MixedVisualLoss
from vlp_lib.losses.segl import SEGL
from vlp_lib.models.model import PretrainingModel, VLPModel, needs_of
from vlp_lib.settings import override
from vlp_lib.trainers import loop
from vlp_lib.trainers.checkpoint import load_weights
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer, require_targets, vocabularies
from vlp_lib.variants import VARIANTS, parse_variant


def with_training(profile, **changes):
    return replace(profile, training=replace(profile.training, **changes))


def run(scale, corpus, name, folder, seed=0, restart=False):
    return pretrain_into(folder, scale, name, corpus, seed, restart=restart)


@pytest.fixture
def make_task(small_profile, tiny_corpus):
    """A task and an untrained model of a variant, as `pretrain` makes them."""

    def make(name="naive_vit", seed=0, profile=small_profile):
        tokenizer = make_tokenizer(profile, tiny_corpus)
        loop.seed_everything(seed)
        variant = parse_variant(name)
        model = PretrainingModel(VLPModel(profile.model, variant, vocabularies(tiny_corpus, tokenizer)))
        return PretrainingTask(tiny_corpus, tokenizer, profile, variant, seed, profile.training.steps), model.eval()

    return make


CPU = torch.device("cpu")


# A run


def test_what_a_run_leaves_behind(small_profile, tiny_corpus, tmp_path):
    rows = run(small_profile, tiny_corpus, "segl+0.5*ssul", tmp_path, seed=3)
    names = {"mlm", "itm", "segl", "ssul", "visual", "loss"}
    of_validation = {"val_itm_accuracy", "val_entropy"}
    assert [row["step"] for row in rows] == [0, 2, 4, 6]
    assert [row["samples"] for row in rows] == [0, 16, 32, 48]
    for row in rows:
        assert {f"val_{name}" for name in names} | of_validation == {k for k in row if k.startswith("val_")}
        assert {k for k in row if k.startswith("train_")} == ({f"train_{n}" for n in names} if row["step"] else set())
        assert all(math.isfinite(v) for v in row.values())
        assert row["val_loss"] == pytest.approx(row["val_mlm"] + row["val_itm"] + row["val_visual"], rel=0.1)
        assert row["val_visual"] == pytest.approx(row["val_segl"] + 0.5 * row["val_ssul"], rel=1e-4)
    assert read_lines(tmp_path / "metrics.jsonl") == rows

    facts = read_json(tmp_path / "run.json")
    state = load_file(tmp_path / "model.safetensors")
    assert (facts["stage"], facts["variant"], facts["seed"]) == ("pretrain", "segl+0.5*ssul", 3)
    assert facts["profile"] == small_profile.name
    assert facts["synthetic"] is True
    assert facts["corpus"] == tiny_corpus.fingerprint
    assert facts["parameters"] == sum(v.numel() for v in state.values())  # no buffer is among them
    assert facts["seconds"] > 0
    assert facts["device"] == "cpu"
    assert set(facts) >= {"commit", "dirty", "versions", "python", "started", "validation_images", "threads"}
    assert facts["peak_memory_gib"] > 0
    assert facts["versions"]["torch"] == torch.__version__.partition("+")[0]

    config = read_json(tmp_path / "config.json")
    assert config["model"] == json.loads(json.dumps(dataclasses.asdict(small_profile.model)))
    assert config["data"]["flip"] == small_profile.data.flip
    assert config["corpus"] == tiny_corpus.fingerprint
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    best = min(rows, key=lambda row: row["val_loss"] - row["val_visual"])
    assert (about["variant"], about["step"]) == ("segl+0.5*ssul", best["step"])
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer.json"), small_profile.model.max_text_length)
    ours = make_tokenizer(small_profile, tiny_corpus)
    caption = tiny_corpus.split("train")[0].captions[0]
    assert tokenizer.encode(caption)[0].tolist() == ours.encode(caption)[0].tolist()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains(small_profile, tiny_corpus, tmp_path, name):
    profile = with_training(small_profile, steps=2, evaluations=1, checkpoints=0)
    rows = run(profile, tiny_corpus, name, tmp_path)
    assert [row["step"] for row in rows] == [0, 2]
    assert all(math.isfinite(v) for row in rows for v in row.values())
    assert abs(rows[0]["val_itm"] - math.log(2)) < 0.1
    assert 0 <= rows[0]["val_itm_accuracy"] <= 1
    assert ("val_visual" in rows[0]) == bool(VARIANTS[name].losses)


def test_training_lowers_the_losses(small_profile, tiny_corpus, tmp_path):
    profile = with_training(small_profile, steps=30, batch_size=16, evaluations=1, checkpoints=0, learning_rate=2e-3)
    first, last = run(profile, tiny_corpus, "segl+ssul", tmp_path)
    for loss, share in (("val_mlm", 0.95), ("val_segl", 0.95), ("val_ssul", 0.5)):
        assert last[loss] < share * first[loss]


def test_the_kept_weights_give_the_lowest_validation_loss(small_profile, tiny_corpus, tmp_path, make_task):
    rows = run(small_profile, tiny_corpus, "spl_small", tmp_path)
    task, model = make_task("spl_small", seed=5)
    load_weights(tmp_path / "model.safetensors", model)
    with torch.inference_mode():
        found = task.evaluate(model, CPU)
    best = min(rows, key=lambda row: row["val_loss"] - row["val_visual"])
    assert found["val_loss"] == pytest.approx(best["val_loss"], rel=1e-6)
    assert found["val_itm"] == pytest.approx(best["val_itm"], rel=1e-6)


# Reproducibility


class InterruptError(Exception):
    """The end of a process."""


@pytest.mark.parametrize(
    ("name", "fail_at", "changes"),
    [
        ("segl", 4, {}),
        ("spl_small", 3, {"checkpoints": 2, "evaluations": 2}),
        ("ssul", 5, {"checkpoints": 3, "evaluations": 2, "accumulation": 2}),
        ("region", 1, {}),
    ],
)
def test_resumed_run_is_bit_equal(small_profile, tiny_corpus, tmp_path, monkeypatch, name, fail_at, changes):
    """Weights, every loss and metric, with dropout, interrupted before a step (of six)."""
    profile = with_training(replace(small_profile, model=replace(small_profile.model, dropout=0.1)), **changes)
    expected = run(profile, tiny_corpus, name, tmp_path / "whole")
    losses, calls = PretrainingTask.losses, []

    def interrupted(self, model, batch):
        calls.append(1)
        if len(calls) == fail_at * profile.training.accumulation + 1:
            raise InterruptError
        return losses(self, model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainingTask, "losses", interrupted)
        with pytest.raises(InterruptError):
            run(profile, tiny_corpus, name, tmp_path / "resumed")
    assert not (tmp_path / "resumed/run.json").exists()
    rows = run(profile, tiny_corpus, name, tmp_path / "resumed")
    assert without_time(rows) == without_time(expected)
    assert without_time(read_lines(tmp_path / "resumed/metrics.jsonl")) == without_time(expected)
    last = "checkpoints/step-00000006/model.safetensors"
    for file in ("model.safetensors", last):
        found, whole = load_file(tmp_path / "resumed" / file), load_file(tmp_path / "whole" / file)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[key], value) for key, value in whole.items())


def test_a_seed_gives_one_run_and_another_seed_another(small_profile, tiny_corpus, tmp_path):
    profile = with_training(small_profile, steps=2, evaluations=2)
    first, again, other = (
        run(profile, tiny_corpus, "segl", tmp_path / str(i), seed) for i, seed in enumerate((0, 0, 1))
    )
    assert without_time(first) == without_time(again)
    assert first[0]["val_loss"] != other[0]["val_loss"]  # another beginning


def test_workers_change_no_number(small_profile, tiny_corpus, tmp_path):
    profile = with_training(small_profile, steps=2, evaluations=2)
    alone = run(profile, tiny_corpus, "segl", tmp_path / "0")
    helped = run(replace(profile, data=replace(profile.data, workers=2)), tiny_corpus, "segl", tmp_path / "2")
    assert without_time(alone) == without_time(helped)


def test_another_configuration_is_refused_or_begun_anew(small_profile, tiny_corpus, tmp_path):
    profile = with_training(small_profile, steps=2, evaluations=1)
    run(profile, tiny_corpus, "segl", tmp_path)
    changed = override(profile, {"losses.segl.downsampling": "majority"})
    message = r"losses\.segl\.downsampling = 'nearest' and now it is 'majority'"
    with pytest.raises(UserError, match=message):
        run(changed, tiny_corpus, "segl", tmp_path)
    with pytest.raises(UserError, match="seed = 0 and now it is 1"):
        run(profile, tiny_corpus, "segl", tmp_path, seed=1)
    assert read_json(tmp_path / "config.json")["losses"]["segl"]["downsampling"] == "nearest"
    rows = run(changed, tiny_corpus, "segl", tmp_path, restart=True)
    assert rows[-1]["step"] == 2
    assert read_json(tmp_path / "config.json")["losses"]["segl"]["downsampling"] == "majority"


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The Euclidean distance of two sets of weights."""
    return math.sqrt(sum(float((one[k] - other[k]).square().sum()) for k in one))


@pytest.mark.parametrize("name", ["naive_vit", "region"])
def test_accumulated_matching_is_the_whole_batchs(small_profile, tiny_corpus, tmp_path, name):
    """Equal parts have equal shares of the matching loss; MLM's depend on their masked words, so it is left out."""
    profile = with_training(small_profile, mlm_weight=0.0)
    rows = run(profile, tiny_corpus, name, tmp_path / "1")
    parts = run(with_training(profile, accumulation=2), tiny_corpus, name, tmp_path / "2")
    for row, other in zip(rows, parts, strict=True):
        assert row["val_itm"] == pytest.approx(other["val_itm"], abs=1e-4)
        assert row.get("train_itm") == pytest.approx(other.get("train_itm"), abs=1e-4)
    file = "checkpoints/step-00000006/model.safetensors"
    found, whole = load_file(tmp_path / "2" / file), load_file(tmp_path / "1" / file)
    moved = load_file(tmp_path / "1" / "checkpoints/step-00000004/model.safetensors")
    # AdamW turns the rounding of a gradient near zero into a whole step: single numbers may differ, all together not.
    assert distance(found, whole) < 0.1 * distance(moved, whole)


def test_epochs_give_the_steps(small_profile, tiny_corpus, tmp_path):
    """24 images with five captions: 120 pairs, 8 a step."""
    profile = with_training(small_profile, steps=0, epochs=0.1, evaluations=1)
    assert run(profile, tiny_corpus, "naive_vit", tmp_path)[-1]["step"] == 2
    assert loop.steps_of_epochs(with_training(profile, epochs=15).training, 120) == 225
    assert loop.steps_of_epochs(with_training(profile, epochs=0.001).training, 120) == 1


# Validation


def test_first_matching_loss_is_of_the_same_pairs_for_all(make_task):
    """Two variants whose untrained models agree measure the same: neither its masks nor its damage is in the way."""
    plain, model = make_task("naive_vit")
    with torch.inference_mode():
        expected = plain.evaluate(model, CPU)
        for name in ("ssul", "segl"):
            task, other = make_task(name, seed=1)
            assert task.validation == plain.validation
            other.load_state_dict(model.state_dict(), strict=False)
            found = task.evaluate(other, CPU)
            assert found["val_itm"] == pytest.approx(expected["val_itm"], abs=1e-6)
            assert found["val_itm_accuracy"] == expected["val_itm_accuracy"]
            if name == "segl":
                assert found["val_mlm"] == pytest.approx(expected["val_mlm"], abs=1e-6)


def test_masks_do_not_reach_the_matching_loss(make_task, small_profile):
    task, model = make_task()
    much = replace(small_profile, data=replace(small_profile.data, mlm_probability=0.9))
    other, _ = make_task(profile=much)
    with torch.inference_mode():
        little, more = task.evaluate(model, CPU), other.evaluate(model, CPU)
    assert little["val_itm"] == more["val_itm"]
    assert little["val_mlm"] != more["val_mlm"]


def test_matching_loss_by_hand(make_task, small_profile):
    task, model = make_task("spl_small")
    (batch,) = load_batches(task.val, [task.validation], 0)
    with torch.inference_mode():
        found = task.evaluate(model, CPU)
        whole = replace(batch, input_ids=batch.clean_ids)
        share = model.itm_head(model.vlp(whole).pooled).softmax(1)
    right = share[torch.arange(len(share)), batch.matched]
    assert len(right) == 2 * small_profile.training.validation_images
    assert batch.matched.float().mean() == 0.5
    assert found["val_itm"] == pytest.approx(float(-right.log().mean()), abs=1e-5)
    assert found["val_itm_accuracy"] == pytest.approx(float((right > 0.5).float().mean()), abs=1e-6)


@pytest.mark.parametrize("name", ["naive_vit", "segl", "spl_small", "ssul", "segl+0.5*ssul"])
def test_validation_does_not_depend_on_the_batch_size(make_task, small_profile, monkeypatch, name):
    """Neither losses nor parts: batches of 3 and of 8 have unlike numbers of words, cells, labels and patches."""
    forward = SEGL.forward

    def with_part(self, features, tokens, batch):
        output = forward(self, features, tokens, batch)
        return output._replace(parts={"twice": 2 * output.loss.detach()})

    monkeypatch.setattr(SEGL, "forward", with_part)
    means = []
    for batch_size in (3, 8):
        task, model = make_task(name, profile=with_training(small_profile, batch_size=batch_size))
        with torch.inference_mode():
            means.append(task.evaluate(model, CPU))
    assert means[0] == pytest.approx(means[1], abs=1e-5)
    mean, losses = means[0], dict(parse_variant(name).losses)
    assert {f"val_{loss}" for loss in losses} <= mean.keys() and ("val_visual" in mean) == bool(losses)
    if losses:
        assert mean["val_visual"] == pytest.approx(sum(w * mean[f"val_{loss}"] for loss, w in losses.items()), rel=1e-6)
    if "segl" in losses:
        assert mean["val_segl_twice"] == pytest.approx(2 * mean["val_segl"], rel=1e-6)


@pytest.mark.parametrize(("name", "times"), [("segl", 2), ("spl_small", 2), ("ssul", 4), ("region", 2)])
def test_validation_reads_undamaged_images_once(make_task, monkeypatch, name, times):
    """Two batches, each with whole and with masked sentences; only SSUL shows other images the second time."""
    task, model = make_task(name)
    seen = []
    handle = model.vlp.vision.register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        found = task.evaluate(model, CPU)
        assert len(seen) == times
        handle.remove()
        forward = type(model).forward
        monkeypatch.setattr(type(model), "forward", lambda self, batch, seen=None: forward(self, batch))
        assert task.evaluate(model, CPU) == found


def test_what_validation_cannot_measure_is_left_out(small_profile, tiny_corpus, tmp_path, capsys):
    profile = with_training(small_profile, steps=2, evaluations=1, checkpoints=0)
    of_val = {record.path.stem for record in tiny_corpus.split("val")}
    maps = {stem: folder for stem, folder in tiny_corpus._pixel_maps.items() if stem not in of_val}
    without = replace(tiny_corpus, _pixel_maps=maps)
    assert 0 < len(maps) < len(tiny_corpus._pixel_maps)
    row = run(profile, without, "segl", tmp_path / "segl")[-1]
    assert row["train_segl"] > 0 and not {"val_segl", "val_visual"} & row.keys()
    assert row["val_loss"] == pytest.approx(row["val_mlm"] + row["val_itm"], rel=0.2)
    mixed = run(profile, without, "segl+ssul", tmp_path / "mixed")[-1]
    assert "val_segl" not in mixed and mixed["val_visual"] == pytest.approx(mixed["val_ssul"])
    assert capsys.readouterr().out.count("no validation image has a label map") == 2
    run(profile, tiny_corpus, "segl", tmp_path / "whole")
    assert "no validation image" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["segl", "ssul", "segl+ssul"])
def test_every_loss_reads_the_pixels_that_the_cells_cover(make_task, small_profile, monkeypatch, name):
    """A border of 3 px that no patch of 8 reads: in training and in validation no loss sees it either."""
    seen = []
    forward = MixedVisualLoss.forward

    def watched(self, features, tokens, batch):
        seen.extend(t.shape[-2:] for t in (batch.images, batch.label_maps) if t is not None)
        return forward(self, features, tokens, batch)

    monkeypatch.setattr(MixedVisualLoss, "forward", watched)
    task, model = make_task(name, profile=replace(small_profile, model=replace(small_profile.model, image_size=35)))
    (part,) = task.share_out(model, [next(task.batches(0, 0, 1))], lambda mean: mean)
    assert all(v.isfinite() for v in task.losses(model, part).values())
    with torch.inference_mode():
        assert all(math.isfinite(v) for v in task.evaluate(model, CPU).values())
    assert set(seen) == {(32, 32)}


# What can go wrong


def test_an_exploding_run_ends_in_a_sentence(small_profile, tiny_corpus, tmp_path):
    profile = with_training(small_profile, learning_rate=1e25, warmup=0.0, clip=1e30)
    for name in ("naive_vit", "spl_small"):
        with pytest.raises(UserError, match=r"lower training\.learning_rate"):
            run(profile, tiny_corpus, name, tmp_path / name)


def test_targets_that_the_corpus_lacks_are_named(tiny_corpus, small_model):
    bare = replace(tiny_corpus, detections=None, _pixel_maps={}, annotation_files=())

    def require(corpus, name):
        variant = parse_variant(name)
        require_targets(corpus, variant, needs_of(small_model, variant, SIZES))

    for name in ("region", "spl_small", "segl+spl_large"):
        with pytest.raises(UserError, match=rf"variant '{name.replace('+', '.')}' reads detector labels"):
            require(bare, name)
    for name in ("segl", "segl_resnet", "ssul+segl"):
        with pytest.raises(UserError, match="reads label maps"):
            require(bare, name)
    for name in ("naive_vit", "naive_resnet", "ssul"):
        require(bare, name)
    for name in VARIANTS:
        require(tiny_corpus, name)


def test_vocabulary_sizes_are_the_corpus_own(small_profile, tiny_corpus):
    tokenizer = make_tokenizer(small_profile, tiny_corpus)
    sizes = vocabularies(tiny_corpus, tokenizer)
    assert sizes.words == len(tokenizer)
    assert sizes.segmentation == len(tiny_corpus.segmentation_classes)
    assert sizes.detector == len(tiny_corpus.detections.classes)
    assert vocabularies(replace(tiny_corpus, detections=None), tokenizer).detector == 0


def test_batches_are_the_orders(make_task):
    task, _ = make_task("region", seed=4)
    first, second = (list(task.batches(start, 0, 1)) for start in (0, 4))
    assert [len(first), len(second)] == [6, 2]
    for a, b in zip(first[4:], second, strict=True):
        assert torch.equal(a.seeds, b.seeds)
        assert torch.equal(a.images, b.images)
    assert all(len(batch) == 8 for batch in first)
    assert first[0].label_maps is None
    assert first[0].labels is not None
    assert len(np.unique(torch.cat([b.seeds for b in first]).numpy())) == 48

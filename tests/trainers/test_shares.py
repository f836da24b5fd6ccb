"""A batch in parts is the whole batch: what many processes rely on."""

from dataclasses import replace

import pytest
import torch
from contexts import part_of

from vlp_lib.batches.pairs import TrainingOrder, load_batches
from vlp_lib.batches.sample import NO_MATCHED_TOKEN
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.trainers.loop import seed_everything
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer, vocabularies
from vlp_lib.variants import parse_variant


@pytest.fixture
def make(small_profile, tiny_corpus):
    """A task, its model and a batch of eight images."""

    def made(name, pairing="both", **model_changes):
        profile = replace(
            small_profile,
            model=replace(small_profile.model, **model_changes),
            data=replace(small_profile.data, pairing=pairing),
        )
        tokenizer, variant = make_tokenizer(profile, tiny_corpus), parse_variant(name)
        seed_everything(0)
        model = PretrainingModel(VLPModel(profile.model, variant, vocabularies(tiny_corpus, tokenizer)))
        task = PretrainingTask(tiny_corpus, tokenizer, profile, variant, 0, 1)
        (batch,) = load_batches(task.train, TrainingOrder(len(task.train), 8, 1, 0), 0)
        return task, model, batch

    return made


def whole_and_parts(task, model, batch, count):
    """Each loss and the gradient, of the whole batch and as the mean over its parts."""

    def gradient():
        found = torch.cat([p.grad.flatten() for p in model.parameters()])
        model.zero_grad()
        return found

    whole = task.losses(model, batch)
    whole["loss"].backward()
    expected, share = gradient(), 8 // count
    pieces = [part_of(batch, slice(i * share, (i + 1) * share)) for i in range(count)]
    parts = task.share_out(model, pieces, lambda mean: mean)
    found = [task.losses(model, part) for part in parts]
    torch.stack([losses["loss"] for losses in found]).mean().backward()
    means = {name: torch.stack([losses[name] for losses in found]).mean().item() for name in whole}
    return {name: value.item() for name, value in whole.items()}, means, expected, gradient(), found


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("naive_vit", {"pairing": "one"}),
        ("region", {}),
        ("ssul", {}),
        ("segl+0.5*ssul", {}),
        ("segl", {"losses": {"segl.downsampling": "majority"}, "pairing": "one"}),
        ("segl_resnet", {}),
        ("segl", {"visual_loss_at": "cross"}),
        ("spl_small", {}),
        ("spl_large", {}),
    ],
)
def test_mean_of_the_parts_is_the_whole(make, name, changes, count):
    whole, parts, expected, found, each = whole_and_parts(*make(name, **changes), count)
    assert parts == pytest.approx(whole, abs=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert len({round(losses["loss"].item(), 4) for losses in each}) > 1


def test_parts_without_a_masked_word_or_a_label_map(make):
    task, model, batch = make("segl")
    labels, maps = batch.mlm_labels.clone(), batch.label_maps.clone()
    labels[:4], labels[8:12], maps[:4] = NO_MATCHED_TOKEN, NO_MATCHED_TOKEN, 255
    hard = replace(batch, mlm_labels=labels, label_maps=maps)
    whole, parts, expected, found, each = whole_and_parts(task, model, hard, 2)
    assert parts == pytest.approx(whole, abs=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    assert each[0]["mlm"].item() == each[0]["segl"].item() == 0
    nothing = replace(hard, mlm_labels=torch.full_like(labels, NO_MATCHED_TOKEN), label_maps=torch.full_like(maps, 255))
    whole, parts, *_ = whole_and_parts(task, model, nothing, 2)
    assert parts == pytest.approx(whole, abs=1e-6)
    assert parts["mlm"] == parts["segl"] == 0

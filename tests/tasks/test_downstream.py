"""The finetuning model: one pass over all pairs equals separate passes; the losses by hand."""

import math

import pytest
import torch

from vlp_lib.corpora.records import Detections
from vlp_lib.models.model import VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.tasks.common import TaskSample, collate
from vlp_lib.tasks.downstream import DownstreamModel, freeze_unread, task_loss
from vlp_lib.variants import VARIANTS

SIZES = Vocabularies(words=40, segmentation=6, detector=10, attributes=4)


def model_of(small_model, variant="naive_vit", pairs=1, classes=3):
    torch.manual_seed(0)
    return DownstreamModel(VLPModel(small_model, VARIANTS[variant], SIZES), pairs, classes).eval()


def sample(pictures, texts, seed, target=0, size=32, regions=False):
    generator = torch.Generator().manual_seed(seed)
    found = Detections(*(torch.rand(n, generator=generator).numpy() for n in (2, 2)),
                       torch.tensor([[0, 0, 0.5, 0.5], [0.2, 0.2, 0.9, 0.9]]).numpy(),
                       torch.tensor([1, 2]).numpy())  # fmt: skip
    return TaskSample(
        tuple(torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8) for _ in range(pictures)),
        (found,) * pictures if regions else (),
        tuple(torch.randint(5, 40, (4 + 2 * i,), generator=generator) for i in range(texts)),
        torch.tensor(target),
    )


def parts(item):
    """Each pair of an item as an item of its own."""
    return [TaskSample((p,), item.detections[:1], (t,), item.target) for p in item.pictures for t in item.texts]


@pytest.mark.parametrize("variant", ["naive_vit", "segl_resnet", "spl_small", "region"])
@pytest.mark.parametrize(("pictures", "texts"), [(1, 1), (2, 1), (1, 4)])
def test_one_pass_equals_a_pass_for_each_pair(small_model, variant, pictures, texts):
    model = model_of(small_model, variant, pictures * texts)
    items = [sample(pictures, texts, seed, regions=variant == "region") for seed in (1, 2)]
    with torch.inference_mode():
        together = model.pooled(collate(items))
        alone = torch.cat([model.pooled(collate([part])) for item in items for part in parts(item)])
        logits = model(collate(items))
        # The head reads an item's features in the order of its pairs.
        by_hand = model.head(alone.reshape(2, -1))
    assert torch.allclose(together, alone, atol=2e-5)
    assert torch.allclose(logits, by_hand, atol=2e-5)
    assert logits.shape == (2, 3)


def test_the_order_of_the_pictures_matters(small_model):
    model = model_of(small_model, pairs=2)
    item = sample(2, 1, 3)
    turned = TaskSample(item.pictures[::-1], (), item.texts, item.target)
    with torch.inference_mode():
        features = model.pooled(collate([item])), model.pooled(collate([turned]))
        assert torch.allclose(features[0], features[1].flip(0), atol=1e-5)
        assert not torch.allclose(model(collate([item])), model(collate([turned])), atol=1e-3)


@pytest.mark.parametrize("variant", ["naive_vit", "segl_resnet"])
def test_a_larger_image_needs_no_other_weights(small_model, variant):
    model = model_of(small_model, variant)
    names = set(model.state_dict())
    with torch.inference_mode():
        assert model(collate([sample(1, 1, 4, size=56)])).shape == (1, 3)
    assert set(model.state_dict()) == names


def test_bce_by_hand():
    logits = torch.tensor([[0.0, 2.0, -1.0], [1.0, 0.0, 0.0]])
    targets = torch.tensor([[0.3, 1.0, 0.0], [0.0, 0.0, 0.0]])

    def bce(x, y):
        p = 1 / (1 + math.exp(-x))
        return -(y * math.log(p) + (1 - y) * math.log(1 - p))

    sums = [sum(bce(x, y) for x, y in zip(*rows, strict=True))
            for rows in zip(logits.tolist(), targets.tolist(), strict=True)]  # fmt: skip
    assert float(task_loss(logits, targets)) == pytest.approx(sum(sums) / 2)  # mean × 3 answers = mean of the sums


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    expected = (math.log(1 + math.e) - 1 + math.log(1 + math.exp(2))) / 2
    assert float(task_loss(logits, torch.tensor([1, 1]))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("variant", "left_out"), [("segl", True), ("ssul", True), ("spl_small", True), ("naive_vit", False)]
)
def test_only_what_the_loss_reaches_is_trained(small_model, variant, left_out):
    model = model_of(small_model, variant)
    names = freeze_unread(model, collate([sample(1, 1, 5)]))
    assert bool(names) == left_out and all(name.startswith("vlp.visual_loss.") for name in names)
    task_loss(model(collate([sample(1, 1, 6)])), torch.tensor([1])).backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    if variant == "spl_small":
        assert model.vlp.visual_loss.losses["spl_small"].queries.requires_grad

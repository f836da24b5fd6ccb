import math
from collections import Counter

import pytest
import torch
from contexts import context, part_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vlp_lib.corpora.records import IGNORED
from vlp_lib.errors import UserError
from vlp_lib.losses.base import MixedVisualLoss
from vlp_lib.losses.segl import SEGL, downsample_labels
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.variants import VARIANTS


def label_maps(seed, size, classes=5, void=0.2):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, classes, (2, *size), generator=generator)
    return torch.where(torch.rand(maps.shape, generator=generator) < void, IGNORED, maps)


def nearest(labels, height, width):
    """The pixel in which each cell's centre lies."""
    rows, columns = labels.shape
    return [
        [int(labels[int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)]) for x in range(width)]
        for y in range(height)
    ]


def majority(labels, height, width):
    rows, columns = labels.shape[0] // height, labels.shape[1] // width
    found = []
    for y in range(height):
        found.append([])
        for x in range(width):
            cell = labels[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns].flatten().tolist()
            counts = Counter(v for v in cell if v != IGNORED)
            found[-1].append(min(counts, key=lambda c: (-counts[c], c)) if counts else IGNORED)
    return found


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    cell=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    void=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
def test_downsampling_by_brute_force(seed, cell, grid, void):
    maps = label_maps(seed, (cell[0] * grid[0], cell[1] * grid[1]), void=void)
    for how, reference in (("nearest", nearest), ("majority", majority)):
        found = downsample_labels(maps, grid, 5, how)
        assert found.dtype == torch.int64
        assert found.tolist() == [reference(labels, *grid) for labels in maps], how


@pytest.mark.parametrize("size", [600, 384, 100])
def test_nearest_where_the_cells_do_not_tile(size):
    maps = label_maps(0, (size, size), classes=171)
    found = downsample_labels(maps, (19, 19), 171)
    assert found.tolist() == [nearest(labels, 19, 19) for labels in maps]


def test_nearest_keeps_every_class_number():
    """Through float and back: no number up to 255 may change."""
    maps = torch.arange(256).reshape(1, 16, 16)
    assert torch.equal(downsample_labels(maps, (16, 16), 256), maps)


def features_for(seed, grid, hidden=8):
    tokens = torch.randn(3, grid[0] * grid[1], hidden, generator=torch.Generator().manual_seed(seed))
    return VisionFeatures(tokens.requires_grad_(), grid)


@pytest.mark.parametrize("how", ["nearest", "majority"])
def test_loss_pixel_by_pixel(make_batch, how):
    torch.manual_seed(0)
    loss = SEGL(context(), downsampling=how)
    batch = make_batch()
    features = features_for(0, (4, 4))
    output = loss(features, features, batch)
    logits = loss.classify(features.map())
    assert logits.shape == (3, 7, 4, 4)  # one more than there are classes
    target = downsample_labels(batch.label_maps, (4, 4), 6, how)
    terms = []
    for b in range(3):
        for y in range(4):
            for x in range(4):
                if target[b, y, x] != IGNORED:
                    scores = logits[b, :, y, x].tolist()
                    total = sum(math.exp(s) for s in scores)
                    terms.append(-math.log(math.exp(scores[target[b, y, x]]) / total))
    assert (len(terms) < 48) == (how == "nearest")  # some centres are void, no whole cell is
    assert output.loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert torch.equal(output.drawings["target"], target)
    assert torch.equal(output.drawings["predicted"], logits.argmax(1))


def test_void_cells_have_no_gradient(make_batch):
    loss = SEGL(context())
    batch = make_batch()
    features = features_for(1, (4, 4))
    loss(features, features, batch).loss.backward()
    void = downsample_labels(batch.label_maps, (4, 4), 6).flatten(1) == IGNORED
    assert void.any()
    assert (features.tokens.grad[void] == 0).all()
    assert (features.tokens.grad[~void] != 0).any(-1).all()


def test_batch_without_any_class_is_zero_and_finite(make_batch):
    loss = SEGL(context())
    batch = make_batch()
    batch.label_maps.fill_(IGNORED)
    features = features_for(2, (4, 4))
    value = loss(features, features, batch).loss
    value.backward()
    assert value.item() == 0
    assert torch.equal(features.tokens.grad, torch.zeros_like(features.tokens))
    assert torch.equal(loss.classify.weight.grad, torch.zeros_like(loss.classify.weight))


def test_images_without_a_map_do_not_dilute_the_loss(make_batch):
    """Only about half of the images have a map: the mean is over cells, not over images."""
    torch.manual_seed(0)
    loss = SEGL(context())
    batch, features = make_batch(), features_for(3, (4, 4))
    batch.label_maps[1:] = IGNORED
    one = VisionFeatures(features.tokens[:1], (4, 4))
    torch.testing.assert_close(loss(features, features, batch).loss, loss(one, one, part_of(batch, slice(0, 1))).loss)


def test_resnets_map_is_enlarged_to_24(make_batch):
    """Section IV-A4: from 12×12 to 24×24; and only for the ResNet."""
    sizes = Vocabularies(words=9, segmentation=171, detector=3, attributes=3)
    batch = make_batch(image_size=384, segmentation=171)
    for name, side in (("segl_resnet", 24), ("segl", 12)):
        resnet = VARIANTS[name].vision == "resnet"
        sized = context(hidden=768, grid=(12, 12), patch=32, convolutional=resnet, vocabularies=sizes)
        loss = MixedVisualLoss(sized, dict(VARIANTS[name].losses))
        features = features_for(4, (12, 12), hidden=768)
        drawings = loss(features, features, batch).drawings
        assert drawings["segl_predicted"].shape == (3, side, side)
        assert drawings["segl_target"].shape == (3, side, side)
        assert loss.losses["segl"].classify.out_channels == 172
        assert torch.equal(drawings["segl_target"], downsample_labels(batch.label_maps, (side, side), 171))


def test_corpus_without_maps_is_refused(make_batch):
    features = features_for(5, (4, 4))
    batch = make_batch()
    with pytest.raises(UserError, match="SEGL needs label maps"):
        SEGL(context())(features, features, type(batch)(**{**vars(batch), "label_maps": None}))
    with pytest.raises(UserError, match="regions form no feature map"):
        SEGL(context())(VisionFeatures(features.tokens, None), features, batch)

import dataclasses
from dataclasses import replace

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.resnet import Bottleneck, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vlp_lib.batches.collate import collate
from vlp_lib.batches.sample import Sample, Text
from vlp_lib.config import ModelConfig, RegionConfig, ResNetConfig, ViTConfig
from vlp_lib.corpora.records import IGNORED, NO_DETECTIONS
from vlp_lib.errors import UserError
from vlp_lib.losses.segl import downsample_labels
from vlp_lib.models.vision import RegionStream, ResNetStream, VisionFeatures, ViTStream
from vlp_lib.models.weights import IMAGENET_MEAN, IMAGENET_STD

NARROW = ModelConfig(
    image_size=384,
    hidden=16,
    vit=ViTConfig(width=16, layers=1, heads=2, patch=32),
    # The stages of ResNet-50 one block deep; "group" learns its scale, so that random weights do not vanish.
    resnet=ResNetConfig(layers=(1, 1, 1, 1), channels=(8, 8, 8, 16), norm="group"),
)


def normalised(images):
    return (images - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


@pytest.fixture
def images_of(make_batch):
    batch = make_batch(lengths=(5,), detections=(0,), image_size=8)

    def make(size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return replace(batch, images=torch.rand(1, 3, size, size, generator=generator))

    return make


# Vision transformer


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return ViTStream(NARROW).eval()


@pytest.mark.parametrize(("size", "tokens"), [(384, 144), (600, 324), (800, 625)])
def test_vit_tokens_at_the_papers_sizes(vit, images_of, size, tokens):
    features = vit(images_of(size))
    side = int(tokens**0.5)
    assert features.tokens.shape == (1, tokens, 16)
    assert features.grid == (side, side)
    assert features.mask is None
    assert features.map().shape == (1, 16, side, side)
    assert torch.isfinite(features.tokens).all()


def test_600_pixels_are_cropped_to_576_around_the_centre(vit, images_of):
    batch = images_of(600)
    centre = batch.images[..., 12:588, 12:588]
    expected = vit(replace(batch, images=centre.clone())).tokens
    frame = torch.full_like(batch.images, 0.5)
    frame[..., 12:588, 12:588] = centre
    assert torch.equal(vit(batch).tokens, expected)
    assert torch.equal(vit(replace(batch, images=frame)).tokens, expected)


def test_targets_lie_under_the_cells_that_predict_them(vit, make_batch):
    """100 px and patches of 32: three cells, and 2 px on each side that no cell reads."""
    batch = make_batch(image_size=100)
    maps = torch.full((3, 100, 100), IGNORED)
    cells = torch.arange(9).reshape(3, 3)
    maps[:, 2:98, 2:98] = cells.repeat_interleave(32, 0).repeat_interleave(32, 1)
    cut = vit.cut(replace(batch, label_maps=maps))
    assert torch.equal(cut.images, batch.images[..., 2:98, 2:98])
    for how in ("nearest", "majority"):
        assert torch.equal(downsample_labels(cut.label_maps, vit.grid(100, 100), 9, how), cells.expand(3, 3, 3))
    counts = torch.stack([(cut.label_maps == cell).sum() for cell in range(9)])
    assert (counts == 3 * 32 * 32).all()  # no cell holds a neighbour's pixel
    assert torch.equal(vit(cut).tokens, vit(batch).tokens)
    pixels = (batch.boxes * 100 - 2).clamp(0, 96)
    torch.testing.assert_close(cut.boxes * 96, pixels, atol=1e-4, rtol=0)
    assert vit.cut(cut) is cut


def test_what_is_read_whole_is_not_cut(vit, make_batch):
    batch, odd = make_batch(image_size=96), make_batch(image_size=100)
    assert vit.cut(batch) is batch
    assert ResNetStream(NARROW).cut(odd) is odd
    assert RegionStream(NARROW, 10, 4).cut(odd) is odd


def test_tokens_are_the_cells_row_by_row(images_of):
    torch.manual_seed(0)
    config = replace(NARROW, image_size=64, vit=replace(NARROW.vit, layers=0, patch=16))
    stream = ViTStream(config).eval()  # without layers no token sees another
    batch = images_of(64)
    changed = batch.images.clone()
    changed[..., 16:32, 48:64] += 1
    before, after = stream(batch), stream(replace(batch, images=changed))
    different = (before.map() != after.map()).any(1)[0]
    assert different.nonzero().tolist() == [[1, 3]]
    assert (before.tokens != after.tokens).any(-1)[0].nonzero().flatten().tolist() == [1 * 4 + 3]


def test_vit_is_timms_at_its_own_size(images_of):
    torch.manual_seed(0)
    config = replace(NARROW, image_size=64, vit=ViTConfig(width=16, layers=2, heads=2, patch=16))
    stream = ViTStream(config).eval()
    reference = VisionTransformer(
        img_size=64, patch_size=16, depth=2, embed_dim=16, num_heads=2, num_classes=0, class_token=False, global_pool=""
    ).eval()
    reference.load_state_dict(stream.backbone.state_dict())
    batch = images_of(64)
    expected = reference(normalised(batch.images))
    torch.testing.assert_close(stream(batch).tokens, expected, atol=1e-5, rtol=0)


def test_vit_positions_are_resampled_as_timm_does(images_of):
    torch.manual_seed(0)
    config = replace(NARROW, image_size=48, vit=ViTConfig(width=16, layers=1, heads=2, patch=16))
    stream = ViTStream(config).eval()
    nn.init.normal_(stream.backbone.pos_embed)
    larger = ViTStream(replace(config, image_size=80)).eval()
    state = stream.backbone.state_dict()
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], [5, 5], num_prefix_tokens=0)
    larger.backbone.load_state_dict(state)
    batch = images_of(80)
    torch.testing.assert_close(stream(batch).tokens, larger(batch).tokens, atol=1e-5, rtol=0)


def test_vit_of_another_width_is_projected(images_of):
    config = replace(NARROW, image_size=64, hidden=24)
    assert ViTStream(config)(images_of(64)).tokens.shape == (1, 4, 24)
    assert isinstance(ViTStream(NARROW).project, nn.Identity)


def test_image_smaller_than_a_patch_is_refused(vit, images_of):
    with pytest.raises(UserError, match=r"\(16, 16\) px has no patch of 32 px"):
        vit(images_of(16))


# ResNet


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return ResNetStream(NARROW).eval()


@pytest.mark.parametrize(("size", "side"), [(384, 12), (600, 19), (800, 25)])
def test_resnet_grid_at_the_papers_sizes(resnet, images_of, size, side):
    features = resnet(images_of(size))
    assert features.grid == (side, side)
    assert features.tokens.shape == (1, side * side, 16)
    assert torch.isfinite(features.tokens).all()


def test_resnet_with_dilation_keeps_the_paper_grid_at_24(images_of):
    config = replace(NARROW, resnet=replace(NARROW.resnet, output_stride=16))
    stream = ResNetStream(config).eval()
    assert stream(images_of(384)).grid == (24, 24)
    assert stream.position.shape == (1, 24 * 24, 16)


def test_resnet_positions_are_resampled_as_timm_does(resnet, images_of):
    larger = ResNetStream(replace(NARROW, image_size=480)).eval()
    state = resnet.state_dict()
    state["position"] = resample_abs_pos_embed(state["position"], [15, 15], num_prefix_tokens=0)
    assert state["position"].shape == (1, 225, 16)
    larger.load_state_dict(state)
    batch = images_of(480)
    torch.testing.assert_close(resnet(batch).tokens, larger(batch).tokens, atol=1e-5, rtol=0)


def test_frozen_norm_keeps_its_statistics(images_of):
    stream = ResNetStream(replace(NARROW, resnet=replace(NARROW.resnet, norm="frozen"))).train()
    before = {k: v.clone() for k, v in stream.backbone.state_dict().items()}
    stream(images_of(64)).tokens.sum().backward()
    assert any(name.endswith("running_mean") for name in before)
    assert all(torch.equal(value, before[name]) for name, value in stream.backbone.state_dict().items())
    assert not [name for name, _ in stream.backbone.named_parameters() if "bn" in name]


# Regions


@pytest.fixture(params=[0, 12], ids=["labels only", "features"])
def regions(request, make_batch):
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, region=RegionConfig(max_regions=8, feature_size=request.param))
    return RegionStream(config, classes=10, attributes=4).eval(), make_batch(features=request.param)


def with_junk_padding(batch, generator):
    """The batch with two more places and random values at all places without a detection."""

    def fill(value, low, high):
        wider = torch.cat([value, value.new_zeros(len(value), 2, *value.shape[2:])], 1)
        junk = torch.randint(low, high, wider.shape, generator=generator).to(wider.dtype)
        empty = torch.cat([batch.labels < 0, torch.ones(len(value), 2, dtype=torch.bool)], 1)
        return torch.where(empty.reshape(*empty.shape, *[1] * (wider.ndim - 2)), junk, wider)

    labels = torch.cat([batch.labels, torch.full((len(batch), 2), -1)], 1)
    return replace(
        batch,
        labels=labels,
        attributes=fill(batch.attributes, 0, 4),
        scores=fill(batch.scores, 1, 2),
        boxes=fill(batch.boxes, 0, 2),
        features=None if batch.features is None else fill(batch.features, 1, 9),
    )


def test_padding_changes_no_region(regions):
    stream, batch = regions
    junk = with_junk_padding(batch, torch.Generator().manual_seed(1))
    plain, padded = stream(batch), stream(junk)
    assert plain.grid is None
    assert plain.tokens.shape == (3, 5, 16)
    assert padded.tokens.shape == (3, 7, 16)
    assert padded.mask[[0, 2]].tolist() == [[True] * 3 + [False] * 4, [True] * 5 + [False] * 2]
    for i, count in ((0, 3), (2, 5)):
        assert torch.equal(plain.tokens[i, :count], padded.tokens[i, :count])
    with pytest.raises(UserError, match="regions form no feature map"):
        plain.map()


def test_image_without_detections_keeps_one_empty_region(regions):
    stream, batch = regions
    features = stream(batch)
    assert features.mask[1].tolist() == [True, False, False, False, False]
    assert torch.isfinite(features.tokens).all()
    features.tokens.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in stream.parameters())


def test_batch_in_which_nothing_was_detected(regions, make_batch):
    """As the last batch of a split may be: the collation then has no features to stack."""
    stream, _ = regions
    words = torch.tensor([2, 7, 3])
    text = Text(words, words, words, True)
    sample = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), (text,), None, NO_DETECTIONS, 0, 1)
    batch = collate([sample, sample])
    assert batch.features is None
    features = stream(batch)
    assert features.tokens.shape == (2, 1, 16)
    assert features.mask.all()
    assert torch.isfinite(features.tokens).all()


def test_the_best_regions_are_kept(regions):
    stream, batch = regions
    fewer = RegionStream(ModelConfig(hidden=16, region=replace(stream.config, max_regions=2)), 10, 4).eval()
    fewer.load_state_dict(stream.state_dict())
    kept = fewer(batch)
    assert kept.tokens.shape[1] == 2
    assert torch.equal(kept.tokens[2], stream(batch).tokens[2, :2])


@pytest.mark.parametrize("field", ["labels", "attributes", "scores", "boxes", "features"])
def test_every_field_of_a_region_is_read(make_batch, field):
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, region=RegionConfig(max_regions=8, feature_size=12))
    stream = RegionStream(config, classes=10, attributes=4).eval()
    batch = make_batch(features=12)
    value = getattr(batch, field)
    changed = value.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 4 if value.dtype == torch.int64 else changed[0, 0].flip(-1) / 2 + 0.1
    difference = (stream(replace(batch, **{field: changed})).tokens != stream(batch).tokens).any(-1)
    assert difference.nonzero().tolist() == [[0, 0]]


def test_region_model_says_what_the_corpus_lacks(make_batch):
    batch = make_batch()
    config = ModelConfig(hidden=16, region=RegionConfig(feature_size=12))
    with pytest.raises(UserError, match="hold labels only"):
        RegionStream(config, 10, 4)(batch)
    with pytest.raises(UserError, match="reads detector labels"):
        RegionStream(config, 10, 4)(dataclasses.replace(batch, labels=None))


def test_map_of_tokens():
    tokens = torch.arange(2 * 6 * 3).reshape(2, 6, 3)
    grid = VisionFeatures(tokens, (2, 3)).map()
    assert all(
        torch.equal(grid[b, :, row, column], tokens[b, 3 * row + column])
        for b in range(2)
        for row in range(2)
        for column in range(3)
    )


def test_resnet50_is_timms(images_of):
    """The paper's depth with narrow stages, frozen statistics against timm's own batch norm in evaluation."""
    torch.manual_seed(0)
    config = replace(NARROW, image_size=64, resnet=ResNetConfig(channels=(8, 8, 8, 8)))
    reference = ResNet(Bottleneck, (3, 4, 6, 3), channels=(8, 8, 8, 8), num_classes=5).eval()
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    stream = ResNetStream(config).eval()
    own = stream.backbone.state_dict()
    stream.backbone.load_state_dict({k: v for k, v in reference.state_dict().items() if k in own}, strict=True)
    batch = images_of(64)
    cells = reference.forward_features(normalised(batch.images)).flatten(2).transpose(1, 2)
    expected = stream.norm(stream.project(cells)) + stream.position
    torch.testing.assert_close(stream(batch).tokens, expected, atol=1e-4, rtol=0)


# The grid, known before


@pytest.mark.parametrize("size", [384, 600, 224, 100])
@pytest.mark.parametrize("stride", [32, 16])
def test_the_grid_is_known_before(vit, images_of, size, stride):
    config = replace(NARROW, resnet=replace(NARROW.resnet, output_stride=stride))
    for stream in (vit, ResNetStream(config).eval()):
        assert stream.grid(size, size) == stream(images_of(size)).grid

import pytest
import torch
from contexts import context, part_of

from vlp_lib.errors import UserError
from vlp_lib.losses.ssul import SSUL, colour_loss, hide_patches, mean_colours
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.weights import IMAGENET_MEAN


def cells(height, width):
    return [(row, column) for row in range(height) for column in range(width)]


@pytest.fixture
def images():
    return torch.rand(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def test_mean_colours_by_hand(images):
    found = mean_colours(images, 4)
    assert found.shape == (2, 3, 3, 4)
    for b in range(2):
        for channel in range(3):
            for row, column in cells(3, 4):
                pixels = [float(images[b, channel, 4 * row + y, 4 * column + x]) for y in range(4) for x in range(4)]
                assert float(found[b, channel, row, column]) == pytest.approx(sum(pixels) / 16, abs=1e-6)


def test_hidden_patches_are_painted_and_no_other_pixel(images):
    hidden = torch.zeros(2, 3, 4, dtype=torch.bool)
    hidden[0, 0, 3] = hidden[0, 2, 1] = hidden[1, 1, 0] = True
    painted = hide_patches(images, hidden, 4)
    for b in range(2):
        for y, x in cells(12, 16):
            expected = torch.tensor(IMAGENET_MEAN) if hidden[b, y // 4, x // 4] else images[b, :, y, x]
            assert torch.equal(painted[b, :, y, x], expected)


def test_loss_is_over_hidden_patches_only(images):
    generator = torch.Generator().manual_seed(1)
    predicted = torch.rand(2, 3, 3, 4, generator=generator)
    hidden = torch.rand(2, 3, 4, generator=generator) < 0.4
    distances = []
    for b in range(2):
        for row, column in cells(3, 4):
            if hidden[b, row, column]:
                patch = images[b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                distances.append(
                    sum((float(predicted[b, c, row, column]) - float(patch[c].mean())) ** 2 for c in range(3))
                )
    assert 2 < len(distances) < 24
    assert float(colour_loss(predicted, images, hidden, 4)) == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    changed = torch.where(hidden[:, None], predicted, 9.0)
    assert torch.equal(colour_loss(changed, images, hidden, 4), colour_loss(predicted, images, hidden, 4))


def test_nothing_hidden_is_zero_with_a_gradient(images):
    predicted = torch.zeros(2, 3, 3, 4, requires_grad=True)
    loss = colour_loss(predicted, images, torch.zeros(2, 3, 4, dtype=torch.bool), 4)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(predicted.grad, torch.zeros_like(predicted))


def test_target_is_rgb_between_0_and_1():
    """Neither normalised by the data set nor by the patch: white is (1, 1, 1), and a flat patch has a target."""
    white = torch.ones(1, 3, 4, 4)
    hidden = torch.ones(1, 1, 1, dtype=torch.bool)
    assert float(colour_loss(torch.ones(1, 3, 1, 1), white, hidden, 4)) == 0
    assert float(colour_loss(torch.zeros(1, 3, 1, 1), white, hidden, 4)) == 3


def test_corruption_keeps_the_pixels_and_hides_some(make_batch):
    batch = make_batch(lengths=(5, 6, 7, 8), detections=(0,) * 4)
    loss = SSUL(context(), patch=8, probability=0.15)
    corrupted = loss.corrupt(batch)
    assert corrupted.extras["ssul_hidden"].shape == (4, 4, 4)
    assert corrupted.extras["ssul_hidden"].any((1, 2)).all()
    assert torch.equal(corrupted.extras["ssul_images"], batch.images)
    assert torch.equal(corrupted.images, hide_patches(batch.images, corrupted.extras["ssul_hidden"], 8))
    assert not torch.equal(corrupted.images, batch.images)


def test_share_of_hidden_patches(make_batch):
    batch = make_batch(lengths=(5,) * 300, detections=(0,) * 300, image_size=64)
    hidden = SSUL(context(), patch=4, probability=0.15).corrupt(batch).extras["ssul_hidden"]
    # 76,800 patches: four standard deviations.
    assert float(hidden.float().mean()) == pytest.approx(0.15, abs=0.0052)
    assert float(hidden.float().mean(0).max()) < 0.3  # no place is preferred
    one = SSUL(context(), patch=4, probability=0.0).corrupt(batch).extras["ssul_hidden"]
    assert (one.sum((1, 2)) == 1).all()


def test_what_is_hidden_depends_on_the_samples_seed_alone(make_batch):
    batch = make_batch(lengths=(5,) * 6, detections=(0,) * 6)
    loss = SSUL(context(), patch=4, probability=0.15)
    whole = loss.corrupt(batch).extras["ssul_hidden"]
    torch.manual_seed(123)
    assert torch.equal(loss.corrupt(batch).extras["ssul_hidden"], whole)
    assert torch.equal(loss.corrupt(part_of(batch, slice(2, 4))).extras["ssul_hidden"], whole[2:4])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(loss.corrupt(make_batch((5,) * 6, (0,) * 6, seed=1)).extras["ssul_hidden"], whole)


@pytest.mark.parametrize("patch", [5, 12, 64])
def test_patches_must_tile_the_image(make_batch, patch):
    with pytest.raises(UserError, match=f"patches of {patch} px do not tile images of 32×32 px"):
        SSUL(context(), patch=patch).corrupt(make_batch())


def test_forward_reads_the_feature_map(make_batch):
    torch.manual_seed(0)
    loss = SSUL(context(), patch=8, probability=0.3)
    batch = loss.corrupt(make_batch())
    features = VisionFeatures(torch.randn(3, 16, 8), (4, 4))
    output = loss(features, features, batch)
    weight, bias = loss.predict.weight[:, :, 0, 0], loss.predict.bias
    predicted = (features.tokens @ weight.T + bias).transpose(1, 2).reshape(3, 3, 4, 4)
    torch.testing.assert_close(
        output.loss,
        colour_loss(predicted, batch.extras["ssul_images"], batch.extras["ssul_hidden"], 8),
        atol=1e-5,
        rtol=0,
    )
    torch.testing.assert_close(output.drawings["colours"], predicted, atol=1e-5, rtol=0)
    assert not output.drawings["colours"].requires_grad


def test_forward_at_another_resolution(make_batch):
    loss = SSUL(context(), patch=4, probability=0.3)  # 8×8 patches, a map of 4×4
    batch = loss.corrupt(make_batch())
    features = VisionFeatures(torch.randn(3, 16, 8), (4, 4))
    output = loss(features, features, batch)
    assert output.drawings["colours"].shape == (3, 3, 8, 8)
    assert torch.isfinite(output.loss)

"""Views drawn for a batch on the device against those drawn one by one by Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlp_lib.batches import show as module
from vlp_lib.batches.augment import View, draw_view, show_image, show_label_map
from vlp_lib.batches.collate import collate
from vlp_lib.batches.sample import Sample, Text
from vlp_lib.batches.show import show

_WORD = torch.tensor([5])


def stored(seed, sizes, views):
    """Samples of random images and maps with views that are yet to be drawn."""
    rng = np.random.default_rng(seed)
    samples = []
    for (height, width), view in zip(sizes, views, strict=True):
        # Smooth and noisy parts: noise alone would hide a shift.
        pixels = rng.integers(0, 256, (height, width, 3)) // 2 + np.arange(width)[None, :, None] * 127 // width
        labels = rng.integers(0, 7, (height, width))
        samples.append(
            Sample(
                torch.from_numpy(pixels.astype(np.uint8)),
                (Text(_WORD, _WORD, _WORD, True),),
                torch.from_numpy(labels.astype(np.uint8)),
                None,
                0,
                1,
                view=(view.scale, view.left, view.top, float(view.flip), float(height), float(width)),
            )
        )
    return samples


def assert_shown(samples, views, size):
    batch = show(collate(samples), size)
    assert batch.views is None
    assert batch.images.shape == (len(samples), 3, size, size)
    assert batch.label_maps.dtype == torch.int64
    for image, labels, sample, view in zip(batch.images, batch.label_maps, samples, views, strict=True):
        levels = image.permute(1, 2, 0).numpy() * 255
        np.testing.assert_allclose(levels, levels.round(), atol=1e-3)  # whole levels, as from a decoded image
        expected = show_image(Image.fromarray(sample.image.numpy()), view, size)
        error = np.abs(levels - expected)
        # Where both roundings fall on a half, Pillow's fixed-point weights may round twice to the other side.
        assert error.max() <= 2.01
        assert error.mean() <= 0.3
        # Pillow rounds its box to float32: a pixel on the border of two may fall to either.
        assert (labels.numpy() != show_label_map(sample.label_map.numpy(), view, size)).mean() <= 2 / size


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(8, 40),
    # Odd, so that no output pixel's centre lies between two stored ones, where either label is right.
    sides=st.tuples(*[st.integers(1, 30).map(lambda half: 2 * half + 1)] * 2),
    resize=st.sampled_from([(0.8, 1.2), (0.3, 0.9), (1.0, 3.0), (1.0, 1.0)]),
)
def test_equal_to_pillows_views(seed, size, sides, resize):
    view = draw_view(np.random.default_rng(seed), resize, 0.5)
    assert_shown(stored(seed, [sides], [view]), [view], size)


def test_images_of_different_sizes_share_a_batch(monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    views = [View(), View(flip=True), View(0.8, 0.1, 0.15), View(1.2, -0.1, -0.2, True), View(1.0)]
    sizes = [(31, 21), (11, 41), (33, 33), (25, 51), (17, 17)]
    assert_shown(stored(0, sizes, views), views, 16)


def test_half_precision_is_enough(monkeypatch):
    """What a GPU computes in."""
    views = [draw_view(np.random.default_rng(i), (0.8, 1.2), 0.5) for i in range(4)]
    exact = module._images
    monkeypatch.setattr(module, "_images", lambda pixels, x, y, dtype: exact(pixels, x, y, torch.float16))
    assert_shown(stored(3, [(47, 45)] * 4, views), views, 38)


def test_nothing_is_done_where_nothing_is_left(make_batch):
    batch = make_batch()
    assert show(batch, 32) is batch


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu():
    views = [draw_view(np.random.default_rng(i), (0.8, 1.2), 0.5) for i in range(8)]
    batch = collate(stored(3, [(46, 40)] * 8, views))
    found, expected = show(batch.to(torch.device("cuda")), 38), show(batch, 38)
    assert (found.images.cpu() - expected.images).abs().max() * 255 <= 2.01

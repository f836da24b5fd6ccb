import numpy as np
import pytest
from PIL import Image

from vlp_lib.batches.augment import FILL, View, draw_view, may_flip, show_detections, show_image, show_label_map
from vlp_lib.corpora.records import IGNORED, NO_DETECTIONS, Detections

SIZE = 96
BLUE = (0, 0, 255)
WIDTH, HEIGHT = 200, 120
INSIDE = (30, 40, 90, 70)  # x1, y1, x2, y2 of the coloured rectangle in pixels


def scene():
    """A picture, its label map (7 in the rectangle, 3 around it) and one detection, of the same rectangle."""
    x1, y1, x2, y2 = INSIDE
    pixels = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    pixels[y1:y2, x1:x2] = BLUE
    labels[y1:y2, x1:x2] = 7
    fractions = np.array([[x1 / WIDTH, y1 / HEIGHT, x2 / WIDTH, y2 / HEIGHT]], np.float32)
    detections = Detections(
        np.array([4]), np.array([0.9], np.float32), fractions, np.array([2]), np.ones((1, 5), np.float32)
    )
    return Image.fromarray(pixels), labels, detections


def extent(mask):
    """x1, y1, x2, y2 of the True pixels, as fractions; None without any."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SIZE


def blue(image):
    return (image[..., 2].astype(int) > 137) & (image[..., 0] < 10 + 20)


# Flip


@pytest.mark.parametrize(
    "caption",
    [
        "A dog to the left of a cat", "Left: a dog.", "the RIGHT hand", "a right-handed batter",
        "the leftmost of three cups", "arrows point clockwise", "looking east", "A stop sign at a corner.",
        "a shirt with letters on it", "a clock on a tower", "a bus with the number 12", "street signs and clocks",
        "shirts with logos", "a lefty at bat", "a righthanded pitcher", "a left-handed pitcher", "a southpaw",
        "traffic on the westbound lanes", "a Southwest Airlines jet", "a bus that says Downtown",
        "A decorated neck tie saying happy birthday", "blocks that spell a name", "candles spelled out on a cake",
        "a bottle labeled gin", "jars with labels", "The metro train is painted white with blue lettering.",
        "a car's license plate", "LICENCE PLATES on a wall", "a player in a red jersey", "a wall covered in graffiti",
        'a building with "500" on it', "a diner called “Court Order”", "a bus with a 'final destination 5' advert",
        "a train that leaves at 10:30", "a stone inscribed to the dead", "sheep, some numbered, in a field",
    ],
)  # fmt: skip
def test_captions_that_a_mirror_makes_false(caption):
    assert not may_flip(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "A dog and a cat", "bright light", "a copyright notice", "the dresser", "a designer's coat", "",
        "leftover pizza on a plate", "the boys' bikes and the girls' coats",
        "a cow breastfeeding its calf near Westminster", "a shirt with a floral print", "a license to drive",
        "a man texting on his phone", "two plates of food at 8",
    ],
)  # fmt: skip
def test_captions_that_stay_true(caption):
    assert may_flip(caption)


def test_flip_mirrors_everything():
    picture, labels, detections = scene()
    plain, mirrored = View(), View(flip=True)
    assert np.array_equal(show_image(picture, mirrored, SIZE), show_image(picture, plain, SIZE)[:, ::-1])
    assert np.array_equal(show_label_map(labels, mirrored, SIZE), show_label_map(labels, plain, SIZE)[:, ::-1])
    x1, y1, x2, y2 = detections.boxes[0]
    np.testing.assert_allclose(show_detections(detections, mirrored).boxes, [[1 - x2, y1, 1 - x1, y2]], atol=1e-6)


def test_two_flips_are_none():
    picture, labels, detections = scene()
    mirrored = View(flip=True)
    twice = show_image(Image.fromarray(show_image(picture, mirrored, SIZE)), mirrored, SIZE)
    assert np.array_equal(twice, show_image(picture, View(), SIZE))
    twice = show_label_map(show_label_map(labels, mirrored, SIZE), mirrored, SIZE)
    assert np.array_equal(twice, show_label_map(labels, View(), SIZE))
    twice = show_detections(show_detections(detections, mirrored), mirrored)
    np.testing.assert_allclose(twice.boxes, detections.boxes, atol=1e-6)


# Geometry


@pytest.mark.parametrize("seed", range(60))
def test_image_labels_and_boxes_move_together(seed):
    """Where the rectangle is seen, there are its labels and its box, in crops and in padded views, mirrored or not."""
    view = draw_view(np.random.default_rng(seed), (0.6, 2.5), 0.5)
    picture, labels, detections = scene()
    shown = extent(blue(show_image(picture, view, SIZE)))
    labelled = extent(show_label_map(labels, view, SIZE) == 7)
    boxes = show_detections(detections, view).boxes
    if len(boxes) == 0 or (boxes[0, 2:] - boxes[0, :2]).min() < 2 / SIZE:
        for found in (shown, labelled):  # nothing, or a sliver at the edge
            assert found is None or (found[2:] - found[:2]).min() < 4 / SIZE
        return
    np.testing.assert_allclose(shown, boxes[0], atol=1.5 / SIZE)
    np.testing.assert_allclose(labelled, boxes[0], atol=1.5 / SIZE)


def test_the_views_of_the_test_above_are_of_every_kind():
    views = [draw_view(np.random.default_rng(seed), (0.6, 2.5), 0.5) for seed in range(60)]
    assert {(v.scale >= 1, v.flip) for v in views} == {(a, b) for a in (False, True) for b in (False, True)}
    assert any(len(show_detections(scene()[2], v).boxes) == 0 for v in views)


def test_the_whole_image_at_its_own_size_is_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert np.array_equal(show_image(Image.fromarray(pixels), View(), SIZE), pixels)
    assert np.array_equal(show_label_map(pixels[..., 0], View(), SIZE), pixels[..., 0])
    detections = scene()[2]
    assert np.array_equal(show_detections(detections, View()).boxes, detections.boxes)


def test_enlarging_crops():
    """At scale 2 with the corner at (−0.5, −0.5), the middle quarter fills the canvas."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    view = View(scale=2.0, left=-0.5, top=-0.5)
    middle = pixels[24:72, 24:72]
    assert np.array_equal(show_label_map(pixels, view, SIZE), middle.repeat(2, 0).repeat(2, 1))
    assert not (show_image(scene()[0], view, SIZE) == FILL).all(-1).any()


def test_shrinking_pads():
    picture, labels, _ = scene()
    view = View(scale=0.5, left=0.25, top=0.5)
    image, shown = show_image(picture, view, SIZE), show_label_map(labels, view, SIZE)
    outside = np.ones((SIZE, SIZE), bool)
    outside[48:96, 24:72] = False
    assert (image[outside] == FILL).all()
    assert (shown[outside] == IGNORED).all()
    assert (shown[~outside] != IGNORED).all()
    assert not (image[~outside] == FILL).all(-1).any()


def test_labels_are_never_mixed():
    labels = np.random.default_rng(1).choice([0, 100, 200], (50, 70)).astype(np.uint8)
    for seed in range(20):
        view = draw_view(np.random.default_rng(seed), (0.8, 1.2), 0.5)
        assert set(np.unique(show_label_map(labels, view, SIZE))) <= {0, 100, 200, IGNORED}


def test_drawn_views_keep_to_their_range():
    rng = np.random.default_rng(2)
    views = [draw_view(rng, (0.8, 1.2), 0.5) for _ in range(2000)]
    scales = np.array([v.scale for v in views])
    assert 0.8 <= scales.min() < 0.805
    assert 1.195 < scales.max() <= 1.2
    for view in views:
        low, high = sorted((0.0, 1 - view.scale))
        assert low <= view.left <= high
        assert low <= view.top <= high
    assert 0.45 < np.mean([v.flip for v in views]) < 0.55
    assert not any(draw_view(rng, (0.8, 1.2), 0.0).flip for _ in range(100))
    assert all(draw_view(rng, (0.8, 1.2), 1.0).flip for _ in range(100))


class Extreme:
    """A generator that draws the ends of its ranges."""

    def __init__(self, scale, draw):
        self.scale, self.draw = scale, draw

    def uniform(self, low, high):
        return self.scale

    def random(self, size=None):
        return self.draw if size is None else np.full(size, self.draw)


@pytest.mark.parametrize("draw", [0.0, np.nextafter(1.0, 0.0)])
def test_extreme_views_can_be_shown(draw):
    picture = Image.new("RGB", (7, 5))
    labels = np.zeros((5, 7), np.uint8)
    for scale in np.linspace(0.8, 1.2, 101):
        view = draw_view(Extreme(scale, draw), (0.8, 1.2), 0.5)
        assert show_image(picture, view, 32).shape == (32, 32, 3)
        assert show_label_map(labels, view, 32).shape == (32, 32)


# Detections


def test_boxes_out_of_view_are_left_out_with_all_their_fields():
    boxes = np.array([[0, 0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.9, 0.9, 1, 1]], np.float32)
    scores, features = np.array([0.9, 0.8, 0.7], np.float32), np.eye(3, dtype=np.float32)
    detections = Detections(np.array([1, 2, 3]), scores, boxes, np.array([4, 5, 6]), features)
    kept = show_detections(detections, View(scale=2.0, left=-0.5, top=-0.5))
    assert (kept.labels.tolist(), kept.attributes.tolist(), kept.scores.tolist()) == ([2], [5], [pytest.approx(0.8)])
    np.testing.assert_allclose(kept.boxes, [[0.3, 0.3, 0.7, 0.7]], atol=1e-6)
    assert np.array_equal(kept.features, np.eye(3)[1:2])


def test_boxes_are_cut_at_the_edge():
    boxes = np.array([[0.2, 0.1, 0.6, 0.9]], np.float32)
    detections = Detections(np.array([1]), np.array([0.9], np.float32), boxes, np.array([-1]))
    kept = show_detections(detections, View(scale=2.0, left=-0.5, top=0.0))
    np.testing.assert_allclose(kept.boxes, [[0.0, 0.2, 0.7, 1.0]], atol=1e-6)
    assert kept.features is None


def test_no_detections_stay_none():
    kept = show_detections(NO_DETECTIONS, View(scale=1.1, left=-0.05, top=0, flip=True))
    assert kept.boxes.shape == (0, 4)
    assert len(kept.labels) == 0

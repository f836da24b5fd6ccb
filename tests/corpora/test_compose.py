"""Scenes that one makes: the corpus's own where nothing is changed, and true to what is wanted where something is."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vlp_lib.corpora.synthetic import CorpusSpec, image_id, synthesize
from vlp_lib.corpora.synthetic.compose import PLACES, SIZES, Wanted, compose, wanted_of
from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.scenes import sample_scene
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, PALETTES, SHAPES, STUFFS
from vlp_lib.corpora.synthetic.write import scene_key

SPEC = CorpusSpec(
    image_size=48, train_images=1, val_images=3, test_images=1, nlvr_pairs=(1, 1, 1), vcr_images=(1, 1, 1)
)


def test_what_is_not_changed_is_the_corpuss_own_picture(tmp_path):
    synthesize(tmp_path, SPEC)
    for number in range(SPEC.val_images):
        scene, pixels = compose(SPEC, number)
        assert scene == sample_scene(Dice(*scene_key(SPEC, "val", number)), SPEC)
        path = tmp_path / "images" / "val2017" / f"{image_id('val', number):012d}.png"
        assert np.array_equal(pixels, np.asarray(Image.open(path)))
        told = [wanted_of(thing, 48) for thing in scene.things]
        again, same = compose(SPEC, number, STUFFS[scene.ground], STUFFS[scene.background], told)
        assert again == replace(scene, void_thing=0) and np.array_equal(same, pixels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_thing_is_where_and_what_it_is_wanted_to_be(shape, size):
    for place in PLACES:
        wanted = Wanted(size, "green", shape, place)
        scene, pixels = compose(SPEC, 5, "snow", "hedge", [wanted])
        (thing,) = scene.things
        assert wanted_of(thing, 48) == wanted
        assert thing.x > 0 and thing.x + thing.w < 48 and thing.y > 0 and thing.y + thing.h < 48
        assert pixels.shape == (48, 48, 3)


def test_stuffs_are_changed_and_have_their_typical_colour():
    own, pixels = compose(SPEC, 0)
    ground = next(stuff for stuff in ("snow", "sand") if STUFFS.index(stuff) != own.ground)
    scene, changed = compose(SPEC, 0, ground)
    assert STUFFS[scene.ground] == ground and scene.ground_rgb == PALETTES[ground][0]
    assert (scene.background, scene.things) == (own.background, own.things)
    assert np.array_equal(pixels[:5], changed[:5]) and not np.array_equal(pixels, changed)


def test_what_stands_lower_is_drawn_later():
    things = [Wanted("small", COLOR_NAMES[0], "box", place) for place in ("bottom", "top", "middle")]
    scene, _ = compose(SPEC, 0, things=things)
    assert [wanted_of(thing, 48).place for thing in scene.things] == ["top", "middle", "bottom"]

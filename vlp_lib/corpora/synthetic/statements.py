"""NLVR2: statements about two images that are true of one pair and false of its twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.language import NUMBERS, Ref, stuff_phrase
from vlp_lib.corpora.synthetic.scenes import Scene, sample_scene
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, SHAPES, CorpusSpec

Pair = tuple[Scene, Scene]
"""The left and the right image."""


@dataclass(frozen=True)
class Statement:
    """A sentence about a left and a right image, with the test of its truth."""

    text: str
    holds: Callable[[Scene, Scene], bool]


def sample_set(dice: Dice, spec: CorpusSpec) -> tuple[tuple[Pair, Pair], tuple[Statement, Statement]]:
    """Two pairs of images that resemble each other, and two sentences, each for both pairs, as NLVR2's writers did.

    The first sentence is true of the first pair only, the second of the second pair only, wherever two such sentences
    were found; so the words alone do not tell the label.
    """
    left = sample_scene(dice, spec)
    right = sample_scene(dice, spec, like=left)
    other_left = sample_scene(dice, spec, like=left)
    other_right = sample_scene(dice, spec, like=dice.choice((right, other_left)))
    one, other = (left, right), (other_left, other_right)
    return (one, other), (_find(dice, one, other), _find(dice, other, one))


def _find(dice: Dice, yes: Pair, no: Pair) -> Statement:
    """A statement that is true of the one pair and false of the other, where one is found."""
    forms: list[Callable[[Dice, list[Scene]], Statement]] = [
        partial(_with_thing, both=True), partial(_with_thing, both=False), _total, _total, _one_side, _more,
        _same_number, partial(_with_stuff, both=True), partial(_with_stuff, both=False),
    ]  # fmt: skip
    for _ in range(200):
        statement = dice.choice(forms)(dice, [*yes, *no])
        if statement.holds(*yes) and not statement.holds(*no):
            return statement
    return statement  # its label is still the truth; only the balance within the set is lost


def _ref(dice: Dice, scenes: list[Scene]) -> Ref:
    """A description of a thing in one of the images, sometimes with one field changed."""
    thing = dice.choice(dice.choice(scenes).things)
    shape, color = thing.shape, thing.color
    ref = dice.choice((Ref(shape), Ref(color=color), Ref(shape, color), Ref(shape, large=thing.large)))
    if ref.color is not None and dice.chance(15):
        ref = replace(ref, color=dice.below(len(COLOR_NAMES)))
    if ref.shape is not None and dice.chance(15):
        ref = replace(ref, shape=dice.below(len(SHAPES)))
    return ref


def _with_thing(dice: Dice, scenes: list[Scene], both: bool) -> Statement:
    ref = _ref(dice, scenes)
    text = f"{'both images have' if both else 'only one image has'} {ref.one()}"
    return _in_both_or_one(text, lambda scene: ref.count(scene) > 0, both)


def _with_stuff(dice: Dice, scenes: list[Scene], both: bool) -> Statement:
    scene = dice.choice(scenes)
    stuff = dice.choice((scene.ground, scene.background))
    name = stuff_phrase(stuff).removeprefix("the ")
    text = f"{'both images contain' if both else 'only one image contains'} {name}"
    return _in_both_or_one(text, lambda scene: scene.shows(stuff), both)


def _in_both_or_one(text: str, has: Callable[[Scene], bool], both: bool) -> Statement:
    return Statement(text, lambda a, b: has(a) and has(b) if both else has(a) != has(b))


def _total(dice: Dice, scenes: list[Scene]) -> Statement:
    ref = _ref(dice, scenes)
    n = min(4, max(1, ref.count(scenes[0]) + ref.count(scenes[1])))
    verb = "is" if n == 1 else "are"
    return Statement(f"there {verb} {NUMBERS[n]} {ref.text(n)} in total", lambda a, b: ref.count(a) + ref.count(b) == n)


def _one_side(dice: Dice, scenes: list[Scene]) -> Statement:
    ref, left = _ref(dice, scenes), dice.chance(50)
    text = f"the {'left' if left else 'right'} image has {ref.one()}"
    return Statement(text, lambda a, b: ref.count(a if left else b) > 0)


def _more(dice: Dice, scenes: list[Scene]) -> Statement:
    ref = Ref() if dice.chance(50) else replace(_ref(dice, scenes), large=None)
    left = dice.chance(50)
    first, second = ("left", "right") if left else ("right", "left")
    text = f"the {first} image shows more {ref.text(2)} than the {second} image"
    return Statement(text, lambda a, b: ref.count(a if left else b) > ref.count(b if left else a))


def _same_number(dice: Dice, scenes: list[Scene]) -> Statement:
    return Statement("both images show the same number of things", lambda a, b: len(a.things) == len(b.things))

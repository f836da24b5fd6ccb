"""NLVR2: statements about two images that are true of one pair and false of its twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.language import NUMBERS, Ref, with_article
from vlp_lib.corpora.synthetic.scenes import Scene, sample_scene
from vlp_lib.corpora.synthetic.spec import CorpusSpec
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, SHAPES, STUFFS

Pair = tuple[Scene, Scene]


@dataclass(frozen=True)
class Statement:
    """A sentence about a left and a right image, with the test of its truth."""

    text: str
    holds: Callable[[Scene, Scene], bool]


@dataclass(frozen=True)
class StatementSet:
    """Two pairs of images and two sentences, each written for both pairs, as NLVR2's writers did.

    Attributes:
        pairs: (left, right) scenes of each pair.
        sentences: the first is true of the first pair only, the second of the second pair only, wherever two such
            sentences were found; so the words alone do not tell the label.
    """

    pairs: tuple[Pair, Pair]
    sentences: tuple[Statement, Statement]

    def label(self, pair: int, sentence: int) -> bool:
        """Whether the sentence is true of the pair."""
        return self.sentences[sentence].holds(*self.pairs[pair])


def sample_set(dice: Dice, spec: CorpusSpec) -> StatementSet:
    """Draw two pairs, the images of which resemble each other, and their sentences."""
    left = sample_scene(dice, spec)
    right = sample_scene(dice, spec, like=left)
    other_left = sample_scene(dice, spec, like=left)
    other_right = sample_scene(dice, spec, like=dice.choice((right, other_left)))
    pairs = ((left, right), (other_left, other_right))
    first = _find(dice, pairs[0], pairs[1])
    return StatementSet(pairs, (first, _find(dice, pairs[1], pairs[0])))


def _find(dice: Dice, yes: Pair, no: Pair) -> Statement:
    for _ in range(200):
        statement = dice.choice(_FORMS)(dice, [*yes, *no])
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
    text = f"{'both images have' if both else 'only one image has'} {with_article(ref.text())}"
    return _in_both_or_one(text, lambda scene: ref.count(scene) > 0, both)


def _with_stuff(dice: Dice, scenes: list[Scene], both: bool) -> Statement:
    scene = dice.choice(scenes)
    stuff = dice.choice((scene.ground, scene.background))
    name = {"brick": "a brick wall", "hedge": "a hedge", "curtain": "a curtain"}.get(STUFFS[stuff], STUFFS[stuff])
    text = f"{'both images contain' if both else 'only one image contains'} {name}"
    return _in_both_or_one(text, lambda scene: stuff in (scene.ground, scene.background), both)


def _in_both_or_one(text: str, has: Callable[[Scene], bool], both: bool) -> Statement:
    return Statement(text, lambda a, b: has(a) and has(b) if both else has(a) != has(b))


def _total(dice: Dice, scenes: list[Scene]) -> Statement:
    ref = _ref(dice, scenes)
    n = min(4, max(1, ref.count(scenes[0]) + ref.count(scenes[1])))
    verb = "is" if n == 1 else "are"
    return Statement(f"there {verb} {NUMBERS[n]} {ref.text(n)} in total", lambda a, b: ref.count(a) + ref.count(b) == n)


def _one_side(dice: Dice, scenes: list[Scene]) -> Statement:
    ref, left = _ref(dice, scenes), dice.chance(50)
    return Statement(
        f"the {'left' if left else 'right'} image has {with_article(ref.text())}",
        lambda a, b: ref.count(a if left else b) > 0,
    )


def _more(dice: Dice, scenes: list[Scene]) -> Statement:
    ref = Ref() if dice.chance(50) else replace(_ref(dice, scenes), large=None)
    left = dice.chance(50)
    first, second = ("left", "right") if left else ("right", "left")

    def holds(a: Scene, b: Scene) -> bool:
        return ref.count(a) > ref.count(b) if left else ref.count(b) > ref.count(a)

    return Statement(f"the {first} image shows more {ref.text(2)} than the {second} image", holds)


def _same_number(dice: Dice, scenes: list[Scene]) -> Statement:
    return Statement("both images show the same number of things", lambda a, b: len(a.things) == len(b.things))


_FORMS: tuple[Callable[[Dice, list[Scene]], Statement], ...] = (
    partial(_with_thing, both=True), partial(_with_thing, both=False), _total, _total, _one_side, _more, _same_number,
    partial(_with_stuff, both=True), partial(_with_stuff, both=False),
)  # fmt: skip

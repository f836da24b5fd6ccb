"""How the corpus speaks of its things and stuffs, and the five captions of a scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.scenes import OPPOSITE, RELATIONS, Scene, Thing
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, SHAPES, STUFFS

NUMBERS = ("no", "one", "two", "three", "four")

RELATION_PHRASES = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}
_BACKGROUND_PHRASES = {"sky": "the sky", "brick": "a brick wall", "hedge": "a hedge", "curtain": "a curtain"}


@dataclass(frozen=True)
class Ref:
    """A description that may fit several things: each field is an index or size, or None where it does not matter."""

    shape: int | None = None
    color: int | None = None
    large: bool | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether the description is true of the thing."""
        return (
            self.shape in (None, thing.shape)
            and self.color in (None, thing.color)
            and self.large in (None, thing.large)
        )

    def fits_any(self, things: Iterable[Thing]) -> bool:
        """Whether the description is true of one of the things."""
        return any(map(self.fits, things))

    def find(self, scene: Scene) -> list[Thing]:
        """The things of the scene that it fits."""
        return [thing for thing in scene.things if self.fits(thing)]

    def count(self, scene: Scene) -> int:
        """How many things of the scene it fits."""
        return len(self.find(scene))

    def text(self, n: int = 1) -> str:
        """The description without article, as "small red ball"; in the plural unless n is 1."""
        noun = "thing" if self.shape is None else SHAPES[self.shape]
        if n != 1:
            noun += "es" if noun.endswith(("s", "x")) else "s"
        size = [] if self.large is None else ["large" if self.large else "small"]
        color = [] if self.color is None else [COLOR_NAMES[self.color]]
        return " ".join([*size, *color, noun])


def with_article(text: str) -> str:
    """The text behind "a" or "an"."""
    return ("an " if text[0] in "aeiou" else "a ") + text


def relation_phrase(relation: str, dice: Dice) -> str:
    """One of the wordings of "left", "right", "above" or "below"."""
    return dice.choice(RELATION_PHRASES[relation])


def refer(thing: Thing, dice: Dice, size_percent: int = 50) -> Ref:
    """The thing by colour and shape, and with some probability by its size."""
    return Ref(thing.shape, thing.color, thing.large if dice.chance(size_percent) else None)


def unique_refs(scene: Scene, thing: Thing, *, hide: str = "") -> list[Ref]:
    """The descriptions that fit this thing alone, shortest first; `hide` is a field that they must not name."""
    tried = (("shape",), ("color",), ("color", "shape"), ("large", "shape"), ("large", "color"),
             ("large", "color", "shape"))  # fmt: skip
    refs = [Ref(**{name: getattr(thing, name) for name in names}) for names in tried if hide not in names]
    return [ref for ref in refs if ref.count(scene) == 1]


def clear_relations(scene: Scene) -> list[tuple[Thing, str, Thing]]:
    """Every (thing, relation, thing) that holds beyond doubt."""
    return [
        (a, relation, b)
        for a in scene.things
        for b in scene.things
        for relation in RELATIONS
        if a is not b and scene.is_clear(relation, a, b)
    ]


@dataclass(frozen=True)
class Caption:
    """A sentence about an image, with the test of its truth for any image."""

    text: str
    holds: Callable[[Scene], bool]


def captions(scene: Scene, dice: Dice, number: int = 5, named: float = 0.5) -> list[Caption]:
    """So many true sentences in random order: all things, their number, where they stand, relations, sides; and again.

    `named` is the share of those about things that name the ground, the background or both as well.
    """
    forms = itertools.islice(
        itertools.cycle((_list_caption, _count_caption, _place_caption, _relation_caption, _side_caption)), number
    )
    return dice.shuffled([_with_stuff(form(scene, dice), scene, dice, named) for form in forms])


def join(parts: Sequence[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _named(ref: Ref) -> str:
    return with_article(ref.text())


def _all_there(refs: Sequence[Ref], things: Sequence[Thing]) -> bool:
    """Whether each description fits a thing of its own."""
    return any(
        all(ref.fits(thing) for ref, thing in zip(refs, chosen, strict=True))
        for chosen in itertools.permutations(things, len(refs))
    )


def _all_on(scene: Scene, side: str, refs: Sequence[Ref]) -> bool:
    return len(scene.at_edge(side)) == len(scene.things) and _all_there(refs, scene.things)


def _with_stuff(caption: Caption, scene: Scene, dice: Dice, named: float) -> Caption:
    if any(stuff in caption.text for stuff in STUFFS) or not dice.chance(100 * named):
        return caption
    stuffs = dice.choice(((scene.ground,), (scene.background,), (scene.ground, scene.background)))
    text = join([_BACKGROUND_PHRASES.get(STUFFS[stuff], STUFFS[stuff]) for stuff in stuffs])
    return Caption(f"{caption.text} with {text}", lambda other: other.shows(*stuffs) and caption.holds(other))


def _list_caption(scene: Scene, dice: Dice) -> Caption:
    refs = [refer(thing, dice, 70) for thing in dice.shuffled(scene.things)]
    form = dice.choice(("{}", "there is {}", "a picture of {}"))
    return Caption(form.format(join([_named(ref) for ref in refs])), lambda other: _all_there(refs, other.things))


def _count_caption(scene: Scene, dice: Dice) -> Caption:
    total = len(scene.things)
    first = dice.choice(scene.things).shape
    shapes = [first, *dice.shuffled(sorted({thing.shape for thing in scene.things} - {first}))]
    counts = [(Ref(shape=shape), Ref(shape=shape).count(scene)) for shape in shapes]
    counted = join([f"{NUMBERS[n]} {ref.text(n)}" for ref, n in counts])
    ref, n = counts[0]
    verb, noun = ("is", with_article(ref.text())) if n == 1 else ("are", ref.text(n))
    some = dice.choice(scene.things)
    thing, color = refer(some, dice), Ref(color=some.color)
    forms: list[tuple[str, list[tuple[Ref, int]]]] = [
        (f"there {verb} {counted}", counts),
        (f"a picture of {counted}", counts),
        (
            f"{NUMBERS[n]} of the {NUMBERS[total]} things {verb} {noun}, {NUMBERS[color.count(scene)]} of the"
            f" {NUMBERS[total]} things {'is' if color.count(scene) == 1 else 'are'} {COLOR_NAMES[some.color]}",
            [(Ref(), total), counts[0], (color, color.count(scene))],
        ),
    ]
    if thing.count(scene) == 1 and total > 1:
        text = f"there are {NUMBERS[total]} things and one of them is {_named(thing)}"
        forms.append((text, [(Ref(), total), (thing, 1)]))
    text, claims = dice.choice(forms)
    return Caption(text, lambda other: all(ref.count(other) == n for ref, n in claims))


def _place_caption(scene: Scene, dice: Dice) -> Caption:
    ground, background = STUFFS[scene.ground], _BACKGROUND_PHRASES[STUFFS[scene.background]]
    standing = [thing for thing in scene.things if scene.stands_on_ground(thing)]
    raised = [thing for thing in scene.things if scene.stands_on_ground(thing) is False]
    places: list[tuple[Ref, bool | None]]
    if standing and raised and dice.chance(50):
        a, b = refer(dice.choice(standing), dice), refer(dice.choice(raised), dice)
        text = f"{_named(a)} on the {ground} and {_named(b)} in front of {background}"
        places = [(a, True), (b, False)]
    elif standing:
        a = refer(dice.choice(standing), dice)
        text = dice.choice(
            (
                f"{_named(a)} on the {ground} in front of {background}",
                f"{_named(a)} on the {ground} with {background} behind it",
                f"there is {_named(a)} on the {ground} below {background}",
            )
        )
        places = [(a, True)]
    elif raised:
        a = refer(dice.choice(raised), dice)
        forms = (
            f"{_named(a)} in front of {background} above the {ground}",
            f"there is {_named(a)} and {background} above {ground}",
        )
        text, places = dice.choice(forms), [(a, False)]
    else:
        a = refer(dice.choice(scene.things), dice)
        text, places = f"{ground} and {background} with {_named(a)}", [(a, None)]

    def holds(other: Scene) -> bool:
        return other.shows(scene.ground, scene.background) and all(
            any(where in (None, other.stands_on_ground(thing)) for thing in ref.find(other)) for ref, where in places
        )

    return Caption(text, holds)


def _relation_caption(scene: Scene, dice: Dice) -> Caption:
    clear = clear_relations(scene)
    if not clear:
        return _list_caption(scene, dice)
    a, relation, b = dice.choice(clear)
    subject, partner = refer(a, dice, 40), refer(b, dice, 40)
    first, second = _named(subject), _named(partner)
    phrase = relation_phrase(relation, dice)
    text = dice.choice(
        (
            f"{first} {phrase} {second}",
            f"there is {first} {phrase} {second}",
            f"{first} is {phrase} {second}",
            f"{second} with {first} {phrase} it" if relation in ("above", "below") else f"{first} {phrase} {second}",
        )
    )
    return Caption(
        text,
        lambda other: any(subject.fits(x) and partner.fits(y) and r == relation for x, r, y in clear_relations(other)),
    )


def _side_caption(scene: Scene, dice: Dice) -> Caption:
    """Things at the left and right edge; where nothing is, another relation."""
    sides = {side: scene.at_edge(side) for side in ("left", "right")}
    if all(sides.values()):
        left, right = refer(dice.choice(sides["left"]), dice, 40), refer(dice.choice(sides["right"]), dice, 40)
        a, b = _named(left), _named(right)
        text = dice.choice((f"{a} on the left and {b} on the right", f"{b} on the right side and {a} on the left side"))
        return Caption(
            text, lambda other: left.fits_any(other.at_edge("left")) and right.fits_any(other.at_edge("right"))
        )
    for side, things in sides.items():
        if things and len(things) == len(scene.things):
            refs = [refer(thing, dice, 40) for thing in things]
            text = f"{join([_named(ref) for ref in refs])} on the {side} and nothing on the {OPPOSITE[side]}"

            return Caption(text, partial(_all_on, side=side, refs=refs))
    return _relation_caption(scene, dice)

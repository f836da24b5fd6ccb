"""How the corpus speaks of its things and stuffs, and the five captions of a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def captions(scene: Scene, dice: Dice) -> list[str]:
    """Five true sentences in random order: all things, their number, where they stand, relations, sides."""
    forms = (_list_caption, _count_caption, _place_caption, _relation_caption, _side_caption)
    return dice.shuffled([form(scene, dice) for form in forms])


def join(parts: Sequence[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _named(thing: Thing, dice: Dice, size_percent: int = 50) -> str:
    return with_article(refer(thing, dice, size_percent).text())


def _list_caption(scene: Scene, dice: Dice) -> str:
    things = join([_named(thing, dice, 70) for thing in dice.shuffled(scene.things)])
    ground, background = STUFFS[scene.ground], _BACKGROUND_PHRASES[STUFFS[scene.background]]
    return dice.choice(
        (things, f"there is {things}", f"a picture of {things}", f"{things} with {ground} and {background}")
    )


def _count_caption(scene: Scene, dice: Dice) -> str:
    total = NUMBERS[len(scene.things)]
    first = dice.choice(scene.things).shape
    shapes = [first, *dice.shuffled(sorted({thing.shape for thing in scene.things} - {first}))]
    counts = [(Ref(shape=shape), Ref(shape=shape).count(scene)) for shape in shapes]
    counted = join([f"{NUMBERS[n]} {ref.text(n)}" for ref, n in counts])
    ref, n = counts[0]
    verb, noun = ("is", with_article(ref.text())) if n == 1 else ("are", ref.text(n))
    some = dice.choice(scene.things)
    thing, color = refer(some, dice), Ref(color=some.color)
    forms = [
        f"there {verb} {counted}",
        f"a picture of {counted}",
        f"{counted} with {STUFFS[scene.ground]}",
        f"{NUMBERS[n]} of the {total} things {verb} {noun}, {NUMBERS[color.count(scene)]} of the {total} things"
        f" {'is' if color.count(scene) == 1 else 'are'} {COLOR_NAMES[some.color]}",
    ]
    if thing.count(scene) == 1:
        forms.append(f"there are {total} things and one of them is {with_article(thing.text())}")
    return dice.choice(forms)


def _place_caption(scene: Scene, dice: Dice) -> str:
    ground, background = STUFFS[scene.ground], _BACKGROUND_PHRASES[STUFFS[scene.background]]
    standing = [thing for thing in scene.things if scene.stands_on_ground(thing)]
    raised = [thing for thing in scene.things if scene.stands_on_ground(thing) is False]
    if standing and raised and dice.chance(50):
        a, b = _named(dice.choice(standing), dice), _named(dice.choice(raised), dice)
        return f"{a} on the {ground} and {b} in front of {background}"
    if standing:
        name = _named(dice.choice(standing), dice)
        return dice.choice(
            (
                f"{name} on the {ground} in front of {background}",
                f"{name} on the {ground} with {background} behind it",
                f"there is {name} on the {ground} below {background}",
            )
        )
    if raised:
        name = _named(dice.choice(raised), dice)
        return dice.choice(
            (f"{name} in front of {background} above the {ground}", f"there is {name} and {background} above {ground}")
        )
    return f"{ground} and {background} with {_named(dice.choice(scene.things), dice)}"


def _relation_caption(scene: Scene, dice: Dice) -> str:
    found = clear_relations(scene)
    if not found:
        return _list_caption(scene, dice)
    a, relation, b = dice.choice(found)
    first, second = _named(a, dice, 40), _named(b, dice, 40)
    phrase = relation_phrase(relation, dice)
    return dice.choice(
        (
            f"{first} {phrase} {second}",
            f"there is {first} {phrase} {second}",
            f"{first} is {phrase} {second}",
            f"{second} with {first} {phrase} it" if relation in ("above", "below") else f"{first} {phrase} {second}",
        )
    )


def _side_caption(scene: Scene, dice: Dice) -> str:
    """Things at the left and right edge; where nothing is, another relation."""
    s = scene.image_size
    sides = {
        "left": [thing for thing in scene.things if 5 * thing.center[0] <= 4 * s],
        "right": [thing for thing in scene.things if 5 * thing.center[0] >= 6 * s],
    }
    if all(sides.values()):
        a, b = _named(dice.choice(sides["left"]), dice, 40), _named(dice.choice(sides["right"]), dice, 40)
        return dice.choice((f"{a} on the left and {b} on the right", f"{b} on the right side and {a} on the left side"))
    for side, things in sides.items():
        if things and len(things) == len(scene.things):
            name = join([_named(thing, dice, 40) for thing in things])
            return f"{name} on the {side} and nothing on the {OPPOSITE[side]}"
    return _relation_caption(scene, dice)

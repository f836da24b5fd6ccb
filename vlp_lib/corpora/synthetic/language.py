"""How the corpus speaks of its things and stuffs, and the five captions of a scene."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
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
_STUFF_PHRASES = {"sky": "the sky", "brick": "a brick wall", "hedge": "a hedge", "curtain": "a curtain"}


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

    def one(self) -> str:
        """The description with its article, as "a small red ball"."""
        text = self.text()
        return ("an " if text[0] in "aeiou" else "a ") + text


def stuff_phrase(stuff: int) -> str:
    """How one speaks of a stuff, as "snow" or "a hedge"."""
    return _STUFF_PHRASES.get(STUFFS[stuff], STUFFS[stuff])


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
    forms = (_list_caption, _count_caption, _place_caption, _relation_caption, _side_caption)
    chosen = itertools.islice(itertools.cycle(forms), number)
    return dice.shuffled([_with_stuff(form(scene, dice), scene, dice, named) for form in chosen])


def join(parts: Sequence[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _all_there(refs: Sequence[Ref], things: Sequence[Thing]) -> bool:
    """Whether each description fits a thing of its own."""
    return any(
        all(ref.fits(thing) for ref, thing in zip(refs, chosen, strict=True))
        for chosen in itertools.permutations(things, len(refs))
    )


def _with_stuff(caption: Caption, scene: Scene, dice: Dice, named: float) -> Caption:
    if any(stuff in caption.text for stuff in STUFFS) or not dice.chance(100 * named):
        return caption
    stuffs = dice.choice(((scene.ground,), (scene.background,), (scene.ground, scene.background)))
    text = f"{caption.text} with {join([stuff_phrase(stuff) for stuff in stuffs])}"
    return Caption(text, lambda other: other.shows(*stuffs) and caption.holds(other))


def _list_caption(scene: Scene, dice: Dice) -> Caption:
    refs = [refer(thing, dice, 70) for thing in dice.shuffled(scene.things)]
    form = dice.choice(("{}", "there is {}", "a picture of {}"))
    return Caption(form.format(join([ref.one() for ref in refs])), lambda other: _all_there(refs, other.things))


def _count_caption(scene: Scene, dice: Dice) -> Caption:
    total = len(scene.things)
    first = dice.choice(scene.things).shape
    shapes = [first, *dice.shuffled(sorted({thing.shape for thing in scene.things} - {first}))]
    counts = [(ref, ref.count(scene)) for ref in map(Ref, shapes)]
    counted = join([f"{NUMBERS[n]} {ref.text(n)}" for ref, n in counts])
    ref, n = counts[0]
    verb, noun = ("is", ref.one()) if n == 1 else ("are", ref.text(n))
    some = dice.choice(scene.things)
    thing, color = refer(some, dice), Ref(color=some.color)
    m = color.count(scene)
    two_counts = (
        f"{NUMBERS[n]} of the {NUMBERS[total]} things {verb} {noun}, {NUMBERS[m]} of the {NUMBERS[total]} things"
        f" {'is' if m == 1 else 'are'} {COLOR_NAMES[some.color]}"
    )
    forms: list[tuple[str, list[tuple[Ref, int]]]] = [
        (f"there {verb} {counted}", counts),
        (f"a picture of {counted}", counts),
        (two_counts, [(Ref(), total), counts[0], (color, m)]),
    ]
    if thing.count(scene) == 1 and total > 1:
        text = f"there are {NUMBERS[total]} things and one of them is {thing.one()}"
        forms.append((text, [(Ref(), total), (thing, 1)]))
    text, claims = dice.choice(forms)
    return Caption(text, lambda other: all(ref.count(other) == n for ref, n in claims))


def _place_caption(scene: Scene, dice: Dice) -> Caption:
    ground, background = stuff_phrase(scene.ground), stuff_phrase(scene.background)
    standing = [thing for thing in scene.things if scene.stands_on_ground(thing)]
    raised = [thing for thing in scene.things if scene.stands_on_ground(thing) is False]
    places: list[tuple[Ref, bool | None]]
    if standing and raised and dice.chance(50):
        a, b = refer(dice.choice(standing), dice), refer(dice.choice(raised), dice)
        text = f"{a.one()} on the {ground} and {b.one()} in front of {background}"
        places = [(a, True), (b, False)]
    elif standing:
        a = refer(dice.choice(standing), dice)
        on_ground = (
            f"{a.one()} on the {ground} in front of {background}",
            f"{a.one()} on the {ground} with {background} behind it",
            f"there is {a.one()} on the {ground} below {background}",
        )
        text, places = dice.choice(on_ground), [(a, True)]
    elif raised:
        a = refer(dice.choice(raised), dice)
        above_ground = (
            f"{a.one()} in front of {background} above the {ground}",
            f"there is {a.one()} and {background} above {ground}",
        )
        text, places = dice.choice(above_ground), [(a, False)]
    else:
        a = refer(dice.choice(scene.things), dice)
        text, places = f"{ground} and {background} with {a.one()}", [(a, None)]

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
    first, second = subject.one(), partner.one()
    phrase = dice.choice(RELATION_PHRASES[relation])
    plain = f"{first} {phrase} {second}"
    turned = f"{second} with {first} {phrase} it" if relation in ("above", "below") else plain

    def holds(other: Scene) -> bool:
        return any(subject.fits(x) and partner.fits(y) and r == relation for x, r, y in clear_relations(other))

    return Caption(dice.choice((plain, f"there is {plain}", f"{first} is {phrase} {second}", turned)), holds)


def _side_caption(scene: Scene, dice: Dice) -> Caption:
    """Things at the left and right edge; where nothing is, another relation."""
    sides = {side: scene.at_edge(side) for side in ("left", "right")}
    if all(sides.values()):
        left, right = (refer(dice.choice(things), dice, 40) for things in sides.values())
        a, b = left.one(), right.one()
        text = dice.choice((f"{a} on the left and {b} on the right", f"{b} on the right side and {a} on the left side"))
        at_edges = (("left", left), ("right", right))
        return Caption(text, lambda other: all(any(map(ref.fits, other.at_edge(side))) for side, ref in at_edges))
    side = next((side for side, things in sides.items() if len(things) == len(scene.things)), "")
    if not side:
        return _relation_caption(scene, dice)
    refs = [refer(thing, dice, 40) for thing in sides[side]]
    text = f"{join([ref.one() for ref in refs])} on the {side} and nothing on the {OPPOSITE[side]}"
    return Caption(text, lambda other: len(other.at_edge(side)) == len(other.things) and _all_there(refs, other.things))

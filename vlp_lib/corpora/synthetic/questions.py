"""VQA: questions with ten annotators' answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.language import RELATION_PHRASES, Ref, clear_relations, unique_refs
from vlp_lib.corpora.synthetic.scenes import OPPOSITE, Scene, Thing
from vlp_lib.corpora.synthetic.world import (
    BACKGROUNDS,
    COLOR_NAMES,
    GROUNDS,
    SHAPES,
    STUFFS,
    stuff_category,
    thing_category,
)

_SIMILAR = {
    **dict(zip(("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
               ("orange", "red", "orange", "blue", "purple", "blue", "purple", "yellow"), strict=True)),
    **dict(zip(SHAPES, ("moon", "gem", "gem", "star", "box", "ball", "cross", "ring"), strict=True)),
    **dict(zip(STUFFS, ("hedge", "snow", "sky", "sand", "sand", "brick", "snow", "stone", "grass", "wood"),
               strict=True)),
    "yes": "no",
    "no": "yes",
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        text: ends with a question mark.
        answer: the true one.
        kind: stuff, small, count, color, shape or yesno.
        prefix: VQA's `question_type`, the first words.
        category_id: COCO category asked for, or None.
        bboxes: x, y, w, h in pixels of everything that the question is about, for scoring attention.
    """

    text: str
    answer: str
    kind: str
    prefix: str
    category_id: int | None = None
    bboxes: tuple[list[int], ...] = ()


def questions(scene: Scene, dice: Dice, n: int) -> list[Question]:
    """So many different questions about the scene, of random kinds."""
    small, color, shape = (partial(_attribute, kind=kind) for kind in ("small", "color", "shape"))
    # Twice as likely where named twice.
    kinds: list[Callable[[Scene, Dice], Question | None]]
    kinds = [_stuff, small, _count, _count, color, shape, _yesno, _yesno]
    asked: dict[str, Question] = {}
    while len(asked) < n:
        if question := dice.choice(kinds)(scene, dice):
            asked.setdefault(question.text, question)
    return list(asked.values())


def annotators(question: Question, dice: Dice) -> list[str]:
    """Ten answers; seven to ten of them are the true one, the others are what one may take it for."""
    right = 10 - dice.choice((0, 0, 0, 1, 1, 2, 3))
    if question.kind == "count":
        true = int(question.answer)
        wrong = [str(n) for n in (true - 1, true + 1) if n >= 0]
    else:
        wrong = [_SIMILAR[question.answer]]
    return dice.shuffled([question.answer] * right + [dice.choice(wrong) for _ in range(10 - right)])


def _stuff(scene: Scene, dice: Dice) -> Question:
    s, horizon = scene.image_size, scene.horizon
    if dice.chance(50):
        text = dice.choice(("what is the ground?", "what is the ground made of?", "what is at the bottom?"))
        stuff, bbox = scene.ground, [0, min(horizon), s, s - min(horizon)]
    else:
        text = dice.choice(("what is the background?", "what is in the background?", "what is behind the things?"))
        stuff, bbox = scene.background, [0, 0, s, max(horizon)]
    return Question(text, STUFFS[stuff], "stuff", "what is", stuff_category(stuff), (bbox,))


def _attribute(scene: Scene, dice: Dice, kind: str) -> Question | None:
    """Colour or shape of a thing (of a small one, either of them) that the rest of its description singles out."""
    small = kind == "small"
    things = [thing for thing in scene.things if not (small and thing.large)]
    if not things:
        return None
    thing = dice.choice(things)
    hide = dice.choice(("color", "shape")) if small else kind
    refs = [ref for ref in unique_refs(scene, thing, hide=hide) if not small or ref.large is False]
    if not refs:
        return None
    ref = dice.choice(refs)
    prefix = "what color is the" if hide == "color" else dice.choice(("what is the", "what shape is the"))
    text = f"{prefix} {ref.text()}?"
    answer = COLOR_NAMES[thing.color] if hide == "color" else SHAPES[thing.shape]
    return Question(text, answer, kind, prefix, thing_category(thing.shape), (thing.bbox,))


def _count(scene: Scene, dice: Dice) -> Question:
    refs = [Ref(), Ref(large=False), Ref(large=True)]
    refs += [Ref(shape=i) for i in range(len(SHAPES))] + [Ref(color=i) for i in range(len(COLOR_NAMES))]
    by_count: dict[int, list[Ref]] = {}
    for ref in refs:
        by_count.setdefault(ref.count(scene), []).append(ref)
    # First the answer, then the question: most shapes are absent, and 0 would be the answer to nearly everything.
    wanted = [n for n, weight in ((0, 2), (1, 4), (2, 5), (3, 4), (4, 3)) for _ in range(weight) if n in by_count]
    n = dice.choice(wanted)
    # Shapes and colours rather than all things or sizes, unless these are the only ones.
    options = [ref for ref in by_count[n] if ref.shape is not None or ref.color is not None]
    ref = dice.choice(options if options and dice.chance(80) else by_count[n])
    text = dice.choice((f"how many {ref.text(2)} are there?", f"how many {ref.text(2)} are in the picture?"))
    boxes = tuple(thing.bbox for thing in ref.find(scene))
    return Question(text, str(n), "count", "how many", _category(ref), boxes)


def _yesno(scene: Scene, dice: Dice) -> Question:
    """The answer is drawn first and kept, so that yes and no are equally frequent."""
    yes = dice.chance(50)
    while True:
        if question := dice.choice((_exists, _exists, _stands, _more, _stuff_is))(scene, dice, yes):
            return question


def _exists(scene: Scene, dice: Dice, yes: bool) -> Question:
    thing = dice.choice(scene.things)
    ref = Ref(thing.shape, thing.color, thing.large if dice.chance(40) else None)
    while not yes and ref.count(scene):
        # One field off: harder than a thing that resembles nothing in the image.
        other_shape = Ref(dice.below(len(SHAPES)), thing.color, ref.large)
        other_color = Ref(thing.shape, dice.below(len(COLOR_NAMES)), ref.large)
        other_size = Ref(thing.shape, thing.color, not thing.large)
        ref = dice.choice((other_shape, other_color, other_size))
    return _closed(f"is there {ref.one()}?", yes, "is there", _category(ref), ref.find(scene))


def _stands(scene: Scene, dice: Dice, yes: bool) -> Question | None:
    found = clear_relations(scene)
    if not found:
        return None
    a, relation, b = dice.choice(found)
    first, second = unique_refs(scene, a), unique_refs(scene, b)
    if not first or not second:
        return None
    phrase = dice.choice(RELATION_PHRASES[relation if yes else OPPOSITE[relation]])
    text = f"is the {dice.choice(first).text()} {phrase} the {dice.choice(second).text()}?"
    return _closed(text, yes, "is the", thing_category(a.shape), (a, b))


def _more(scene: Scene, dice: Dice, yes: bool) -> Question | None:
    groups = sorted({thing.shape for thing in scene.things})
    some, few = Ref(shape=dice.choice(groups)), Ref(shape=dice.choice(groups))
    if some.count(scene) <= few.count(scene):
        return None
    first, second = (some, few) if yes else (few, some)
    text = f"are there more {first.text(2)} than {second.text(2)}?"
    things = [thing for thing in scene.things if some.fits(thing) or few.fits(thing)]
    return _closed(text, yes, "are there", None, things)


def _stuff_is(scene: Scene, dice: Dice, yes: bool) -> Question:
    kinds = (("ground", scene.ground, GROUNDS), ("background", scene.background, BACKGROUNDS))
    where, true, others = dice.choice(kinds)
    asked = STUFFS[true] if yes else dice.choice([name for name in others if name != STUFFS[true]])
    return _closed(f"is the {where} {asked}?", yes, "is the", stuff_category(true), ())


def _category(ref: Ref) -> int | None:
    return None if ref.shape is None else thing_category(ref.shape)


def _closed(text: str, yes: bool, prefix: str, category: int | None, things: Sequence[Thing]) -> Question:
    return Question(text, "yes" if yes else "no", "yesno", prefix, category, tuple(thing.bbox for thing in things))

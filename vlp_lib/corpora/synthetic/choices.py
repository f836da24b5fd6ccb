"""VCR: a question about tagged things, four answers and four reasons, one right of each."""

from __future__ import annotations

from dataclasses import dataclass

from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.language import RELATION_PHRASES, Ref, clear_relations
from vlp_lib.corpora.synthetic.scenes import RELATIONS, Scene, Thing
from vlp_lib.corpora.synthetic.world import BACKGROUNDS, COLOR_NAMES, GROUNDS, SHAPES, STUFFS

Tokens = list[str | list[int]]
"""Words, and lists of indices into the objects of the image."""


@dataclass(frozen=True)
class Choice:
    """A question with four answers and four reasons; the labels are the indices of the right ones."""

    question: Tokens
    answers: list[Tokens]
    answer_label: int
    rationales: list[Tokens]
    rationale_label: int


def sample_choice(scene: Scene, dice: Dice) -> Choice:
    """A question about a scene of at least three things."""
    return dice.choice((_color, _where, _ground, _same))(scene, dice)


def _color(scene: Scene, dice: Dice) -> Choice:
    """The reason describes the same thing; the false ones show its colour on another shape, or it elsewhere."""
    i = dice.below(len(scene.things))
    thing = scene.things[i]
    colors = _others(dice, len(COLOR_NAMES), thing.color)
    answers = [_tokens([i], f"is {COLOR_NAMES[c]} .") for c in (thing.color, *colors)]
    return _mixed(dice, _tokens("what color is", [i], "?"), answers, _descriptions(scene, dice, i))


def _where(scene: Scene, dice: Dice) -> Choice:
    """Where a thing is relative to another; the reason says where each of the two is in the image."""
    found = clear_relations(scene)
    if not found:
        return _color(scene, dice)
    thing, relation, other = dice.choice(found)
    i = scene.things.index(thing)

    def answer(relation: str, other: Thing) -> Tokens:
        return _tokens([i], f"is {RELATION_PHRASES[relation][0]}", [scene.things.index(other)], ".")

    others = [other for other in scene.things if other != thing]
    wrong = [answer(r, other) for other in others for r in RELATIONS if scene.is_wrong(r, thing, other)]
    answers = [answer(relation, other), *dice.shuffled(wrong)[:3]]
    return _mixed(dice, _tokens("where is", [i], "?"), answers, _descriptions(scene, dice, i))


def _ground(scene: Scene, dice: Dice) -> Choice:
    """What the ground is; the reason names what lies below a thing or behind it."""
    i = dice.below(len(scene.things))
    grounds = _others(dice, len(GROUNDS), scene.ground)
    answers = [_tokens("the ground is", f"{STUFFS[g]} .") for g in (scene.ground, *grounds)]
    ground, background = STUFFS[scene.ground], STUFFS[scene.background]
    far = [BACKGROUNDS[b] for b in _others(dice, len(BACKGROUNDS), scene.background - len(GROUNDS))]
    pairs = ((ground, background), (STUFFS[grounds[0]], background), (ground, far[0]), (STUFFS[grounds[1]], far[1]))
    rationales = [_tokens([i], f"is in a picture of {g} below {b} .") for g, b in pairs]
    return _mixed(dice, _tokens("what is the ground near", [i], "?"), answers, rationales)


def _same(scene: Scene, dice: Dice) -> Choice:
    """Whether two things have the same colour; the reason describes one of them."""
    i, j = dice.shuffled(range(len(scene.things)))[:2]
    a, b = COLOR_NAMES[scene.things[i].color], COLOR_NAMES[scene.things[j].color]
    c, d = (COLOR_NAMES[k] for k in _others(dice, len(COLOR_NAMES), scene.things[i].color)[:2])
    if a == b:
        texts = [f"yes , they are {a} .", f"yes , they are {c} .", f"no , one is {a} and one is {c} .",
                 f"no , one is {c} and one is {d} ."]  # fmt: skip
    else:
        texts = [f"no , one is {a} and one is {b} .", f"yes , they are {a} .", f"yes , they are {b} ."]
        texts.append(f"no , one is {a} and one is {next(x for x in (c, d) if x != b)} .")
    question = _tokens("are", [i, j], "of the same color ?")
    return _mixed(dice, question, [_tokens(text) for text in texts], _descriptions(scene, dice, i))


def _descriptions(scene: Scene, dice: Dice, i: int) -> list[Tokens]:
    """A true description of a thing and three false ones, each with one field changed."""
    thing = scene.things[i]
    size, color, shape = thing.large, thing.color, thing.shape
    colors = _others(dice, len(COLOR_NAMES), color)
    last = (size, colors[1], shape) if dice.chance(50) else (size, color, _others(dice, len(SHAPES), shape)[0])
    return [
        _tokens([i], f"is {Ref(k, c, s).one()} in a picture of {STUFFS[scene.ground]} .")
        for s, c, k in ((size, color, shape), (not size, color, shape), (size, colors[0], shape), last)
    ]


def _others(dice: Dice, n: int, own: int) -> list[int]:
    """Three of the n indices besides one's own, in random order."""
    return dice.shuffled([k for k in range(n) if k != own])[:3]


def _tokens(*parts: str | list[int]) -> Tokens:
    tokens: Tokens = []
    for part in parts:
        tokens.extend([part] if isinstance(part, list) else part.split())
    return tokens


def _mixed(dice: Dice, question: Tokens, answers: list[Tokens], rationales: list[Tokens]) -> Choice:
    """Shuffle; the first of each list is the right one."""
    order, reasons = dice.shuffled(range(4)), dice.shuffled(range(4))
    right, why = order.index(0), reasons.index(0)
    return Choice(question, [answers[k] for k in order], right, [rationales[k] for k in reasons], why)

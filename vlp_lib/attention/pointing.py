"""How much of the attention falls on what a question asks for, and which questions figure 6 shows (section IV-E2).

Pointing accuracy: the chance that a point drawn in the token with the most attention lies on the object or stuff asked
for. Beside it the share of the attention that lies on it. The chance level of both is the object's share of the area.
A map that knows nothing scores that on a grid; a detector's boxes lie on objects to begin with, so what attention
spread evenly over the tokens would score is given too.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from vlp_lib import io, provenance
from vlp_lib.arrays import read_npz, write_arrays
from vlp_lib.attention.maps import Places, Query, QuestionAttention, look, places_of
from vlp_lib.batches.augment import View, show_label_map
from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.config import Profile, to_dict
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.distributed import held
from vlp_lib.errors import UserError
from vlp_lib.io import find_file, read_entries
from vlp_lib.run import RECORD, Run
from vlp_lib.tasks.common import Encoder, collate
from vlp_lib.tasks.downstream import DownstreamModel
from vlp_lib.tasks.vqa import VqaSplit, open_vqa
from vlp_lib.tasks.vqa_accuracy import VqaQuestion, normalise_answer
from vlp_lib.trainers.finetune import load_finetuned, task_encoder
from vlp_lib.trainers.loop import METRICS, WEIGHTS
from vlp_lib.trainers.trained import device_at_hand

KINDS = ("stuff", "small", "count")
"""The rows of figure 6: the ground, a small object, a counting question."""

POINTS, PANEL = "questions.jsonl", "panel.npz"

_FIRST_STUFF = 92
"""COCO-Stuff's categories from this id on are stuff."""

_AT_ONCE = 64


@dataclass(frozen=True)
class Asked:
    """What a question is about.

    Attributes:
        kind: "stuff", "small", "count", "color", "shape", "yesno", or "other" where nothing says it.
        category_id: COCO category asked for, or None.
        boxes: [K, 4] x, y, width, height in pixels of the original image; None where the file has no such field, and
            no row where the thing asked for is not in the image.
    """

    kind: str
    category_id: int | None
    boxes: np.ndarray | None


@dataclass(frozen=True)
class Pointing:
    """One question's numbers, 0 to 1."""

    pointing: float  # share of the most attended token's area that lies on the object
    mass: float  # share of the attention on the object
    chance: float  # the object's share of the image
    even: float  # what attention spread evenly over the tokens scores: the chance level, but for a detector's boxes
    source: str  # what says where the object is: "label map" or "boxes"


def point(weights: np.ndarray, places: Places, mask: np.ndarray, source: str = "label map") -> Pointing:
    """Score a map: weights [tokens], where the tokens lie, and the object's mask [S, S] bool.

    Tokens that share the greatest weight are averaged over, so that a map that says nothing is at chance.
    """
    shares = places.shares(mask)
    best = weights >= weights.max() - 1e-12
    total = max(float(weights.sum()), 1e-12)
    return Pointing(
        pointing=float(shares[best].mean()),
        mass=float(weights @ shares / total),
        chance=float(mask.mean()),
        even=float(shares[weights > 0].mean()),  # a masked token, which is padding, has no weight at all
        source=source,
    )


def object_mask(
    asked: Asked, record: ImageRecord, labels: np.ndarray | None, corpus: Corpus, side: int
) -> tuple[np.ndarray | None, str]:
    """Where what is asked for lies on the squared image, [side, side] bool, and what says so; or None and the reason.

    The label map's pixels of the category inside of the boxes; without label map or category, the boxes themselves.
    """
    if asked.boxes is None:
        return None, "the annotations do not say where the object is"
    if not len(asked.boxes):
        return None, "what is asked for is not in the image"
    pixels = (np.arange(side) + 0.5) / side
    boxes = np.zeros((side, side), bool)
    for x, y, width, height in asked.boxes:
        across = (pixels >= x / record.width) & (pixels < (x + width) / record.width)
        down = (pixels >= y / record.height) & (pixels < (y + height) / record.height)
        boxes |= down[:, None] & across
    if labels is not None and asked.category_id is not None:
        index = corpus.segmentation_classes.lookup[asked.category_id - 1]
        exact = boxes & (show_label_map(labels, View(), side) == index)
        if exact.any():
            return exact, "label map"
    return (boxes, "boxes") if boxes.any() else (None, "the object is smaller than a pixel of the model's image")


def summarise(points: Sequence[tuple[str, Pointing | str]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Means by kind of question and over all, and how many questions could not be scored, by reason.

    From each question's kind and numbers. A row: kind, questions, pointing, mass, chance, even, from_label_maps.
    """
    scored = [(kind, one) for kind, one in points if isinstance(one, Pointing)]
    kinds = [*KINDS, *sorted({kind for kind, _ in scored} - set(KINDS))]
    rows: list[dict[str, Any]] = []
    for name in ("all", *kinds):
        chosen = [one for kind, one in scored if name in ("all", kind)]
        if chosen:
            measures = ("pointing", "mass", "chance", "even")
            means = {measure: float(np.mean([getattr(one, measure) for one in chosen])) for measure in measures}
            of_maps = sum(one.source == "label map" for one in chosen)
            rows.append({"kind": name, "questions": len(chosen), **means, "from_label_maps": of_maps})
    return rows, dict(Counter(one for _, one in points if isinstance(one, str)))


def read_asked(corpus: Corpus, wanted: Mapping[int | str, str]) -> dict[int | str, Asked]:
    """What each of the wanted questions (texts by id) is about, from the annotation files of the corpus.

    The embedded corpus says kind, category and boxes. Official files do not; there the kind is read off the question:
    "how many" counts, and a question that names a stuff class asks for stuff.
    """
    entries: dict[int | str, dict[str, Any]] = {}
    for subtype in ("test2015", "val2014", "train2014"):
        path = find_file(corpus.root / "vqav2", f"v2_mscoco_{subtype}_annotations.json")
        if path is not None and wanted.keys() - entries.keys():
            found = read_entries(path, "annotations", "the official annotations")
            entries |= {entry["question_id"]: entry for entry in found if entry.get("question_id") in wanted}
    classes = corpus.segmentation_classes
    named = zip(classes.ids, classes.names, strict=True)
    # First words of the official stuff classes, e.g. "floor" of "floor-wood"; none of other classes.
    stuff = {name.partition("-")[0] for number, name in named if number >= _FIRST_STUFF}
    asked = {}
    for number, question in wanted.items():
        entry, words = entries.get(number, {}), re.findall(r"[a-z]+", question.lower())
        guessed = "count" if words[:2] == ["how", "many"] else "stuff" if stuff.intersection(words) else "other"
        boxes = entry.get("bboxes")
        asked[number] = Asked(
            kind=entry.get("kind", guessed),
            category_id=entry.get("category_id"),
            boxes=None if boxes is None else np.array(boxes, dtype=float).reshape(-1, 4),
        )
    return asked


def choose_panel(kinds: Sequence[str], usable: Sequence[bool]) -> list[int]:
    """Figure 6's questions, by rule and whatever is answered: the first of each kind, in the order given.

    Where the objects of some questions of a kind are known, only these are looked at.
    """
    chosen = []
    for kind in KINDS:
        members = [i for i, one in enumerate(kinds) if one == kind]
        chosen += ([i for i in members if usable[i]] or members)[:1]
    return chosen


@dataclass(frozen=True)
class Look:
    """One question's answer and map, to be drawn."""

    question_id: int | str
    text: str
    answer: str  # what the model says
    truth: str  # the annotators' most common answer
    map: np.ndarray  # [S, S], the attention on the pixels of `image`
    image: np.ndarray  # [S, S, 3] float from 0 to 1, as the model saw it
    mask: np.ndarray | None  # [S, S] bool, what is asked for; None where that is unknown
    score: Pointing | str  # its numbers, or why there are none

    @property
    def right(self) -> bool:
        """Whether it says the truth. What a few annotators say has some accuracy, but to call it right misleads."""
        return normalise_answer(self.answer) == normalise_answer(self.truth)


@dataclass(frozen=True)
class Attended:
    """What `attend` found."""

    rows: list[dict[str, Any]]  # see `summarise`
    missing: dict[str, int]  # questions without numbers, by reason
    panel: list[Look]  # at figure 6's questions, see `choose_panel`
    lines: list[dict[str, Any]]  # each question's answer and numbers
    split: str  # whose questions they are
    kept: bool  # whether a run's folder holds all this


def save_panel(path: Path, looks: Sequence[Look]) -> None:
    """Write looks at questions of one model, for `read_panel`."""
    words = [{"id": one.question_id, "text": one.text, "answer": one.answer, "truth": one.truth} for one in looks]
    arrays = {
        f"{name}{place}": value
        for place, one in enumerate(looks)
        for name, value in (("image", one.image), ("map", one.map), ("mask", one.mask))
        if value is not None
    }
    write_arrays(path, {"words": json.dumps(words), **arrays})


def read_panel(path: Path) -> list[Look]:
    """The looks that `save_panel` wrote, without their numbers; raises UserError for another file."""
    try:
        arrays = read_npz(path)
        return [
            Look(
                question_id=one["id"],
                text=one["text"],
                answer=one["answer"],
                truth=one["truth"],
                map=arrays[f"map{place}"],
                image=arrays[f"image{place}"],
                mask=arrays.get(f"mask{place}"),
                score="not kept",
            )
            for place, one in enumerate(json.loads(str(arrays["words"])))
        ]
    except (UserError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no maps of questions ({error}): run the notebook 14_attention again") from None


def questions_of(corpus: Corpus, profile: Profile, encoder: Encoder) -> tuple[VqaSplit, list[int]]:
    """The split that maps are drawn of, test where its answers are public, else val; and its items by question id.

    Ids that are texts (VizWiz) are in alphabetical order.
    """
    data = open_vqa(corpus, encoder, profile.downstream)
    split = data.test if data.test is not None and data.test.labelled else data.val
    ids = [item.question.question_id for item in split.items]
    return split, sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))


class _Observer:
    """Looks at questions of a split, a batch at a time."""

    def __init__(self, model: DownstreamModel, split: VqaSplit, corpus: Corpus, query: Query) -> None:
        self.model, self.split, self.corpus, self.query = model, split, corpus, query
        self.records = {record.image_id: record for record in corpus.coco_records}
        questions = (item.question for item in split.items)
        self.asked = read_asked(corpus, {question.question_id: question.question for question in questions})

    def looks(self, indices: Sequence[int]) -> Iterator[Look]:
        """The looks at these questions of the split."""
        device = next(self.model.parameters()).device
        for start in range(0, len(indices), _AT_ONCE):
            chosen = indices[start : start + _AT_ONCE]
            batch = collate([self.split[index] for index in chosen]).to(device)
            with torch.inference_mode():
                attention = look(self.model.vlp, batch)
                decisions = self.split.decide(self.model.head(attention.pooled))
            for row, (index, decision) in enumerate(zip(chosen, decisions, strict=True)):
                image = batch.pictures.images[row].permute(1, 2, 0).cpu().numpy()
                places = places_of(self.model.vlp, attention.features, batch, row)
                weights = attention.on_image(row, self.query)
                item = self.split.items[index]
                assert item.annotation is not None  # the split is labelled
                mask, source = self._mask(item.question, len(image))
                yield Look(
                    question_id=item.question.question_id,
                    text=item.question.question,
                    answer=self.split.answers[int(decision)],
                    truth=item.annotation.multiple_choice_answer,
                    map=places.paint(weights),
                    image=image,
                    mask=mask,
                    score=source if mask is None else point(weights, places, mask, source),
                )

    def _mask(self, question: VqaQuestion, side: int) -> tuple[np.ndarray | None, str]:
        """As `object_mask`."""
        record = self.records.get(int(question.image_id))
        if record is None:
            return None, "the image is none of the corpus's captioned ones"
        labels = self.corpus.read_label_map(record)
        return object_mask(self.asked[question.question_id], record, labels, self.corpus, side)


OfTheKit: TypeAlias = Callable[[Run], tuple[DownstreamModel, Tokenizer]]
"""A model of VQA that comes with the kit, for those who have not finetuned one."""


def attend(
    run: Run,
    corpus: Corpus,
    query: Query = "cls",
    questions: int = 1500,
    restart: bool = False,
    of_the_kit: OfTheKit | None = None,
) -> Attended:
    """Pointing accuracy and figure 6's questions of the run's VQA model.

    Writes into the run's folder of "attention": config.json, metrics.jsonl (a line a kind of question),
    questions.jsonl (a line a question), panel.npz (see `choose_panel`) and run.json. Questions that could not be
    scored are counted by reason, there and on the screen.

    Args:
        query: the word whose attention is drawn, see `QuestionAttention.on_image`.
        questions: how many are looked at, the first by id.
        of_the_kit: where the run has no finished model; of its model nothing is written.

    Raises UserError for a missing or other model, a folder that another process works in, and (without `restart`) one
    that another configuration began.
    """
    if questions < 1:
        raise UserError(f"questions is {questions}: at least one has to be looked at")
    if of_the_kit is not None and not _is_finetuned(run):
        return _observe(run, corpus, query, questions, *_model(run, corpus, of_the_kit), kept=False)
    run = run.at("attention")
    begun, start, folder = provenance.now(), time.monotonic(), run.folder("attention")
    identity = run.identity("attention") | {"query": query}
    config = {name: value for name, value in identity.items() if name != "name"}
    config |= {"questions": questions, "model": to_dict(run.config.model), "corpus": corpus.fingerprint}
    with held(folder):
        model, encoder = load_finetuned(run, "vqa", corpus)
        provenance.begin(folder, config, restart, __name__, recomputed=True)
        found = _observe(run, corpus, query, questions, model, encoder, kept=True)
        io.write_lines(folder / METRICS, found.rows)
        io.write_lines(folder / POINTS, found.lines)
        save_panel(folder / PANEL, found.panel)
        facts = identity | {
            "synthetic": corpus.synthetic,
            "corpus": corpus.fingerprint,
            "weights": str(run.folder("finetune-vqa") / WEIGHTS),
            "split": found.split,
            "questions": len(found.lines),
            "not_scored": found.missing,
            "pointing": {row["kind"]: row for row in found.rows},
        }
        provenance.write_run(folder, facts, model, begun, time.monotonic() - start)
    return found


def with_its_settings(run: Run) -> Run:
    """The run as `attend` takes it: with the settings that its model was made with, where there is one."""
    return run.at("attention") if _is_finetuned(run) else run


def _is_finetuned(run: Run) -> bool:
    return (run.folder("finetune-vqa") / RECORD).is_file()


def _model(run: Run, corpus: Corpus, of_the_kit: OfTheKit | None) -> tuple[DownstreamModel, Encoder]:
    """The run's own VQA model where it is finished, or the kit's."""
    if of_the_kit is None or _is_finetuned(run):
        return load_finetuned(run.at("attention"), "vqa", corpus)
    model, tokenizer = of_the_kit(run)
    return model, task_encoder(run.config, "vqa", run.chosen, corpus, tokenizer)


def _observe(
    run: Run, corpus: Corpus, query: Query, questions: int, model: DownstreamModel, encoder: Encoder, kept: bool
) -> Attended:
    """Look at the questions, and say how many were scored."""
    split, order = questions_of(corpus, run.config, encoder)
    order = order[:questions]
    observer = _Observer(model.to(device_at_hand()), split, corpus, query)
    kinds, scores, lines = [], [], []
    for one in observer.looks(order):
        kind = observer.asked[one.question_id].kind
        kinds.append(kind)
        scores.append(one.score)
        numbers = {"not_scored": one.score} if isinstance(one.score, str) else asdict(one.score)
        answer = {"question_id": one.question_id, "kind": kind, "answer": one.answer, "right": one.right}
        lines.append(answer | numbers)
    rows, missing = summarise(list(zip(kinds, scores, strict=True)))
    usable = [isinstance(score, Pointing) for score in scores]
    panel = list(observer.looks([order[i] for i in choose_panel(kinds, usable)]))
    print(f"{len(lines):,} questions of {split.name}: {sum(usable):,} have a mask to point at")
    for reason, count in missing.items():
        print(f"not scored: {count:,} questions, {reason}")
    return Attended(rows, missing, panel, lines, split.name, kept)


@dataclass(frozen=True)
class QuestionView:
    """One question with all its attention, for exploring."""

    text: str
    pieces: tuple[str, ...]  # of its words, [CLS] and [SEP] included
    image: np.ndarray  # [S, S, 3] float from 0 to 1, as the model saw it
    attention: QuestionAttention
    places: Places  # where its tokens lie


def view_question(run: Run, corpus: Corpus, question: int, of_the_kit: OfTheKit | None = None) -> QuestionView:
    """All the attention of one question, by its place among those of `questions_of`; `of_the_kit` as for `attend`.

    Raises UserError for a missing or other model, or a question that there is not.
    """
    model, encoder = _model(run, corpus, of_the_kit)
    split, order = questions_of(corpus, run.config, encoder)
    if not 0 <= question < len(order):
        raise UserError(f"there is no question {question}: choose from 0 to {len(order) - 1}")
    batch = collate([split[order[question]]])
    attention = look(model.vlp, batch)
    return QuestionView(
        text=split.items[order[question]].question.question,
        pieces=tuple(encoder.tokenizer.token(int(index)) for index in batch.input_ids[0]),
        image=batch.pictures.images[0].permute(1, 2, 0).numpy(),
        attention=attention,
        places=places_of(model.vlp, attention.features, batch, 0),
    )

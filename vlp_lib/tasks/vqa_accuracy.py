"""Visual question answering: the official files, the official accuracy, and the soft targets that models train on.

The accuracy is that of GT-Vision-Lab/VQA (`PythonEvaluationTools/vqaEvaluation/vqaEval.py`, HEAD); answer lists and
targets are those of hengyuan-hu/bottom-up-attention-vqa (`tools/compute_softscore.py`), which LXMERT, UNITER and ViLT
share. Section IV-B1 of the paper classifies over such a list.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError
from vlp_lib.io import placed_entries, read_json, read_text, refuse, refuse_repeated, take, take_all, write_text
from vlp_lib.tasks import naming, percent

QuestionId = int | str

ANNOTATORS = 10
"""Answers that VQA collects for each question."""

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes re.UNICODE (32) where `re.sub` expects the count, so it removes that many at most.
_PERIODS = 32
_ARTICLES = frozenset({"a", "an", "the"})
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS)}


def _without_one_apostrophe(word: str) -> Iterator[str]:
    """Each misspelling of a contraction that lacks one of its apostrophes."""
    return (word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'")


# The official table of misspellings, written as the spellings they lead to. Its entries with a capital I are left out,
# for words are looked up in lower case and never meet them, and so are the two that change nothing (let's, she's).
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""
_CONTRACTIONS = {misspelt: word for word in _CONTRACTED.split() for misspelt in _without_one_apostrophe(word)}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the one that takes an apostrophe away


@dataclass(frozen=True)
class VqaQuestion:
    """One question; ids are numbers in COCO's files and may be texts elsewhere (VizWiz, TextVQA)."""

    question_id: QuestionId
    image_id: int | str
    question: str


@dataclass(frozen=True)
class VqaAnnotation:
    """What the annotators answered to one question.

    Attributes:
        answers: as they stand in the file, one for each annotator.
        multiple_choice_answer: the most common answer; the first of them where the file names none (OK-VQA).
        question_type, answer_type: None where the file does not know them (TextVQA, VizWiz).
        records: what else the file says of each answer, where that does not tell the annotators apart (VizWiz); else
            empty.
    """

    question_id: QuestionId
    image_id: int | str
    answers: tuple[str, ...]
    multiple_choice_answer: str
    question_type: str | None
    answer_type: str | None
    records: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------- answers


def _strip_punctuation(text: str) -> str:
    """Marks vanish next to a space and become a space elsewhere; all vanish where the text has a comma in a number."""
    has_number_with_comma = _NUMBER_WITH_COMMA.search(text) is not None
    stripped = text
    for mark in _PUNCTUATION:
        vanishes = has_number_with_comma or f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if vanishes else " ")
    return _PERIOD.sub("", stripped, count=_PERIODS)


def _plain_words(text: str) -> str:
    """Lower case, number words as digits, no articles, apostrophes put back into contractions."""
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(answer: str) -> str:
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise_answer(answer: str) -> str:
    """An answer as the official evaluation compares it: "A  Dog, two cats." → "dog 2 cats".

    Mirrors vqaEval.py at HEAD with all its quirks: marks are judged on the text before any is removed, a "." stays
    before a digit, at most 32 of them are removed, and "none" is 0.
    """
    return _plain_words(_strip_punctuation(_one_line(answer)))


def _counted_answer(answer: str) -> str:
    """An answer as compute_softscore.py counts it: without the commas that normalising has left."""
    return _plain_words(_strip_punctuation(answer)).replace(",", "")


# ---------------------------------------------------------------------------------------------------- accuracy


def leave_one_out(matching: int, answers: int) -> float:
    """Mean of min(n / 3, 1) over the sets that lack one annotator, n being those of the rest who agree.

    Of `answers` annotators `matching` gave the predicted answer. With ten it equals min(0.3 · matching, 1).
    """
    without_match = min((matching - 1) / 3, 1.0)
    without_other = min(matching / 3, 1.0)
    return (matching * without_match + (answers - matching) * without_other) / answers


def _compared(prediction: str, answers: Iterable[str], normalise: Callable[[str], str]) -> tuple[str, list[str]]:
    """Prediction and answers as the official code compares them: as they are where all annotators agree."""
    prediction, answers = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(answers)) > 1:
        return normalise(prediction), [normalise(answer) for answer in answers]
    return prediction, answers


def _by_records(prediction: str, annotation: VqaAnnotation, normalise: Callable[[str], str]) -> float:
    """The official code's score: an annotator's answer is left out with all whose records in the file equal its own.

    In VQA's files an `answer_id` tells the ten apart. VizWiz's have none: those who agree leave each other out.
    """
    prediction, answers = _compared(prediction, annotation.answers, normalise)
    records = list(zip(answers, annotation.records or map(str, range(len(answers))), strict=True))
    matching = Counter(record for record in records if record[0] == prediction)
    total = sum(matching.values())
    return sum(min((total - matching[record]) / 3, 1.0) for record in records) / len(records)


def question_score(
    prediction: str, annotation: VqaAnnotation, normalise: Callable[[str], str] = normalise_answer
) -> float:
    """The official accuracy of one question, from 0 to 1."""
    prediction, answers = _compared(prediction, annotation.answers, normalise)
    return leave_one_out(answers.count(prediction), len(answers))


def _mean(scores: Collection[float]) -> float:
    """In percent."""
    return percent(math.fsum(scores) / len(scores))


def _means(scores: Sequence[float], kinds: Sequence[str | None]) -> dict[str, float]:
    """The mean of each kind in percent, in alphabetical order."""
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for score, kind in zip(scores, kinds, strict=True):
        if kind is not None:
            by_kind[kind].append(score)
    return {kind: _mean(by_kind[kind]) for kind in sorted(by_kind)}


def vqa_accuracy(predictions: Mapping[QuestionId, str], annotations: Sequence[VqaAnnotation]) -> dict[str, Any]:
    """The official VQA accuracy (GT-Vision-Lab/VQA, vqaEval.py at HEAD) in percent: over all questions and by type.

    Where the annotators disagree prediction and answers are normalised, where they are unanimous neither is. Each
    question's score is `leave_one_out`, annotators told apart by their place. Questions with fewer than ten answers are
    scored over those they have, and counted. Where the file does not tell annotators apart, as VizWiz's do not, the
    official codes of VQA and of VizWiz give other numbers, which are in "overall_by".

    Raises UserError where predictions and annotations are not of the same questions, or a question has no answer.
    """
    if not annotations:
        raise UserError("there is no annotation to score against: give the annotations of the predicted questions")
    known = {annotation.question_id for annotation in annotations}
    missing = [a.question_id for a in annotations if a.question_id not in predictions]
    mend = "predict each question of the annotations"
    if {str(question_id) for question_id in missing} & {str(question_id) for question_id in predictions}:
        mend = "write the ids as the annotations do, numbers as numbers and texts as texts"
    refuse(missing, f"of {len(known):,} questions have no prediction", mend)
    unknown = [question_id for question_id in predictions if question_id not in known]
    refuse(unknown, "predictions are for unknown questions", "give the annotations that belong to the predictions")
    unanswered = [a.question_id for a in annotations if not a.answers]
    refuse(unanswered, "questions have no annotated answer", "score a split whose answers are public")

    normalise = functools.lru_cache(maxsize=1 << 16)(normalise_answer)  # answers recur
    pairs = [(predictions[annotation.question_id], annotation) for annotation in annotations]
    scores = [question_score(*pair, normalise) for pair in pairs]
    report: dict[str, Any] = {
        "task": "vqa",
        "unit": "percent",
        "overall": _mean(scores),
        "per_answer_type": _means(scores, [annotation.answer_type for annotation in annotations]),
        "per_question_type": _means(scores, [annotation.question_type for annotation in annotations]),
        "questions": len(scores),
        "questions_with_fewer_than_ten_answers": sum(len(a.answers) < ANNOTATORS for a in annotations),
    }
    if any(annotation.records for annotation in annotations):
        report["note"] = (
            "the annotations have no answer_id to tell annotators apart, as VizWiz's: overall counts each by its "
            "place; overall_by has what the official codes of VQA (vqaEval.py) and of VizWiz give for such a file"
        )
        # VizWiz: the prediction is always normalised, the answers never; annotators count by their place.
        matches = ((a.answers.count(normalise(prediction)), len(a.answers)) for prediction, a in pairs)
        report["overall_by"] = {
            "vqaEval.py": _mean([_by_records(*pair, normalise) for pair in pairs]),
            "VizWiz": _mean([leave_one_out(*match) for match in matches]),
        }
    return report


# ------------------------------------------------------------------------------------------- answer lists and targets


def build_answer_list(annotations: Iterable[VqaAnnotation], minimum: int = 9) -> tuple[str, ...]:
    """The answers that a model chooses from, in the order of its classes: the common ones of some annotations.

    Those of train and val together, as for the test server, are 3,129. An answer enters with `minimum` questions whose
    most common answer it is, counted as compute_softscore.py counts: normalised, commas removed, each question once.
    The commonest comes first, equally common ones in alphabetical order (the official order is an accident of
    Python 2).

    Raises UserError where no answer is common enough.
    """
    questions: defaultdict[str, set[QuestionId]] = defaultdict(set)
    for annotation in annotations:
        questions[_counted_answer(annotation.multiple_choice_answer)].add(annotation.question_id)
    counts = {answer: len(ids) for answer, ids in questions.items() if len(ids) >= minimum}
    if not counts:
        raise UserError(f"no answer is given to {minimum} questions: use more annotations or lower the minimum")
    return tuple(sorted(counts, key=lambda answer: (-counts[answer], answer)))


def soft_target(answers: Iterable[str], classes: Mapping[str, int]) -> dict[int, float]:
    """What a model learns to answer to one question: {class: min(0.3 · annotators who say so, 1)}.

    Answers are counted as they stand in the file, not normalised, as compute_softscore.py does; those outside of the
    list have no class, and a question with none of them has an empty target.
    """
    counts = Counter(answer for answer in answers if answer in classes)
    return {classes[answer]: min(3 * count, 10) / 10 for answer, count in counts.items()}


def read_answer_list(path: Path) -> tuple[str, ...]:
    """An answer list in the form of a JSON list, a JSON object or lines of text (.gz accepted).

    A list is LXMERT's label2ans; an object {answer: class} is LXMERT's or UNITER's ans2label; a file not called .json
    has one answer a line. An empty line is the empty answer, which is one of the official 3,129.

    Raises UserError for a file that is none of these, classes that are not 0 … n−1, or an answer that stands twice.
    """
    if not path.name.removesuffix(".gz").endswith(".json"):
        answers: object = read_text(path).removesuffix("\n").split("\n")
    else:
        answers = read_json(path)
        if isinstance(answers, dict):
            answers = _by_class(path, answers)
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{path} is no answer list: give a JSON list of answers, or an object of answers and classes")
    refuse_repeated(answers, "answers", path)
    return tuple(answers)


def _by_class(path: Path, classes: Mapping[str, object]) -> list[str]:
    by_class = {place: answer for answer, place in classes.items() if isinstance(place, int)}
    if sorted(by_class) != list(range(len(classes))):
        raise UserError(f"{path}: the answers' classes are not 0 to {len(classes) - 1}, each once: number them anew")
    return [by_class[place] for place in range(len(classes))]


# ---------------------------------------------------------------------------------------------------- files


_QUESTIONS_FILE = "the official questions file, e.g. v2_OpenEnded_mscoco_val2014_questions.json"
_ANNOTATIONS_FILE = "the official annotations file, e.g. v2_mscoco_val2014_annotations.json"
_IDS: dict[str, tuple[type, ...]] = {"question_id": (int, str), "image_id": (int, str)}


def read_questions(path: Path) -> tuple[VqaQuestion, ...]:
    """The official questions JSON (.gz accepted), in the order of the file; header and further fields are not needed.

    Raises UserError for a file of another form or a question id that stands twice.
    """
    kinds = {**_IDS, "question": (str,)}
    placed = placed_entries(path, "questions", _QUESTIONS_FILE)
    questions = tuple(VqaQuestion(**take_all(entry, kinds, where)) for where, entry in placed)
    refuse_repeated((question.question_id for question in questions), "question ids", path)
    return questions


def read_annotations(path: Path) -> tuple[VqaAnnotation, ...]:
    """The official annotations JSON (.gz accepted), in the order of the file.

    Raises UserError for a file of another form or a question id that stands twice.
    """
    placed = placed_entries(path, "annotations", _ANNOTATIONS_FILE)
    annotations = tuple(_annotation(entry, where) for where, entry in placed)
    refuse_repeated((annotation.question_id for annotation in annotations), "question ids", path)
    return annotations


def _annotation(entry: dict[str, Any], where: str) -> VqaAnnotation:
    records = take(entry, "answers", (list,), where)
    if not all(isinstance(record, dict) for record in records):
        raise UserError(f"{where}: an answer is no object: give {_ANNOTATIONS_FILE}")
    answers = tuple(take(record, "answer", (str,), f"{where}, answers") for record in records)
    names = ("multiple_choice_answer", "question_type", "answer_type")
    common, *types = (None if entry.get(name) is None else take(entry, name, (str,), where) for name in names)
    if common is None:
        common = Counter(answers).most_common(1)[0][0] if answers else ""
    rest = tuple(json.dumps({**record, "answer": None}, sort_keys=True) for record in records)
    return VqaAnnotation(
        **take_all(entry, _IDS, where),
        answers=answers,
        multiple_choice_answer=common,
        question_type=types[0],
        answer_type=types[1],
        records=rest if len(set(rest)) < len(rest) else (),
    )


def check_same_questions(questions: Iterable[VqaQuestion], annotations: Iterable[VqaAnnotation]) -> None:
    """Raise UserError unless both are of the same questions."""
    asked = {question.question_id: None for question in questions}
    answered = {annotation.question_id: None for annotation in annotations}
    mend = "give the two files of one split"
    refuse([i for i in asked if i not in answered], "questions have no annotation", mend)
    refuse([i for i in answered if i not in asked], "annotations are of unknown questions", mend)


def read_annotated(questions: Path, annotations: Path) -> tuple[tuple[VqaQuestion, ...], tuple[VqaAnnotation, ...]]:
    """The two official files of one split; raises UserError, too, where they are not of the same questions."""
    asked, answered = read_questions(questions), read_annotations(annotations)
    with naming(questions, annotations):
        check_same_questions(asked, answered)
    return asked, answered


def read_results(path: Path) -> dict[QuestionId, str]:
    """A result file in the format of the test server: a JSON list of {"question_id", "answer"}.

    Raises UserError for a file of another form or a question id that stands twice.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} is no list of results: write a list of {{question_id, answer}}")
    rows = []
    for place, entry in enumerate(entries):
        where = f"{path}: results[{place}]"
        if not isinstance(entry, dict):
            raise UserError(f"{where} is no object: write a list of {{question_id, answer}}")
        rows.append(tuple(take_all(entry, {"question_id": (int, str), "answer": (str,)}, where).values()))
    refuse_repeated((question_id for question_id, _ in rows), "question ids", path)
    return dict(rows)


def write_results(path: Path, predictions: Mapping[QuestionId, str]) -> None:
    """Write predictions in the format of the test server, atomically; raises UserError where that cannot be done."""
    results = [{"question_id": question_id, "answer": answer} for question_id, answer in predictions.items()]
    write_text(path, json.dumps(results) + "\n")

"""Writes the embedded corpus in the official file formats."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from vlp_lib.corpora.synthetic.choices import Tokens, sample_choice
from vlp_lib.corpora.synthetic.detector import DETECTOR_CLASSES, Detection, detect
from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.draw import Painter
from vlp_lib.corpora.synthetic.formats import Folder, json_bytes, json_lines, npz_bytes, png_bytes
from vlp_lib.corpora.synthetic.language import Caption, captions
from vlp_lib.corpora.synthetic.questions import Question, annotators, questions
from vlp_lib.corpora.synthetic.scenes import Scene, sample_scene
from vlp_lib.corpora.synthetic.statements import sample_set
from vlp_lib.corpora.synthetic.world import (
    COLOR_NAMES,
    GROUNDS,
    SHAPES,
    STUFFS,
    CorpusSpec,
    stuff_category,
    thing_category,
)
from vlp_lib.errors import UserError

FORMAT_VERSION = 2
"""Raised whenever the same spec gives other bytes than before."""

CORPUS_FILE = "corpus.json"
_UNFINISHED_FILE = "corpus.json.unfinished"
_PARTS = ("images", "annotations", "stuffthingmaps", "vqav2", "nlvr2", "vcr")

# The second number of a random stream's key; the first is the seed and the last the number of the scene.
_STREAMS = {"train": 0, "val": 1, "test": 2, "nlvr2-train": 3, "nlvr2-dev": 4, "nlvr2-test1": 5,
            "vcr-train": 6, "vcr-val": 7, "vcr-test": 8}  # fmt: skip

MOST_IMAGES = 1_000_000
"""Of a split: the image ids of the next one begin there."""

MOST_SENTENCES = 100
"""Of an image: the sentence ids of the next one begin there."""

_LICENSE = {"name": "MIT, as the code that draws them", "url": "https://opensource.org/license/mit"}
Entry = dict[str, object]
"""An object of a JSON file."""

_VQA_SUBTYPES = {"train": "train2014", "val": "val2014", "test": "test2015"}


def synthesize(root: Path, spec: CorpusSpec) -> str:
    """Write the corpus of the spec below root and return its fingerprint; a finished one is not drawn again.

    `corpus.json` is written last. Until then an unfinished file lies in its place, by which an interrupted attempt is
    recognised and redone.
    """
    if ready := _existing(root, spec):
        return ready
    unfinished = root / _UNFINISHED_FILE
    try:
        root.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        for part in _PARTS:
            shutil.rmtree(root / part, ignore_errors=True)
        folder = Folder(root)
        painter = Painter(spec.image_size)
        counts = {
            **_write_captioned(folder, spec, painter),
            **_write_nlvr2(folder, spec, painter),
            **_write_vcr(folder, spec, painter),
        }
        description = {
            "synthetic": True,
            "format_version": FORMAT_VERSION,
            "fingerprint": folder.fingerprint(),
            "spec": asdict(spec),
            "counts": counts,
        }
        unfinished.write_bytes(json.dumps(description, sort_keys=True, indent=1).encode() + b"\n")
        unfinished.replace(root / CORPUS_FILE)
    except OSError as error:
        raise UserError(f"cannot write the corpus to {root} ({error.strerror}): name another folder") from error
    return folder.fingerprint()


def _existing(root: Path, spec: CorpusSpec) -> str | None:
    """The fingerprint of the finished corpus at root, or None where there is room to draw it."""
    if not root.exists():
        return None
    if not root.is_dir():
        raise UserError(f"{root} is a file; name a folder for the corpus.")
    if not (root / CORPUS_FILE).exists():
        if any(root.iterdir()) and not (root / _UNFINISHED_FILE).exists():
            raise UserError(f"{root} is not empty and holds no {CORPUS_FILE}; name a new folder or empty this one.")
        return None
    try:
        description = json.loads((root / CORPUS_FILE).read_text())
        found, version, digest = description["spec"], description["format_version"], str(description["fingerprint"])
        names = [name for name, value in json.loads(json_bytes(asdict(spec))).items() if found.get(name) != value]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{root / CORPUS_FILE} cannot be read; delete the folder to draw the corpus anew.") from error
    if version != FORMAT_VERSION:
        raise UserError(f"{root} was drawn by another version of the kit; delete it or name a new folder.")
    if names:
        raise UserError(f"{root} holds a corpus with another {', '.join(names)}; delete it or name a new folder.")
    return digest


def scene_key(spec: CorpusSpec, stream: str, index: int) -> tuple[int, int, int]:
    """The key of a scene's random stream, whatever the counts of the spec are."""
    return spec.seed, _STREAMS[stream], index


def image_id(split: str, index: int) -> int:
    """The COCO id of a captioned image: unique over the splits and independent of their sizes."""
    return _STREAMS[split] * MOST_IMAGES + index + 1


def _write_captioned(folder: Folder, spec: CorpusSpec, painter: Painter) -> dict[str, float]:
    """Images, COCO's and Karpathy's annotations, label maps, detections, VQA."""
    dice = Dice(spec.seed)
    karpathy: list[Entry] = []
    counts: dict[str, float] = {}
    maps, sentences_in_all, strangers_true = 0, 0, 0
    for part, splits in (("train2017", ("train",)), ("val2017", ("val", "test"))):
        coco: dict[str, list[Entry]] = {name: [] for name in ("images", "captions", "instances", "stuff")}
        found: list[tuple[int, list[Detection]]] = []
        for split in splits:
            asked: list[Entry] = []
            answered: list[Entry] = []
            total = getattr(spec, f"{split}_images")
            before: list[Caption] = []
            for index in range(total):
                key, name = image_id(split, index), f"{image_id(split, index):012d}.png"
                dice.restart(*scene_key(spec, split, index))
                scene = sample_scene(dice, spec)
                folder.write(f"images/{part}/{name}", png_bytes(painter.image(scene, dice)))
                if scene.has_map or split != "train":
                    folder.write(f"stuffthingmaps/{part}/{name}", png_bytes(painter.label_map(scene)))
                    maps += 1
                number = spec.sentences[0 if scene.has_map else 1] if split == "train" else 5
                said = captions(scene, dice, number, spec.named)
                strangers_true += sum(caption.holds(scene) for caption in before)
                before, sentences = said, {MOST_SENTENCES * key + k: c.text for k, c in enumerate(said)}
                sentences_in_all += number
                for kind, entries in _coco_entries(key, name, scene, sentences).items():
                    coco[kind] += entries
                karpathy.append(_karpathy_image(key, name, part, split, len(karpathy), sentences))
                found.append((key, detect(scene, dice, spec.detector_noise)))
                # Last, so that more questions change nothing else.
                for k, question in enumerate(questions(scene, dice, spec.questions_per_image)):
                    ids: Entry = {"image_id": key, "question_id": 1000 * key + k}
                    asked.append({**ids, "question": question.text})
                    answered.append(ids | _vqa_annotation(question, dice))
            _write_vqa(folder, _VQA_SUBTYPES[split], asked, answered)
            counts |= {f"{split}_images": total, f"{split}_questions": len(asked)}
        _write_coco(folder, part, coco)
        folder.write(f"detections_{part}.npz", npz_bytes(_detection_arrays(found, spec.image_size)))
    folder.write("dataset_coco.json", json_bytes({"dataset": "coco", "images": karpathy}))
    # What joins a sentence with another image by chance, as matching does, sometimes joins what belongs together.
    share = round(strangers_true / sentences_in_all, 5)
    return counts | {"captions": sentences_in_all, "label_maps": maps, "mismatched_but_true": share}


def _coco_entries(key: int, name: str, scene: Scene, sentences: dict[int, str]) -> dict[str, list[Entry]]:
    """What COCO's files say of an image: its own entry, and its annotations in each file; `sentences` by their ids."""
    size = scene.image_size

    def annotation(k: int, category: int, bbox: list[int], area: int, corners: list[int]) -> Entry:
        return {"id": 10 * key + k, "image_id": key, "category_id": category, "bbox": bbox, "area": area,
                "segmentation": [corners], "iscrowd": 0}  # fmt: skip

    instances = []
    for k, thing in enumerate(scene.things):
        x, y, w, h = thing.bbox
        corners = [x, y, x + w, y, x + w, y + h, x, y + h]
        facts = {"color": COLOR_NAMES[thing.color], "size": "large" if thing.large else "small"}
        instances.append(annotation(k, thing_category(thing.shape), thing.bbox, w * h, corners) | facts)
    # Polygons along the knots of the horizon; the things in front are not cut out (the label maps do that).
    knots = [v for x in range(0, size, size // 8) for v in (x, scene.horizon[x])] + [size, scene.horizon[-1]]
    ground = sum(size - row for row in scene.horizon)
    low, high = max(scene.horizon), min(scene.horizon)
    above, below = [size, 0, 0, 0], [size, size, 0, size]
    return {
        "images": [{"id": key, "file_name": name, "width": size, "height": size, "license": 1}],
        "captions": [{"image_id": key, "id": i, "caption": text} for i, text in sentences.items()],
        "instances": instances,
        "stuff": [
            annotation(8, stuff_category(scene.background), [0, 0, size, low], size * size - ground, knots + above),
            annotation(9, stuff_category(scene.ground), [0, high, size, size - high], ground, knots + below),
        ],
    }  # fmt: skip


def _write_coco(folder: Folder, part: str, entries: dict[str, list[Entry]]) -> None:
    info = _info(f"Synthetic corpus in the format of COCO {part}")
    common: Entry = {"info": info, "licenses": [{"id": 1} | _LICENSE], "images": entries["images"]}
    shapes = [{"supercategory": "shape", "id": thing_category(i), "name": name} for i, name in enumerate(SHAPES)]
    stuffs = [
        {"supercategory": "ground" if name in GROUNDS else "background", "id": stuff_category(i), "name": name}
        for i, name in enumerate(STUFFS)
    ]
    of_kind: dict[str, Entry] = {"captions": {}, "instances": {"categories": shapes}, "stuff": {"categories": stuffs}}
    for kind, categories in of_kind.items():
        content = {**common, "annotations": entries[kind], **categories}
        folder.write(f"annotations/{kind}_{part}.json", json_bytes(content))


def _vqa_annotation(question: Question, dice: Dice) -> Entry:
    answers: list[Entry] = []
    for i, answer in enumerate(annotators(question, dice), 1):
        confidence = "yes" if answer == question.answer else dice.choice(("maybe", "no"))
        answers.append({"answer_id": i, "answer": answer, "answer_confidence": confidence})
    entry: Entry = {
        "kind": question.kind,
        "bboxes": question.bboxes,
        "question_type": question.prefix,
        "answer_type": {"yesno": "yes/no", "count": "number"}.get(question.kind, "other"),
        "multiple_choice_answer": question.answer,
        "answers": answers,
    }
    if question.category_id is not None:
        entry["category_id"] = question.category_id
    if len(question.bboxes) == 1:
        entry["bbox"] = question.bboxes[0]
    return entry


def _write_vqa(folder: Folder, subtype: str, asked: list[Entry], answered: list[Entry]) -> None:
    info = _info(f"Synthetic questions in the format of VQAv2 {subtype}")
    common: Entry = {"info": info, "data_type": "mscoco", "data_subtype": subtype, "license": _LICENSE}
    questions_file = {**common, "task_type": "Open-Ended", "questions": asked}
    folder.write(f"vqav2/v2_OpenEnded_mscoco_{subtype}_questions.json", json_bytes(questions_file))
    folder.write(f"vqav2/v2_mscoco_{subtype}_annotations.json", json_bytes({**common, "annotations": answered}))


def _karpathy_image(key: int, name: str, part: str, split: str, number: int, sentences: dict[int, str]) -> Entry:
    said = [
        {"raw": text, "tokens": text.replace(",", "").split(), "imgid": number, "sentid": sentid}
        for sentid, text in sentences.items()
    ]
    return {"filepath": part, "filename": name, "cocoid": key, "imgid": number, "split": split,
            "sentids": list(sentences), "sentences": said}  # fmt: skip


def _detection_arrays(found: list[tuple[int, list[Detection]]], size: int) -> dict[str, np.ndarray]:
    """The detector's file: N images, M boxes; those of image i are the rows offsets[i] to offsets[i + 1]."""
    every = [detection for _, detections in found for detection in detections]
    return {
        "image_ids": np.array([key for key, _ in found], dtype=np.int64),
        "sizes": np.full((len(found), 2), size, dtype=np.int32),
        "offsets": np.cumsum([0] + [len(detections) for _, detections in found], dtype=np.int64),
        "labels": np.array([d.label for d in every], dtype=np.int16),
        "scores": np.array([d.score for d in every], dtype=np.float32) / np.float32(1000),
        "boxes": np.array([d.box for d in every], dtype=np.float32).reshape(-1, 4) / np.float32(4),
        "attributes": np.array([d.attribute for d in every], dtype=np.int16),
        "classes": np.array(DETECTOR_CLASSES, dtype=np.str_),
        "attribute_names": np.array(COLOR_NAMES, dtype=np.str_),
    }


def _write_nlvr2(folder: Folder, spec: CorpusSpec, painter: Painter) -> dict[str, int]:
    dice, counts = Dice(spec.seed), {}
    for split, total in zip(("train", "dev", "test1"), spec.nlvr_pairs, strict=True):
        lines: list[Entry] = []
        for number in range((total + 1) // 2):
            dice.restart(*scene_key(spec, f"nlvr2-{split}", number))
            pairs, sentences = sample_set(dice, spec)
            place, directory = f"nlvr2/images/{split}", {}
            if split == "train":  # which alone is spread over numbered directories
                place, directory = f"{place}/{number % 100}", {"directory": number % 100}
            for pair in range(min(2, total - 2 * number)):
                name = f"{split}-{number}-{pair}"
                for side, scene in enumerate(pairs[pair]):
                    folder.write(f"{place}/{name}-img{side}.png", png_bytes(painter.image(scene, dice)))
                lines += [
                    {"identifier": f"{name}-{k}", "sentence": sentence.text,
                     "label": str(sentence.holds(*pairs[pair])), "synset": "synthetic", "writer": "0",
                     "validation": {}, "left_url": "", "right_url": "", **directory}
                    for k, sentence in enumerate(sentences)
                ]  # fmt: skip
        folder.write(f"nlvr2/data/{split}.json", json_lines(lines))
        counts[f"nlvr2_{split}_pairs"] = total
    return counts


def _write_vcr(folder: Folder, spec: CorpusSpec, painter: Painter) -> dict[str, int]:
    dice, counts = Dice(spec.seed), {}
    for split, total in zip(("train", "val", "test"), spec.vcr_images, strict=True):
        lines = []
        for number in range(total):
            dice.restart(*scene_key(spec, f"vcr-{split}", number))
            scene = sample_scene(dice, spec, fewest=3)
            movie = f"synthetic_{split}_{number // 100:04d}"
            name = f"{movie}/{movie}_{number % 100:02d}@0"
            folder.write(f"vcr/vcr1images/{name}.png", png_bytes(painter.image(scene, dice)))
            folder.write(f"vcr/vcr1images/{name}.json", json_bytes(_vcr_metadata(scene, dice)))
            lines.append(_vcr_line(split, number, name, scene, dice))
        folder.write(f"vcr/{split}.jsonl", json_lines(lines))
        counts[f"vcr_{split}_images"] = total
    return counts


def _vcr_metadata(scene: Scene, dice: Dice) -> Entry:
    corners = [(x, y, x + w, y + h) for x, y, w, h in (thing.bbox for thing in scene.things)]
    return {
        "boxes": [[*box, dice.between(800, 999) / 1000] for box in corners],  # the fifth value is the detector's score
        "segms": [[[[x1, y1], [x2, y1], [x2, y2], [x1, y2]]] for x1, y1, x2, y2 in corners],
        "names": [SHAPES[thing.shape] for thing in scene.things],
        "width": scene.image_size,
        "height": scene.image_size,
    }


def _vcr_line(split: str, number: int, name: str, scene: Scene, dice: Dice) -> Entry:
    choice = sample_choice(scene, dice)
    identifier = f"{split}-{number}"
    return {
        "movie": name.partition("/")[0], "img_fn": f"{name}.png", "metadata_fn": f"{name}.json",
        "objects": [SHAPES[thing.shape] for thing in scene.things],
        "question_orig": _plain(choice.question),
        "answer_orig": _plain(choice.answers[choice.answer_label]),
        "rationale_orig": _plain(choice.rationales[choice.rationale_label]),
        "question": choice.question, "question_number": 0,
        "answer_choices": choice.answers, "answer_label": choice.answer_label, "answer_likelihood": "likely",
        "answer_match_iter": [0, 1, 2, 3], "answer_sources": [number] * 4,
        "rationale_choices": choice.rationales, "rationale_label": choice.rationale_label,
        "rationale_match_iter": [0, 1, 2, 3], "rationale_sources": [number] * 4,
        "img_id": identifier, "annot_id": identifier, "match_fold": f"{split}-0", "match_index": number,
        "interesting_scores": [0],
    }  # fmt: skip


def _plain(tokens: Tokens) -> str:
    """The sentence with the numbers of the objects counted from one, as VCR's `…_orig` fields have them."""
    return " ".join(token if isinstance(token, str) else " and ".join(str(i + 1) for i in token) for token in tokens)


def _info(description: str) -> Entry:
    return {"description": description, "version": str(FORMAT_VERSION), "year": 2023, "synthetic": True}

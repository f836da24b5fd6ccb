"""The embedded corpus: reproducible to the byte, true in every sentence, and in the official formats."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlp_lib.corpora.synthetic import CorpusSpec, image_id, synthesize
from vlp_lib.corpora.synthetic.choices import sample_choice
from vlp_lib.corpora.synthetic.detector import DETECTOR_CLASSES, detect
from vlp_lib.corpora.synthetic.dice import Dice
from vlp_lib.corpora.synthetic.draw import VOID, Painter, _shading
from vlp_lib.corpora.synthetic.formats import npz_bytes, png_bytes
from vlp_lib.corpora.synthetic.language import captions
from vlp_lib.corpora.synthetic.questions import questions
from vlp_lib.corpora.synthetic.scenes import Scene, Thing, sample_scene
from vlp_lib.corpora.synthetic.statements import sample_set
from vlp_lib.corpora.synthetic.world import COLOR_NAMES, GROUNDS, PALETTES, SHAPES, STUFFS, shape_mask
from vlp_lib.corpora.synthetic.write import scene_key
from vlp_lib.errors import UserError

SMALL = CorpusSpec(
    seed=7, image_size=32, train_images=24, val_images=4, test_images=3, nlvr_pairs=(5, 2, 2), vcr_images=(4, 2, 2)
)
TINY = replace(SMALL, train_images=2, val_images=1, test_images=1, nlvr_pairs=(1, 0, 0), vcr_images=(1, 0, 0))
WORLD = CorpusSpec(things=(2, 4))
# Recorded once. If it changes on purpose, raise FORMAT_VERSION: corpora and results of before are not comparable.
SMALL_FINGERPRINT = "b88ae7ed560f11b0e2a3785408572c47b59074dd7278218c4d5e5d6b556a8ae0"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus") / "small"
    synthesize(root, SMALL)
    return root


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene(Dice(11, 0, i), WORLD) for i in range(400)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def fingerprint(root: Path) -> str:
    """As `corpus.json` states it, from the files: SHA-256 over the sorted lines of their paths and digests."""
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    files.pop("corpus.json")
    lines = [f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for name, path in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# Reproducibility


def test_recorded_fingerprint(corpus):
    assert read(corpus / "corpus.json")["fingerprint"] == SMALL_FINGERPRINT
    assert fingerprint(corpus) == SMALL_FINGERPRINT


def test_another_seed_gives_another_corpus(tmp_path):
    assert synthesize(tmp_path / "a", TINY) == synthesize(tmp_path / "b", TINY)
    assert synthesize(tmp_path / "c", replace(TINY, seed=8)) != synthesize(tmp_path / "a", TINY)


def test_a_scene_does_not_depend_on_the_counts(corpus, tmp_path):
    few = replace(SMALL, train_images=3, val_images=2, test_images=1, nlvr_pairs=(3, 1, 0), vcr_images=(2, 1, 0))
    synthesize(tmp_path / "few", replace(few, questions_per_image=5))
    drawn = {path: corpus / path.relative_to(tmp_path / "few") for path in (tmp_path / "few").rglob("*.png")}
    shared = {path: other for path, other in drawn.items() if other.exists()}
    assert len(shared) >= 3 + 2 + 1 + 8 + 3
    assert all(path.read_bytes() == other.read_bytes() for path, other in shared.items())
    sentences = {a["id"]: a["caption"] for a in read(corpus / "annotations/captions_train2017.json")["annotations"]}
    for annotation in read(tmp_path / "few/annotations/captions_train2017.json")["annotations"]:
        assert sentences[annotation["id"]] == annotation["caption"]


def test_a_finished_corpus_is_not_drawn_again(corpus):
    before = (corpus / "corpus.json").stat().st_mtime_ns
    assert synthesize(corpus, SMALL) == SMALL_FINGERPRINT
    assert (corpus / "corpus.json").stat().st_mtime_ns == before


def test_an_interrupted_corpus_is_redone(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vlp_lib.corpora.synthetic.write._write_vcr", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            synthesize(tmp_path / "a", replace(TINY, train_images=4))
    assert not (tmp_path / "a/corpus.json").exists()
    assert synthesize(tmp_path / "a", TINY) == synthesize(tmp_path / "b", TINY) == fingerprint(tmp_path / "a")


# What a user may do wrong


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_size": 24}, {"image_size": 60}, {"seed": -1}, {"train_images": 0}, {"train_images": 2.5},
        {"nlvr_pairs": (1, 2)}, {"vcr_images": (1, 2, -1)}, {"questions_per_image": 0}, {"things": (3, 2)},
        {"things": (2, 9)}, {"large": (24, 60)}, {"small": 14}, {"sentences": (5, 0)}, {"named": 1.5},
        {"typical": "often"}, {"maps": True}, {"skew": -1}, {"detector_noise": 100},
    ],
)  # fmt: skip
def test_a_wrong_spec_is_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CorpusSpec(**wrong)


def test_a_folder_of_somebody_else_is_left_alone(corpus, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        synthesize(tmp_path, SMALL)
    with pytest.raises(UserError, match="is a file"):
        synthesize(tmp_path / "thesis.tex", SMALL)
    with pytest.raises(UserError, match="another seed"):
        synthesize(corpus, replace(SMALL, seed=1))
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        synthesize(tmp_path, SMALL)


# Files


@pytest.mark.parametrize("shape", [(40, 56), (33, 57, 3), (300, 90, 3)])
def test_pngs_are_decoded_by_others(shape):
    pixels = np.random.RandomState(0).randint(0, 256, size=shape, dtype=np.int64).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))), pixels)


def test_npz_is_read_by_numpy():
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "b": np.array(["x", "yes"]), "c": np.zeros(0)}
    with np.load(io.BytesIO(npz_bytes(arrays)), allow_pickle=False) as loaded:
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype
            assert np.array_equal(loaded[name], array)


def test_coco_files_open_with_pycocotools(corpus):
    coco_module = pytest.importorskip("pycocotools.coco")
    for part in ("train2017", "val2017"):
        for kind in ("captions", "instances", "stuff"):
            coco = coco_module.COCO(str(corpus / f"annotations/{kind}_{part}.json"))
            assert coco.getAnnIds(coco.getImgIds()[:1])
            if kind != "captions":
                annotation = next(iter(coco.anns.values()))
                assert abs(int(coco.annToMask(annotation).sum()) - annotation["area"]) <= 40


def test_karpathy_file_agrees_with_the_captions(corpus):
    images = read(corpus / "dataset_coco.json")["images"]
    assert Counter(image["split"] for image in images) == {"train": 24, "val": 4, "test": 3}
    assert len({image["cocoid"] for image in images}) == 31
    by_id = {}
    for part in ("train2017", "val2017"):
        by_id |= {a["id"]: a for a in read(corpus / f"annotations/captions_{part}.json")["annotations"]}
    for image in images:
        assert (corpus / "images" / image["filepath"] / image["filename"]).is_file()
        assert image["filepath"] == ("train2017" if image["split"] == "train" else "val2017")
        assert len(image["sentids"]) == len(image["sentences"]) == 5
        for sentid, sentence in zip(image["sentids"], image["sentences"], strict=True):
            assert by_id[sentid]["caption"] == sentence["raw"]
            assert by_id[sentid]["image_id"] == image["cocoid"]


def test_label_maps_agree_with_scenes_and_exist_where_promised(corpus):
    painter = Painter(32)
    for split, part, total in (("train", "train2017", 24), ("val", "val2017", 4), ("test", "val2017", 3)):
        for i in range(total):
            scene = sample_scene(Dice(*scene_key(SMALL, split, i)), SMALL)
            path = corpus / f"stuffthingmaps/{part}/{image_id(split, i):012d}.png"
            assert path.exists() == (scene.has_map or split != "train")
            if path.exists():
                assert np.array_equal(np.asarray(Image.open(path)), painter.label_map(scene))
    assert len(list((corpus / "stuffthingmaps").rglob("*.png"))) == read(corpus / "corpus.json")["counts"]["label_maps"]


def test_half_of_the_scenes_have_a_map_that_agrees_with_their_boxes(scenes):
    assert 0.42 < np.mean([scene.has_map for scene in scenes]) < 0.58
    painter, void = Painter(64), []
    for scene in scenes[:100]:
        labels = painter.label_map(scene)
        void.append(np.mean(labels == VOID))
        expected = {thing.shape for thing in scene.things} | {8 + scene.ground, 8 + scene.background, VOID}
        assert set(np.unique(labels)) == expected
        nearest = scene.things[-1]  # nothing covers it
        x, y, w, h = nearest.bbox
        rows, columns = np.nonzero(labels[y : y + h, x : x + w] == nearest.shape)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, h - 1, 0, w - 1)
    assert 0.015 < np.mean(void) < 0.035


def test_detections(corpus, scenes):
    with np.load(corpus / "detections_train2017.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["image_ids"].dtype == np.int64 and len(arrays["image_ids"]) == 24
    assert arrays["offsets"][-1] == len(arrays["labels"]) == len(arrays["boxes"]) == len(arrays["scores"])
    assert tuple(arrays["classes"]) == SHAPES + STUFFS and tuple(arrays["attribute_names"]) == COLOR_NAMES
    assert arrays["boxes"].min() >= 0 and arrays["boxes"].max() <= 32
    for start, end in itertools.pairwise(arrays["offsets"]):
        assert end - start <= 16 and np.all(np.diff(arrays["scores"][start:end]) <= 0)
    hits = total = 0
    for i, scene in enumerate(scenes):
        labels = {DETECTOR_CLASSES[found.label] for found in detect(scene, Dice(1, 1, i))}
        hits += sum(SHAPES[thing.shape] in labels for thing in scene.things)
        total += len(scene.things)
    assert 0.8 < hits / total < 0.95  # noisy, but a teacher


# The knobs of the world


def scenes_of(count=300, **settings):
    spec = CorpusSpec(image_size=48, **settings)
    return [sample_scene(Dice(12, 0, i), spec) for i in range(count)]


def test_size_and_number_of_things():
    for scene in scenes_of(things=(1, 2), large=(30, 32), small=(9, 10)):
        assert 1 <= len(scene.things) <= 2
        for thing in scene.things:
            low, high = (30, 32) if thing.large else (9, 10)
            assert low * 48 // 64 - 1 <= thing.size <= high * 48 // 64


def test_the_fullest_image_that_may_be_asked_for_is_drawn():
    scenes = scenes_of(200, things=(4, 4), large=(32, 32), small=(20, 20))
    assert all(len(scene.things) == 4 for scene in scenes)


@pytest.mark.parametrize(("typical", "low", "high"), [(0.0, 0.1, 0.4), (1.0, 1.0, 1.0)])
def test_colour_tells_as_much_of_a_class_as_asked(typical, low, high):
    near = []
    for scene in scenes_of(typical=typical):
        for stuff, rgb in ((scene.ground, scene.ground_rgb), (scene.background, scene.background_rgb)):
            near.append(all(abs(a - b) <= 24 for a, b in zip(rgb, PALETTES[STUFFS[stuff]][0], strict=True)))
    assert low <= np.mean(near) <= high


def test_skew_makes_the_first_classes_common():
    even, skewed = (
        np.bincount([t.shape for scene in scenes_of(600, skew=skew) for t in scene.things], minlength=8)
        for skew in (0, 1)
    )
    assert even.max() < 1.5 * even.min()
    # 1/1 of a sum of 2.72 to 1/8 of it, but for the repetitions.
    assert skewed[0] > 4 * skewed[-1]


def test_named_and_sentences(scenes):
    def share(named):
        texts = [c.text for i, scene in enumerate(scenes) for c in captions(scene, Dice(3, 6, i), 20, named)]
        assert len(texts) == 20 * len(scenes)
        return np.mean([any(stuff in text for stuff in STUFFS) for text in texts])

    assert share(0.0) < 0.25 < 0.55 < share(0.5) < 0.65 < share(1.0) == 1.0


def test_share_of_maps_by_image_and_by_pair(tmp_path):
    synthesize(tmp_path / "a", replace(TINY, train_images=60, maps=0.5, sentences=(5, 45)))
    made = read(tmp_path / "a/annotations/captions_train2017.json")["annotations"]
    assert len({a["id"] for a in made}) == len(made)
    mapped = {int(path.stem) for path in (tmp_path / "a/stuffthingmaps/train2017").glob("*.png")}
    assert 20 <= len(mapped) <= 40
    by_pair = np.mean([a["image_id"] in mapped for a in made])
    assert by_pair == 5 * len(mapped) / (5 * len(mapped) + 45 * (60 - len(mapped)))
    assert by_pair < 0.2


def test_a_quiet_detector_makes_no_mistake(scenes):
    for i, scene in enumerate(scenes[:50]):
        found = detect(scene, Dice(2, 3, i), 0.0)
        assert sorted(d.label for d in found if d.attribute >= 0) == sorted(t.shape for t in scene.things)
        assert len(found) == len(scene.things) + 2
    assert np.mean([len(detect(scene, Dice(2, 3, i), 3.0)) for i, scene in enumerate(scenes)]) > 5.5


def test_the_corpus_counts_the_mismatched_sentences_that_are_true(corpus):
    assert 0 <= read(corpus / "corpus.json")["counts"]["mismatched_but_true"] < 0.03


# The pictures


@pytest.mark.parametrize("size", [10, 12, 18])
def test_no_shape_is_lost_in_its_outline(size):
    """At the smallest size of things in the profile tiny at least a quarter of each shape shows its colour."""
    for shape in range(len(SHAPES)):
        shading, mask = _shading(shape, size), shape_mask(shape, size)
        assert (mask & (shading > 200)).sum() > 0.25 * mask.sum(), SHAPES[shape]


def test_things_hardly_cover_each_other(scenes):
    for scene in scenes:
        assert 2 <= len(scene.things) <= 4
        for a, b in itertools.combinations(scene.things, 2):
            width = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
            height = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
            assert max(width, 0) * max(height, 0) <= 0.15 * min(a.w * a.h, b.w * b.h)


def test_where_colour_tells_nothing_it_does_not_name_the_stuff():
    """Nearest class mean: of a patch's mean colour, and of how its brightness changes across and down."""
    painter, spec = Painter(64), replace(WORLD, typical=0.0)
    colors, textures, targets = [], [], []
    for i in range(400):
        scene = sample_scene(Dice(11, 0, i), spec)
        image, labels = painter.image(scene, Dice(2, 2, i)).astype(np.float64), painter.label_map(scene)
        for y in range(0, 64, 8):
            for x in range(0, 64, 8):
                values = np.unique(labels[y : y + 8, x : x + 8])
                if len(values) == 1 and 8 <= values[0] < VOID:
                    patch = image[y : y + 8, x : x + 8]
                    gray = patch.mean(-1) / patch.mean()
                    across, down = abs(np.diff(gray, axis=1)).mean(), abs(np.diff(gray, axis=0)).mean()
                    slow = abs(gray[:4] - gray[4:]).mean(), abs(gray[:, :4] - gray[:, 4:]).mean()
                    colors.append(patch.mean((0, 1)))
                    textures.append((across, down, gray.std(), gray.max() - 1, 1 - gray.min(), *slow))
                    targets.append(values[0])
    target, half = np.array(targets), len(targets) // 2

    def accuracy(features: list) -> float:
        points = np.array(features)
        points = (points - points.mean(0)) / points.std(0)
        means = np.array([points[:half][target[:half] == c].mean(0) for c in range(8, 18)])
        guess = 8 + np.argmin(((points[half:, None] - means) ** 2).sum(-1), axis=1)
        return float(np.mean(guess == target[half:]))

    assert accuracy(colors) < 0.35
    assert accuracy(textures) > accuracy(colors) + 0.25


# The words: a reader of its own, that knows boxes and horizon but none of the code that wrote the sentences

NUMBER = {"one": 1, "two": 2, "three": 3, "four": 4}
NOUN = {**{s: s for s in SHAPES}, **{s + "s": s for s in SHAPES}, "boxes": "box", "crosses": "cross"}
PHRASE = rf"an? (?:(small|large) )?({'|'.join(COLOR_NAMES)}) ({'|'.join(SHAPES)})"
BESIDE = {
    "left of": lambda a, b: a.x + a.w / 2 < b.x + b.w / 2 - 4,
    "right of": lambda a, b: a.x + a.w / 2 > b.x + b.w / 2 + 4,
    "above": lambda a, b: a.y + a.h / 2 < b.y + b.h / 2 - 4,
    "below": lambda a, b: a.y + a.h / 2 > b.y + b.h / 2 + 4,
}
BESIDE |= {"higher than": BESIDE["above"], "lower than": BESIDE["below"]}


def things_of(scene: Scene, phrase: str) -> list[Thing]:
    size, color, shape = re.fullmatch(PHRASE, phrase).groups()
    return [
        thing
        for thing in scene.things
        if SHAPES[thing.shape] == shape
        and COLOR_NAMES[thing.color] == color
        and size in (None, "large" if thing.large else "small")
    ]


def is_true(caption: str, scene: Scene) -> bool:
    text = caption.removeprefix("there is ").removeprefix("there are ").removeprefix("a picture of ")
    phrases = [match.group() for match in re.finditer(PHRASE, text)]
    named = [things_of(scene, phrase) for phrase in phrases]
    # Different phrases are different things, but for "one of them is …" and the colours counted beside it.
    if not any(len(set(map(id, pick))) == len(pick) for pick in itertools.product(*named)):
        return False
    for word in re.findall("|".join(STUFFS), text):
        if word not in (STUFFS[scene.ground], STUFFS[scene.background]):
            return False
    for word, noun in re.findall(rf"\b({'|'.join(NUMBER)}) (\w+)", text):
        if noun in NOUN and NUMBER[word] != sum(SHAPES[t.shape] == NOUN[noun] for t in scene.things):
            return False
        if noun == "things" and NUMBER[word] != len(scene.things):
            return False
    for word, total, what in re.findall(r"(\w+) of the (\w+) things (?:is|are) (?:an? )?(\w+)", text):
        count = sum(what == COLOR_NAMES[t.color] or NOUN.get(what) == SHAPES[t.shape] for t in scene.things)
        if NUMBER[word] != count or NUMBER[total] != len(scene.things):
            return False
    beside = re.search(rf"({PHRASE}) (?:is )?(?:to the )?({'|'.join(BESIDE)}) ({PHRASE}|it)", text)
    if beside:
        subject, relation, other = beside.group(1), beside.group(5), beside.group(6)
        other = re.match(PHRASE, text).group() if other == "it" else other
        pairs = itertools.product(things_of(scene, subject), things_of(scene, other))
        if not any(BESIDE[relation](a, b) for a, b in pairs):
            return False
    for phrase, *_, side in re.findall(rf"({PHRASE}) on the (left|right)", text):
        centers = [t.x + t.w / 2 for t in things_of(scene, phrase)]
        if not any(c < 27 if side == "left" else c > 37 for c in centers):
            return False
    for side in re.findall("nothing on the (left|right)", text):
        if not all(t.x + t.w / 2 < 27 if side == "right" else t.x + t.w / 2 > 37 for t in scene.things):
            return False
    for phrase, *_ in re.findall(rf"({PHRASE}) on the (?:{'|'.join(GROUNDS)})", text):
        if not any(t.y + t.h > scene.horizon[t.x + t.w // 2] for t in things_of(scene, phrase)):
            return False
    for phrase, *_ in re.findall(rf"and ({PHRASE}) in front of", text):
        if not any(t.y + t.h < scene.horizon[t.x + t.w // 2] for t in things_of(scene, phrase)):
            return False
    return True


def test_captions_are_true_and_specific(scenes):
    strangers, flips = [], []
    for i, scene in enumerate(scenes):
        sentences = captions(scene, Dice(3, 3, i))
        assert len(sentences) == 5
        for caption in sentences:
            text = caption.text
            assert text == text.lower()
            assert is_true(text, scene), (text, scene)
            strangers.append(is_true(text, scenes[i - 1]))
            if " left" in text or " right" in text:
                mirrored = text.replace("left", "*").replace("right", "left").replace("*", "right")
                flips.append(is_true(mirrored, scene))
    assert np.mean(strangers) < 0.03
    assert len(flips) > len(scenes) and np.mean(flips) < 0.1


def test_a_caption_knows_of_which_images_it_is_true(scenes):
    """Against the reader above, on images that share much; "clear to the eye" is stricter than it."""
    both = []
    for i, scene in enumerate(scenes):
        alike = sample_scene(Dice(3, 4, i), replace(WORLD, things=(1, 2)), like=scene)
        for caption in captions(alike, Dice(3, 5, i), 10):
            assert caption.holds(alike)
            assert not caption.holds(scene) or is_true(caption.text, scene), (caption.text, scene)
            both.append((caption.holds(scene), is_true(caption.text, scene)))
    held, true = np.array(both).T
    assert held.sum() > 30 and held.sum() > 0.5 * true.sum()


def test_the_vocabulary_is_small(scenes):
    words = set()
    for i, scene in enumerate(scenes):
        dice = Dice(4, 4, i)
        said = [*captions(scene, dice), *questions(scene, dice, 3)]
        said += sample_set(dice, WORLD)[1] if i < 50 else []
        words |= {word for sentence in said for word in re.findall(r"\w+", sentence.text)}
    assert 70 < len(words) < 120


# Questions


def test_vqa_files(corpus):
    for subtype, total in (("train2014", 24), ("val2014", 4), ("test2015", 3)):
        asked = read(corpus / f"vqav2/v2_OpenEnded_mscoco_{subtype}_questions.json")["questions"]
        answered = read(corpus / f"vqav2/v2_mscoco_{subtype}_annotations.json")["annotations"]
        assert len(asked) == 3 * total
        assert [q["question_id"] for q in asked] == [a["question_id"] for a in answered]
        for annotation in answered:
            assert annotation["question_id"] // 1000 == annotation["image_id"]
            assert [answer["answer_id"] for answer in annotation["answers"]] == list(range(1, 11))
            votes = Counter(answer["answer"] for answer in annotation["answers"])
            assert votes.most_common(1)[0][0] == annotation["multiple_choice_answer"]


def test_answers_are_true_and_balanced(scenes):
    answers: dict[str, Counter] = {}
    for i, scene in enumerate(scenes):
        for question in questions(scene, Dice(5, 5, i), 4):
            answers.setdefault(question.kind, Counter())[question.answer] += 1
            text = question.text
            if match := re.match(r"how many (?:(small|large) )?(\w+ )?(\w+) (?:are there|are in the picture)\?", text):
                size, color, noun = match.groups()
                count = sum(
                    size in (None, "large" if t.large else "small")
                    and (color is None or color.strip() == COLOR_NAMES[t.color])
                    and (noun == "things" or NOUN[noun] == SHAPES[t.shape])
                    for t in scene.things
                )
                assert question.answer == str(count), text
                assert len(question.bboxes) == count
            elif match := re.match(r"what color is the (?:(small|large) )?(\w+)\?", text):
                size, noun = match.groups()
                found = {
                    COLOR_NAMES[t.color]
                    for t in scene.things
                    if noun in ("thing", SHAPES[t.shape]) and size in (None, "large" if t.large else "small")
                }
                assert found == {question.answer}, text
            elif match := re.match(rf"is there ({PHRASE})\?", text):
                assert question.answer == ("yes" if things_of(scene, match.group(1)) else "no")
    assert set(answers) == {"stuff", "small", "count", "color", "shape", "yesno"}
    assert 0.44 < answers["yesno"]["yes"] / answers["yesno"].total() < 0.56
    assert set(answers["count"]) == {"0", "1", "2", "3", "4"}
    assert max(answers["count"].values()) / answers["count"].total() < 0.45
    assert set(answers["stuff"]) == set(STUFFS) and set(answers["color"]) == set(COLOR_NAMES)


def test_nlvr2_files_and_balance(corpus):
    for split, pairs in (("train", 5), ("dev", 2), ("test1", 2)):
        lines = [json.loads(line) for line in (corpus / f"nlvr2/data/{split}.json").read_text().splitlines()]
        assert len(lines) == 2 * pairs
        for line in lines:
            assert line["label"] in ("True", "False")
            found, group, pair, _ = line["identifier"].split("-")
            folder = corpus / "nlvr2/images" / split
            folder = folder / str(line["directory"]) if split == "train" else folder
            assert found == split
            assert all((folder / f"{split}-{group}-{pair}-img{side}.png").is_file() for side in (0, 1))
    groups = [sample_set(Dice(6, 3, i), WORLD) for i in range(100)]
    labels = np.array([[s.holds(*pair) for pair in pairs] for pairs, sentences in groups for s in sentences])
    assert 0.48 < labels.mean() < 0.52
    # A sentence is true of one pair and false of the other: words alone tell nothing.
    assert (labels[:, 0] != labels[:, 1]).mean() > 0.98


def test_vcr_files(corpus):
    for split, total in (("train", 4), ("val", 2), ("test", 2)):
        lines = [json.loads(line) for line in (corpus / f"vcr/{split}.jsonl").read_text().splitlines()]
        assert len(lines) == total
        for line in lines:
            metadata = read(corpus / "vcr/vcr1images" / line["metadata_fn"])
            assert (corpus / "vcr/vcr1images" / line["img_fn"]).is_file()
            assert metadata["names"] == line["objects"]
            assert all(len(box) == 5 for box in metadata["boxes"])
            assert len(line["answer_choices"]) == len(line["rationale_choices"]) == 4


def test_vcr_has_one_right_choice():
    labels: Counter = Counter()
    for i in range(300):
        scene = sample_scene(Dice(8, 6, i), WORLD, fewest=3)
        choice = sample_choice(scene, Dice(8, 7, i))
        labels.update([("answer", choice.answer_label), ("rationale", choice.rationale_label)])
        for options in (choice.answers, choice.rationales):
            assert len({str(option) for option in options}) == 4
        if choice.question[:3] == ["what", "color", "is"]:
            color = COLOR_NAMES[scene.things[choice.question[3][0]].color]
            assert [answer[2] == color for answer in choice.answers].index(True) == choice.answer_label
        for options, label in ((choice.answers, choice.answer_label), (choice.rationales, choice.rationale_label)):
            for k, tokens in enumerate(options):
                text = " ".join(token if isinstance(token, str) else "#" for token in tokens)
                if match := re.match(r"# is a (\w+) (\w+) (\w+) in a picture of (\w+) \.", text):
                    thing = scene.things[tokens[0][0]]
                    truth = ("large" if thing.large else "small", COLOR_NAMES[thing.color], SHAPES[thing.shape])
                    assert (match.groups() == (*truth, STUFFS[scene.ground])) == (k == label)
                elif match := re.match(r"# is (?:to the )?(left of|right of|above|below) # \.", text):
                    a, b = scene.things[tokens[0][0]], scene.things[tokens[-2][0]]
                    assert BESIDE[match.group(1)](a, b) == (k == label)
    assert all(0.18 * 300 < count < 0.32 * 300 for count in labels.values())

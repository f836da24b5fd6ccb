"""What is fuzzed: for each kind of file a sound folder, which of its files is made hostile, and what reads it."""

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vlp_lib import catalogue
from vlp_lib.arrays import read_npz
from vlp_lib.batches.tokenizer import load_tokenizer, train_tokenizer
from vlp_lib.config import to_dict
from vlp_lib.corpora.coco import (
    SegmentationClasses,
    StuffAnnotations,
    read_captions,
    read_categories,
    read_karpathy,
    read_pixel_map,
)
from vlp_lib.corpora.detections import open_detections
from vlp_lib.corpora.images import image_size, read_image
from vlp_lib.corpora.layout import description
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.refer import read_held_out
from vlp_lib.corpora.shards import open_pairs
from vlp_lib.errors import UnreadableImageError
from vlp_lib.hub.model import from_pretrained
from vlp_lib.hub.packed import unpack
from vlp_lib.io import read_json, read_lines
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.models.weights import load_matching, read_state_dict
from vlp_lib.profiles import profile
from vlp_lib.settings import override, parse_parameter
from vlp_lib.study_file import read_study
from vlp_lib.tasks.by_file import score_nlvr2, score_retrieval, score_vqa
from vlp_lib.tasks.vcr import read_questions
from vlp_lib.tasks.vqa_accuracy import read_answer_list
from vlp_lib.trainers.checkpoint import save_weights
from vlp_lib.variants import parse_variant

CLASSES = SegmentationClasses.official()


@dataclass(frozen=True)
class Target:
    """Attributes:
    file: what is made hostile, below the folder.
    build: writes the sound folder.
    read: reads it; may raise nothing but UserError.
    """

    file: str
    build: Callable[[Path], None]
    read: Callable[[Path], object]


def save(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def picture(suffix: str = "jpeg", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    (image if mode in ("RGB", "I;16") else image.convert(mode)).save(file, suffix)
    return file.getvalue()


ADDRESS = "http://farm1.flickr.com/1/70_a_z.jpg"
IMAGES = [{"id": 7, "file_name": "7.jpg", "width": 12, "height": 8, "flickr_url": ADDRESS}]
CAPTIONS = {"images": IMAGES, "annotations": [{"image_id": 7, "id": 70 + k, "caption": f"a dog {k}"} for k in range(5)]}
SAID = [{"raw": "a dog", "sentid": 1}]
ENTRY = {"cocoid": 7, "split": "train", "filename": "7.jpg", "filepath": "train2017", "sentences": SAID}
KARPATHY = {"images": [ENTRY]}
CATEGORIES = [{"id": i, "name": f"class {i}"} for i in (1, 96, 124)]
STUFF = {
    "categories": CATEGORIES,
    "images": IMAGES,
    "annotations": [
        {"image_id": 7, "category_id": 96, "segmentation": [[0, 0, 6, 0, 6, 4], [1, 1, 3, 1, 3, 3, 1, 3]]},
        {"image_id": 7, "category_id": 124, "segmentation": {"size": [8, 12], "counts": [10, 6, 80]}},
        {"image_id": 7, "category_id": 1, "segmentation": {"size": [8, 12], "counts": "j035000000000f0"}},
    ],
}
ASKED = {"questions": [{"question_id": 1, "image_id": 7, "question": "What is it?"}]}
ANSWERED = {
    "annotations": [
        {"question_id": 1, "image_id": 7, "answers": [{"answer": "dog", "answer_id": k} for k in range(10)],
         "multiple_choice_answer": "dog", "question_type": "what", "answer_type": "other"}
    ]
}  # fmt: skip
VCR = {
    "annot_id": "a", "img_fn": "a/b.jpg", "objects": ["person"], "question": ["is", [0]], "answer_label": 1,
    "answer_choices": [["yes"]] * 4, "rationale_choices": [["so"]] * 4, "rationale_label": 2,
}  # fmt: skip
ARRAYS = {
    "image_ids": np.array([7, 9]), "sizes": np.array([[12, 8], [30, 30]], np.int32), "offsets": np.array([0, 2, 3]),
    "labels": np.array([0, 1, 2], np.int16), "scores": np.array([0.5, 0.75, 1.0], np.float32),
    "boxes": np.array([[0, 0, 12, 8], [5, 5, 8, 8], [3, 6, 15, 30]], np.float32),
    "attributes": np.array([-1, 0, 1], np.int16), "classes": np.array(["a", "b", "c"]),
    "attribute_names": np.array(["x", "y"]), "features": np.ones((3, 4), np.float32), "about": np.array("{}"),
}  # fmt: skip


def raw_file(name: str, content: bytes) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return build


def single(name: str, content: Any, read: Callable[[Path], object]) -> Target:
    """A file that is read by itself; what is not bytes is written as JSON."""
    made = content if isinstance(content, bytes) else json.dumps(content).encode()
    return Target(name, raw_file(name, made), lambda root: read(root / name))


def corpus(root: Path) -> None:
    save(root / "annotations/captions_train2017.json", CAPTIONS)
    save(root / "annotations/stuff_train2017.json", STUFF)
    save(root / "dataset_coco.json", KARPATHY)
    raw_file("images/train2017/7.jpg", picture())(root)
    np.savez(root / "detections_a.npz", **ARRAYS)


def read_corpus(root: Path) -> None:
    opened = open_corpus(root)
    str(opened.report), opened.fingerprint
    for record in opened.records:
        with suppress(UnreadableImageError):
            opened.read_image(record)
        opened.read_label_map(record)
        opened.read_detections(record, 5, 0.0)


def labelled(root: Path) -> None:
    corpus(root)
    (root / "detections_a.npz").unlink()
    boxes = [{"image_id": 7, "category_id": i, "bbox": [1, 2, 3.5, 4], "iscrowd": 0} for i in (1, 96)]
    save(root / "annotations/instances_train2017.json", {**STUFF, "annotations": boxes})
    parts = [{"id": 1, "category_id": 96}, {"id": 258, "category_id": 124}]
    panoptic = [{"image_id": 7, "file_name": "7.png", "segments_info": parts}]
    save(root / "annotations/panoptic_train2017.json", {"categories": CATEGORIES, "annotations": panoptic})
    segments = np.zeros((8, 12, 3), np.uint8)
    segments[2:5], segments[5:] = (1, 0, 0), (2, 1, 0)
    (root / "annotations/panoptic_train2017").mkdir()
    Image.fromarray(segments).save(root / "annotations/panoptic_train2017/7.png")


def divided(root: Path) -> None:
    corpus(root)
    save(root / "dataset_coco.json", {"images": [{**ENTRY, "split": "val"}]})
    save(root / "splits/by_image.json", {"seed": 0, "train": [7], "val": [], "test": []})


def read_masks(path: Path) -> None:
    stuff = StuffAnnotations((path,))
    for image_id in list(stuff._masks):
        stuff.label_map(image_id, CLASSES)


def genome(root: Path) -> None:
    save(root / "image_data.json", [{"image_id": 7, "width": 12, "height": 8, "coco_id": 1, "flickr_id": None}])
    regions = [{"region_id": 1, "phrase": "a dog"}, {"region_id": 2, "phrase": "its tail"}]
    save(root / "region_descriptions.json", [{"id": 7, "regions": regions}])
    raw_file("VG_100K/7.jpg", picture())(root)


def flickr(root: Path) -> None:
    raw_file("flickr30k/results_20130124.token", b"7.jpg#0\ta dog .\n7.jpg#1\tone dog .\n9.jpg#0\ta cat .\n")(root)
    for part, number in (("train", 7), ("val", 9), ("test", 11)):
        raw_file(f"flickr30k/{part}.txt", b"%d\n" % number)(root)
    for number in (7, 9):
        raw_file(f"flickr30k/flickr30k-images/{number}.jpg", picture())(root)


def read_detections(path: Path) -> None:
    store = open_detections([path])
    assert store is not None
    for image_id in store.sources[0].image_ids:
        store.size(image_id)
        store.get(image_id, 5, 0.1)


def tsv(root: Path) -> None:
    from base64 import b64encode as pack

    values = (np.array([1], "<i8"), np.array([0.5], "<f4"), np.array([1], "<i8"), np.array([0.5], "<f4"))
    boxes, features = np.array([0, 0, 5, 5], "<f4"), np.ones(4, "<f4")
    row = [b"COCO_val2014_000000000007", b"8", b"12", *(pack(v.tobytes()) for v in values), b"1"]
    (root / "d.tsv").write_bytes(b"\t".join([*row, pack(boxes.tobytes()), pack(features.tobytes())]) + b"\n")


def shard(root: Path) -> None:
    with tarfile.open(root / "0.tar", "w") as tar:
        for n in (1, 2):
            facts = json.dumps({"caption": f"pair {n}", "width": 12, "height": 8, "url": "u"}).encode()
            for name, content in ((f"{n}.jpg", picture()), (f"{n}.json", facts), (f"{n}.txt", b"pair")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def read_pairs(root: Path) -> None:
    opened = open_pairs(root)
    for record in opened.records:
        with suppress(UnreadableImageError):
            opened.read_image(record)


def retrieval(root: Path) -> None:
    save(root / "captions.json", CAPTIONS)
    np.save(root / "scores.npy", np.random.default_rng(0).random((1, 5)))


LAYER = torch.nn.Linear(3, 2)


def weights(root: Path) -> None:
    save_file(LAYER.state_dict(), root / "w.safetensors")
    torch.save(LAYER.state_dict(), root / "w.pt")


def tokenizer(root: Path) -> None:
    train_tokenizer(["a dog", "a dog and a cat"], 16).save(root / "tokenizer.json")
    raw_file("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n")(root)


def hub(root: Path) -> None:
    tokenizer(root)
    sizes = {"words": 20, "segmentation": 4, "detector": 3, "attributes": 2}
    settings = {"image_size": 32, "hidden": 32, "heads": 2, "language_layers": 1, "cross_layers": 1}
    settings |= {"vit.width": 32, "vit.layers": 1, "vit.heads": 2, "vit.patch": 16}
    model = override(profile("smoke").model, settings)
    network = PretrainingModel(VLPModel(model, parse_variant("segl"), Vocabularies(**sizes), pretrained=False))
    save_weights(root / "model.safetensors", network, {})
    about = {"stage": "pretrain", "profile": "smoke", "variant": "segl", "settings": []}
    save(root / "config.json", about | {"model": to_dict(model), "vocabularies": sizes})
    save(root / "run.json", {"seed": 0})
    raw_file("metrics.jsonl", b'{"step": 1, "loss": 0.5}\n')(root)


def packed(root: Path) -> None:
    hub(root)
    state = load_file(root / "model.safetensors")
    name = next(name for name, value in state.items() if value.ndim == 2)
    tensors = state | {name: state[name].to(torch.int8), f"{name}/scale": torch.ones(len(state[name]))}
    texts = {one: (root / one).read_text() for one in ("config.json", "run.json", "tokenizer.json", "metrics.jsonl")}
    save_file(tensors, root / "packed.safetensors", metadata=texts)


SETTINGS = b"training.steps=3\ndata.resize=[0.8,1.2]\nmodel.vit.layers=2\ndata.flip=0.5"
STUDY = b'[[run]]\nvariant = "segl"\nname = "a"\nsettings = "training.steps=3"\nseeds = [0, 1]\n'
PLUGIN = b"""from vlp_lib.losses import VisualLoss, visual_loss

@visual_loss("mine")
class Mine(VisualLoss):
    def __init__(self, context, *, weight: float = 1.0):
        super().__init__()
"""


def read_settings(path: Path) -> None:
    for line in path.read_bytes().decode(errors="replace").split("\n"):
        name, value = parse_parameter(line)
        override(profile("smoke"), {name: value})


def read_picture(path: Path) -> None:
    image_size(path), read_image(path)


def answered(root: Path) -> None:
    for name, content in (("q", ASKED), ("a", ANSWERED), ("r", [{"question_id": 1, "answer": "dog"}])):
        save(root / f"{name}.json", content)


def stated(root: Path) -> None:
    save(root / "dev.json", {"identifier": "dev-1-0-0", "sentence": "two dogs", "label": "True"})
    raw_file("p.csv", b"dev-1-0-0,True\n")(root)


REFS = [{"split": "val", "image_id": 7, "sentences": [{"raw": "a dog"}]}]
KINDS = ["jpeg RGB", "jpeg CMYK", "png RGB", "png RGBA", "png P", "png I;16", "webp RGBA", "bmp RGB", "gif P"]
TARGETS: dict[str, Target] = {
    "captions": single("c.json", CAPTIONS, read_captions),
    "captions packed": single("c.json.gz", gzip.compress(json.dumps(CAPTIONS).encode(), mtime=0), read_captions),
    "karpathy": single("k.json", KARPATHY, read_karpathy),
    "categories": single("s.json", STUFF, read_categories),
    "masks": single("stuff.json", STUFF, read_masks),
    "corpus": Target("annotations/captions_train2017.json", corpus, read_corpus),
    "corpus splits": Target("dataset_coco.json", corpus, read_corpus),
    "corpus masks": Target("annotations/stuff_train2017.json", corpus, read_corpus),
    "corpus labels": Target("detections_a.npz", corpus, read_corpus),
    "corpus image": Target("images/train2017/7.jpg", corpus, read_corpus),
    "instances": Target("annotations/instances_train2017.json", labelled, read_corpus),
    "panoptic": Target("annotations/panoptic_train2017.json", labelled, read_corpus),
    "panoptic map": Target("annotations/panoptic_train2017/7.png", labelled, read_corpus),
    "division": Target("splits/by_image.json", divided, read_corpus),
    "genome images": Target("image_data.json", genome, read_corpus),
    "genome regions": Target("region_descriptions.json", genome, read_corpus),
    "flickr tokens": Target("flickr30k/results_20130124.token", flickr, read_corpus),
    "flickr list": Target("flickr30k/train.txt", flickr, read_corpus),
    "corpus.json": single(
        "corpus.json", {"synthetic": True, "fingerprint": "0"}, lambda path: description(path.parent)
    ),
    "detections": Target("d.npz", lambda r: np.savez(r / "d.npz", **ARRAYS), lambda r: read_detections(r / "d.npz")),
    "detections tsv": Target("d.tsv", tsv, lambda r: read_detections(r / "d.tsv")),
    "refs": single("refs.p", pickle.dumps(REFS, 2), lambda path: read_held_out([path])),
    "refs text": single("refs.p", pickle.dumps(REFS, 0), lambda path: read_held_out([path])),
    **{f"image {kind}": single(f"a.{kind.split()[0]}", picture(*kind.split()), read_picture) for kind in KINDS},
    "label map": single("a.png", picture("png", "L"), lambda path: read_pixel_map(path, CLASSES)),
    "shard": Target("0.tar", shard, read_pairs),
    "shard list": Target("shards.txt", lambda r: (shard(r), raw_file("shards.txt", b"0.tar\n")(r))[1], read_pairs),
    "questions": Target("q.json", answered, lambda r: score_vqa(r / "q.json", r / "a.json", r / "r.json")),
    "answers": Target("a.json", answered, lambda r: score_vqa(r / "q.json", r / "a.json", r / "r.json")),
    "results": Target("r.json", answered, lambda r: score_vqa(r / "q.json", r / "a.json", r / "r.json")),
    "answer list": single("l.json", {"a": 0, "b": 1}, read_answer_list),
    "statements": Target("dev.json", stated, lambda r: score_nlvr2(r / "dev.json", r / "p.csv")),
    "predictions": Target("p.csv", stated, lambda r: score_nlvr2(r / "dev.json", r / "p.csv")),
    "vcr": single("val.jsonl", VCR, read_questions),
    "scores": Target("scores.npy", retrieval, lambda r: score_retrieval(r / "scores.npy", r / "captions.json")),
    "items": Target(
        "i.npz", lambda r: np.savez_compressed(r / "i.npz", a=np.arange(9)), lambda r: read_npz(r / "i.npz")
    ),
    "metrics": single("m.jsonl", b'{"step": 1}\n{}\n', read_lines),
    "json": single("x.json", STUFF, read_json),
    "weights": Target(
        "w.safetensors", weights, lambda r: load_matching(LAYER, read_state_dict(r / "w.safetensors"), "w")
    ),
    "weights of torch": Target("w.pt", weights, lambda r: load_matching(LAYER, read_state_dict(r / "w.pt"), "w")),
    "tokenizer": Target("tokenizer.json", tokenizer, lambda r: load_tokenizer(str(r / "tokenizer.json"), 16)),
    "vocabulary": Target("vocab.txt", tokenizer, lambda r: load_tokenizer(str(r / "vocab.txt"), 16)),
    "hub": Target("config.json", hub, from_pretrained),
    "hub weights": Target("model.safetensors", hub, from_pretrained),
    "packed": Target("packed.safetensors", packed, lambda r: unpack(r / "packed.safetensors")),
    "hub record": Target("run.json", hub, from_pretrained),
    "study": single("s.toml", STUDY, lambda path: read_study(path, "smoke", "", [0])),
    "plug-in": single("p.py", PLUGIN, catalogue.add_plugin),
    "settings": single("settings", SETTINGS, read_settings),
}

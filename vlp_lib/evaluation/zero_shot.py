"""Zero-shot retrieval (section IV-B4): every image with every sentence, scored by the pretrained matching head.

The exhaustive score matrix, with no shortcut that could change a rank: the two unimodal encoders run once an image and
once a sentence, and only the cross-modality layers run for each pair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib import records as files
from vlp_lib.config import Profile, Variant, to_dict, unknown
from vlp_lib.data.corpus import Corpus
from vlp_lib.data.joined import JoinedCorpus
from vlp_lib.data.sample import ImageRecord
from vlp_lib.data.table import ID_STRIDE
from vlp_lib.data.tokenizer import Tokenizer
from vlp_lib.errors import UserError
from vlp_lib.evaluation.inputs import device_at_hand, pad_texts, regions_of, restore_pretrained, whole_pictures
from vlp_lib.evaluation.retrieval import CAPTIONS_PER_IMAGE, Recalls, fold_recalls, mean_recalls, recalls
from vlp_lib.losses.itm import itm_score
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.models.vlp import PretrainingModel, VLPModel
from vlp_lib.trainers.loop import METRICS, WEIGHTS, begin, resolve_precision

SCORES = "scores.npy"
_KEEP_SCORES_BELOW = 1_000_000
"""Bytes of a score matrix that is kept with its run; COCO 5k's would have 500 MB."""

_IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class Gallery:
    """What is retrieved from what.

    Attributes:
        records: the images, by ascending id; the rows of a score matrix.
        captions: the first five sentences of each image, image after image; the columns.
        image_index: [captions] int64, the row of each caption's image.
    """

    records: tuple[ImageRecord, ...]
    captions: tuple[str, ...]
    image_index: np.ndarray


def gallery_of(corpus: Corpus, images: int, data_set: str = "") -> Gallery:
    """The first `images` images of the test split with five sentences each.

    Args:
        data_set: of a corpus of several data sets the one to search in, e.g. "flickr30k"; "" is the first that has test
            images.

    Raises UserError for an unknown data set, and where the split is empty or an image has fewer than five captions.
    """
    tested, where = corpus.split("test"), str(corpus.root)
    if data_set:
        members = (
            {member.source: member.number for member in corpus.members} if isinstance(corpus, JoinedCorpus) else {}
        )
        if data_set not in members:
            known = members or [f"none: {where} is one data set, leave retrieval.data_set empty"]
            raise unknown("retrieval.data_set", data_set, known)
        number, where = members[data_set], f"{where}'s {data_set}"
    else:
        number = tested[0].image_id // ID_STRIDE if len(tested) else 0
    chosen = [record for record in tested if record.image_id // ID_STRIDE == number][:images]
    if not chosen:
        raise UserError(f"{where} has no test images: add Karpathy's split file, or use another data set")
    few = [record.image_id for record in chosen if len(record.captions) < CAPTIONS_PER_IMAGE]
    if few:
        raise UserError(
            f"{len(few)} test images of {where} have fewer than {CAPTIONS_PER_IMAGE} captions (the first: {few[0]}): "
            f"retrieval's benchmarks use five each, so take these images out of the test split"
        )
    captions = tuple(caption for record in chosen for caption in record.captions[:CAPTIONS_PER_IMAGE])
    return Gallery(tuple(chosen), captions, np.repeat(np.arange(len(chosen)), CAPTIONS_PER_IMAGE))


def encode_images(
    model: VLPModel, corpus: Corpus, records: Sequence[ImageRecord], image_size: int, regions: int, threshold: float
) -> list[VisionFeatures]:
    """What the cross-modality encoder reads of each image (one entry an image, batch of one), float32."""
    device = next(model.parameters()).device
    encoded: list[VisionFeatures] = []
    for start in range(0, len(records), _IMAGES_AT_ONCE):
        part = records[start : start + _IMAGES_AT_ONCE]
        pictures = whole_pictures(corpus, part, image_size, regions, threshold)
        _, tokens = model.encode_vision(pictures.to(device))
        for i in range(len(part)):
            mask = None if tokens.mask is None else tokens.mask[i : i + 1]
            encoded.append(VisionFeatures(tokens.tokens[i : i + 1].float(), tokens.grid, mask))
    return encoded


def length_blocks(lengths: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """Indices of sentences in blocks of at most `size`, the shortest first, so that little of a block is padding."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.inference_mode()
def score_matrix(
    model: PretrainingModel,
    corpus: Corpus,
    gallery: Gallery,
    tokenizer: Tokenizer,
    image_size: int,
    block: int = 128,
    regions: int = 0,
    threshold: float = 0.0,
    bf16: bool = False,
) -> np.ndarray:
    """The log-odds of a match of every image with every sentence; [images, captions] float32, on the model's device.

    Equal to one forward pass a pair. Sentences are cut at the tokenizer's length.

    Args:
        model: in evaluation mode.
        image_size: pixels a side that images are resized to.
        block: pairs that the cross-modality layers see at once, one image with sentences of about equal length.
        regions, threshold: of the region-feature model, see `whole_pictures`.
        bf16: run the cross-modality layers in bf16 autocast; the pooler and the matching head stay in float32, because
            rounded scores would tie.
    """
    device = next(model.parameters()).device
    images = encode_images(model.vlp, corpus, gallery.records, image_size, regions, threshold)
    ids = [tokenizer.encode(caption)[0] for caption in gallery.captions]
    scores = np.empty((len(images), len(ids)), dtype=np.float32)
    for columns in length_blocks([len(row) for row in ids], block):
        sentences, mask = (part.to(device) for part in pad_texts([ids[column] for column in columns]))
        language = model.vlp.language(sentences, mask).float()
        rows = torch.empty(len(images), len(columns), device=device)
        for row, vision in enumerate(images):
            shown = VisionFeatures(
                vision.tokens.expand(len(columns), -1, -1),
                vision.grid,
                None if vision.mask is None else vision.mask.expand(len(columns), -1),
            )
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                _, words, _, _ = model.vlp.join(language, mask, shown)
            rows[row] = itm_score(model.itm_head(model.vlp.pooler(words.float())))
        scores[:, columns] = rows.cpu().numpy()
    return scores


def all_recalls(scores: np.ndarray, image_index: np.ndarray, fold: int) -> dict[str, Recalls]:
    """Recalls of the whole gallery ("all"), of each fold ("fold 0" …) and their mean ("folds").

    COCO 5k is "all" of 5,000 images, COCO 1k is "folds" of 1,000; folds are consecutive images by ascending id. Images
    beyond the last whole fold are in "all" only; a gallery smaller than two folds has no folds.
    """
    found = {"all": recalls(scores, image_index)}
    whole = len(scores) // fold * fold
    if whole >= 2 * fold:
        inside = image_index < whole
        folds = fold_recalls(scores[:whole, inside], image_index[inside], fold)
        found |= {"folds": mean_recalls(folds)} | {f"fold {i}": one for i, one in enumerate(folds)}
    return found


def _row(name: str, found: Recalls) -> dict[str, Any]:
    text = {f"text_r{k}": value for k, value in found.text_retrieval.items()}
    image = {f"image_r{k}": value for k, value in found.image_retrieval.items()}
    return {"gallery": name, "images": found.images, "captions": found.captions, **text, **image}


@dataclass(frozen=True)
class Retrieved:
    """What a retrieval gives: the gallery, its scores [images, captions], and the recalls (see `all_recalls`)."""

    gallery: Gallery
    scores: np.ndarray
    recalls: Mapping[str, Recalls]


def retrieve(
    profile: Profile,
    variant: Variant,
    corpus: Corpus,
    seed: int,
    pretrained_folder: Path,
    folder: Path,
    restart: bool = False,
) -> Retrieved:
    """Zero-shot retrieval of one pretrained model.

    Writes into `folder`: config.json, metrics.jsonl (a line a gallery: text_r1 … image_r10 as fractions of 1), run.json
    (the same, and what the computation took) and the scores where they are small.

    Raises UserError for a missing or other model, a test split that retrieval cannot use, and (without `restart`) a
    folder that another configuration began.
    """
    begun, start = files.now(), time.monotonic()
    settings = profile.retrieval
    model, tokenizer = restore_pretrained(profile, variant, corpus, pretrained_folder)
    model.to(device_at_hand())
    bf16 = resolve_precision(settings.precision) == "bf16"
    gallery = gallery_of(corpus, settings.images, settings.data_set)
    size = settings.image_size or profile.model.image_size
    folder.mkdir(parents=True, exist_ok=True)
    identity = {"stage": "retrieval", "profile": profile.name, "variant": variant.name, "seed": seed}
    config = identity | {"retrieval": to_dict(settings), "model": to_dict(profile.model), "corpus": corpus.fingerprint}
    begin(folder, config, restart)
    scored = time.monotonic()
    scores = score_matrix(
        model, corpus, gallery, tokenizer, size, settings.block, regions_of(profile, variant),
        profile.data.detector_threshold, bf16,
    )  # fmt: skip
    pair_seconds = time.monotonic() - scored
    found = all_recalls(scores, gallery.image_index, settings.fold)
    if scores.nbytes < _KEEP_SCORES_BELOW:
        files.write_atomically(folder / SCORES, lambda p: _save(p, scores))
    rows = [_row(name, one) for name, one in found.items()]
    files.write_lines(folder / METRICS, rows)
    facts = identity | {
        "synthetic": corpus.synthetic,
        "corpus": corpus.fingerprint,
        "weights": str(pretrained_folder / WEIGHTS),
        "data_set": settings.data_set,
        "images": len(gallery.records),
        "captions": len(gallery.captions),
        "captions_per_image": CAPTIONS_PER_IMAGE,
        "test_images_of_the_corpus": len(corpus.split("test")),
        "image_size": size,
        "precision": "bf16" if bf16 else "float32",
        "recalls": {row["gallery"]: row for row in rows},
        "pairs": scores.size,
        "pairs_per_second": round(scores.size / pair_seconds, 1),
    }
    files.write_run(folder, facts, model, begun, time.monotonic() - start)
    return Retrieved(gallery, scores, found)


def _save(path: Path, scores: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, scores)

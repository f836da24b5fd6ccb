"""Zero-shot retrieval (section IV-B4): every image with every sentence, scored by the pretrained matching head.

The exhaustive score matrix, with no shortcut that could change a rank: the two unimodal encoders run once an image and
once a sentence, and only the cross-modality layers run for each pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.batches.whole import pad_texts, whole_pictures
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.joined import JoinedCorpus
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import ID_STRIDE
from vlp_lib.errors import UserError, unknown
from vlp_lib.losses.itm import itm_score
from vlp_lib.models.model import PretrainingModel
from vlp_lib.models.vision import VisionFeatures
from vlp_lib.tasks.recalls import CAPTIONS_PER_IMAGE

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
    images: list[VisionFeatures] = []  # what the cross-modality layers read of each, a batch of one
    for start in range(0, len(gallery.records), _IMAGES_AT_ONCE):
        part = gallery.records[start : start + _IMAGES_AT_ONCE]
        _, tokens = model.vlp.encode_vision(whole_pictures(corpus, part, image_size, regions, threshold).to(device))
        for i in range(len(part)):
            seen = None if tokens.mask is None else tokens.mask[i : i + 1]
            images.append(VisionFeatures(tokens.tokens[i : i + 1].float(), tokens.grid, seen))
    ids = [tokenizer.encode(caption)[0] for caption in gallery.captions]
    scores = np.empty((len(images), len(ids)), dtype=np.float32)
    shortest_first = np.argsort([len(row) for row in ids], kind="stable")  # so that little of a block is padding
    for start in range(0, len(ids), block):
        columns = shortest_first[start : start + block]
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

"""Where the words of a caption look: figure 6 of a pretrained model, which needs no questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vlp_lib.attention.maps import look, places_of
from vlp_lib.batches.sample import Pictures
from vlp_lib.batches.tokenizer import UNK, Tokenizer
from vlp_lib.batches.whole import pad_texts, whole_pictures
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.models.model import VLPModel
from vlp_lib.run import Run
from vlp_lib.tasks.common import TaskBatch
from vlp_lib.trainers.trained import device_at_hand, regions_of, restore_pretrained


@dataclass(frozen=True)
class WordLook:
    """One image, and where some words of its caption look."""

    caption: str  # the sentence, as the model read it
    image: np.ndarray  # [S, S, 3] float from 0 to 1
    maps: dict[str, np.ndarray]  # [S, S] by word, in the order of the sentence; 1 is as even attention


def longest_words(words: Collection[str], count: int) -> list[str]:
    """The longest of a sentence's different words, in its order: they are seldom articles and prepositions."""
    longest = sorted(words, key=len, reverse=True)[:count]
    return [word for word in words if word in longest]


def words_of(tokenizer: Tokenizer, caption: str) -> list[tuple[str, list[int]]]:
    """Each word of a caption once, and the places of its tokens; a word that is said again has the places of both."""
    ids, words = tokenizer.encode(caption)
    places: dict[str, list[int]] = {}
    for word in dict.fromkeys(int(word) for word in words if word >= 0):
        own = np.flatnonzero(words == word).tolist()
        places.setdefault("".join(tokenizer.token(int(ids[i])).removeprefix("##") for i in own), []).extend(own)
    return list(places.items())


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text that a vocabulary lacks: half of their pieces or more are single letters, or unknown."""
    encoding = tokenizer.engine.encode(text)
    pieces: dict[int, list[int]] = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            pieces.setdefault(word, []).append(place)
    lacking = []
    for own in pieces.values():
        begin, end = encoding.offsets[own[0]][0], encoding.offsets[own[-1]][1]
        letters = sum(len(encoding.tokens[place].removeprefix("##")) == 1 for place in own)
        if UNK in (encoding.tokens[place] for place in own) or (end - begin > 1 and 2 * letters >= len(own)):
            lacking.append(text[begin:end])
    return lacking


@torch.inference_mode()
def look_at_sentence(vlp: VLPModel, tokenizer: Tokenizer, pictures: Pictures, sentence: str) -> dict[str, np.ndarray]:
    """Where each word of a sentence looks on its one picture: maps [S, S] by word, in its order; 1 is even attention.

    The last cross-modality layer's attention from word to image, the mean over its heads and the word's tokens.

    Raises UserError for a visual loss whose tokens have no place on the image.
    """
    ids, mask = pad_texts([tokenizer.encode(sentence)[0]])
    one = torch.zeros(1, dtype=torch.long)
    batch = TaskBatch(pictures, ids, mask, one, one, one).to(next(vlp.parameters()).device)
    seen = look(vlp, batch)
    places = places_of(vlp, seen.features, batch, 0)
    maps = {
        word: places.paint(np.mean([seen.on_image(0, place) for place in tokens], axis=0))
        for word, tokens in words_of(tokenizer, sentence)
    }
    return {word: painted / max(float(painted.mean()), 1e-12) for word, painted in maps.items()}


def look_at_words(run: Run, corpus: Corpus, records: Sequence[ImageRecord], count: int = 4) -> list[WordLook]:
    """Where the longest words of each image's first caption look (`look_at_sentence`), by the run's pretrained model.

    Raises UserError where the model is missing, and for a visual loss whose tokens have no place on the image.
    """
    model, tokenizer = restore_pretrained(run, corpus)
    vlp: VLPModel = model.vlp.to(device_at_hand())
    profile, looks = run.config, []
    regions = regions_of(profile, run.chosen)
    for record in records:
        caption = record.captions[0]
        pictures = whole_pictures(corpus, [record], profile.model.image_size, regions, profile.data.detector_threshold)
        maps = look_at_sentence(vlp, tokenizer, pictures, caption)
        chosen = {word: maps[word] for word in longest_words(maps, count)}
        looks.append(WordLook(caption, pictures.images[0].permute(1, 2, 0).numpy(), chosen))
    return looks

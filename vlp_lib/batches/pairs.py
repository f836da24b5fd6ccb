"""Image–sentence pairs for pretraining: matched and mismatched, decoded lazily, every choice drawn from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vlp_lib.batches.augment import View, draw_view, may_flip, show_detections, show_image, show_label_map
from vlp_lib.batches.collate import collate
from vlp_lib.batches.masking import mask_words
from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch, Sample, Text
from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.config import DataConfig, ModelConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import IGNORED, NO_DETECTIONS
from vlp_lib.corpora.table import caption_counts
from vlp_lib.corpora.workers import load
from vlp_lib.errors import UnreadableImageError, UserError

_VALIDATION_SEED = 20230117
"""One for all runs: the validation pairs and their masks never differ between variants and seeds."""

# What a number is drawn for: keeps the draws that one seed serves apart (SSUL's stream is 1).
_VIEW, _MASK, _REDRAW, _SUBSTITUTE = 2, 3, 4, 5

_SUBSTITUTES = 20
"""Unreadable images in a row after which the disk, not the images, is at fault."""


class PairKey(NamedTuple):
    """What a sample is made from; nothing else decides it.

    Attributes:
        pair: the image and its own sentence.
        seed: of the random choices about them.
        other, other_seed: the pair whose sentence stands in as the mismatched one, and its seed, so that the sentence
            is masked as where it is its own image's.
        augment: off in validation.
    """

    pair: int
    seed: int
    other: int
    other_seed: int
    augment: bool = True


KnownTexts = dict[tuple[int, int], Text]
"""Texts by pair and seed, which decide them."""


class PairDataset(Dataset[Sample]):
    """The pairs of one split.

    Args:
        label_maps, max_detections: targets to decode; what the variant does not use is not read from disk.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        tokenizer: Tokenizer,
        model: ModelConfig,
        data: DataConfig,
        label_maps: bool = False,
        max_detections: int = 0,
    ) -> None:
        self.corpus = corpus
        self.records = corpus.split(split)
        if len(self.records) < 2:
            raise UserError(
                f"{corpus.root} has {len(self.records)} captioned images in its split {split!r}, too few to draw "
                f"mismatched pairs from: check it with `vlp data check --root {corpus.root}`"
            )
        counts = caption_counts(self.records)
        self.image_of_pair = np.repeat(np.arange(len(counts)), counts)
        self.caption_of_pair = np.concatenate([np.arange(c) for c in counts])
        self.tokenizer = tokenizer
        self.candidates = tokenizer.candidates()
        self.size = model.image_size
        self.data = data
        self.label_maps = label_maps
        self.max_detections = max_detections

    def __len__(self) -> int:
        return len(self.image_of_pair)

    def caption(self, pair: int) -> str:
        """The sentence of a pair."""
        return self.records[self.image_of_pair[pair]].captions[self.caption_of_pair[pair]]

    @cached_property
    def lengths(self) -> np.ndarray | None:
        """[pairs] the length that each pair's sentence is padded to (`DataConfig.text_lengths`), for batches of like
        lengths; None where the configuration does not ask for them.
        """
        if not self.data.text_lengths:
            return None
        tokens = self.tokenizer.lengths([caption for record in self.records for caption in record.captions])
        steps = np.array(self.data.text_lengths)
        return np.asarray(steps[np.searchsorted(steps, tokens)])

    def _reads_the_same(self, pair: int, other: int) -> bool:
        """Whether the other pair's sentence is one of this pair's image's."""
        if self.image_of_pair[pair] == self.image_of_pair[other]:
            return True
        own = self.records[self.image_of_pair[pair]].captions
        return self.caption(other).lower().strip(" .") in {c.lower().strip(" .") for c in own}

    def _mismatched(self, key: PairKey) -> int:
        """A pair of another image with another sentence: the key's, or the first drawn one that is."""
        if not self._reads_the_same(key.pair, key.other):
            return key.other
        rng = np.random.default_rng((key.seed, _REDRAW))
        for _ in range(1000):
            other = int(rng.integers(len(self)))
            if not self._reads_the_same(key.pair, other):
                return other
        raise UserError(f"{self.corpus.root}: its images share their captions, no mismatched pair can be drawn")

    def _text(self, pair: int, seed: int, matched: bool, known: KnownTexts) -> Text:
        """The sentence of a pair, with the words hidden that its seed says; one that is known is not made again."""
        if (pair, seed) not in known:
            data, rng = self.data, np.random.default_rng((seed, _MASK))
            ids, words = self.tokenizer.encode(self.caption(pair))
            masked, labels = mask_words(
                ids, words, rng, self.tokenizer.mask_id, self.candidates, data.mlm_probability, data.mlm_replacement
            )
            known[pair, seed] = Text(torch.from_numpy(masked), torch.from_numpy(ids), torch.from_numpy(labels), matched)
        text = replace(known[pair, seed], matched=matched)
        if matched or self.data.mlm_on_mismatched:
            return text
        return replace(text, mlm_labels=torch.full_like(text.mlm_labels, NO_MATCHED_TOKEN))

    def __getitem__(self, key: PairKey) -> Sample:
        """The sample of a key; in training, where its image cannot be read, that of another pair."""
        return self._readable(key, {})

    def __getitems__(self, keys: list[PairKey]) -> list[Sample]:
        """The samples of a batch, as one by one; what their pairs share is made once."""
        known: KnownTexts = {}
        return [self._readable(key, known) for key in keys]

    def _readable(self, key: PairKey, known: KnownTexts) -> Sample:
        """The sample of a key, or in training, where its image cannot be read, that of a pair that stands in.

        Which one is drawn from the key's seed, so that neither workers nor restarts change it.
        """
        rng: np.random.Generator | None = None
        unreadable: list[str] = []
        while True:
            try:
                return replace(self._sample(key, known), unreadable=tuple(unreadable))
            except UnreadableImageError:
                unreadable.append(str(self.records[self.image_of_pair[key.pair]].path))
                if not key.augment or len(unreadable) == _SUBSTITUTES:
                    raise
            rng = rng or np.random.default_rng((key.seed, _SUBSTITUTE))
            key = key._replace(pair=int(rng.integers(len(self))))

    def _sample(self, key: PairKey, known: KnownTexts) -> Sample:
        rng = np.random.default_rng((key.seed, _VIEW))
        record = self.records[self.image_of_pair[key.pair]]
        view = draw_view(rng, self.data.resize, self.data.flip) if key.augment else View()
        joined = [(key.pair, key.seed, True), (self._mismatched(key), key.other_seed, False)]
        if self.data.pairing == "one":
            joined = [joined[int(rng.integers(2))]]
        # Every sentence has its say, its own image's and another's alike: were only the own one asked, a mirrored
        # image with a keyword beside it would always be a mismatch.
        view = replace(view, flip=view.flip and all(may_flip(self.caption(pair)) for pair, _, _ in joined))
        texts = tuple(self._text(*one, known) for one in joined)
        image = show_image(self.corpus.read_image(record), view, self.size).transpose(2, 0, 1).copy()
        label_map = detections = None
        if self.label_maps:  # an image without one gets a map of ignored pixels
            labels = self.corpus.read_label_map(record)
            labels = np.full((self.size, self.size), IGNORED, np.uint8) if labels is None else labels
            label_map = torch.from_numpy(show_label_map(labels, view, self.size).copy())
        if self.max_detections:  # an image without any gets an empty set
            found = self.corpus.read_detections(record, self.max_detections, self.data.detector_threshold)
            detections = NO_DETECTIONS if found is None else show_detections(found, view)
        return Sample(
            image=torch.from_numpy(image),
            texts=texts,
            label_map=label_map,
            detections=detections,
            seed=key.seed,
            image_id=record.image_id,
        )


@dataclass
class TrainingOrder:
    """The pairs of each optimiser step, for one process; what step k trains on depends on seed and k alone.

    Each epoch is a fresh permutation; a batch may reach over its end. `start` is the first step to give, so that a
    resumed run goes on where it stopped.

    With `lengths` (one of each pair) the batches within an epoch are of pairs of like length, in random order: the
    permutation is sorted by length, cut into batches, and these are shuffled. A batch that reaches over the end of an
    epoch, and one at each change of length, is mixed.
    """

    pairs: int
    batch_size: int
    steps: int
    seed: int
    start: int = 0
    rank: int = 0
    world: int = 1
    accumulation: int = 1
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulation

    def _arrange(self, epoch: int) -> np.ndarray:
        """The pairs of an epoch in their order."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.pairs)
        if self.lengths is None:
            return order
        # What the last batch of the epoch before takes of this one, and then the batches that lie within it.
        head = min(-epoch * self.pairs % self.batch_size, self.pairs)
        count = (self.pairs - head) // self.batch_size
        within = order[head : head + count * self.batch_size]
        within = within[np.argsort(self.lengths[within], kind="stable")].reshape(count, self.batch_size)
        return np.concatenate([order[:head], within[rng.permutation(count)].ravel(), order[head + within.size :]])

    def step(self, step: int) -> list[PairKey]:
        """The whole batch of a step, over all processes and accumulated parts.

        The mismatched sentence of each pair is that of the next pair in the batch, so that every sentence of the batch
        is seen on both sides of the question and its words alone say nothing about the match.
        """
        chosen = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, index = divmod(position, self.pairs)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._arrange(epoch)
            pair = int(self._order[index])
            # SeedSequence mixes the numbers so that neighbours share nothing.
            seed = np.random.SeedSequence((self.seed, epoch, pair)).generate_state(1, np.uint64)[0] >> np.uint64(1)
            chosen.append((pair, int(seed)))
        return [PairKey(*own, *other) for own, other in zip(chosen, chosen[1:] + chosen[:1], strict=True)]

    def __iter__(self) -> Iterator[list[PairKey]]:
        """The keys of each part that this process computes, in order."""
        share = self.batch_size // (self.world * self.accumulation)
        for step in range(self.start, self.steps):
            keys = self.step(step)
            for part in range(self.accumulation):
                first = (part * self.world + self.rank) * share
                yield keys[first : first + share]


def validation_keys(dataset: PairDataset, count: int) -> list[PairKey]:
    """`count` pairs without augmentation, the same for every variant and seed; fewer where the split is small."""
    rng = np.random.default_rng(_VALIDATION_SEED)
    chosen = [(int(pair), int(rng.integers(2**62))) for pair in rng.permutation(len(dataset))[:count]]
    return [PairKey(*own, *other, augment=False) for own, other in zip(chosen, chosen[1:] + chosen[:1], strict=True)]


def load_batches(dataset: PairDataset, batches: TrainingOrder | list[list[PairKey]], workers: int) -> Iterator[Batch]:
    """Decoded batches in the given order."""
    into_batch = partial(collate, lengths=dataset.data.text_lengths)
    return load(dataset, batches, into_batch, workers, pin_memory=torch.cuda.is_available())

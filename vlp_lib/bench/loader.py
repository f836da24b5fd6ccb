"""How many images a second one core loads for pretraining: a plain loader, the kit's own, and prepared images.

The plain loaders read images alone: Pillow decodes, torchvision v2 resizes by 0.8–1.2 and crops. The kit's rows are
whole training samples: the same of the image, and its two sentences tokenised, masked and collated. Counted is the
processor's own time (seconds of one core), so that other work on the machine does not count; files lie in the page
cache. All take turns, pass by pass.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from vlp_lib.batches.collate import collate
from vlp_lib.batches.pairs import PairDataset, TrainingOrder
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.bench.budget import TARGET_RATE
from vlp_lib.bench.record import Record
from vlp_lib.clock import processor_timed, spread, take_turns
from vlp_lib.config import DataConfig, Profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.images import image_size, opened
from vlp_lib.corpora.prepared import prepare
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.errors import UserError

LOADER = "loader.json"

_WHAT = {
    "plain_pil": "Pillow, torchvision transforms on Pillow images; images alone",
    "plain_tensor": "Pillow, torchvision v2 transforms on uint8 tensors; images alone",
    "files": "the kit, from the image files; whole samples",
    "prepared_cpu": "the kit, prepared images, views drawn by the CPU; whole samples",
    "prepared": "the kit, prepared images, views left to the GPU; whole samples",
}

_COLUMNS = {
    "what": "loader",
    "width": "width",
    "height": "height",
    "rate": "images/s per core",
    "p5": "5 %",
    "p95": "95 %",
    "times_plain": "times plain",
    "cores": f"cores for {TARGET_RATE:,.0f} images/s",
}

_BATCH = 16

Pass = Callable[[], object]
"""Loads each image of the sample once, batch by batch."""


def plain_loaders(records: Sequence[ImageRecord], size: int, resize: tuple[float, float]) -> dict[str, Pass]:
    """What a user would write with Pillow and torchvision: transforms on Pillow images, and on tensors."""
    rng, crop = np.random.default_rng(0), v2.RandomCrop(size, pad_if_needed=True)

    def view(image: Any) -> Any:
        side = round(size * rng.uniform(*resize))
        return crop(v2.functional.resize(image, [side, side], antialias=True))

    def passing(*transforms: Callable[[Any], Any]) -> Pass:
        transform = v2.Compose([*transforms, v2.ToDtype(torch.float32, scale=True)])

        def load(batch: Sequence[ImageRecord]) -> None:
            images = []
            for record in batch:
                with opened(record.path) as image:
                    images.append(transform(image.convert("RGB")))
            torch.stack(images)

        return _pass(records, load)

    return {"plain_pil": passing(view, v2.PILToTensor()), "plain_tensor": passing(v2.PILToTensor(), view)}


def own_loaders(corpus: Corpus, profile: Profile, packs: Path) -> dict[str, Pass]:
    """The kit's training samples from the files, and from prepared images whose views the CPU or the GPU draws."""
    tokenizer = train_tokenizer(training_texts(corpus), profile.model.max_text_length)
    prepare(corpus, profile.model.image_size, profile.data.resize, packs)
    prepared = replace(profile.data, prepared=str(packs))

    def passing(config: DataConfig, show_later: bool) -> Pass:
        dataset = PairDataset(corpus, "train", tokenizer, profile.model, config, show_later=show_later)
        # One sentence of each image, so that a pass reads each image once.
        order = (key for part in TrainingOrder(len(dataset), len(dataset), 1, 0) for key in part)
        keys = [key for key in order if dataset.caption_of_pair[key.pair] == 0]
        return _pass(keys, lambda batch: collate([dataset[key] for key in batch], config.text_lengths))

    return {
        "files": passing(profile.data, False),
        "prepared_cpu": passing(prepared, False),
        "prepared": passing(prepared, True),
    }


def _pass(items: Sequence[Any], load: Callable[[Sequence[Any]], object]) -> Pass:
    def run() -> None:
        for first in range(0, len(items), _BATCH):
            load(items[first : first + _BATCH])

    return run


def _sample(corpus: Corpus, images: int) -> Corpus:
    """So many of a corpus's images that can be read, evenly spread, as training images."""
    rows = np.unique(np.linspace(0, len(corpus.records) - 1, min(images, len(corpus.records))).astype(int))
    chosen = []
    for row in rows:
        try:
            corpus.read_image(corpus.records[row])
        except UserError:
            continue
        chosen.append(replace(corpus.records[row], split="train"))
    if len(chosen) < 2:
        raise UserError(f"{corpus.root} has {len(chosen)} images that can be read, too few to measure a loader on")
    # Without label maps, which the plain loaders do not read.
    return replace(corpus, records=tuple(chosen), annotation_files=(), _pixel_maps={})


def bench_loader(corpus: Corpus, profile: Profile, images: int, runs: int, folder: Path) -> list[dict[str, Any]]:
    """Measure all loaders on a sample of a corpus's images, write `folder`/loader.json, .csv and .md; return the rows.

    A row: name, what, width and height (median, pixels), images, runs, rate (median images a second of one core), p5
    and p95, times_plain (over plain_pil), cores (that load `TARGET_RATE` images a second).
    """
    if images < 2 or runs < 1:
        raise UserError(f"images is {images} and runs {runs}: give at least 2 and 1")
    record = Record(
        "loader",
        profile=profile.name,
        corpus="the embedded corpus" if corpus.synthetic else corpus.root.name,
        image_size=profile.model.image_size,
        resize=list(profile.data.resize),
        target_images_per_second=TARGET_RATE,
    )
    sample = _sample(corpus, images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's process
    try:
        with tempfile.TemporaryDirectory() as packs:
            loaders = plain_loaders(sample.records, profile.model.image_size, profile.data.resize)
            loaders |= own_loaders(sample, profile, Path(packs))
            times = take_turns({name: processor_timed(one) for name, one in loaders.items()}, runs)
    finally:
        torch.set_num_threads(threads)
    width, height = np.median([image_size(one.path) for one in sample.records], axis=0)
    rates = {name: spread(len(sample.records) / seconds[:, 0]) for name, seconds in times.items()}
    rows = [
        {
            "name": name,
            "what": _WHAT[name],
            "width": round(width),
            "height": round(height),
            "images": len(sample.records),
            "runs": runs,
            "rate": round(median, 1),
            "p5": round(low, 1),
            "p95": round(high, 1),
            "times_plain": round(median / rates["plain_pil"][1], 2),
            "cores": round(TARGET_RATE / median, 1),
        }
        for name, (low, median, high) in rates.items()
    ]
    record.write(folder / LOADER, rows, torch.device("cpu"), _COLUMNS)
    return rows

"""How many images a second one core loads for pretraining: a plain loader, the kit's own, and prepared images.

The plain loaders read images alone: Pillow decodes, torchvision v2 resizes by 0.8–1.2 and crops. The kit's rows are
whole training samples: the same of the image, and its two sentences tokenised, masked and collated. Counted is the
processor's own time (seconds of one core), so that other work on the machine does not count; files lie in the page
cache. All take turns, pass by pass.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from vlp_lib.batches.collate import collate
from vlp_lib.batches.pairs import PairDataset, TrainingOrder
from vlp_lib.batches.sample import Batch
from vlp_lib.batches.show import show
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import train_tokenizer
from vlp_lib.bench.budget import TARGET_RATE
from vlp_lib.bench.record import Record
from vlp_lib.clock import Stopwatch, processor_timed, spread, take_turns
from vlp_lib.config import Profile
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.images import image_size, read_image
from vlp_lib.corpora.prepared import prepare
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.errors import UserError
from vlp_lib.trainers.trained import device_at_hand

LOADER = "loader"

_COLUMNS = {
    "what": "loader",
    "files": "files",
    "width": "width",
    "height": "height",
    "rate": "images/s per core",
    "p5": "5 %",
    "p95": "95 %",
    "times_plain": "times plain",
    "cores": f"cores for {TARGET_RATE:,.0f} images/s",
}

_BATCH = 16


@dataclass(frozen=True)
class Loader:
    """Something that loads the images of the sample once, batch by batch.

    Attributes:
        name: of its row.
        what: it does, for a reader.
        run: one pass.
    """

    name: str
    what: str
    run: Callable[[], object]


class _PlainView:
    """The paper's random resize and crop by torchvision, on a Pillow image or a tensor."""

    def __init__(self, size: int, resize: tuple[float, float], seed: int = 0) -> None:
        self.size, self.resize = size, resize
        self.rng = np.random.default_rng(seed)
        self.crop = v2.RandomCrop(size, pad_if_needed=True)

    def __call__(self, image: Any) -> Any:
        side = round(self.size * self.rng.uniform(*self.resize))
        return self.crop(v2.functional.resize(image, [side, side], antialias=True))


def plain_loaders(records: Sequence[ImageRecord], size: int, resize: tuple[float, float]) -> list[Loader]:
    """What a user would write with Pillow and torchvision: transforms on Pillow images, and on tensors."""
    float_image = v2.ToDtype(torch.float32, scale=True)
    on_images = v2.Compose([_PlainView(size, resize), v2.PILToTensor(), float_image])
    on_tensors = v2.Compose([v2.PILToTensor(), _PlainView(size, resize), float_image])

    def passing(transform: Callable[[Image.Image], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            for first in range(0, len(records), _BATCH):
                images = []
                for record in records[first : first + _BATCH]:
                    with Image.open(record.path) as image:
                        images.append(transform(image.convert("RGB")))
                torch.stack(images)

        return run

    return [
        Loader("plain_pil", "Pillow, torchvision transforms on Pillow images; images alone", passing(on_images)),
        Loader("plain_tensor", "Pillow, torchvision v2 transforms on uint8 tensors; images alone", passing(on_tensors)),
    ]


def own_loaders(corpus: Corpus, profile: Profile, packs: Path) -> list[Loader]:
    """The kit's training samples from the files, and from prepared images whose views the CPU or the GPU draws."""
    tokenizer = train_tokenizer(training_texts(corpus), profile.model.max_text_length)
    prepare(corpus, profile.model.image_size, profile.data.resize, packs)
    prepared = dataclasses.replace(profile.data, prepared=str(packs))

    def pairs(config: Any, later: bool) -> PairDataset:
        return PairDataset(corpus, "train", tokenizer, profile.model, config, show_later=later)

    def passing(dataset: PairDataset) -> Callable[[], None]:
        # One sentence of each image, so that a pass reads each image once.
        first_pairs = np.flatnonzero(dataset.caption_of_pair == 0)
        keys = [key for part in TrainingOrder(len(dataset), len(dataset), 1, 0) for key in part]
        own = [key for key in keys if key.pair in set(first_pairs.tolist())]

        def run() -> None:
            for first in range(0, len(own), _BATCH):
                collate([dataset[key] for key in own[first : first + _BATCH]], dataset.data.text_lengths)

        return run

    later = pairs(prepared, True)
    return [
        Loader("files", "the kit, from the image files; whole samples", passing(pairs(profile.data, False))),
        Loader("prepared_cpu", "the kit, prepared images, views drawn by the CPU; whole samples",
               passing(pairs(prepared, False))),
        Loader("prepared", "the kit, prepared images, views left to the GPU; whole samples", passing(later)),
    ]  # fmt: skip


def view_milliseconds(profile: Profile, device: torch.device, images: int = 128) -> float | None:
    """Time a GPU takes to draw the view of one prepared image; None on a CPU, where nobody draws them this way."""
    if device.type != "cuda":
        return None
    size = profile.model.image_size
    stored = torch.randint(256, (images, 461, 461, 3), dtype=torch.uint8, device=device)
    views = torch.tensor([[1.1, -0.05, -0.02, 0, 461, 461]] * images, dtype=torch.float64, device=device)
    none = torch.zeros(images, 1, dtype=torch.long, device=device)
    batch = Batch(stored, none, none, none.bool(), none, none[:, 0], none[:, 0], none[:, 0], views=views)
    for _ in range(3):
        show(batch, size)
    watch = Stopwatch(device)
    for _ in range(10):
        show(batch, size)
    watch.mark("views")
    return 1000 * watch.seconds()["views"] / (10 * images)


def _sample(corpus: Corpus, images: int) -> Corpus:
    """So many of a corpus's images that can be read, evenly spread, as training images."""
    rows = np.unique(np.linspace(0, len(corpus.records) - 1, min(images, len(corpus.records))).astype(int))
    chosen = []
    for row in rows:
        try:
            corpus.read_image(corpus.records[row])
        except UserError:
            continue
        chosen.append(dataclasses.replace(corpus.records[row], split="train"))
    if len(chosen) < 2:
        raise UserError(f"{corpus.root} has {len(chosen)} images that can be read, too few to measure a loader on")
    # Without label maps, which the plain loaders do not read.
    return dataclasses.replace(corpus, records=tuple(chosen), annotation_files=(), _pixel_maps={})


def _enlarged(corpus: Corpus, folder: Path) -> Corpus:
    """The same images at the size that their annotations declare, as JPEG: what a reduced copy was made from."""
    folder.mkdir(parents=True)
    records = []
    for record in corpus.records:
        path = folder / f"{record.path.stem}.jpg"
        size = (record.width, record.height)
        read_image(record.path).resize(size, Image.Resampling.LANCZOS).save(path, quality=92)
        records.append(dataclasses.replace(record, path=path))
    return dataclasses.replace(corpus, records=tuple(records))


def bench_loader(corpus: Corpus, profile: Profile, images: int, runs: int, folder: Path) -> list[dict[str, Any]]:
    """Measure all loaders on a sample of a corpus's images, write `folder`/loader.json, .csv and .md; return the rows.

    Where the files are smaller than their annotations declare, they are measured at both sizes. A row: name, what,
    files ("as stored" or "as declared"), width and height (median), images, runs, rate (median images a second of one
    core), p5 and p95, times_plain (over plain_pil), cores (that load `TARGET_RATE` images a second).
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
    device = device_at_hand()
    sample = _sample(corpus, images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's process
    rows: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as scratch:
            sources = {"as stored": sample}
            if any((r.width, r.height) != image_size(r.path) for r in sample.records):
                sources["as declared"] = _enlarged(sample, Path(scratch) / "images")
            for place, (kind, source) in enumerate(sources.items()):
                loaders = plain_loaders(source.records, profile.model.image_size, profile.data.resize)
                loaders += own_loaders(source, profile, Path(scratch) / f"packs{place}")
                times = take_turns({one.name: processor_timed(one.run) for one in loaders}, runs)
                rates = {name: len(source.records) / seconds[:, 0] for name, seconds in times.items()}
                rows += [_row(one, rates, kind, source) for one in loaders]
    finally:
        torch.set_num_threads(threads)
    view = view_milliseconds(profile, device)
    record.write(folder, LOADER, rows, device, _COLUMNS, gpu_view_ms=view)
    return rows


def _row(loader: Loader, rates: dict[str, np.ndarray], kind: str, source: Corpus) -> dict[str, Any]:
    low, median, high = spread(rates[loader.name])
    width, height = np.median([image_size(record.path) for record in source.records], axis=0)
    return {
        "name": loader.name,
        "what": loader.what,
        "files": kind,
        "width": round(width),
        "height": round(height),
        "images": len(source.records),
        "runs": len(rates[loader.name]),
        "rate": round(median, 1),
        "p5": round(low, 1),
        "p95": round(high, 1),
        "times_plain": round(median / float(np.median(rates["plain_pil"])), 2),
        "cores": round(TARGET_RATE / median, 1),
    }

"""The rows of `vlp bench`, a function each: what the kit does, and what a user would pick instead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vlp_lib.batches.collate import collate
from vlp_lib.batches.pairs import PairDataset, PairKey
from vlp_lib.batches.sample import NO_MATCHED_TOKEN, Batch
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import Tokenizer, train_tokenizer
from vlp_lib.batches.whole import pad_texts, square_images
from vlp_lib.bench import budget
from vlp_lib.bench.contenders import FULL_SIZE, MINIATURE, contenders
from vlp_lib.bench.made_up import SIZES, fill
from vlp_lib.bench.plain import PlainModel, detr_matching, plain_loader, plain_step
from vlp_lib.bench.speed import one_pass
from vlp_lib.bench.step import TrainingStep, in_one_part, start_training
from vlp_lib.bench.table import Pair, Row, Setting, row
from vlp_lib.clock import Stopwatch
from vlp_lib.config import ModelConfig, Profile
from vlp_lib.corpora.synthetic import CorpusSpec, synthesize
from vlp_lib.errors import unknown
from vlp_lib.losses.itm import itm_score
from vlp_lib.losses.mlm import mlm_loss
from vlp_lib.losses.spl import match_labels
from vlp_lib.models.heads import MLMHead
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.provenance import peak_memory
from vlp_lib.tasks.retrieval import gallery_of, score_matrix
from vlp_lib.trainers.loop import resolve_precision
from vlp_lib.trainers.pretrain import vocabularies
from vlp_lib.variants import VARIANTS

# Training


def _step(setting: Setting) -> tuple[Profile, Vocabularies, TrainingStep, Batch]:
    """A training step of SEGL and a batch for it: what the device computes at once."""
    profile, tokenizer = in_one_part(setting.profile), _tokenizer(setting)
    # Where a tokenizer is named, the real data sets' sizes, whatever the corpus.
    sizes = SIZES if profile.model.tokenizer else vocabularies(setting.corpus, tokenizer)
    task, step = start_training(profile, VARIANTS["segl"], setting.corpus, tokenizer, sizes, 1)
    return profile, sizes, step, next(task.batches(0, 0, 1)).to(setting.device)


@row("a training step with SEGL", "timm's ViT and transformers' LXMERT, float32, a pair a row, all positions", 4)
def training_step(setting: Setting) -> Pair:
    """Both at the profile's size and batch."""
    profile, sizes, step, batch = _step(setting)
    plain = PlainModel(profile.model, sizes).to(setting.device).train()
    return Pair(lambda: step([batch]), plain_step(plain, batch, profile.training))


@row("a training step with SEGL at width 768", "as above, four images of 384 px", 4, slow=True)
def training_step_768(setting: Setting) -> Pair:
    """The paper's layers whatever the profile, with the corpus's words."""
    model = ModelConfig(max_text_length=setting.profile.model.max_text_length)
    training = replace(setting.profile.training, batch_size=4, accumulation=1)
    return training_step.measure(replace(setting, profile=replace(setting.profile, model=model, training=training)))


class Products(TorchDispatchMode):
    """Keeps the shapes of the matrix products that are computed within this context."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[torch.Size, torch.Size]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self.shapes.append((args[0].shape, args[1].shape))
        elif name in ("addmm", "baddbmm"):
            self.shapes.append((args[1].shape, args[2].shape))
        return func(*args, **(kwargs or {}))

    def again(self, device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
        """Computes these products once more and nothing else."""
        made = {shape: torch.randn(shape, device=device).to(dtype) for pair in self.shapes for shape in pair}

        def compute() -> None:
            for a, b in self.shapes:
                torch.matmul(made[a], made[b])

        return compute


@row("a training step with SEGL", "its matrix products alone, in its precision", 0.5)
def matrix_share(setting: Setting) -> Pair:
    """The share of the step that multiplies; with it where the rest goes, memory, and what a pretraining takes."""
    device = setting.device
    profile, sizes, step, batch = _step(setting)
    images = len(batch)
    with Products() as products:
        step([batch])

    def facts() -> Mapping[str, Any]:
        watch = Stopwatch(device)
        step([batch], watch=watch)
        seconds = watch.seconds()
        pace = images / sum(seconds.values())
        operations = budget.Probe(profile, VARIANTS["segl"], sizes, device).operations()
        gpu = device.type == "cuda"
        held = torch.cuda.max_memory_allocated(device) / budget.GIB if gpu else peak_memory()
        return {
            "samples_per_second": float(f"{pace:.5g}"),
            **{f"{name}_ms": round(1000 * took, 2) for name, took in seconds.items()},
            "memory_gib": round(held or float("nan"), 3),
            "gflop_per_sample": round(operations / 1e9, 3),
            "tflops": round(operations * pace / 1e12, 4),
            "hours_of_the_papers_pretraining": round(budget.hours(15 * budget.PAPER_PAIRS, pace), 2),
        }

    dtype = torch.bfloat16 if resolve_precision(profile.training.precision) == "bf16" else torch.float32
    return Pair(lambda: step([batch]), products.again(device, dtype), facts=facts)


def _matching(setting: Setting, labels: int) -> Pair:
    """Equation 3."""
    logits = torch.randn(64, 100, SIZES.detector + 1, device=setting.device)
    wanted = torch.randint(SIZES.detector, (64, labels), device=setting.device)
    return Pair(lambda: match_labels(logits, wanted), lambda: detr_matching(logits, wanted))


_MATCHING = [
    Row(name, f"SPL's matching, 64 images, 100 queries, {labels} labels", "DETR's formula over the whole batch", 5,
        partial(_matching, labels=labels))
    for name, labels in (("spl_matching", 36), ("spl_matching_100", 100))
]  # fmt: skip


@row("the MLM head on masked words, 30,522 in the vocabulary", "on all positions", 4)
def mlm_head(setting: Setting) -> Pair:
    """Forward and backward, 16 sentences of 20 words, of which 15 % are masked."""
    head = MLMHead(768, SIZES.words).to(setting.device)
    embedding = torch.randn(SIZES.words, 768, device=setting.device, requires_grad=True)
    features = torch.randn(16, 20, 768, device=setting.device, requires_grad=True)
    hidden = torch.zeros(16, 20, dtype=torch.bool, device=setting.device)
    hidden[:, 1:4] = True
    labels = torch.where(hidden, torch.randint(SIZES.words, (16, 20), device=setting.device), NO_MATCHED_TOKEN)

    def masked() -> None:
        embedding.grad = None
        rows = labels != NO_MATCHED_TOKEN
        mlm_loss(head(features[rows], embedding), labels[rows]).backward()

    def everywhere() -> None:
        embedding.grad = None
        logits = head(features, embedding).flatten(0, 1)
        F.cross_entropy(logits, labels.flatten(), ignore_index=NO_MATCHED_TOKEN).backward()

    return Pair(masked, everywhere)


# Retrieval

_BLOCK = 60
"""Pairs that pass through a model at once."""


def _retrieval(setting: Setting, peer: bool) -> Pair:
    """All pairs of a gallery, against a block of pairs each of which goes through the whole model; seconds a pair."""
    profile, corpus, device = setting.profile, setting.corpus, setting.device
    size, bf16 = profile.model.image_size, resolve_precision(profile.retrieval.precision) == "bf16"
    gallery, tokenizer = gallery_of(corpus, profile.retrieval.images), _tokenizer(setting)
    sizes = replace(SIZES, words=len(tokenizer))
    model = fill(PretrainingModel(VLPModel(profile.model, VARIANTS["spl_small"], sizes, pretrained=False)), device)
    captions = [gallery.captions[i % len(gallery.captions)] for i in range(_BLOCK)]
    ids, mask = (part.to(device) for part in pad_texts([tokenizer.encode(caption)[0] for caption in captions]))
    image = corpus.read_image(gallery.records[0])
    one = torch.ones(_BLOCK, dtype=torch.long)
    batch = Batch(square_images([image] * _BLOCK, size).to(device), ids, ids, mask, ids, one, one, one)
    answer: Callable[[], Any] = lambda: itm_score(model.itm_head(model.vlp(batch).pooled))  # noqa: E731
    if peer:
        import transformers

        config, vit = profile.model, profile.model.vit
        vilt = transformers.ViltModel(transformers.ViltConfig(
            hidden_size=config.hidden, num_hidden_layers=vit.layers, num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden, image_size=size, patch_size=vit.patch, vocab_size=len(tokenizer),
            max_image_length=-1,
        ))  # fmt: skip
        fill(vilt, device).eval()
        pixel_mask = torch.ones_like(batch.images[:, 0]).long()
        answer = partial(vilt, ids, mask.long(), pixel_values=batch.images, pixel_mask=pixel_mask)

    @torch.inference_mode()
    def theirs() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            answer()

    model.eval()
    ours = partial(score_matrix, model, corpus, gallery, tokenizer, size, profile.retrieval.block, bf16=bf16)
    return Pair(ours, theirs, _BLOCK / (len(gallery.records) * len(gallery.captions)))


_RETRIEVAL = [
    Row(name, "retrieval with SPL small, each image and sentence encoded once", against, aim,
        partial(_retrieval, peer=peer))
    for name, against, aim, peer in (
        ("retrieval", "pair by pair through the whole model", 10, False),
        ("retrieval_vilt", "transformers' ViLT, as wide and deep", 3, True),  # one stream: it has to see every pair
    )
]  # fmt: skip


# Inference


def _answers(setting: Setting, image_size: int, ours: str, theirs: str) -> Pair:
    """One question about one image through two of the models of `contenders`."""
    scale = FULL_SIZE if setting.profile.speed.full_size else MINIATURE
    made = {one.name: one for one in contenders(scale, image_size, setting.device) if one.name in (ours, theirs)}
    return Pair(partial(one_pass, made[ours], setting.device), partial(one_pass, made[theirs], setting.device))


_ANSWERS = [
    Row(name, f"an answer with {words}, {size} px", against, aim,
        partial(_answers, image_size=size, ours=ours, theirs=theirs), slow=True)
    for name, words, against, aim, size, ours, theirs in (
        ("answer_spl_small", "SPL small", "with the naive ViT", 1 / 0.85, 600, "spl_small", "naive_vit"),
        ("answer_spl_large", "SPL large", "with the naive ViT", 1, 600, "spl_large", "naive_vit"),
        ("answer_regions", "the naive ViT", "a Bottom-Up-like detector and the region model", 10, 600, "naive_vit",
         "region_bottom_up"),
        ("answer_vilt", "SPL small", "transformers' ViLT", 1, 384, "spl_small", "vilt"),
    )
]  # fmt: skip


# Data


def _tokenizer(setting: Setting) -> Tokenizer:
    return train_tokenizer(training_texts(setting.corpus), setting.profile.model.max_text_length)


@row("training samples from the image files", "Pillow, torchvision, transformers' tokenizer and collator", 1)
def input_files(setting: Setting) -> Pair:
    """Images and two sentences for each, words hidden."""
    profile, tokenizer = setting.profile, _tokenizer(setting)
    dataset = PairDataset(setting.corpus, "train", tokenizer, profile.model, profile.data)
    # One sentence of each image, so that each image is read once.
    pairs = np.flatnonzero(dataset.caption_of_pair == 0)[:64]
    records = [dataset.records[dataset.image_of_pair[pair]] for pair in pairs]
    keys = [PairKey(int(own), int(own), int(other), int(other)) for own, other in zip(pairs, np.roll(pairs, -1))]  # noqa: B905
    ours = lambda: collate(dataset.__getitems__(keys), profile.data.text_lengths)  # noqa: E731
    return Pair(ours, plain_loader(records, tokenizer, profile.model.image_size, profile.data))


@row("200 scenes of the embedded corpus, 64 px", "the aim of 1,500 scenes a second", 1)
def synthesis(setting: Setting) -> Pair:
    """Drawn, described and written."""
    spec = CorpusSpec(image_size=64, train_images=198, val_images=1, test_images=1, nlvr_pairs=(0, 0, 0),
                      vcr_images=(0, 0, 0))  # fmt: skip
    places = iter(range(10_000))
    return Pair(lambda: synthesize(setting.folder / f"drawn{next(places)}", spec), 200 / 1500)


# Start-up


def _starts(setting: Setting, arguments: Sequence[str], against: str) -> Pair:
    """Processes of their own; a misspelt word may end one with an error."""
    start = partial(subprocess.run, capture_output=True, check=False)
    return Pair(partial(start, [sys.executable, *arguments]), partial(start, [sys.executable, "-c", against]))


_PRETRAINING = "import vlp_lib.trainers.pretrain, vlp_lib.workspace"
_STARTS = [
    Row(name, words, against, aim, partial(_starts, arguments=arguments, against=bare), above=True)
    for name, words, against, bare, aim, arguments in (
        ("start_help", "`vlp --help`", "bare Python", "pass", 0.3, ("-m", "vlp_lib.cli", "--help")),
        ("start_misspelt", "the answer to a misspelt parameter", "bare Python", "pass", 0.3,
         ("-m", "vlp_lib.cli", "pretrain", "--variant", "sgel")),
        ("start_import", "`import vlp_lib`", "bare Python", "pass", 0.5, ("-c", "import vlp_lib")),
        ("start_notebook", "a notebook's first cell", "`import torch`", "import torch", 2.0, ("-c", _PRETRAINING)),
    )
]  # fmt: skip

_ALL = (training_step, training_step_768, matrix_share, *_MATCHING, mlm_head, *_RETRIEVAL, *_ANSWERS,
        input_files, synthesis, *_STARTS)  # fmt: skip
ROWS = {one.name: one for one in _ALL}
"""By name, in the order of the table."""


def chosen_rows(names: Sequence[str]) -> list[Row]:
    """The rows of these names, or without any all that take seconds; raises UserError for an unknown one."""
    for name in names:
        if name not in ROWS:
            raise unknown("row", name, ROWS)
    return [ROWS[name] for name in names] or [one for one in ROWS.values() if not one.slow]

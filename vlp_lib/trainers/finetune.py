"""Finetuning (section IV-B): a pretrained variant on VQAv2, NLVR2 or VCR, from its run folder to official scores."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vlp_lib import io, provenance
from vlp_lib.batches.pairs import TrainingOrder
from vlp_lib.batches.tokenizer import Tokenizer, load_tokenizer
from vlp_lib.config import Profile, TrainingConfig, check_task, to_dict
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.workers import load
from vlp_lib.distributed import held, is_main
from vlp_lib.errors import UserError
from vlp_lib.items import by_block, write_items
from vlp_lib.models.model import VLPModel
from vlp_lib.run import CONFIG, RECORD, Run
from vlp_lib.tasks import open_task
from vlp_lib.tasks.baselines import baselines
from vlp_lib.tasks.common import Encoder, Example, TaskBatch, TaskData, TaskSplit, collate
from vlp_lib.tasks.downstream import DownstreamModel, freeze_unread, task_loss
from vlp_lib.trainers import loop
from vlp_lib.trainers.checkpoint import load_weights
from vlp_lib.trainers.plugins import describe_plugins, keep_plugins
from vlp_lib.trainers.pretrain import TOKENIZER, require_detections, vocabularies
from vlp_lib.trainers.trained import regions_of, restore_pretrained
from vlp_lib.variants import Variant

ANSWERS = "answers.json"
"""VQA's answer list in a run folder, in the order of the classes."""

UNCUT = 1_000_000
"""A text length that no text has: the tasks cut their texts themselves, so as to spare the candidates."""

_EXAMPLES = 24


@dataclass(frozen=True)
class Finetuned:
    """What a finetuning gives.

    Attributes:
        rows: of metrics.jsonl.
        scores: the official scores (percent) of "val" and, where the corpus has its annotations, "test".
        examples: some items of the last scored split with what was said of them.
        notes: what was left out, cut, or could not be learned.
    """

    rows: list[dict[str, Any]]
    scores: dict[str, dict[str, Any]]
    examples: list[Example]
    notes: tuple[str, ...]


class FinetuningTask(loop.Task[TaskBatch]):
    """A downstream task for the training loop; its loss is a mean over items, of which each part has as many."""

    def __init__(self, data: TaskData[Any], training: TrainingConfig, workers: int, seed: int, name: str) -> None:
        self.name, self.data, self.training, self.workers, self.seed = name, data, training, workers, seed
        self.steps = training.steps or loop.steps_of_epochs(training, len(data.train))
        self.validation = data.val.limited(training.validation_images)

    def batches(self, start: int, rank: int, world: int) -> Iterator[TaskBatch]:
        """Training batches from step `start` on."""
        size, parts = self.training.batch_size, self.training.accumulation
        order = TrainingOrder(len(self.data.train), size, self.steps, self.seed, start, rank, world, parts)
        return load(self.data.train, ([key.pair for key in keys] for keys in order), collate, self.workers)

    def losses(self, model: nn.Module, batch: TaskBatch) -> dict[str, torch.Tensor]:
        """The task's loss."""
        return {"loss": task_loss(model(batch), batch.targets)}

    def evaluate(self, model: DownstreamModel, device: torch.device) -> dict[str, float]:
        """Loss and accuracy (a fraction of 1, by the official rule) on the validation items."""
        decisions, loss = predict(model, self.validation, device, self.training.batch_size, self.workers)
        accuracy = self.validation.score(decisions)[self.data.main_score] / 100
        return {"val_accuracy": accuracy, "val_loss": loss}


def predict(
    model: nn.Module, split: TaskSplit, device: torch.device, batch_size: int, workers: int
) -> tuple[np.ndarray, float]:
    """Every item's decision, in order, and the mean loss (NaN where the labels are not public)."""
    decisions, total = [], 0.0
    chunks = (range(i, min(i + batch_size, len(split))) for i in range(0, len(split), batch_size))
    for batch in load(split, chunks, collate, workers):
        moved = batch.to(device)
        logits = model(moved)
        total += float(task_loss(logits, moved.targets)) * len(batch) if split.labelled else math.nan
        decisions.append(split.decide(logits))
    return np.concatenate(decisions), total / len(split)


def task_encoder(profile: Profile, task: str, variant: Variant, corpus: Corpus, tokenizer: Tokenizer) -> Encoder:
    """How the task's pictures and texts become tensors; raises UserError where the region model has no detections."""
    config = profile.downstream
    regions = regions_of(profile, variant)
    if regions:
        require_detections(corpus, variant)
    return Encoder(
        tokenizer,
        config.vcr_text_length if task == "vcr" else config.text_length,
        config.image_size,
        corpus.detections if regions else None,
        regions,
        profile.data.detector_threshold,
    )


def finetune(run: Run, task: str, corpus: Corpus, restart: bool = False) -> Finetuned:
    """Finetune the pretrained model of the run on a task and score it by the official rules.

    The weights of the lowest validation loss are kept; with them val is scored, and then, once, test. Beside what
    `loop.fit` writes, the run's folder gets tokenizer.json, answers.json (VQA), run.json with the scores, and in
    predictions/ the official submission files of val and test; those of a test split without public labels are
    written too.

    Raises UserError for an unknown task, a pretraining that is missing or of other settings (`Run.at`), files of the
    task that are missing or broken, another process that works in the folder, and as `loop.fit` does.
    """
    stage = f"finetune-{check_task(task)}"
    run = run.at(stage)
    folder = run.folder(stage)
    with held(folder):
        begun, start = provenance.now(), time.monotonic()
        profile, variant, seed = run.config, run.chosen, run.seed
        pretrained = run.folder("pretrain")
        training: TrainingConfig = getattr(profile.downstream, task)
        tokenizer = load_tokenizer(str(pretrained / TOKENIZER), UNCUT)
        data = open_task(task, corpus, task_encoder(profile, task, variant, corpus, tokenizer), profile.downstream)
        if is_main():
            print("\n".join(data.notes), end="\n" if data.notes else "")
        loop.seed_everything(seed)
        model = DownstreamModel(restore_pretrained(run, corpus)[0].vlp, data.pairs, data.classes)
        freeze_unread(model.train(), collate([data.train[0], data.train[min(1, len(data.train) - 1)]]))
        trained = FinetuningTask(data, training, profile.data.workers, seed, f"{task} {variant.name} seed {seed}")
        about = {
            "stage": stage,
            "task": task,
            "profile": profile.name,
            "variant": variant.name,
            "model": to_dict(profile.model),
            "plugins": describe_plugins(variant),
            "downstream": {k: v for k, v in to_dict(profile.downstream).items() if k not in ("vqa", "nlvr2", "vcr")},
            "pretrained": hashlib.sha256((pretrained / loop.WEIGHTS).read_bytes()).hexdigest(),
            "vocabularies": to_dict(vocabularies(corpus, tokenizer)),
            "corpus": corpus.fingerprint,
            "pairs": data.pairs,
            "classes": data.classes,
            "settings": list(run.settings),
        }
        rows = loop.fit(model, trained, training, trained.steps, seed, folder, about, restart, entry=__name__)
        if not is_main():  # the main process scores for all
            return Finetuned(rows, {}, [], data.notes)
        load_weights(folder / loop.WEIGHTS, model)
        scores, examples = _score(model.eval(), data, profile, training, folder)
        io.write_atomically(folder / TOKENIZER, tokenizer.save)
        if data.answers:
            io.write_json(folder / ANSWERS, list(data.answers))
        facts = run.identity(stage) | {
            **{name: about[name] for name in ("task", "corpus", "pretrained")},
            "synthetic": corpus.synthetic,
            "items": {s.name: len(s) for s in (data.train, data.val, data.test) if s is not None},
            "notes": list(data.notes),
            "baselines": baselines(data),
            "plugins": keep_plugins(variant, folder),
            **scores,
        }
        provenance.write_run(folder, facts, model, begun, max(time.monotonic() - start, rows[-1]["seconds"]))
        return Finetuned(rows, scores, examples, data.notes)


def _score(
    model: DownstreamModel, data: TaskData[Any], profile: Profile, training: TrainingConfig, folder: Path
) -> tuple[dict[str, dict[str, Any]], list[Example]]:
    """Official scores of val and test, their submission files, and some examples of the last scored one."""
    device = next(model.parameters()).device
    scores: dict[str, dict[str, Any]] = {}
    examples: list[Example] = []
    items: dict[str, np.ndarray] = {}
    low = loop.resolve_precision(training.precision) == "bf16"
    for full in (data.val, data.test):
        if full is None:
            continue
        split = full.limited(profile.downstream.scored or len(full) + 1)
        if split is not full:
            print(f"{full.name}: {len(split):,} of {len(full):,} items are scored (downstream.scored)")
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=low):
            decisions, _ = predict(model, split, device, training.batch_size, profile.data.workers)
        files = split.write(decisions, folder / "predictions")
        print(f"{full.name}: {', '.join(str(file) for file in files)}")
        if split.labelled:
            scores[full.name] = split.score(decisions)
            blocks = [question.block for question in split.questions]
            for metric, values in split.scores_of_questions(decisions).items():
                items[f"{full.name}.{metric}"] = by_block(values, blocks)
            places = np.random.default_rng(0).permutation(len(split))[:_EXAMPLES]
            examples = [split.example(int(i), decisions) for i in places]
        else:
            print(f"{full.name}: its labels are not public; hand the files to the test server")
    write_items(folder, items)
    return scores, examples


def load_finetuned(run: Run, task: str, corpus: Corpus) -> tuple[DownstreamModel, Encoder]:
    """The finetuned model of a run (on the CPU, in evaluation mode) and its encoder.

    Raises UserError where it is not there or is of another profile, variant or corpus.
    """
    stage = f"finetune-{task}"
    profile, variant, folder = run.config, run.chosen, run.folder(stage)
    if not (folder / RECORD).is_file():
        raise UserError(f"no finished {stage} in {folder}: run `{run.command(stage)}` first")
    tokenizer = load_tokenizer(str(folder / TOKENIZER), UNCUT)
    made = io.read_json(folder / CONFIG)
    vlp = VLPModel(profile.model, variant, vocabularies(corpus, tokenizer), pretrained=False)
    model = DownstreamModel(vlp, made["pairs"], made["classes"])
    load_weights(folder / loop.WEIGHTS, model)
    return model.eval(), task_encoder(profile, task, variant, corpus, tokenizer)

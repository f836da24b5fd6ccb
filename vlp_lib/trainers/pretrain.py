"""Pretraining (section IV-A): one variant, one seed, from a corpus on disk to a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from vlp_lib import io, provenance
from vlp_lib.batches.corrupt import CorruptImages, recorded
from vlp_lib.batches.pairs import PairDataset, TrainingOrder, load_batches, validation_keys
from vlp_lib.batches.sample import Batch, Pictures
from vlp_lib.batches.texts import training_texts
from vlp_lib.batches.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from vlp_lib.config import Profile, to_dict
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.distributed import held, is_main
from vlp_lib.errors import UserError
from vlp_lib.losses.base import Needs
from vlp_lib.losses.itm import itm_loss
from vlp_lib.models.cross_modality import relative_entropy
from vlp_lib.models.model import PretrainingModel, VLPModel, needs_of
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.run import Run
from vlp_lib.trainers import loop
from vlp_lib.trainers.plugins import describe_plugins, keep_plugins
from vlp_lib.variants import Variant

TOKENIZER = "tokenizer.json"


def make_tokenizer(profile: Profile, corpus: Corpus) -> Tokenizer:
    """The profile's named tokenizer, or a WordPiece vocabulary learned from the corpus's training texts."""
    if profile.model.tokenizer:
        return load_tokenizer(profile.model.tokenizer, profile.model.max_text_length)
    return train_tokenizer(training_texts(corpus), profile.model.max_text_length)


def vocabularies(corpus: Corpus, tokenizer: Tokenizer) -> Vocabularies:
    """The sizes that the corpus decides."""
    detections = corpus.detections
    return Vocabularies(
        words=len(tokenizer),
        segmentation=len(corpus.segmentation_classes),
        detector=len(detections.classes) if detections else 0,
        attributes=len(detections.attribute_names) if detections else 0,
    )


def require_detections(corpus: Corpus, variant: Variant) -> None:
    """Refuse a variant that reads detections on a corpus without any; raises UserError."""
    if corpus.detections is None:
        raise UserError(
            f"variant {variant.name!r} reads detector labels and {corpus.root} has none: label its images "
            f"with `vlp data labels --root {corpus.root}`, put a Bottom-Up .tsv there, or choose another variant"
        )


def require_targets(corpus: Corpus, variant: Variant, needs: Needs) -> None:
    """Refuse a variant whose targets the corpus lacks; raises UserError naming what is missing."""
    if variant.vision == "region" or needs.detections:
        require_detections(corpus, variant)
    if needs.label_maps and not any(corpus.has_label_map(r) for r in corpus.split("train")):
        raise UserError(
            f"variant {variant.name!r} reads label maps and {corpus.root} has none for its training images: add "
            f"stuffthingmaps/ or choose another variant"
        )


class PretrainingTask:
    """MLM, ITM and the variant's visual loss on image–sentence pairs.

    `folder` is the run's, where corrupt images are kept account of.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        profile: Profile,
        variant: Variant,
        seed: int,
        steps: int,
        folder: Path | None = None,
    ) -> None:
        self.name = f"pretrain {variant.name} seed {seed}"
        needs = needs_of(profile.model, variant, vocabularies(corpus, tokenizer))
        detections = profile.model.region.max_regions if variant.vision == "region" else needs.detections
        self.train, self.val = (
            PairDataset(corpus, split, tokenizer, profile.model, profile.data, needs.label_maps, detections)
            for split in ("train", "val")
        )
        self.profile, self.seed, self.folder = profile, seed, folder
        self.steps = steps or loop.steps_of_epochs(profile.training, len(self.train))
        self.validation = validation_keys(self.val, profile.training.validation_images)

    def batches(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        """Training batches from step `start` on."""
        training = self.profile.training
        size, parts = training.batch_size, training.accumulation
        order = TrainingOrder(
            len(self.train), size, self.steps, self.seed, start, rank, world, parts, self.train.lengths
        )
        corrupt = CorruptImages(self.folder, len(self.train.records), self.profile.data.allow_corrupt, rank)
        for batch in load_batches(self.train, order, self.profile.data.workers):
            corrupt.note(batch.unreadable)
            yield batch

    def share_out(
        self, model: PretrainingModel, parts: Sequence[Batch], mean: Callable[[torch.Tensor], torch.Tensor]
    ) -> Sequence[Batch]:
        """The parts with their shares of what each loss is a mean over (masked words, cells with a class, …)."""
        cut = [model.vlp.vision.cut(part) for part in parts]
        device = cut[0].images.device
        terms = [model.terms(part) for part in cut]
        # As tensors: to ask a GPU for a number would be to wait for all that it still has to do.
        counts = [torch.as_tensor(n, dtype=torch.float32, device=device) for of_part in terms for n in of_part.values()]
        own = torch.stack(counts).unflatten(0, (len(parts), -1))
        equal = mean(own.mean(0))
        shares = torch.where(equal > 0, own / equal, 1.0)
        return [
            replace(part, shares=dict(zip(terms[0], row, strict=True))) for part, row in zip(cut, shares, strict=True)
        ]

    def losses(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """All losses of one forward pass."""
        vlp = getattr(model, "module", model).vlp  # several processes wrap the model
        batch = vlp.visual_loss.corrupt(vlp.vision.cut(batch))
        losses: dict[str, torch.Tensor] = model(batch)
        losses.pop("itm_logits")
        return losses

    def evaluate(self, model: PretrainingModel, device: torch.device) -> dict[str, float]:
        """Losses on the fixed validation pairs.

        The matching loss and accuracy are measured on whole sentences and images, so that no variant is judged on
        inputs that its own loss has damaged; the other losses, and the matching loss that is part of "val_loss", on the
        same pairs as in training. Each is the mean over its own terms (masked words, cells with a class, …), so that
        how the pairs are batched changes nothing. A visual loss that has nothing to be measured on (no validation image
        has a label map) is left out, not 0. "val_entropy" is how evenly the words look at the image
        (`relative_entropy`).
        """
        size = self.profile.training.batch_size
        keys = [self.validation[i : i + size] for i in range(0, len(self.validation), size)]
        sums: dict[str, float] = {}
        counts: dict[str, float] = {}
        visual = model.vlp.visual_loss

        def add(name: str, value: torch.Tensor, count: float) -> None:
            if count:
                sums[name] = sums.get(name, 0.0) + float(value) * count
                counts[name] = counts.get(name, 0.0) + count

        for batch in load_batches(self.val, keys, self.profile.data.workers):
            moved = model.vlp.vision.cut(batch.to(device))
            # Without the visual loss: it may ask for the damage that it does to its inputs in training.
            seen = model.vlp.encode_vision(moved)
            output = model.vlp(moved.without_masks(), need_weights=True, seen=seen)
            logits = model.itm_head(output.pooled)
            words, read = moved.attention_mask, output.tokens.of_texts(moved.image_of_text)
            add("entropy", relative_entropy(output.attention, words, read.mask), float(words.sum()))
            add("itm", itm_loss(logits, moved.matched), len(logits))
            add("itm_accuracy", (logits.argmax(1) == moved.matched).float().mean(), len(logits))
            corrupt = visual.corrupt(moved)
            whole = all(getattr(corrupt, f.name) is getattr(moved, f.name) for f in fields(Pictures))
            losses = model(corrupt, seen if whole else None)
            add("loss", losses["itm"], len(logits))
            terms = {name: float(count) for name, count in model.terms(moved).items()}
            for name in losses.keys() - {"itm", "itm_logits", "visual", "loss"}:
                # A loss, or a part of one, which is called after it.
                loss = max((loss for loss in terms if f"{name}_".startswith(f"{loss}_")), key=len)
                add(name, losses[name], terms[loss])
        means = {name: sums[name] / counts[name] for name in sums}
        means["loss"] = model.weights["itm"] * means["loss"] + model.weights["mlm"] * means.get("mlm", 0.0)
        measured = visual.weights.keys() & means.keys()
        if measured:
            means["visual"] = sum(visual.weights[name] * means[name] for name in sorted(measured))
            means["loss"] += means["visual"]
        return {f"val_{name}": means[name] for name in sorted(means)}


def pretrain(run: Run, corpus: Corpus, restart: bool = False, tensorboard: bool = False) -> list[dict[str, Any]]:
    """Pretrain one variant with one seed into the run's folder; returns the rows of its metrics.jsonl.

    An interrupted run of the same settings and data is continued; a folder of others is refused, or with `restart`
    moved aside. With `tensorboard` the curves are written for TensorBoard, too.

    Raises UserError as `loop.fit` does, and where another process works in the folder.
    """
    run = run.at("pretrain")
    folder = run.folder("pretrain")
    with held(folder):
        begun, start = provenance.now(), time.monotonic()
        profile, variant, seed = run.config, run.chosen, run.seed
        tokenizer = make_tokenizer(profile, corpus)
        sizes = vocabularies(corpus, tokenizer)
        require_targets(corpus, variant, needs_of(profile.model, variant, sizes))
        loop.seed_everything(seed)
        model = PretrainingModel(
            VLPModel(profile.model, variant, sizes), profile.training.mlm_weight, profile.training.itm_weight
        )
        task = PretrainingTask(corpus, tokenizer, profile, variant, seed, profile.training.steps, folder)
        about = {
            "stage": "pretrain",
            "profile": profile.name,
            "variant": variant.name,
            "model": to_dict(profile.model),
            "losses": model.vlp.visual_loss.settings,
            "plugins": describe_plugins(variant),
            "data": to_dict(profile.data),
            "vocabularies": to_dict(sizes),
            "corpus": corpus.fingerprint,
            "settings": list(run.settings),
        }
        if task.val.label_maps and not any(corpus.has_label_map(r) for r in task.val.records) and is_main():
            print(
                "no validation image has a label map: what needs them is not measured there, and val_loss is without it"
            )
        rows = loop.fit(model, task, profile.training, task.steps, seed, folder, about, restart, tensorboard, __name__)
        if not is_main():
            return rows
        io.write_atomically(folder / TOKENIZER, tokenizer.save)
        facts = run.identity("pretrain") | {
            "synthetic": corpus.synthetic,
            "corpus": corpus.fingerprint,
            "settings": list(run.settings),
            "notes": list(corpus.notes),
            "not_used": corpus.report.skipped,
            "validation_pairs": len(task.validation),
            "validation_images": len({task.val.image_of_pair[key.pair] for key in task.validation}),
            "corrupt_images": recorded(folder),
            "plugins": keep_plugins(variant, folder),
        }
        # Of a run that was interrupted its own clock knows the whole.
        seconds = max(time.monotonic() - start, rows[-1]["seconds"])
        provenance.write_run(folder, facts, model, begun, seconds)
        return rows

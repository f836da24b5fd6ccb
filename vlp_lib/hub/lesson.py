"""What a lesson starts from, once the first one has shown how it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch

from vlp_lib.batches.collate import collate
from vlp_lib.batches.pairs import validation_keys
from vlp_lib.batches.sample import Batch
from vlp_lib.errors import UserError
from vlp_lib.hub.packed import ready_models
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.run import Run
from vlp_lib.trainers.pretrain import PretrainingTask, vocabularies
from vlp_lib.workspace import open_run_corpus


class Lesson:
    """The corpus of a run, a trained model and a new one, and pairs to learn from and to judge by.

    The pairs have what the run's variant reads, and with `label_maps` label maps, too.

    Attributes:
        corpus: the images, sentences, label maps and detector labels.
        trained: the network of the run: your own where you have trained it, else the one that comes with the kit.
        others: the networks of the other runs that were asked for, of the same corpus and vocabulary.
        tokenizer, config: the vocabulary and the sizes of all of them.
        record: how the trained one came about.

    Raises UserError where a model is neither finished nor comes with the kit, or knows other words than another.
    """

    def __init__(self, run: Run, *others: Run, label_maps: bool = False) -> None:
        self.run, self.corpus = run, open_run_corpus(run)
        first, *rest = ready_models(run, *others)
        self.trained, self.others = first.network, [model.network for model in rest]
        self.tokenizer, self.config = first.tokenizer, first.network.vlp.config
        self.record = first.record
        vocabulary = self.tokenizer.engine.get_vocab()
        for other, model in zip(others, rest, strict=True):
            if model.tokenizer.engine.get_vocab() != vocabulary:
                raise UserError(f"{run.name} and {other.name} know different words: train both models on one corpus")
        training = replace(run.config.training, accumulation=1)
        profile = replace(run.config, model=self.config, training=training)
        self._task = PretrainingTask(self.corpus, self.tokenizer, profile, run.chosen, run.seed, training.steps)
        self._task.train.label_maps |= label_maps
        self._task.val.label_maps |= label_maps

    def new_model(self) -> PretrainingModel:
        """An untrained model, always with the same random weights, in evaluation mode."""
        torch.manual_seed(self.run.seed)
        sizes = vocabularies(self.corpus, self.tokenizer)
        return PretrainingModel(VLPModel(self.config, self.run.chosen, sizes)).eval()

    def pairs_to_judge_by(self, count: int = 64) -> Batch:
        """So many pairs of validation images, every second one mismatched, that no model has learned from."""
        return collate([self._task.val[key] for key in validation_keys(self._task.val, count)])

    def batches(self, steps: int) -> Iterator[Batch]:
        """Training batches for so many steps, at most as many as the profile trains."""
        return islice(self._task.batches(0, 0, 1), min(steps, self.run.config.training.steps))

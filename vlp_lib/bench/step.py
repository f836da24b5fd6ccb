"""A training step as the training loop does it, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from vlp_lib.batches.sample import Batch
from vlp_lib.batches.tokenizer import Tokenizer
from vlp_lib.clock import Stopwatch, take_turns, timed
from vlp_lib.config import Profile, TrainingConfig
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.run import Run
from vlp_lib.trainers.efficiency import prepare_model, training_kernels
from vlp_lib.trainers.loop import make_optimiser, resolve_precision, seed_everything
from vlp_lib.trainers.pretrain import PretrainingTask, make_tokenizer, vocabularies
from vlp_lib.trainers.trained import device_at_hand
from vlp_lib.variants import Variant


class TrainingStep:
    """Forward pass, backward pass and optimiser of a pretraining; `loss` is the scalar to minimise."""

    def __init__(
        self,
        model: PretrainingModel,
        loss: Callable[[PretrainingModel, Batch], torch.Tensor],
        training: TrainingConfig,
        device: torch.device,
    ) -> None:
        self.model, self.loss, self.training, self.device = model, loss, training, device
        self.optimiser = make_optimiser(model, training)
        self.bf16 = resolve_precision(training.precision) == "bf16"

    def __call__(self, parts: Iterable[Batch], count: int = 1, watch: Stopwatch | None = None) -> None:
        """One step on the `count` parts of a batch, wherever they lie.

        Marks on a watch the ends of "data" (what the device waits for), "forward", "backward" and "optimiser".
        """
        mark = watch.mark if watch else lambda _: None
        with training_kernels(self.training, self.device):
            for part in parts:
                batch = part.to(self.device)
                mark("data")
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss = self.loss(self.model, batch) / count
                mark("forward")
                loss.backward()
                mark("backward")
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
            self.optimiser.step()
            self.optimiser.zero_grad()
            mark("optimiser")


def in_one_part(profile: Profile) -> Profile:
    """The profile with as large a batch as it computes at once, whatever its accumulation."""
    training = profile.training
    size = training.batch_size // training.accumulation
    return replace(profile, training=replace(training, batch_size=size, accumulation=1))


def start_training(
    profile: Profile, variant: Variant, corpus: Corpus, tokenizer: Tokenizer, sizes: Vocabularies, steps: int
) -> tuple[PretrainingTask, TrainingStep]:
    """A pretraining of so many steps as `loop.fit` sets it up: its task and its step; nothing is downloaded."""
    device, training = device_at_hand(), profile.training
    task = PretrainingTask(corpus, tokenizer, profile, variant, seed=0, steps=steps)
    seed_everything(0)
    model = PretrainingModel(VLPModel(profile.model, variant, sizes, pretrained=False)).to(device).train()
    prepare_model(model, training, device)
    return task, TrainingStep(model, lambda model, batch: task.losses(model, batch)["loss"], training, device)


def seconds_of(run: Run, corpus: Corpus, steps: int = 4) -> float:
    """Seconds that a whole pretraining will take on the device at hand, from some of its steps and a validation."""
    training, tokenizer = run.config.training, make_tokenizer(run.config, corpus)
    sizes = vocabularies(corpus, tokenizer)
    task, step = start_training(run.config, run.chosen, corpus, tokenizer, sizes, training.steps)
    batches, parts, device = task.batches(0, 0, 1), training.accumulation, step.device

    def validate() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=step.bf16):
            task.evaluate(step.model.eval(), device)

    of_steps = take_turns({"": timed(lambda: step([next(batches) for _ in range(parts)], parts), device)}, steps)[""]
    (of_validation,) = timed(validate, device)()
    return task.steps * float(of_steps.mean()) + (training.evaluations + 1) * of_validation

"""Trained models to keep, to share and to use: a folder in the hub's format, and what is loaded from it.

The folder holds what a run folder holds (config.json, model.safetensors, tokenizer.json, run.json, metrics.jsonl and,
for VQA, answers.json) and a model card, README.md, that is written from it. Run folders can be loaded as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlp_lib import catalogue, io
from vlp_lib.batches.sample import Pictures
from vlp_lib.batches.tokenizer import Tokenizer, load_tokenizer
from vlp_lib.batches.whole import pad_texts, square_images
from vlp_lib.config import ModelConfig, flatten, to_dict
from vlp_lib.corpora.images import as_rgb
from vlp_lib.errors import UserError, reason
from vlp_lib.fetch import hub
from vlp_lib.hub.card import RunRecord, model_card
from vlp_lib.losses.itm import itm_score
from vlp_lib.models.model import PretrainingModel, VLPModel
from vlp_lib.models.vocabularies import Vocabularies
from vlp_lib.models.weights import declared, input_scale, require_same_tensors
from vlp_lib.run import CONFIG, RECORD
from vlp_lib.settings import override
from vlp_lib.tasks.common import Encoder, TaskSample, collate
from vlp_lib.tasks.downstream import DownstreamModel
from vlp_lib.tasks.vqa_accuracy import read_answer_list
from vlp_lib.trainers.checkpoint import load_weights, save_weights
from vlp_lib.trainers.finetune import ANSWERS, UNCUT
from vlp_lib.trainers.loop import METRICS, WEIGHTS
from vlp_lib.trainers.plugins import FOLDER as PLUGINS
from vlp_lib.trainers.plugins import keep_plugins
from vlp_lib.trainers.pretrain import TOKENIZER
from vlp_lib.variants import Variant, parse_variant

CARD = "README.md"
FILES = (CONFIG, WEIGHTS, TOKENIZER, RECORD, METRICS, ANSWERS, CARD)
"""What a folder in the hub's format holds (ANSWERS for VQA only)."""

_OF_THE_HUB = (".git", ".cache/")
"""Beginnings of what git and the hub's library keep beside a model."""

_NEEDED = ("stage", "profile", "variant", "model", "vocabularies")
_WEIGHT_NAMES = ("language_pretrained", "tokenizer", "vit.pretrained", "resnet.pretrained", "timm.pretrained")

Text = str | tuple[str, str]
"""A sentence or question, or a VCR question with a candidate."""


@dataclass(frozen=True)
class TrainedModel:
    """A model with everything that is needed to use it.

    The network is that of a pretraining (with the MLM and ITM heads) or of a finetuning (with the task's head), in
    evaluation mode. It may be moved to a GPU (`model.network.to("cuda")`); what it is asked is moved after it.
    """

    network: PretrainingModel | DownstreamModel
    tokenizer: Tokenizer
    variant: Variant
    record: RunRecord  # what its run left: configuration, facts, metrics
    answers: tuple[str, ...] = ()  # VQA's, in the order of the classes

    @torch.inference_mode()
    def match(self, images: Sequence[Image.Image], sentences: Sequence[str]) -> torch.Tensor:
        """The probability [P] that sentence i describes image i, by the pretrained matching head (section III-A).

        Images may have any size and mode; they are squared to the pretraining's size, not cropped.

        Raises UserError for a finetuned model, for the region model, and where the numbers of both differ.
        """
        if not isinstance(self.network, PretrainingModel):
            raise UserError(
                f"a model finetuned on {self.record.config['task']} has no matching head: load the pretrained model"
            )
        self._require_pixels()
        if len(images) != len(sentences) or not images:
            raise UserError(f"{len(images)} images and {len(sentences)} sentences make no pairs: give as many of both")
        vlp, device = self.network.vlp, self._device()
        ids, mask = (part.to(device) for part in pad_texts([self.tokenizer.encode(text)[0] for text in sentences]))
        squares = square_images(map(as_rgb, images), vlp.config.image_size)
        _, tokens = vlp.encode_vision(Pictures(squares.to(device)))
        pooled = vlp.join(vlp.language(ids, mask), mask, tokens)[0]
        return itm_score(self.network.itm_head(pooled)).sigmoid().cpu()

    @torch.inference_mode()
    def logits(self, images: Sequence[Sequence[Image.Image]], texts: Sequence[Sequence[Text]]) -> torch.Tensor:
        """The finetuned head's logits [B, classes] of items, each with its images and its texts.

        VQA: one image and one question, a class an answer of `answers`. NLVR2: two images and one statement, classes
        false and true. VCR: one image and four (question, candidate) texts, a class a candidate.

        Raises UserError for a pretrained model, for the region model, and for items of another shape.
        """
        if not isinstance(self.network, DownstreamModel):
            raise UserError("a pretrained model has no task's head: load a finetuned model, or ask for match")
        self._require_pixels()
        downstream = self.record.config["downstream"]
        length = downstream["vcr_text_length" if self.record.config["task"] == "vcr" else "text_length"]
        encoder = Encoder(self.tokenizer, length, downstream["image_size"])
        if len(images) != len(texts) or not images:
            raise UserError(f"{len(images)} items' images and {len(texts)} items' texts: give as many of both")
        samples = []
        for i, (shown, said) in enumerate(zip(images, texts, strict=True)):
            if len(shown) * len(said) != self.network.pairs:
                raise UserError(
                    f"item {i} has {len(shown)} images and {len(said)} texts, but {self.record.config['task']} has "
                    f"{self.network.pairs} image–text pairs an item: see TrainedModel.logits"
                )
            pieces = tuple(encoder.text(text) if isinstance(text, str) else encoder.text(*text) for text in said)
            pictures = tuple(encoder.shown(as_rgb(image)) for image in shown)
            samples.append(TaskSample(pictures, (), pieces, torch.tensor(0)))
        return self.network(collate(samples).to(self._device())).float().cpu()

    def answer(self, image: Image.Image, question: str) -> str:
        """The likeliest answer to a question about an image; raises UserError for a model that is not VQA's."""
        if not self.answers:
            raise UserError(f"a model of stage {self.record.config['stage']!r} answers no questions: load one of VQA")
        return self.answers[int(self.logits([[image]], [[question]]).argmax())]

    def save_pretrained(self, folder: Path | str) -> Path:
        """Write the model into `folder` in the hub's format, with its card; returns the folder.

        Names of pretrained weights that are paths of this machine are written as "local/<name>".
        Raises UserError where the folder cannot be written, or holds what is no model that was saved this way.
        """
        folder = Path(folder)
        saved = (folder / CARD).is_file() and (folder / CONFIG).is_file()
        io.require_ours(
            folder, lambda name: saved and (name in FILES or name.startswith((f"{PLUGINS}/", *_OF_THE_HUB)))
        )
        config = _portable(self.record.config)
        about = {name: value for name, value in config.items() if isinstance(value, str | int)}
        save_weights(folder / WEIGHTS, self.network, about | {"step": self.record.best["step"]})
        io.write_atomically(folder / TOKENIZER, self.tokenizer.save)
        io.write_json(folder / CONFIG, config)
        io.write_json(folder / RECORD, self.record.run)
        io.write_lines(folder / METRICS, list(self.record.rows))
        keep_plugins(self.variant, folder)
        if self.answers:
            io.write_json(folder / ANSWERS, list(self.answers))
        io.write_text(folder / CARD, model_card(RunRecord(config, self.record.run, self.record.rows)))
        return folder

    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _require_pixels(self) -> None:
        if self.variant.vision == "region":
            raise UserError(
                "the region model reads a detector's output, not images: call its network with detections instead"
            )


def from_pretrained(name_or_folder: Path | str, revision: str | None = None, plugin: Path | str = "") -> TrainedModel:
    """A trained model, on the CPU: from a local folder (an export or a run folder), else from the hub by its name.

    A local folder needs no network, and neither does a hub model that was fetched before.

    Args:
        name_or_folder: a folder, or a name such as "someone/vlp-segl".
        revision: branch, tag or commit on the hub.
        plugin: the file of a visual loss that is not the kit's, where the model has one. It is a program that will be
            run: read it first, above all where it comes with the model.

    Raises UserError for a folder or name that is not there, a missing file, a model of another architecture (naming
    the tensors that differ), and values that are not finite.
    """
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = _fetch(str(name_or_folder), revision)
    config = io.read_json(folder / CONFIG)
    lacks = [name for name in _NEEDED if not isinstance(config, dict) or name not in config]
    if lacks:
        raise UserError(
            f"{folder / CONFIG} describes no model of this kit (it lacks {', '.join(lacks)}): give a run folder of "
            f"`vlp pretrain` or `vlp finetune`, or one that `vlp export` wrote"
        )
    try:
        _add_plugins(dict(config.get("plugins", {})), folder, plugin)
    except (TypeError, ValueError) as error:
        raise _not_buildable(folder, error) from error
    try:
        model_config: ModelConfig = override(ModelConfig(), flatten(config["model"]))
        variant = parse_variant(config["variant"], model_config.vision)
        sizes = Vocabularies(**config["vocabularies"])
        finetuned = config["stage"] != "pretrain"
        head = (int(config["pairs"]), int(config["classes"])) if finetuned else None
    except (UserError, TypeError, AttributeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise _not_buildable(folder, error) from error
    for name in (RECORD, TOKENIZER):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: run its stage to the end, or fetch the whole folder again")

    def build() -> PretrainingModel | DownstreamModel:
        vlp = VLPModel(model_config, variant, sizes, pretrained=False)
        return DownstreamModel(vlp, *head) if head else PretrainingModel(vlp)

    _require_fitting(folder, model_config, build)
    network = build()
    load_weights(folder / WEIGHTS, network)
    return TrainedModel(
        network=network.eval(),
        tokenizer=load_tokenizer(str(folder / TOKENIZER), UNCUT if finetuned else model_config.max_text_length),
        variant=variant,
        record=RunRecord(config, io.read_json(folder / RECORD), tuple(io.read_lines(folder / METRICS))),
        answers=read_answer_list(folder / ANSWERS) if config.get("task") == "vqa" else (),
    )


def export(run: Path, folder: Path) -> Path:
    """Write a finished run's model into another folder in the hub's format; returns that folder.

    Raises UserError where the run is missing, unfinished or broken, and where both folders are the same.
    """
    if not run.is_dir():
        raise UserError(f"no run folder {run}: give one such as results/tiny/pretrain/segl/seed0")
    if run.resolve() == folder.resolve():
        raise UserError(f"{folder} is the run's own folder: give another one to write to")
    kept = sorted((run / PLUGINS).glob("*.py"))  # the run is the user's own, and so is its code
    return from_pretrained(run, plugin=kept[0] if kept else "").save_pretrained(folder)


def _not_buildable(folder: Path, error: Exception) -> UserError:
    return UserError(
        f"{folder / CONFIG} describes a model that this version cannot build ({reason(error)}): "
        f"install the version of vlp-lib that is named in {RECORD}"
    )


def _require_fitting(folder: Path, config: ModelConfig, build: Callable[[], torch.nn.Module]) -> None:
    """Raise UserError where a folder's weights are not those of the model that it describes, before that is made.

    The model is made without numbers first: a configuration may ask for any size.
    """
    there = declared(folder / WEIGHTS)
    layers = {name: value for name, value in flatten(to_dict(config)).items() if name.endswith("layers")}
    for name, value in layers.items():
        if (sum(value) if isinstance(value, list) else value) > len(there):
            raise _not_buildable(
                folder, ValueError(f"model.{name} is {value!r:.40} and there are {len(there)} weights")
            )
    try:
        with torch.device("meta"):
            own = build().state_dict()
    except Exception as error:  # torch and timm have one for each impossible size
        raise _not_buildable(folder, error) from error
    what = f"{folder / WEIGHTS} holds another model than {CONFIG} describes"
    require_same_tensors(there, own, folder / WEIGHTS, what, "fetch the whole folder again")


def _add_plugins(hashes: Mapping[str, str], folder: Path, plugin: Path | str) -> None:
    """Make the losses known that are not the kit's; only code that the user names is run, and only the model's own."""
    if plugin:
        catalogue.add_plugin(Path(plugin))
    for name, sha256 in hashes.items():
        if name not in catalogue.losses():
            raise UserError(
                f"this model has a visual loss {name!r} that is not the kit's: read the program in {folder / PLUGINS} "
                f"and, if you trust it, give plugin= its path"
            )
        if catalogue.loss(name).sha256 != sha256:
            raise UserError(
                f"the plug-in for {name!r} is not the one that this model was trained with: give plugin= the file in "
                f"{folder / PLUGINS}"
            )


def _fetch(name: str, revision: str | None) -> Path:
    """A hub model's folder in the hub's cache."""
    import huggingface_hub

    wanted = [*FILES, f"{PLUGINS}/*.py"]
    try:
        with hub():
            return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's library has one for every kind of failure
        raise UserError(
            f"{name!r} is no folder, and the hub does not give it ({reason(error)}): mend the name, or connect to it"
        ) from error


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose weights and tokenizers are named without the folders of this machine.

    The input scale of pretrained weights, which no checkpoint holds, is written out: their folder is not there to ask.
    """
    model: ModelConfig = override(ModelConfig(), flatten(config["model"]))
    settings, vision = config.get("settings", []), parse_variant(config["variant"], model.vision).vision
    if vision != "region":
        section = vision.partition(":")[0]
        backbone = getattr(model, section)
        if backbone.pretrained:
            mean, std = input_scale(backbone, vision)
            model = override(model, {f"{section}.mean": mean, f"{section}.std": std})
    for name in _WEIGHT_NAMES:
        value = flatten(to_dict(model))[name]
        if "/" in value and (Path(value).is_absolute() or Path(value).exists()):
            shared = f"local/{Path(value).name}"
            model = override(model, {name: shared})
            settings = [f"model.{name}={shared}" if text == f"model.{name}={value}" else text for text in settings]
    return config | {"model": to_dict(model), "settings": settings}

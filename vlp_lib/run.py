"""Where things lie, and what a run is: its settings, its folder, what it goes on from.

Nothing depends on the current folder, and two data sets never share one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vlp_lib import catalogue, packages
from vlp_lib.config import Profile, flatten, to_dict
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, writable
from vlp_lib.profiles import profile
from vlp_lib.settings import override, parse_parameter
from vlp_lib.variants import VARIANTS, Variant, parse_variant

CONFIG, RECORD = "config.json", "run.json"
"""In a run's folder: the settings that it was begun with, and, once it is finished, what it was made by."""

DATA_ROOT = "data_root.txt"
"""In a folder of results: which data set they are of."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+*@=-]*")

READS = {
    "pretrain": ("model", "losses", "corpus", "data", "training"),
    "finetune": ("model", "losses", "corpus", "data", "downstream"),
    "retrieval": ("model", "losses", "corpus", "data", "retrieval"),
    "attention": ("model", "losses", "corpus", "data", "downstream"),
}
"""The sections of the settings that a stage reads."""

_FIXED = ("model", "losses", "corpus")
"""Those of them that a stage takes from the run that it goes on from, and cannot change."""

_AFTER = {"finetune": "pretrain", "retrieval": "pretrain", "attention": "finetune-vqa"}
"""The stage that another goes on from."""


def project_root() -> Path:
    """The checkout that holds notebooks/ and results/, or the current folder for an installed package."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else Path.cwd()


def results_root() -> Path:
    """`results/` of the checkout; the environment variable VLP_RESULTS puts it elsewhere."""
    return Path(os.environ.get("VLP_RESULTS") or project_root() / "results").resolve()


def reference_root() -> Path:
    """The results of `tiny` that come with the kit."""
    return project_root() / "results" / "reference" / "tiny"


@dataclass(frozen=True)
class Layout:
    """The folders of one profile on one corpus: results/<profile>/, or results/<profile>-<name>/ with a data_root.

    <name> is that of the data_root's folder. Where the results of another folder of that name lie there already
    (data_root.txt says of which), six digits of the path's SHA-256 are added.
    """

    profile: str
    data_root: str = ""

    @property
    def root(self) -> Path:
        """Everything of this profile and corpus."""
        if not self.data_root:
            return results_root() / self.profile
        data = str(Path(self.data_root).resolve())
        plain = results_root() / f"{self.profile}-{re.sub(r'[^A-Za-z0-9_.+-]+', '_', Path(data).name)}"
        owner = plain / DATA_ROOT
        if not owner.is_file() or owner.read_text(encoding="utf-8").strip() == data:
            return plain
        return plain.with_name(f"{plain.name}-{hashlib.sha256(data.encode()).hexdigest()[:6]}")

    def claim(self) -> None:
        """Write down which data set the folder belongs to; of two that do so at once, the first gets the plain name."""
        if not self.data_root or (self.root / DATA_ROOT).is_file():
            return
        with writable(self.root):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with (self.root / DATA_ROOT).open("x", encoding="utf-8") as file:
                    file.write(f"{Path(self.data_root).resolve()}\n")
            except FileExistsError:
                self.claim()

    def corpus(self, chosen: Profile) -> Path:
        """The corpus: the data_root, or the embedded one of a profile with these settings.

        The profile's own lies in corpus/, one of other settings in corpora/<fingerprint of its settings>/.
        """
        if self.data_root:
            return Path(self.data_root).resolve()
        asked = corpus_settings(chosen)
        if asked == corpus_settings(profile(self.profile)):
            return self.root / "corpus"
        return self.root / "corpora" / hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def figures(self) -> Path:
        """Figures: PNG, PDF and the CSV behind each."""
        return self.root / "figures"

    @property
    def tables(self) -> Path:
        """Tables: CSV and Markdown."""
        return self.root / "tables"


def corpus_settings(chosen: Profile) -> dict[str, Any]:
    """All that the embedded corpus of a profile depends on, as plain data."""
    return {"image_size": chosen.model.image_size, **to_dict(chosen.corpus)}


def split_settings(text: str) -> tuple[str, ...]:
    """The settings of a text such as "data.mlm_probability=0.4 training.steps=100"; quotes work as in a shell."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"settings {text!r} cannot be split ({error}): close the quotes") from None


def settings_of_stage(settings: Sequence[str], stage: str) -> tuple[str, ...]:
    """Those of the settings that a stage reads."""
    return tuple(text for text in settings if _section(text) in READS[_kind(stage)])


def check_seed(seed: int) -> None:
    """Refuse what is no seed to all generators of random numbers; raises UserError."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}: it must be from 0 to {2**32 - 1:,}")


@dataclass(frozen=True)
class Run:
    """One training or evaluation: what is run, with which seed, on which data.

    Raises UserError for an unknown profile, variant or setting, a seed below 0, a name that is no folder's or is
    another variant's, and settings of the embedded corpus beside a data_root.
    """

    profile: str  # the scale whose settings it takes
    variant: str  # what stands in the vision branch and teaches it, e.g. "segl"
    seed: int = 0  # of all random choices
    data_root: str = ""  # a data set; "" is the embedded corpus
    name: str = ""  # its folder's, and what figures and tables call it; "" takes the variant's
    settings: tuple[str, ...] = ()  # "field=value" texts that differ from the profile's, e.g. "training.steps=100"
    plugin: str = ""  # a Python file with visual losses of one's own

    def __post_init__(self) -> None:
        if self.plugin:
            catalogue.add_plugin(Path(self.plugin))
        name = self.name or self.chosen.name.replace(":", "-")  # of a backbone of timm's
        if not _NAME.fullmatch(name):
            raise UserError(f"name {name!r} is no folder's: use letters, digits and . _ - + and begin with one of them")
        if name in VARIANTS and name != self.chosen.name:
            raise UserError(f"name {name!r} is a variant's, and this run is of {self.chosen.name}: choose another name")
        object.__setattr__(self, "name", name)
        check_seed(self.seed)
        # Read at once, so that a wrong setting is refused now and not in the middle of the work.
        drawn = [text for text in self.settings if _section(text) == "corpus"] if self.config else []
        if self.data_root and drawn:
            raise UserError(f"setting {drawn[0]!r} is of the embedded corpus and data_root names another: leave it out")

    @cached_property
    def config(self) -> Profile:
        """The profile with the run's own settings."""
        changed: Profile = override(profile(self.profile), dict(parse_parameter(text) for text in self.settings))
        return changed

    @cached_property
    def chosen(self) -> Variant:
        """The variant."""
        return parse_variant(self.variant, self.config.model.vision)

    @property
    def layout(self) -> Layout:
        """The folders that it shares with the other runs of its profile and data."""
        return Layout(self.profile, self.data_root)

    @property
    def corpus(self) -> Path:
        """Where its corpus lies."""
        return self.layout.corpus(self.config)

    def folder(self, stage: str) -> Path:
        """Its folder of a stage: results/<profile>[-<data>]/<stage>/<name>/seed<k>/."""
        return self.layout.root / stage / self.name / f"seed{self.seed}"

    def identity(self, stage: str) -> dict[str, Any]:
        """What the records of every stage say of it."""
        return {
            "stage": stage,
            "profile": self.profile,
            "variant": self.chosen.name,
            "name": self.name,
            "seed": self.seed,
        }

    def command(self, stage: str) -> str:
        """The shell command that makes its run of a stage ("pretrain", "finetune-vqa")."""
        command, _, task = stage.partition("-")
        words = ["vlp", command, *(["--task", task] if task else []), "--variant", self.chosen.name]
        words += ["--seed", str(self.seed), "--profile", self.profile]
        words += ["--data-root", self.data_root] if self.data_root else []
        words += ["--name", self.name] if self.name != self.chosen.name else []
        return shlex.join(words)

    def require_packages(self) -> None:
        """Raise UserError where weights or the tokenizer are an installed package's, and it is not installed."""
        model = self.config.model
        backbone = model.timm.pretrained if self.chosen.vision.startswith("timm:") else ""
        for source in (backbone, model.language_pretrained, model.tokenizer):
            if source.startswith(packages.PREFIX):
                packages.weights_file(source)

    def at(self, stage: str) -> Run:
        """The run as a stage takes it: with the settings of the run of the same name that it goes on from.

        Raises UserError where that one is not there, is of another variant, or has another value of a setting that
        cannot change any more, for a setting that the stage does not read, and for weights that are not installed.
        """
        taken: tuple[str, ...] = ()
        if stage == "pretrain":
            self.require_packages()
        else:
            before = _AFTER[_kind(stage)]
            folder = self.folder(before)
            if not (folder / RECORD).is_file():
                raise UserError(f"no finished {before} in {folder}: run `{self.command(before)}` first")
            made = read_json(folder / CONFIG)
            taken = tuple(made.get("settings", ()))
            self._require_same(folder, made, replace(self, settings=taken))
        unread = [text for text in self.settings if text not in taken and text not in settings_of_stage([text], stage)]
        if unread:
            reads = ", ".join(f"{section}." for section in READS[_kind(stage)])
            raise UserError(
                f"setting {unread[0]!r} is not read by {stage}, which reads {reads}: give it where it is read"
            )
        return replace(self, settings=tuple(dict.fromkeys(taken + self.settings)))

    def _require_same(self, folder: Path, made: dict[str, Any], before: Run) -> None:
        """Refuse another variant, and other values of what is fixed; `before` has the settings of the run before."""
        old = {name: value for name, value in flatten(to_dict(before.config)).items() if name.startswith(_FIXED)}
        old |= {name: value for name, value in flatten({"model": made["model"]}).items() if name in old}
        new = flatten(to_dict(replace(self, settings=before.settings + self.settings).config))
        old["variant"], new["variant"] = made["variant"], self.chosen.name
        for name in ("variant", *old):
            if old[name] != new.get(name):
                raise UserError(
                    f"{folder} was made with {name} = {old[name]!r} and now it is {new.get(name)!r}: take the old "
                    f"value, or give what you want a name of its own and make `{self.command('pretrain')}` anew"
                )


def _section(setting: str) -> str:
    return setting.partition(".")[0]


def _kind(stage: str) -> str:
    """The stage without what it is about: "finetune" of "finetune-vqa"."""
    return stage.partition("-")[0]

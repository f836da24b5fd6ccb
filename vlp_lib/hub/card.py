"""The model card of an exported model: written from what its run left on disk, so that no number is set by hand."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlp_lib.config import flatten
from vlp_lib.errors import UserError
from vlp_lib.io import markdown_table
from vlp_lib.run import settings_of_stage
from vlp_lib.settings import parse_parameter
from vlp_lib.trainers.loop import selected_by
from vlp_lib.variants import parse_variant

PAPER = (
    "*Effective End-to-End Vision Language Pretraining with Semantic Visual Loss* (Yang, Liu, Lin; arXiv 2301.07236)"
)


@dataclass(frozen=True)
class RunRecord:
    """What a pretraining or finetuning left on disk."""

    config: dict[str, Any]  # of config.json
    run: dict[str, Any]  # of run.json
    rows: tuple[dict[str, Any], ...]  # of metrics.jsonl

    @cached_property
    def best(self) -> dict[str, Any]:
        """The row of the lowest validation loss, whose weights are kept; raises UserError where there is no row."""
        if not self.rows:
            raise UserError("the run has no metrics.jsonl, so nothing is known of its weights: give the whole folder")
        return min(self.rows, key=selected_by)

    @property
    def task(self) -> str:
        """ "vqa", "nlvr2" or "vcr"; "" for a pretraining."""
        return str(self.config.get("task", ""))


def command(record: RunRecord) -> str:
    """The shell commands that make such a model again."""
    run = record.run
    words = ["--profile", run["profile"], "--variant", run["variant"], "--seed", str(run["seed"])]
    words += [] if run["synthetic"] else ["--data-root", "DATA"]
    words += [word for kept in run.get("plugins", {}).values() for word in ("--plugin", kept["file"])]

    def line(command: str, *task: str) -> str:
        settings = settings_of_stage(record.config.get("settings", ()), command)
        return shlex.join(["vlp", command, *task, *words, *(word for text in settings for word in ("--set", text))])

    lines = [f"git checkout {run['commit']}"] if run.get("commit") else []
    lines += [line("pretrain")] + ([line("finetune", "--task", record.task)] if record.task else [])
    return "\n".join(lines)


def _table(rows: dict[str, Any], head: tuple[str, str] = ("", "")) -> str:
    return markdown_table(head, ((name, _shown(value)) for name, value in rows.items())).rstrip()


def _shown(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def _use(task: str) -> str:
    ask = {
        "": 'print(model.match([photo], ["a man rides a horse"]))  # probability that they belong together',
        "vqa": 'print(model.answer(photo, "What colour is the horse?"))',
        "nlvr2": 'print(model.logits([[photo, photo]], [["There are two horses in all."]]).softmax(1))  # false, true',
        "vcr": 'candidates = [("Why does he ride?", f"answer {i}") for i in range(4)]\n'
        "print(model.logits([[photo]], [candidates]).softmax(1))",
    }[task]
    return f"""```python
from PIL import Image
from vlp_lib.hub import from_pretrained

model = from_pretrained("FOLDER OR NAME")
photo = Image.open("photo.jpg")
{ask}
```"""


def model_card(record: RunRecord) -> str:
    """The card, README.md, in the hub's form: a YAML header, then Markdown."""
    config, run, best = record.config, record.run, record.best
    variant, task = parse_variant(config["variant"], config["model"].get("vision", "vit")), record.task
    tags = ["vision-language-pretraining", *(name for name, _ in variant.losses), *([task] if task else [])]
    if run["synthetic"]:
        tags.append("synthetic-data")
    header = ["---", "license: mit", "library_name: vlp_lib", "language: en"]
    header += ["pipeline_tag: visual-question-answering"] if task == "vqa" else []
    header += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    made = f"finetuned on {task.upper()}" if task else "pretrained"
    data = (
        "the kit's embedded corpus, drawn by a program: **synthetic data**, so the model knows simple shapes and "
        "nothing of photographs"
        if run["synthetic"]
        else "real images and sentences, whose own licences hold for what is made of them"
    )
    plugins = run.get("plugins", {})
    losses = ", ".join(f"{name} (weight {weight:g})" for name, weight in variant.losses)
    facts = {
        "variant": variant.name,
        "vision stream": variant.vision,
        "visual losses": losses or "none",
        **{f"code of {name}": f"{kept['file']} (SHA-256 {kept['sha256']})" for name, kept in plugins.items()},
        "profile": run["profile"],
        "parameters": run["parameters"],
        "image size of pretraining (pixels)": config["model"]["image_size"],
        "corpus": data,
        "corpus fingerprint (SHA-256)": run["corpus"],
        "seed": run["seed"],
        "steps": config["steps"],
        "batch size": config["training"]["batch_size"],
        "weights kept: lowest validation loss, of step": best["step"],
        "samples seen until then": best["samples"],
        "seconds of the run": run["seconds"],
    }
    if task:
        facts |= {f"items of {name}": count for name, count in run["items"].items()}
        facts["pretrained weights (SHA-256)"] = run["pretrained"]
    else:
        facts["validation images"] = run["validation_images"]
    parts = [
        "\n".join(header),
        f"# {variant.name}, {made} (profile {run['profile']}, seed {run['seed']})",
        f"A two-stream vision language transformer after {PAPER}. Data: {data}.",
        "## Use",
        _use(task),
        "## How it was made",
        _table(facts),
        f"## Validation at step {best['step']:,}",
        _table({k: v for k, v in best.items() if k.startswith("val_")}, ("metric", "value")),
    ]
    scores = flatten({split: run[split] for split in ("val", "test") if split in run})
    if scores:
        parts += ["## Official scores", _table(scores, ("score (percent)", "value"))]
    if run.get("notes"):
        parts += ["\n".join(f"- {note}" for note in run["notes"])]
    parts += ["## Reproduce", f"```sh\n{command(record)}\n```"]
    if changed := dict(map(parse_parameter, config.get("settings", ()))):
        parts += ["Settings that are not the profile's:", _table(changed, ("setting", "value"))]
    environment = {name: run[name] for name in ("python", "system", "device", "commit", "dirty")}
    parts += [
        "## Made with",
        _table(environment | run["versions"]),
        "Code and weights: MIT licence. The data's own licences hold beside it.",
    ]
    return "\n\n".join(parts) + "\n"

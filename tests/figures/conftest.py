"""Made-up runs after pretraining, with the same functions and fields as the real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlp_lib.attention.pointing import Pointing, summarise
from vlp_lib.bench.speed import COST, LATENCY, METHODS
from vlp_lib.io import read_json, write_json, write_lines
from vlp_lib.provenance import CODE, write_run
from vlp_lib.tasks import percent
from vlp_lib.tasks.recalls import CUTOFFS, mean_recalls
from vlp_lib.variants import VARIANTS


def _report(task: str, share: float) -> dict[str, Any]:
    """Scores of a split as `TaskSplit.score` gives them; `share` of 1 is the main one."""
    if task == "vqa":
        kinds = {"number": percent(share / 2), "yes/no": percent(share)}
        return {"task": "vqa", "unit": "percent", "overall": percent(share), "per_answer_type": kinds}
    shares = {
        "nlvr2": {"accuracy": share, "consistency": share / 2},
        "vcr": {"q_to_a": share, "qa_to_r": share - 0.1, "q_to_ar": share / 2},
    }
    return {"task": task, "unit": "percent", **{name: percent(one) for name, one in shares[task].items()}}


class MadeUp:
    """Writes runs into a profile's folder."""

    def __init__(self, root: Path, machine: dict[str, Any]) -> None:
        self.root, self.machine = root, machine

    def _write(self, stage: str, variant: str, seed: int, facts: dict[str, Any], synthetic: bool = True) -> Path:
        folder = self.root / stage / variant / f"seed{seed}"
        identity = {"stage": stage, "profile": "tiny", "variant": variant, "name": variant, "seed": seed}
        identity |= {"synthetic": synthetic, "corpus": "0" * 64}
        write_json(folder / "run.json", identity | facts | self.machine)
        return folder

    def finetune(
        self,
        task: str,
        variant: str,
        *shares: float,
        val: float = 0.5,
        public: bool = True,
        synthetic: bool = True,
        guess: float | None = None,
    ) -> None:
        """A run for each seed, with its share of 1 on test (where its labels are public) and `val` on val.

        `guess` is what guessing scores on test, in percent.
        """
        for seed, share in enumerate(shares):
            scores = {"val": _report(task, val)} | ({"test": _report(task, share)} if public else {})
            facts = {"task": task, "items": {"train": 9, "val": 100, "test": 100}, "notes": [], **scores}
            if guess is not None:
                metric = {"vqa": "overall", "nlvr2": "accuracy"}[task]
                facts["baselines"] = {"guessing": {"test": {metric: guess}}, "question only": {"test": {metric: 1.0}}}
            self._write(f"finetune-{task}", variant, seed, facts, synthetic)

    def retrieve(self, variant: str, *shares: float, folds: bool = True) -> None:
        """A run for each seed: R@1 of the whole gallery (text; image is 0.1 lower); folds score 0.2 more."""
        for seed, share in enumerate(shares):
            found = {"all": self._recalls(share, 80)}
            if folds:
                five = [self._recalls(share + 0.2, 16) for _ in range(5)]
                found |= {"folds": mean_recalls(five)} | {f"fold {i}": one for i, one in enumerate(five)}
            rows = {name: {"gallery": name, **one} for name, one in found.items()}
            facts = {"images": 80, "captions": 400, "recalls": rows}
            self._write("retrieval", variant, seed, facts)

    @staticmethod
    def _recalls(share: float, images: int) -> dict[str, float]:
        text = {k: share + 0.01 * (k - 1) for k in CUTOFFS}
        recalls = {f"text_r{k}": value for k, value in text.items()}
        recalls |= {f"image_r{k}": value - 0.1 for k, value in text.items()}
        return {"images": images, "captions": 5 * images, **recalls}

    def attend(self, variant: str, *shares: float) -> None:
        """A run for each seed with that pointing accuracy."""
        for seed, share in enumerate(shares):
            rows, missing = summarise([("stuff", Pointing(share, share / 2, 0.25, 0.3, "boxes"))])
            facts = {"query": "cls", "not_scored": missing, "pointing": {row["kind"]: row for row in rows}}
            self._write("attention", variant, seed, facts)

    def pretrain(self, variant: str, *losses: float) -> None:
        """A run for each seed whose matching loss falls from 0.7 to that at half of the run, and stays."""
        for seed, loss in enumerate(losses):
            folder = self._write("pretrain", variant, seed, {"validation_images": 256})
            curve = {0: 0.7, 100: loss, 200: loss}
            rows = [{"samples": seen, "val_itm": value, "val_itm_accuracy": 0.5} for seen, value in curve.items()]
            write_lines(folder / "metrics.jsonl", rows)

    @staticmethod
    def latency(name: str, median: float, **stages: float) -> dict[str, Any]:
        """A row of latency.json; its percentiles and its five rounds are about 2 % away from the median."""
        spread = {"p5_ms": round(0.98 * median, 3), "p95_ms": round(1.02 * median, 3)}
        times = {"runs": 5, "median_ms": median, **spread, "stages_ms": stages or {"whole": median}}
        noise = np.random.default_rng(list(name.encode())).normal(0, 0.02, 5)
        times["times_ms"] = (median * np.exp(noise)).tolist()
        model = {"name": name, "kind": "ours" if name in VARIANTS else "pipeline", "random_weights": True, "note": ""}
        size = {"image_size": 600, "visual_tokens": 324, "parameters": 1_000_000}
        return model | size | times | {"device": "cpu", "threads": 1}

    def time(self, **milliseconds: float) -> None:
        """latency.json of models with these medians."""
        rows = [self.latency(name, median) for name, median in milliseconds.items()]
        made = {"stage": "speed", "profile": "tiny", "architecture": "the paper's", "image_size": 600, "rows": rows}
        write_json(self.root / "speed" / LATENCY, made | self.machine)

    def cost(self) -> None:
        """cost.json; SEGL's step could not be timed."""
        row = {"extra_parameters": 1_500_000, "extra_parameters_at_inference": 0, "step_ms": 10.0, "step_ratio": 1.25}
        row |= {"tokens": {"384": 144, "600": 324}, "extra_data": "label maps", "extra_data_share": 0.5, "note": ""}
        rows = [row | {"variant": name} | ({"step_ratio": None} if name == "segl" else {}) for name in METHODS]
        made = {"stage": "cost", "profile": "tiny", "synthetic": True, "rows": rows}
        write_json(self.root / "speed" / COST, made | self.machine)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `write_run` adds to the facts of a run that took half an hour."""
    folder = tmp_path_factory.mktemp("machine")
    write_json(folder / CODE, {"modules": {}, "changed": []})
    write_run(folder, {}, torch.nn.Linear(1, 1), "2026-01-01T00:00:00+00:00", 1800.0)
    return dict(read_json(folder / "run.json"))


@pytest.fixture
def made_up(tmp_path: Path, machine: dict[str, Any]) -> MadeUp:
    """A profile's folder to write runs into."""
    return MadeUp(tmp_path / "tiny", machine)

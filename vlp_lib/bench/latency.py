"""Inference time of one question about one image (Tables II and IV, figure 5 right), on the device at hand.

All models get the same image and question, a batch of one, in float32. The weights are random: time does not depend on
them. The models take turns, run by run. Visual losses are not computed at inference; what makes their tokens is,
because the cross-modality encoder reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlp_lib.bench.contenders import FULL_SIZE, MINIATURE, Contender, contenders
from vlp_lib.bench.made_up import WORDS
from vlp_lib.bench.record import Record
from vlp_lib.clock import Stopwatch, spread, take_turns
from vlp_lib.config import Profile
from vlp_lib.errors import UserError
from vlp_lib.trainers.trained import device_at_hand

LATENCY = "latency.json"


@torch.inference_mode()
def one_pass(contender: Contender, device: torch.device) -> list[float]:
    """Seconds of each stage of one answer."""
    watch, state = Stopwatch(device), None
    for name, stage in contender.stages.items():
        state = stage(state)
        watch.mark(name)
    return list(watch.seconds().values())


def summary(times: np.ndarray, stages: list[str]) -> dict[str, Any]:
    """Median, 5th and 95th percentile of the whole, and each stage's median, in ms, of times [runs, stages] in s."""
    low, median, high = (round(1000 * value, 3) for value in spread(times.sum(1)))
    medians = (1000 * np.median(times, axis=0)).round(3).tolist()
    of_stages = dict(zip(stages, medians, strict=True))
    return {"runs": len(times), "median_ms": median, "p5_ms": low, "p95_ms": high, "stages_ms": of_stages}


def bench_speed(profile: Profile, image_size: int, runs: int, warmup: int, folder: Path) -> list[dict[str, Any]]:
    """Time all contenders, write `folder`/latency.json, .csv and .md and return the rows.

    A row: name, kind, random_weights, note, image_size, visual_tokens, parameters, runs, median_ms, p5_ms, p95_ms,
    stages_ms, device and threads.
    """
    if image_size < 32:
        raise UserError(f"image_size is {image_size}: a patch alone has 32 pixels, so give at least that")
    if runs < 1 or warmup < 1:
        raise UserError(f"runs is {runs} and warmup {warmup}: both must be at least 1")
    record = Record(
        "speed",
        profile=profile.name,
        architecture="the paper's" if profile.speed.full_size else "miniature",
        random_weights=True,
        batch=1,
        words=WORDS,
        image_size=image_size,
        runs=runs,
        warmup=warmup,
        precision="float32",
        tf32=torch.backends.cuda.matmul.allow_tf32,
    )
    device = device_at_hand()
    models = list(contenders(FULL_SIZE if profile.speed.full_size else MINIATURE, image_size, device))
    passes: dict[str, Callable[[], list[float]]] = {one.name: partial(one_pass, one, device) for one in models}
    times = take_turns(passes, runs, warmup, profile.speed.seconds)
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "random_weights": True,
            "note": one.note,
            "image_size": image_size,
            "visual_tokens": one.visual_tokens,
            "parameters": one.parameters,
            **summary(times[one.name], list(one.stages)),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
        }
        for one in models
    ]
    record.write(folder / LATENCY, rows, device)
    return rows

"""What a change does: named runs, mixes and losses of one's own, beside what they are a change of."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from vlp_lib.study.convergence import PLATEAU, SMALLEST_LOSS, images_until, ratio_written, sooner
from vlp_lib.study.runs import baseline, in_order, label
from vlp_lib.study.verdicts import AT_CHANCE, CONFIRMED, CONTRADICTED, Estimate, difference, estimate, higher
from vlp_lib.variants import VARIANTS

AS_IT_IS = "as it is"
"""What a variant's run without a change of settings is called."""

_LOSS = re.compile(r"[a-z]\w*")
"""A visual loss in the name of a mix."""


def ends_table(runs: pd.DataFrame) -> pd.DataFrame:
    """When each run leaves the plateau and where it ends, with 95 % intervals over seeds; a row a name.

    Columns: name, variant, change (what the name says beside the variant's; of a variant itself "as it is", of a mix or
    a loss of one's own its name), settings, seeds, left (seeds that leave the plateau), seen (images), images,
    images_low, images_high (until they leave it, of the logarithms; a bound without interval where a seed stays), loss,
    loss_low, loss_high (the matching loss at the end).
    """
    rows, unchanged = [], {*VARIANTS, baseline(runs["name"])}
    for name in in_order(runs["name"]):
        run = runs[runs["name"] == name]
        variant, until = str(run["variant"].iloc[0]), images_until(run, PLATEAU)
        images = estimate(np.log(until["images"].astype(float)))
        loss = estimate(run.sort_values("samples").groupby("seed")["val_itm"].last())
        known = until["reached"].all()
        rows.append(
            {
                "name": name,
                "variant": variant,
                "change": AS_IT_IS if name in unchanged else name.removeprefix(f"{variant.replace(':', '-')}-"),
                "settings": run["settings"].iloc[0] if "settings" in run else "",
                "seeds": loss.seeds,
                "left": int(until["reached"].sum()),
                "seen": run["samples"].max(),
                "images": math.exp(images.mean),
                "images_low": math.exp(images.low) if known else math.nan,
                "images_high": math.exp(images.high) if known else math.nan,
                "loss": loss.mean,
                "loss_low": loss.low,
                "loss_high": loss.high,
            }
        )
    return pd.DataFrame(rows)


def ablation_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Each run that is not the paper's beside what it is a change of, seed by seed; empty without such runs.

    That is for a named run the run of its own variant, for a mix each of its losses alone, and for both the naive model
    of the same backbone, under the same setting ("ssul-mlm15" beside "naive_vit-mlm15").

    How many times the other's images it takes to leave the plateau (> where it does not leave it with each seed, <
    where the other does not, not known where neither does), how much higher the matching loss is that it ends at, and
    what either comes to. A change of several variants stands there once more, with the mean of their losses.
    """
    last = runs.sort_values("samples").groupby(["name", "seed"])["val_itm"].last().unstack(0)
    variants = dict(zip(runs["name"], runs["variant"], strict=True))
    naive = baseline(variants)
    rows, of_change = [], dict[str, list[str]]()
    for name in in_order(variants):
        variant = variants[name]
        if name.startswith(f"{variant}-") and variant in last:
            of_change.setdefault(name.removeprefix(f"{variant}-"), []).append(variant)
        stream = VARIANTS[variant].vision if variant in VARIANTS else "vit"
        others = [*_LOSS.findall(variant), {"vit": naive, "resnet": "naive_resnet"}.get(stream, variant)]
        others = [variant, *(name.replace(variant, other, 1) for other in others if "@" not in variant)]
        for other in dict.fromkeys(others) if name not in (*VARIANTS, naive) else ():
            if other == name or other not in last or (shared := last[[name, other]].dropna()).empty:
                continue
            compared = runs[runs["seed"].isin(shared.index)]
            left = sooner(compared, other, name, PLATEAU)
            assert left is not None  # both were run
            both = shared.to_numpy(float)
            found, end, *_ = higher(difference(both[:, 0], both[:, 1]), SMALLEST_LOSS)
            if (both.mean(0) > PLATEAU).all():
                end = AT_CHANCE
            rows.append(
                {
                    "run": label(name),
                    "beside": label(other),
                    "seeds": found.seeds,
                    "images until the plateau ends": ratio_written(left, " times"),
                    "leaves it": {CONFIRMED: "later", CONTRADICTED: "sooner"}.get(left.verdict, left.verdict),
                    **_ends(found, end),
                }
            )
    return pd.DataFrame([*rows, *_together(last, of_change)])


def _together(last: pd.DataFrame, of_change: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """What a change does to the mean of several variants' losses: rows of `ablation_table`.

    `last` [seeds, names] are the losses at the end, `of_change` the variants that each change was made to.
    """
    for change, of in of_change.items():
        changed, as_it_is = (last[[variant + suffix for variant in of]].dropna() for suffix in (f"-{change}", ""))
        seeds = changed.index.intersection(as_it_is.index)
        if len(of) > 1 and len(seeds):
            means = (values.loc[seeds].mean(axis=1) for values in (changed, as_it_is))
            found, end, *_ = higher(difference(*means), SMALLEST_LOSS)
            yield {
                "run": f"{change}, {len(of)} variants",
                "beside": AS_IT_IS,
                "seeds": found.seeds,
                "images until the plateau ends": "",
                "leaves it": "",
                **_ends(found, end),
            }


def _ends(found: Estimate, end: str) -> dict[str, str]:
    """How much higher a matching loss is at the end, and what that comes to."""
    return {
        "final matching loss": f"{found.mean:+z.3f}" + math.isfinite(found.half) * f" ± {found.half:.3f}",
        "ends": {CONFIRMED: "higher", CONTRADICTED: "lower"}.get(end, end),
    }

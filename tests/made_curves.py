"""Curves of runs that nobody has run."""

import pandas as pd

SAMPLES = (0, 100, 200, 300, 400)


def made_up(**losses):
    """Rows as of metrics.jsonl: for each variant a list of loss curves, one a seed."""
    rows = [
        (variant, variant, seed, True, samples, loss, 1 - loss / 2)
        for variant, curves in losses.items()
        for seed, curve in enumerate(curves)
        for samples, loss in zip(SAMPLES, curve, strict=False)
    ]
    columns = ["name", "variant", "seed", "synthetic", "samples", "val_itm", "val_itm_accuracy"]
    return pd.DataFrame(rows, columns=columns)


def falling(last, shift=0.0):
    return [0.7, 0.69, 0.65 + shift, 0.5 + shift, last]

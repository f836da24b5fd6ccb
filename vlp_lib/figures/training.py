"""One run: its validation losses, and its first and last numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.figures.convergence import LN2, loss_limits
from vlp_lib.figures.style import new_figure

_NAMES = {"val_itm": "matching (ITM)", "val_mlm": "words (MLM)", "val_visual": "visual loss"}


def draw_run(rows: list[dict[str, Any]]) -> Figure:
    """Each validation loss of a run against the images it has seen, a panel a loss."""
    table = pd.DataFrame(rows)
    names = [name for name in _NAMES if name in table]
    figure = new_figure(3.2 * len(names), 2.8, columns=len(names))
    for axes, name in zip(figure.axes, names, strict=True):
        axes.plot(table["samples"], table[name], color="#0072B2", lw=1.8, marker=".")
        axes.set_title(_NAMES[name], fontsize=10)
        axes.set_xlabel("images seen")
        if name == "val_itm":
            axes.axhline(LN2, color="0.5", lw=0.8, ls=":")
            axes.set_ylim(*loss_limits(table[name].max()))
        else:
            axes.set_ylim(bottom=0)
    return figure


def first_and_last(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The validation metrics before training and at the end, and the best of each loss."""
    table = pd.DataFrame(rows)
    names = [c for c in table.columns if c.startswith("val_")]
    return pd.DataFrame(
        {"before": table[names].iloc[0], "end": table[names].iloc[-1], "lowest": table[names].min()}, index=names
    ).round(4)

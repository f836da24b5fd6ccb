"""What the lessons draw: a loss at work, at several moments of a training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from vlp_lib import paper
from vlp_lib.figures.attention_maps import draw_map
from vlp_lib.figures.corpus_tour import class_colours, draw_label_map
from vlp_lib.figures.style import LINE, OTHER, RIGHT, WRONG, new_figure, picture_grid
from vlp_lib.run import Run
from vlp_lib.study.runs import CHECK_ONLY, label
from vlp_lib.variants import VARIANTS


def stamp(run: Run) -> None:
    """Say of a profile that only shows whether everything runs that it shows nothing else."""
    if run.config.check_only:
        print(f"profile {run.profile}: {CHECK_ONLY}")


def paper_table() -> pd.DataFrame:
    """What the paper reports of its losses on the ViT: VQA and zero-shot retrieval (tables II and III), in percent."""
    columns = {
        "VQA": ("II", "vqa", 1),
        "text R@1": ("III", "coco_5k_tr_r1", 100),
        "image R@1": ("III", "coco_5k_ir_r1", 100),
    }
    found = {
        label(row): {
            title: float(paper.value(table, row, column) or 0) * factor
            for title, (table, column, factor) in columns.items()
        }
        for row, variant in VARIANTS.items()
        if variant.vision == "vit"
    }
    return pd.DataFrame.from_dict(found, orient="index").round(2)


def draw_label_maps(images: torch.Tensor, maps: Mapping[str, torch.Tensor], names: Sequence[str]) -> Figure:
    """Images [B, 3, H, W], a row each, and beside them their label maps [B, h, w] by title; a key of the classes."""
    figure, grid = picture_grid(len(images), 1 + len(maps), 1.9, 1.9)
    found = np.unique(torch.cat([labels.flatten() for labels in maps.values()]))
    shown = [int(index) for index in found if index < len(names)]
    # Of few classes each keeps its colour from picture to picture.
    tints = class_colours(range(len(names)) if len(names) <= 18 else shown, len(names) + 1)
    for row, line in enumerate(grid):
        line[0].imshow(images[row].permute(1, 2, 0).numpy(), interpolation="nearest")
        for axes, (title, labels) in zip(line[1:], maps.items(), strict=True):
            draw_label_map(axes, labels[row].numpy(), tints)
            axes.set_title(title if row == 0 else "", fontsize=10)
    grid[0, 0].set_title("image", fontsize=10)
    key = [Patch(color=tints[index], label=names[index]) for index in shown] + [Patch(color="0.8", label="no class")]
    if len(names) in found:  # the class more than there are names, which nothing should be taken for
        key.append(Patch(facecolor="w", edgecolor="0.5", label="unlabeled"))
    figure.legend(handles=key, loc="outside lower center", ncols=7, fontsize=8, frameon=False)
    return figure


def draw_bars(table: pd.DataFrame, words: str) -> Figure:
    """A group of bars for each row of the table, a bar for each column, the columns from grey to blue."""
    figure = new_figure(7.0, 0.8 + 0.1 * len(table) * (1 + len(table.columns)))
    (axes,) = figure.axes
    tints = [OTHER, "#56B4E9", LINE][-len(table.columns) :]
    height = 0.8 / len(table.columns)
    for place, (name, tint) in enumerate(zip(table.columns, tints, strict=True)):
        axes.barh(np.arange(len(table)) + place * height, table[name].fillna(0), height, color=tint, label=str(name))
    axes.set_yticks(np.arange(len(table)) + 0.4 - height / 2, [str(name) for name in table.index])
    axes.invert_yaxis()
    axes.set_xlabel(words)
    figure.legend(frameon=False, fontsize=9, loc="outside upper right", ncols=len(table.columns))
    return figure


def draw_training(
    losses: pd.DataFrame, lines: Mapping[str, float] = {}, along: str = "step", enlarged: Collection[str] = ()
) -> Figure:
    """Each column of the losses against the index, a panel each; dotted lines at the levels named in `lines`.

    Of many steps a mean over neighbours is drawn over the losses themselves. The axes begin at 0 but for the `enlarged`
    columns, whose changes are small beside their size.
    """
    figure = new_figure(3.2 * len(losses.columns), 2.6, columns=len(losses.columns))
    for axes, name in zip(figure.axes, losses.columns, strict=True):
        mean = losses[name].rolling(max(1, len(losses) // 15), min_periods=1).mean()
        axes.plot(losses.index, losses[name], color=LINE, lw=0.6, alpha=0.4)
        axes.plot(losses.index, mean, color=LINE, lw=1.8)
        axes.set_title(str(name), fontsize=10)
        axes.set_xlabel(along)
        if name in lines:
            axes.axhline(lines[str(name)], color="0.5", lw=0.8, ls=":")
        if name not in enlarged:
            axes.set_ylim(bottom=0)
    return figure


def draw_pictures(columns: Mapping[str, torch.Tensor]) -> Figure:
    """Pictures [B, 3, H, W] by title: a column each, a row an image."""
    figure, grid = picture_grid(len(next(iter(columns.values()))), len(columns), 1.5, 1.55)
    for title, line, pictures in zip(columns, grid.T, columns.values(), strict=True):
        line[0].set_title(title, fontsize=9)
        for axes, picture in zip(line, pictures, strict=True):
            axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
    return figure


def draw_matching(
    costs: Mapping[str, torch.Tensor], matched: Mapping[str, torch.Tensor], words: Sequence[str]
) -> Figure:
    """Probabilities [queries, labels] by title, a panel each; a ring where a query is matched with a label.

    `matched` [queries] has the column of the label that a query was given, −1 for "no object"; `words` are the labels.
    """
    queries = len(next(iter(costs.values())))
    figure = new_figure(2.2 * len(costs) + 1, 0.17 * queries + 1.4, columns=len(costs))
    for axes, (title, cost) in zip(figure.axes, costs.items(), strict=True):
        shown = axes.imshow(cost.numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        for query, column in enumerate(matched[title].tolist()):
            if column >= 0:
                axes.plot(column, query, "o", mfc="none", mec=WRONG, ms=9, mew=2)
        axes.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
        axes.set_title(title, fontsize=10)
    figure.axes[0].set_ylabel("query")
    figure.colorbar(shown, ax=figure.axes, label="probability of the label", shrink=0.6)
    return figure


def draw_queries(shares: pd.DataFrame) -> Figure:
    """How often each query (column) was matched with each class (row), as a share of the row."""
    figure = new_figure(7.0, 0.22 * len(shares) + 1.2)
    (axes,) = figure.axes
    shown = axes.imshow(shares.to_numpy(), cmap="Greys", vmin=0, aspect="auto")
    axes.set_yticks(range(len(shares)), [str(name) for name in shares.index], fontsize=8)
    axes.set_xlabel("query")
    figure.colorbar(shown, ax=axes, label="share of the class's labels")
    return figure


def draw_scores(scores: Mapping[str, pd.DataFrame]) -> Figure:
    """How the columns `score` of `matched` pairs and of others are spread, a panel a moment."""
    figure = new_figure(2.8 * len(scores), 2.4, columns=len(scores))
    for axes, (title, table) in zip(figure.axes, scores.items(), strict=True):
        low, high = table["score"].min(), table["score"].max()
        edges = np.linspace(low, max(high, low + 1e-6), 25).tolist()
        for matched, tint, words in ((True, RIGHT, "match"), (False, WRONG, "no match")):
            axes.hist(table[table["matched"] == matched]["score"], edges, color=tint, alpha=0.55, label=words)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("score")
        axes.set_yticks([])
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def draw_looks(
    images: torch.Tensor, shares: Mapping[str, torch.Tensor], masks: torch.Tensor, words: Sequence[str]
) -> Figure:
    """Where words look: images [B, 3, H, W], a row each, beside their attention [B, h, w] by title.

    `masks` [B, h, w] bool are the cells that show what the word names, outlined.
    """
    cell = images.shape[-1] // masks.shape[-1]
    figure, grid = picture_grid(len(images), 1 + len(shares), 1.6, 1.7)
    for row, line in enumerate(grid):
        image = images[row].permute(1, 2, 0).numpy()
        line[0].imshow(image, interpolation="nearest")
        line[0].set_title(words[row], fontsize=10)
        for axes, (title, maps) in zip(line[1:], shares.items(), strict=True):
            large, mask = (np.kron(one[row].numpy(), np.ones((cell, cell))) for one in (maps, masks))
            draw_map(axes, image, large, mask > 0)
            axes.set_title(title if row == 0 else "", fontsize=10)
    return figure

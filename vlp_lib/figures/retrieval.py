"""Zero-shot retrieval as tables and pictures: recalls beside chance, and what is found for an image or a sentence."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vlp_lib.tasks.recalls import CUTOFFS, Recalls

if TYPE_CHECKING:  # they bring torch along, which the tables of finished runs need not wait for
    from vlp_lib.corpora.corpus import Corpus
    from vlp_lib.tasks.retrieval import Gallery

_RIGHT, _WRONG = "#00664b", "#a33c00"


def recall_table(found: Mapping[str, Recalls]) -> pd.DataFrame:
    """R@1, R@5 and R@10 both ways in percent, a row a gallery, with what guessing would score."""
    rows = []
    for name, one in found.items():
        row: dict[str, object] = {"gallery": name, "images": one.images, "captions": one.captions}
        for way, shares in (("text", one.text_retrieval), ("image", one.image_retrieval)):
            row |= {f"{way} R@{k}": round(100 * shares[k], 1) for k in CUTOFFS}
        chance = {"chance, text R@1": chance_text(one, 1), "chance, image R@1": 1 / one.images}
        rows.append(row | {heading: round(100 * share, 1) for heading, share in chance.items()})
    return pd.DataFrame(rows)


def chance_text(sizes: Recalls, k: int) -> float:
    """The chance that one of an image's own captions is among k drawn at random."""
    own = sizes.captions // sizes.images
    return 1 - math.comb(sizes.captions - own, k) / math.comb(sizes.captions, k)


def draw_found(corpus: Corpus, gallery: Gallery, scores: np.ndarray, queries: int = 4, best: int = 4) -> Figure:
    """The first images with the sentences that score best for each; green where the sentence is the image's own."""
    queries = min(queries, len(gallery.records))
    figure = Figure(figsize=(8.5, 1.7 * queries), layout="constrained")
    grid = figure.subplots(queries, 2, squeeze=False, width_ratios=[1, 4])
    for row, (left, right) in enumerate(grid):
        left.imshow(np.asarray(corpus.read_image(gallery.records[row])), interpolation="nearest")
        for place, column in enumerate(np.argsort(-scores[row], kind="stable")[:best]):
            own = gallery.image_index[column] == row
            sentence = textwrap.shorten(gallery.captions[column], 90, placeholder=" …")
            right.text(0, 0.88 - place * 0.9 / best, f"{scores[row, column]:+.2f}  {sentence}", fontsize=9, va="center",
                       color=_RIGHT if own else _WRONG, transform=right.transAxes)  # fmt: skip
        for axes in (left, right):
            axes.set_axis_off()
    return figure

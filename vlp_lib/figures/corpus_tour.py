"""What a corpus holds, as pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from vlp_lib.batches.sample import Sample
from vlp_lib.batches.tokenizer import SPECIAL, Tokenizer
from vlp_lib.corpora.corpus import Corpus
from vlp_lib.corpora.records import IGNORED, ImageRecord
from vlp_lib.figures.style import RIGHT, WRONG, picture_grid


def class_colours(shown: Sequence[int], count: int) -> np.ndarray:
    """[count, 4] RGBA: the classes that are shown get colours as different as a palette has them."""
    tints = [matplotlib.colormaps["tab20"](place) for place in range(20) if place not in (14, 15)]  # its greys
    if len(shown) > len(tints):
        tints = [matplotlib.colormaps["gist_ncar"]((place + 0.5) / len(shown)) for place in range(len(shown))]
    colours = np.zeros((count, 4))
    for index, tint in zip(shown, tints, strict=False):
        colours[index] = tint
    return colours


def draw_label_map(axes: Axes, labels: np.ndarray, colours: np.ndarray) -> None:
    """A label map [h, w] in its classes' colours, grey where a pixel has no class."""
    shown = np.full((*labels.shape, 4), (0.8, 0.8, 0.8, 1.0))
    known = labels != IGNORED
    shown[known] = colours[labels[known]]
    axes.imshow(shown, interpolation="nearest")


def draw_annotations(corpus: Corpus, records: Sequence[ImageRecord]) -> tuple[Figure, pd.DataFrame]:
    """Each image, its label map and its detections in a row; the frame holds the detections."""
    figure, grid = picture_grid(len(records), 3, 3.0, 2.9)
    names = corpus.segmentation_classes.names
    maps = [corpus.read_label_map(record) for record in records]
    shown = sorted({int(i) for labels in maps if labels is not None for i in np.unique(labels)} - {IGNORED})
    colours = class_colours(shown, len(names))
    rows = []
    for record, labels, (left, middle, right) in zip(records, maps, grid, strict=True):
        image = np.asarray(corpus.read_image(record))
        for axes in (left, right):
            axes.imshow(image, interpolation="nearest")
        if labels is None:
            middle.text(0.5, 0.5, "no label map", ha="center", va="center", transform=middle.transAxes)
        else:
            draw_label_map(middle, labels, colours)
            patches = [Patch(color=colours[i], label=names[i]) for i in np.unique(labels[labels != IGNORED])]
            middle.legend(handles=patches, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        detections = corpus.read_detections(record, 10, 0.0)
        if detections is None or corpus.detections is None:
            right.text(0.5, 0.5, "no detections", ha="center", transform=right.transAxes, backgroundcolor="w")
            continue
        height, width = image.shape[:2]
        for label, score, (x1, y1, x2, y2) in zip(detections.labels, detections.scores, detections.boxes, strict=True):
            name, place = corpus.detections.classes[label], (x1 * width, y1 * height)
            right.add_patch(Rectangle(place, (x2 - x1) * width, (y2 - y1) * height, fill=False, ec="w", lw=1))
            right.text(*place, f"{name} {score:.2f}", fontsize=6, va="top", color="w",
                       bbox={"fc": "k", "ec": "none", "pad": 0.5, "alpha": 0.6})  # fmt: skip
            rows.append(
                {"image": record.image_id, "class": name, "score": score, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
            )
    for axes, title in zip(figure.axes, ("image", "label map", "detector"), strict=False):
        axes.set_title(title, fontsize=10)
    return figure, pd.DataFrame(rows)


def draw_pairs(samples: Sequence[Sample], tokenizer: Tokenizer) -> tuple[Figure, pd.DataFrame]:
    """Augmented images: above, in green, their own sentence; below, in red, the other image's they get as well."""
    figure, _ = picture_grid(-(-len(samples) // 4), 4, 2.4, 3.8)
    rows = []
    for axes, sample in zip(figure.axes, samples, strict=False):
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.imshow(sample.image.numpy().transpose(1, 2, 0), interpolation="nearest")
        for text in sample.texts:
            pieces = [tokenizer.token(int(i)) for i in text.clean_ids]
            sentence = " ".join(p for p in pieces if p not in SPECIAL).replace(" ##", "").replace(" ,", ",")
            wrapped = textwrap.fill(("✓ " if text.matched else "✗ ") + sentence, 32)
            if text.matched:
                axes.set_title(wrapped, fontsize=8, color=RIGHT)
            else:
                axes.set_xlabel(wrapped, fontsize=8, color=WRONG)
            rows.append({"image": sample.image_id, "sentence": sentence, "matched": text.matched})
    return figure, pd.DataFrame(rows)


def draw_mean_colours(corpus: Corpus, records: Sequence[ImageRecord]) -> tuple[Figure, pd.DataFrame]:
    """The mean colour of each class's pixels in each image, a panel for red–green and one for green–blue."""
    rows = []
    names = corpus.segmentation_classes.names
    for record in records:
        labels = corpus.read_label_map(record)
        if labels is None:
            continue
        image = np.asarray(corpus.read_image(record))
        for index in np.unique(labels[labels != IGNORED]):
            red, green, blue = image[labels == index].mean(0)
            rows.append({"class": names[index], "red": red, "green": green, "blue": blue})
    table = pd.DataFrame(rows, columns=["class", "red", "green", "blue"])
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    shown = list(table["class"].value_counts().index[:20])
    colours = class_colours(range(len(shown)), len(shown))
    for axes, (x, y) in zip(figure.subplots(1, 2), (("red", "green"), ("green", "blue")), strict=True):
        for name, colour in zip(shown, colours, strict=True):
            dots = table[table["class"] == name]
            axes.scatter(dots[x], dots[y], s=7, color=colour, label=name)
        axes.set_xlabel(f"mean {x} (0–255)")
        axes.set_ylabel(f"mean {y} (0–255)")
    figure.axes[1].legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, ncols=1)
    return figure, table

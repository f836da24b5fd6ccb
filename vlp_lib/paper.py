"""The paper's published numbers and claims, as data (Yang, Liu, Lin: arXiv 2301.07236, Tables I–VI and section V).

Every cell is kept as the paper prints it ("0.25", "~900", "4.2m", "-"); `parse` turns it into a number. Rows that are
variants of this kit bear the variant's name (`vlp_lib.variants.VARIANTS`), the others a name of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from types import MappingProxyType
from typing import Literal

from vlp_lib.errors import UserError

Unit = Literal["text", "images", "hours", "ms", "percent", "fraction"]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str  # how code asks for it
    header: str  # as the paper prints it; " / " joins the levels of a header of several lines
    unit: Unit  # of the numbers; "text" where the cells are words


@dataclass(frozen=True)
class Row:
    """A row of a table: its name in code, its label and its cells as the paper prints them."""

    name: str
    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper; `number` is its Roman numeral."""

    number: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Value:
    """One cell: its table (Roman numeral), row and column (names in code), unit, and what the paper prints there."""

    table: str
    row: str
    column: str
    unit: Unit
    printed: str

    @property
    def value(self) -> float | str | None:
        """The number, the words of a text column, or None where the paper prints "-"."""
        return self.printed if self.unit == "text" else parse(self.printed)


@dataclass(frozen=True)
class Ranking:
    """An order that the paper reports: groups of row names, best first; those of one group are about equal."""

    metric: str  # a column of the tables, or "itm_loss" for how fast the validation matching loss falls
    order: str  # such as "segl > ssul = spl_large > naive_vit", the best first; "<" where the best is the lowest

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Row names, best group first."""
        return tuple(tuple(group.split(" = ")) for group in re.split(" [<>] ", self.order))

    @property
    def neighbours(self) -> list[tuple[str, str]]:
        """Better and worse, of each two groups that follow one another."""
        return [pair for two in pairwise(self.groups) for pair in product(*two)]


@dataclass(frozen=True)
class Claim:
    """A shape that a run at any scale must be able to confirm or refute, and where the paper says so."""

    id: str
    text: str
    where: str
    rankings: tuple[Ranking, ...] = ()


def _table(number: str, title: str, columns: tuple[Column, ...], rows: str) -> Table:
    """A table from lines of a name, the label and the cells, which two or more spaces part."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in rows.strip().splitlines()]
    return Table(number, title, columns, tuple(Row(name, label, tuple(cells)) for name, label, *cells in lines))


def _recalls(name: str, header: str) -> tuple[Column, ...]:
    return tuple(
        Column(f"{name}_{short}_r{k}", f"{header} / {long} / R@{k}", "percent")
        for short, long in (("ir", "Image Retrieval"), ("tr", "Text Retrieval"))
        for k in (1, 5, 10)
    )


_MODEL_TIME = Column("inference_ms", "Inference Time (ms)", "ms")
_IMAGES = Column("images", "Images", "images")

_ALL = (
    _table(
        "I",
        "Comparison of the three proposed methods",
        (
            Column("extra_computation", "Extra Comp Cost", "text"),
            Column("extra_data", "Extra Data", "text"),
            Column("scalability", "Scalability", "text"),
            Column("inference_speed", "Inference Speed", "text"),
        ),
        """
        none  No Visual Loss  No                           No                   Yes      -
        ssul  SSUL            No                           No                   Yes      Same
        segl  SEGL            1 layer 1x1 Conv             Segmentation Mask    Partial  Same
        spl   SPL             1 layer transformer decoder  Pretrained detector  Yes      Faster
        """,
    ),
    _table(
        "II",
        "Ablation experiments on VQAv2",
        (_MODEL_TIME, Column("vqa", "VQA(%)", "percent")),
        """
        naive_vit     Baseline (ViT)       40  68.95
        naive_resnet  ResNet               40  68.52
        ssul          Baseline + SSUL      40  70.26
        segl          Baseline + SEGL      40  70.92
        segl_resnet   ResNet + SEGL        40  70.53
        spl_small     Baseline + SPL(36)   34  69.41
        spl_large     Baseline + SPL(100)  37  70.20
        """,
    ),
    _table(
        "III",
        "Ablation experiments on zero-shot retrieval, R@1",
        (
            _MODEL_TIME,
            Column("coco_5k_tr_r1", "TR (COCO 5k)", "fraction"),
            Column("coco_5k_ir_r1", "IR (COCO 5k)", "fraction"),
            Column("coco_1k_tr_r1", "TR (COCO 1k)", "fraction"),
            Column("coco_1k_ir_r1", "IR (COCO 1k)", "fraction"),
        ),
        """
        naive_vit     Baseline (ViT)       40  0.25  0.12  0.40  0.33
        naive_resnet  ResNet               40  0.27  0.11  0.38  0.32
        ssul          Baseline + SSUL      40  0.48  0.33  0.62  0.51
        segl          Baseline + SEGL      40  0.50  0.37  0.67  0.54
        segl_resnet   ResNet + SEGL        40  0.50  0.37  0.65  0.535
        spl_small     Baseline + SPL(36)   34  0.42  0.25  0.55  0.44
        spl_large     Baseline + SPL(100)  37  0.42  0.26  0.61  0.495
        """,
    ),
    _table(
        "IV",
        "Comparison with other vision-language pre-training models on VQAv2, NLVR2 and VCR",
        (
            _IMAGES,
            Column("pretrain_gpu_hours", "Pretrain GPU hrs", "hours"),
            _MODEL_TIME,
            Column("vqav2_test_dev", "VQAv2 / test-dev", "percent"),
            Column("vqav2_test_std", "VQAv2 / test-std", "percent"),
            Column("nlvr2_val", "NLVR2 / val", "percent"),
            Column("nlvr2_test_p", "NLVR2 / test-P", "percent"),
            Column("vcr_q_to_a", "VCR / Q → A", "percent"),
            Column("vcr_qa_to_r", "VCR / QA → R", "percent"),
            Column("vcr_q_to_ar", "VCR / Q → AR", "percent"),
        ),
        """
        vilbert         ViLBERT [4]           3m    -      ~900  70.55  70.92  -      -      -      -      -
        lxmert          LXMERT [17]           180k  ~800   ~900  72.42  72.5   74.9   74.5   -      -      -
        uniter_base     UNITER-base [5]       4.2m  882    ~900  72.70  72.91  75.85  75.80  74.56  77.03  57.76
        pixel_bert_r50  Pixel-BERT (R50) [8]  200k  ~4000  ~60   71.35  71.42  71.7   72.4   -      -      -
        vilt            ViT [32]              4.1m  ~4600  ~15   71.26  -      75.70  76.13  -      -      -
        segl            Ours (SEGL)           230k  470    ~40   71.69  72.03  72.3   72.9   75.37  77.86  58.33
        """,
    ),
    _table(
        "V",
        "Zero-shot image and text retrieval on Flickr30k and COCO 1k",
        (_IMAGES, *_recalls("flickr30k_1k", "Flickr 30k (1k image)"), *_recalls("coco_1k", "MSCOCO (1k image)")),
        """
    vilbert      ViLBERT [4]       3m    31.83  61.12  72.80  -      -      -      -     -     -     -     -     -
    unicoder_vl  Unicoder-VL [16]  3.8m  48.40  76.00  85.20  64.30  85.80  92.30  -     -     -     -     -     -
    imagebert    ImageBERT [33]    10m   54.3   79.6   87.5   70.7   90.2   94.0   53.6  83.2  91.7  67.0  90.3  96.1
    uniter_base  UNITER-base [5]   4.2m  66.16  88.40  92.94  80.70  95.70  98.00  -     -     -     -     -     -
    segl         Ours (SEGL)       230k  62.46  86.71  92.80  82.70  96.50  98.00  54    86    94.8  67.1  92.2  97.1
        """,
    ),
    # ViLBERT's row is nearly that of Flickr30k in Table V; kept as printed.
    _table(
        "VI",
        "Zero-shot image and text retrieval on COCO 5k",
        (_IMAGES, *_recalls("coco_5k", "MSCOCO (5k image)")),
        """
        vilbert    ViLBERT [4]     3m    31.86  61.12  72.80  -     -     -
        imagebert  ImageBERT [33]  10m   32.3   59.0   70.2   44.0  71.2  80.4
        vilt       ViT [32]        4.1m  40.4   70.0   81.1   56.5  82.6  89.6
        segl       Ours (SEGL)     230k  37.2   63.3   74.4   49.8  75.9  83.1
        """,
    ),
)

OURS = "segl"
"""The row of tables IV to VI that is the paper's own model."""

TABLES: Mapping[str, Table] = MappingProxyType({one.number: one for one in _ALL})
"""Tables I–VI by Roman numeral."""

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "convergence",
        "The validation matching loss falls first with region features, then with SEGL (almost the same), then with "
        "SSUL and SPL; the naive model comes last and stays near ln 2 for a long time.",
        "figures 1 and 5 (left), section IV-E1",
        (
            Ranking("itm_loss", "region < segl < ssul = spl_small = spl_large < naive_vit"),
            Ranking("itm_loss", "segl_resnet < naive_resnet"),
        ),
    ),
    Claim(
        "vqa",
        "After equal pretraining VQA ranks SEGL (70.92) > SSUL (70.26) ≈ SPL(100) (70.20) > SPL(36) (69.41) > no "
        "visual loss (68.95), and with ResNet SEGL (70.53) > no visual loss (68.52).",
        "table II",
        (
            Ranking("vqa", "segl > ssul = spl_large > spl_small > naive_vit"),
            Ranking("vqa", "segl_resnet > naive_resnet"),
        ),
    ),
    Claim(
        "retrieval",
        "Zero-shot retrieval R@1 ranks SEGL > SSUL > SPL > no visual loss, the last far behind; ResNet has the same "
        "order.",
        "table III",
        tuple(
            Ranking(column, order)
            for column in ("coco_5k_tr_r1", "coco_5k_ir_r1", "coco_1k_tr_r1", "coco_1k_ir_r1")
            for order in ("segl > ssul > spl_small = spl_large > naive_vit", "segl_resnet > naive_resnet")
        ),
    ),
    Claim(
        "inference",
        "SPL(36) needs 34 ms, SPL(100) 37 ms and every other pixel model 40 ms an image and question; pipelines on "
        "region features need about 900 ms, more than 10 times as long.",
        "tables II and IV",
        (
            Ranking(
                "inference_ms",
                "spl_small < spl_large < naive_vit = naive_resnet = ssul = segl = segl_resnet < region",
            ),
        ),
    ),
    Claim(
        "joint_losses",
        "Using more than one of the losses gains nothing over the best single one; weights are left as future work.",
        "section V",
    ),
)
"""What the paper says of its methods, in the order of the project's reading of it."""


def table(number: str) -> Table:
    """The table of that Roman numeral; raises UserError for an unknown one."""
    if number not in TABLES:
        raise UserError(f"unknown table {number!r}: the paper's tables are {', '.join(TABLES)}")
    return TABLES[number]


def parse(printed: str) -> float | None:
    """The number in a cell: "~900" → 900.0, "4.2m" → 4 200 000.0, "-" → None."""
    if printed == "-":
        return None
    digits = printed.removeprefix("~")
    if multiple := {"k": 1e3, "m": 1e6}.get(digits[-1]):
        return float(round(float(digits[:-1]) * multiple))
    return float(digits)


def values(number: str | None = None) -> Iterator[Value]:
    """Every cell of one table, or of all; raises UserError for an unknown table."""
    for found in TABLES.values() if number is None else (table(number),):
        for row in found.rows:
            for column, printed in zip(found.columns, row.cells, strict=True):
                yield Value(found.number, row.name, column.name, column.unit, printed)


def value(number: str, row: str, column: str) -> float | str | None:
    """One cell's number (None where the paper prints "-"); raises UserError for an unknown table, row or column."""
    for cell in values(number):
        if (cell.row, cell.column) == (row, column):
            return cell.value
    found = table(number)
    raise UserError(
        f"table {number} has no cell ({row!r}, {column!r}): its rows are {', '.join(r.name for r in found.rows)}; "
        f"its columns {', '.join(c.name for c in found.columns)}"
    )

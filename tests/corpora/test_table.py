import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import ID_STRIDE, SPLITS, JoinedRecords, Photographs, RecordTable, Strings, caption_counts

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.none() | st.integers(0, 10**11)


@st.composite
def record_lists(draw: st.DrawFn) -> list[ImageRecord]:
    ids = draw(st.lists(st.integers(0, 10**11), unique=True, max_size=6))
    records = []
    for i in ids:
        captions = tuple(draw(st.lists(texts, max_size=3)))
        records.append(
            ImageRecord(
                image_id=i,
                path=Path("/images") / draw(st.sampled_from(("a", "b"))) / f"{i}.jpg",
                split=draw(st.sampled_from(SPLITS)),
                width=draw(st.integers(0, 9000)),
                height=7,
                captions=captions,
                caption_ids=tuple(range(i, i + len(captions))),
                coco_id=draw(numbers),
                flickr_id=draw(numbers),
            )
        )
    return records


@given(st.lists(st.lists(texts)))
def test_strings_come_back(parts: list[list[str]]) -> None:
    joined = Strings.join([Strings.of(part) for part in parts])
    assert list(joined) == [string for part in parts for string in part]
    assert joined[1:] == tuple(joined)[1:]


@given(record_lists())
def test_a_table_is_the_records_by_id(records: list[ImageRecord]) -> None:
    table = RecordTable.of(iter(records))
    ordered = sorted(records, key=lambda record: record.image_id)
    assert list(table) == ordered
    assert table[1:] == tuple(ordered[1:])
    assert list(pickle.loads(pickle.dumps(table))) == ordered
    assert caption_counts(table).tolist() == caption_counts(ordered).tolist() == [len(r.captions) for r in ordered]
    columns, expected = Photographs.of(table), Photographs.of(ordered)
    for name in ("splits", "coco_ids", "flickr_ids"):
        assert np.array_equal(getattr(columns, name), getattr(expected, name))


def test_places_outside_are_refused() -> None:
    table = RecordTable.of([ImageRecord(1, Path("a/1.jpg"), "val", 1, 1, ("x",), (2,))])
    assert table[-1].image_id == table[np.int64(0)].image_id == 1
    with pytest.raises(IndexError):
        table[1]


def test_joined_records_choose_number_and_divide_anew() -> None:
    first = tuple(ImageRecord(i, Path(f"a/{i}.jpg"), "train", 1, 1, ("x",) * i, (0,) * i, coco_id=i) for i in (1, 2, 3))
    second = RecordTable.of(
        ImageRecord(i, Path(f"b/{i}.jpg"), "train", 1, 1, ("y",), (0,), flickr_id=i) for i in (2, 5)
    )
    part, row = np.array([0, 0, 1, 1], np.int16), np.array([0, 2, 0, 1])
    joined = JoinedRecords([first, second], [0, 2 * ID_STRIDE], part, row, np.array([0, 1, 1, 2], np.int8))
    assert [(r.image_id, r.split, str(r.path)) for r in joined] == [
        (1, "train", "a/1.jpg"),
        (3, "val", "a/3.jpg"),
        (2 * ID_STRIDE + 2, "val", "b/2.jpg"),
        (2 * ID_STRIDE + 5, "test", "b/5.jpg"),
    ]
    assert [r.image_id for r in joined.of_split("val")] == [3, 2 * ID_STRIDE + 2]
    assert [r.image_id for r in joined.of_part(1)] == [2 * ID_STRIDE + 2, 2 * ID_STRIDE + 5]
    assert caption_counts(joined).tolist() == [1, 3, 1, 1]
    shown = Photographs.of(joined)
    assert (shown.coco_ids.tolist(), shown.flickr_ids.tolist()) == ([1, 3, -1, -1], [-1, -1, 2, 5])

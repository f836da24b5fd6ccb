import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.table import SPLITS, RecordTable, Strings, caption_counts

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
    strings = tuple(string for part in parts for string in part)
    assert joined.slice(0, len(strings)) == strings
    assert joined.slice(1, len(strings)) == strings[1:]


@given(record_lists())
def test_a_table_is_the_records_by_id(records: list[ImageRecord]) -> None:
    table = RecordTable.of(iter(records))
    ordered = sorted(records, key=lambda record: record.image_id)
    assert list(table) == ordered
    assert table[1:] == tuple(ordered[1:])
    assert list(pickle.loads(pickle.dumps(table))) == ordered
    assert caption_counts(table).tolist() == caption_counts(ordered).tolist() == [len(r.captions) for r in ordered]


def test_places_outside_are_refused() -> None:
    table = RecordTable.of([ImageRecord(1, Path("a/1.jpg"), "val", 1, 1, ("x",), (2,))])
    assert table[-1].image_id == table[np.int64(0)].image_id == 1
    with pytest.raises(IndexError):
        table[1]


@given(record_lists(), record_lists())
def test_tables_are_joined_and_chosen_from(first: list[ImageRecord], second: list[ImageRecord]) -> None:
    tables = [RecordTable.of(first), RecordTable.of(second)]
    joined = RecordTable.join(tables)
    records = [record for table in tables for record in table]
    assert list(joined) == records
    assert joined.part.tolist() == [0] * len(first) + [1] * len(second)
    val = joined.chosen(joined.splits == SPLITS.index("val"))
    assert list(val) == [record for record in records if record.split == "val"]
    assert caption_counts(val).tolist() == [len(record.captions) for record in val]
    assert list(pickle.loads(pickle.dumps(val))) == list(val)

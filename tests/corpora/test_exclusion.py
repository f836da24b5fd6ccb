import contextlib
import gzip
import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlp_lib.corpora.coco import flickr_id
from vlp_lib.corpora.exclusion import DROPPED, HeldOut, assign
from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.refer import find_refs, read_held_out
from vlp_lib.corpora.table import SPLITS, RecordTable
from vlp_lib.errors import UserError

ids = st.integers(0, 7)
some = st.frozensets(ids)


def by_hand(source: str, split: str, coco: int | None, flickr: int | None, held_out: HeldOut) -> str:
    """The rule once more, image by image and in words."""
    if split == "test":
        return "test"
    banned_coco = set().union(*held_out.coco.values())
    shown_by_banned = {held_out.flickr_of_coco[i] for i in banned_coco if i in held_out.flickr_of_coco}
    validating = {held_out.flickr_of_coco[i] for i in held_out.coco_validation if i in held_out.flickr_of_coco}
    if coco in banned_coco or flickr in shown_by_banned:
        return "dropped"
    if source != "flickr30k" and flickr in held_out.flickr30k:
        return "dropped"
    if coco in held_out.coco_validation:
        return "val"
    if split == "train" and flickr in validating:
        return "dropped"
    return split


@given(
    st.sampled_from(("coco", "flickr30k", "vg", "sbu")),
    st.lists(st.tuples(st.sampled_from(SPLITS), st.none() | ids, st.none() | ids), max_size=12),
    st.builds(
        HeldOut,
        st.dictionaries(st.sampled_from(("a", "b")), some),
        some,
        st.dictionaries(ids, st.just("")),
        st.dictionaries(ids, ids),
    ),
)
def test_the_rule_is_that_of_brute_force(
    source: str, images: list[tuple[str, int | None, int | None]], held_out: HeldOut
) -> None:
    records = [
        ImageRecord(i, Path("a.jpg"), split, 1, 1, (), (), coco_id=coco, flickr_id=flickr)
        for i, (split, coco, flickr) in enumerate(images)
    ]
    table = RecordTable.of(records)
    roles, dropped = assign(source, table, held_out)
    expected = [by_hand(source, *image, held_out) for image in images]
    assert ["dropped" if role == DROPPED else SPLITS[role] for role in roles] == expected
    assert sum(dropped.values()) == expected.count("dropped")
    assert list(table) == records


def test_flickr_numbers_of_addresses() -> None:
    assert flickr_id("http://farm4.staticflickr.com/3446/3232237447_13d84bd0a1_z.jpg") == 3232237447
    assert flickr_id("http://static.flickr.com/2723/4385058960_b0f291553e.jpg") == 4385058960
    assert flickr_id("http://images.cocodataset.org/val2017/000000397133.jpg") is None
    assert flickr_id("https://example.org/flickr.com/3446/3232237447_13.jpg") is None
    assert flickr_id("") is None


# RefCOCO's lists


def save_refs(path: Path, refs: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(refs, protocol=2))


def test_references_by_split(tmp_path: Path) -> None:
    def one(split: str, image: int) -> dict[str, object]:
        return {"split": split, "image_id": image, "ref_id": 1}

    save_refs(tmp_path / "refer/refcoco/refs(unc).p", [one("train", 1), one("testA", 2), one("val", 3), one("val", 3)])
    save_refs(tmp_path / "refer/refcocog/refs(umd).p", [one("test", 4), one("val", 5)])
    found = read_held_out(find_refs(tmp_path))
    assert found == {"RefCOCO test": {2, 4}, "RefCOCO val": {3, 5}}
    assert read_held_out(find_refs(tmp_path / "absent")) == {}


class _Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("refs", [_Command(), [_Command()], [{"split": "val"}], 5])
def test_references_run_nothing_and_must_have_the_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refs: object
) -> None:
    monkeypatch.chdir(tmp_path)
    save_refs(tmp_path / "refer/refcoco/refs(unc).p", refs)
    with pytest.raises(UserError, match="is no list of references"):
        read_held_out(find_refs(tmp_path))
    assert not (tmp_path / "ran").exists()


# Real lists


def real_ids(shared_data: Path, name: str) -> frozenset[int]:
    lines = (shared_data / "splits" / f"coco_karpathy_{name}_images.txt").read_text().splitlines()
    return frozenset(int(line.split()[1]) for line in lines)


def test_real_lists_leave_no_downstream_image(shared_data: Path) -> None:
    content = json.loads(gzip.decompress((shared_data / "coco/annotations/captions_val2017_full.json.gz").read_bytes()))
    numbers = {image["id"]: int(image["flickr_url"].split("/")[-1].split("_")[0]) for image in content["images"]}
    flickr30k = frozenset(
        int(word)
        for part in ("train", "val", "test")
        for word in (shared_data / f"flickr30k/entities_splits/{part}.txt").read_text().split()
    )
    val, test = real_ids(shared_data, "val"), real_ids(shared_data, "test")
    coco = np.array(sorted(numbers))
    # As Visual Genome would list these images: no split of its own.
    photographs = RecordTable.of(
        ImageRecord(i, Path("a.jpg"), "train", 1, 1, (), (), coco_id=i, flickr_id=numbers[i]) for i in coco.tolist()
    )
    roles, dropped = assign(
        "vg", photographs, HeldOut({"Karpathy test": test}, val, dict.fromkeys(flickr30k, ""), numbers)
    )
    assert len(coco) == 5000
    assert dropped == {"Karpathy test": 593, "Flickr30k": 5}
    theirs = {i for i, number in numbers.items() if number in flickr30k}
    assert (roles == SPLITS.index("val")).sum() == 608 - len(set(coco.tolist()) & val & theirs)
    trained = set(coco[roles == SPLITS.index("train")].tolist())
    assert not trained & (val | test | theirs)
    assert len(trained) == 5000 - 593 - 5 - (roles == SPLITS.index("val")).sum()


@pytest.mark.parametrize(
    "content",
    [
        b"]r\xff\xff\xff\x7f.",  # room for two thousand million objects
        b"]p99999999999\n.",
        b"\x96\xff\xff\xff\xff\xff\x00\x00\x00.",  # a byte array of 256 terabytes
        b"X\xff\xff\xff\x7fabc.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"L" + b"9" * 5000 + b"L\n.",
        b"(" * 10**5,
        b"cos\nsystem\n(S'touch started'\ntR.",
        b"(S'touch started'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0dtouch started\x85R.",
        b"\x82\x01.",
        b"Pid\n.",
    ],
)
def test_a_hostile_pickle_neither_runs_nor_takes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refer/refcoco").mkdir(parents=True)
    (tmp_path / "refer/refcoco/refs(unc).p").write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(UserError):
        assert read_held_out(find_refs(tmp_path)) == {}  # an empty list with a strange number is no harm
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()
    assert not (tmp_path / "started").exists()

"""The kit's own division of images."""

from collections import Counter
from pathlib import Path

import pytest

from vlp_lib.corpora.records import ImageRecord
from vlp_lib.corpora.split import Division, leaves_enough, read_division, split_file, write_division
from vlp_lib.errors import UserError
from vlp_lib.io import write_text


def records(**counts: int) -> list[ImageRecord]:
    splits = [name for name, count in counts.items() for _ in range(count)]
    return [ImageRecord(i, Path(f"{i}.jpg"), split, 8, 8, ("a",), (i,)) for i, split in enumerate(splits)]


def test_a_tenth_validates_and_a_tenth_tests() -> None:
    parts = Counter(Division(3)[i] for i in range(20_000))
    assert parts.total() == 20_000
    assert abs(parts["val"] - 2000) < 200  # 4.7 deviations of a binomial
    assert abs(parts["test"] - 2000) < 200


def test_another_seed_is_another_division_and_the_same_is_the_same() -> None:
    first, again, other = ([Division(seed)[i] for i in range(300)] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("counts", "enough"),
    [
        ({"train": 10, "val": 1}, True),
        ({"val": 5000}, False),
        ({"train": 26, "val": 762}, False),
        ({"train": 1000, "test": 50}, False),
        ({"train": 1132, "val": 50, "test": 50}, True),
    ],
)
def test_when_a_split_leaves_enough(counts: dict[str, int], enough: bool) -> None:
    assert leaves_enough(records(**counts)) is enough


def test_what_is_written_down_holds_and_images_that_come_later_are_drawn(tmp_path: Path) -> None:
    write_division(tmp_path, records(val=40), 7)
    division = read_division(tmp_path)
    assert [division[i] for i in range(80)] == [Division(7)[i] for i in range(80)]
    text = split_file(tmp_path).read_text()
    own = text.replace('"train": [', '"train": [\n    999999,', 1)
    write_text(split_file(tmp_path), own)
    assert read_division(tmp_path)[999_999] == "train"


@pytest.mark.parametrize("text", ["[]", '{"seed": 1}', '{"seed": "x", "train": [], "val": [], "test": []}'])
def test_a_broken_division_is_named(tmp_path: Path, text: str) -> None:
    split_file(tmp_path).parent.mkdir()
    write_text(split_file(tmp_path), text)
    with pytest.raises(UserError, match=r"by_image\.json is no division"):
        read_division(tmp_path)

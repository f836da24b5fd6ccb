import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlp_lib.batches.pairs import TrainingOrder
from vlp_lib.corpora.joined import JoinedCorpus
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.shards import Shard, find_shards, open_pairs, open_shard, scan
from vlp_lib.corpora.table import ID_STRIDE
from vlp_lib.errors import UserError
from vlp_lib.run import results_root

Files = list[tuple[str, bytes]]


def picture(number: int, suffix: str = "jpeg") -> bytes:
    """A grey image whose colour says which it is."""
    file = io.BytesIO()
    Image.new("RGB", (16 + number, 16), (number, number, number)).save(file, suffix)
    return file.getvalue()


def sample(number: int, **facts: object) -> Files:
    """What img2dataset writes of one pair."""
    key = f"{number:09d}"
    stated = {"caption": f"Pair {number}", "status": "success", "key": key, "width": 16 + number, "height": 16, **facts}
    return [
        (f"{key}.jpg", picture(number)),
        (f"{key}.json", json.dumps(stated).encode()),
        (f"{key}.txt", f"Pair\n {number} ".encode()),
    ]


@pytest.fixture
def shards(tmp_path: Path, pack: Callable[..., None]) -> Path:
    """Three shards of four pairs each."""
    folder = tmp_path / "data/cc3m"
    for n in range(3):
        pack(folder / f"{n:05d}.tar", [file for i in range(4) for file in sample(4 * n + i)])
    return folder


def captions(shard: Shard) -> list[str]:
    return list(shard.captions.slice(0, len(shard.places)))


def test_folders_of_shards(shards: Path, pack: Callable[..., None]) -> None:
    assert find_shards(shards) == {"train": [shards / f"{n:05d}.tar" for n in range(3)]}
    pack(shards / "val/00000.tar", sample(50))
    assert find_shards(shards)["val"] == [shards / "val/00000.tar"]
    assert find_shards(shards.parent) == {}
    listing = shards.parent / "elsewhere"
    listing.mkdir()
    (listing / "shards.txt").write_text("../cc3m/00000.tar\n\n/absolute/7.tar\n")
    assert find_shards(listing) == {"train": [listing / "../cc3m/00000.tar", Path("/absolute/7.tar")]}


# Samples


def test_a_shard_is_its_samples(tmp_path: Path, pack: Callable[..., None]) -> None:
    address = "http://farm1.staticflickr.com/2723/4385058960_b0f291553e.jpg"
    pack(tmp_path / "0.tar", [*sample(1), *sample(2, url=address, width=None)])
    shard = scan(tmp_path / "0.tar")
    assert captions(shard) == ["Pair 1", "Pair 2"]
    assert shard.names.slice(0, 2) == ("000000001.jpg", "000000002.jpg")
    content = (tmp_path / "0.tar").read_bytes()
    for i, (start, length, *facts) in enumerate(shard.places.tolist(), 1):
        assert facts == [16 + i, 16, {1: -1, 2: 4385058960}[i]]
        assert content[start : start + length] == picture(i)
    assert shard.skipped == {}


def test_bad_samples_are_counted(tmp_path: Path, pack: Callable[..., None]) -> None:
    files = [
        *sample(1),
        ("2.txt", b"no image"),
        ("3.jpg", picture(3)),
        ("4.jpg", picture(4)),
        ("4.txt", b" \n"),
        ("5.jpg", b"<html>gone</html>"),
        ("5.json", b'{"width": 9, "height": 9}'),
        ("5.txt", b"not an image"),
        ("6.jpg", picture(6)[:20]),
        ("6.txt", b"no header"),
        ("7.jpg", picture(7)),
        ("7.txt", b"\xff\xfe\xfa"),
        ("8.jpg", picture(8)),
        ("8.json", b"{"),
        ("9.png", picture(9, "png")),
        ("9.json", b'{"caption": "of the JSON"}'),
    ]
    pack(tmp_path / "0.tar", files)
    shard = scan(tmp_path / "0.tar")
    assert captions(shard) == ["Pair 1", "of the JSON"]
    assert shard.skipped == {
        "samples without an image": 1,
        "samples without a caption": 2,
        "samples whose image is broken": 2,
        "samples whose caption or JSON is broken": 2,
    }


@pytest.mark.parametrize(
    "facts",
    [
        b'{"caption": "half of \\ud800 a character"}',
        b'{"caption": "wide", "width": 1e400, "height": 9}',
        b'{"caption": "wide", "width": 99999999999999999999, "height": 9}',
        b'{"caption": "wide", "width": -5, "height": 9}',
        b'{"caption": "long", "width": ' + b"9" * 5000 + b', "height": 9}',
        b"[" * 100_000,
        b'{"caption": "' + b"x" * 2**20 + b'"}',
        b'{"caption": ["a", "list"]}',
        b"[1]",
        b"NaN",
    ],
)
def test_one_bad_pair_is_counted_and_spoils_no_other(tmp_path: Path, pack: Callable[..., None], facts: bytes) -> None:
    pack(tmp_path / "0.tar", [*sample(1), ("2.jpg", picture(2)), ("2.json", facts), *sample(3)])
    shard = scan(tmp_path / "0.tar")
    assert captions(shard) == ["Pair 1", "Pair 3"]
    assert shard.skipped == {"samples whose caption or JSON is broken": 1}


def test_keys_end_at_the_first_dot_and_keep_their_folder(tmp_path: Path, pack: Callable[..., None]) -> None:
    files = [("a/1.jpg", picture(1)), ("a/1.txt", b"in a"), ("b/1.jpg", picture(2)), ("b/1.txt", b"in b")]
    pack(tmp_path / "0.tar", [*files, ("b/1.meta.json", b"{}")])
    shard = scan(tmp_path / "0.tar")
    assert captions(shard) == ["in a", "in b"]


@pytest.mark.parametrize("cut", range(0, 20_480, 509))
def test_a_cut_shard_keeps_whole_samples(shards: Path, cut: int) -> None:
    path = shards / "00001.tar"
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        ends = {m.name: m.offset_data + m.size for m in tar}
        last = max(m.offset_data + -(-m.size // 512) * 512 for m in tar.getmembers())
    path.write_bytes(content[:cut])
    shard = scan(path)
    whole = [f"Pair {i}" for i in range(4, 8) if max(ends[f"{i:09d}.{s}"] for s in ("jpg", "json", "txt")) <= cut]
    # A sample whose caption alone is lost has the JSON's.
    assert captions(shard)[: len(whole)] == whole
    assert len(shard.places) <= len(whole) + 1
    assert shard.skipped.get("shards that are cut off or damaged", 0) == (cut < last + 512)


def test_a_damaged_shard_is_named_and_used_up_to_the_damage(shards: Path) -> None:
    path = shards / "00001.tar"
    with tarfile.open(path) as tar:
        header = tar.getmember("000000006.jpg").offset
    content = bytearray(path.read_bytes())
    content[header : header + 512] = b"\x07" * 512
    path.write_bytes(content)
    (shards / "00002.tar").write_bytes(b"rubbish" * 1000)
    pairs = open_pairs(shards)
    assert [len(shard.places) for shard in pairs.shards] == [4, 2, 0]
    assert pairs.faulty == (path, shards / "00002.tar")
    assert pairs.report.skipped == {"shards that are cut off or damaged": 2}
    assert np.asarray(pairs.read_image(pairs.records[5])).mean() == pytest.approx(5, abs=1)


# The index


def kept_indexes(shard: str) -> list[Path]:
    return sorted((results_root() / "shard-index").rglob(f"{shard}.npz"))


def test_the_index_is_kept_and_follows_the_shard(shards: Path, pack: Callable[..., None]) -> None:
    path = shards / "00000.tar"
    made = open_shard(path)
    (kept,) = kept_indexes("00000.tar")
    stamp = kept.stat().st_mtime_ns
    again = open_shard(path)
    assert kept.stat().st_mtime_ns == stamp
    assert captions(again) == captions(made) == [f"Pair {i}" for i in range(4)]
    assert np.array_equal(again.places, made.places) and again.skipped == made.skipped
    pack(path, sample(9))
    assert captions(open_shard(path)) == ["Pair 9"]
    kept.write_bytes(b"broken")
    assert captions(open_shard(path)) == ["Pair 9"]


def test_nothing_is_written_but_into_results(tmp_path: Path, pack: Callable[..., None]) -> None:
    for place in ("absolute", "relative", "linked"):
        pack(tmp_path / place / "1.tar", sample(1))
    data = tmp_path / "data/listed"
    data.mkdir(parents=True)
    (data / "link").symlink_to(tmp_path / "linked")
    pack(data / "inside/1.tar", sample(1))
    lines = [f"{tmp_path}/absolute/1.tar", "../../relative/1.tar", "link/1.tar", "inside/1.tar", "{0..99999999999}.tar"]
    (data / "shards.txt").write_text("\n".join(lines))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(results_root())}
    assert len(open_pairs(data).records) == 4
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(results_root())} == before
    assert len(kept_indexes("1.tar")) == 4


# As a corpus


def test_pairs_are_a_corpus(shards: Path) -> None:
    corpus = open_corpus(shards.parent)
    assert isinstance(corpus, JoinedCorpus)
    assert corpus.report.images == {"train": 11, "val": 1, "test": 0}
    for record in corpus.records:
        number = record.image_id % ID_STRIDE
        assert record.captions == (f"Pair {number}",)
        assert record.path == shards / f"{number // 4:05d}.tar" / f"{number:09d}.jpg"
        assert (record.width, record.height) == corpus.read_image(record).size == (16 + number, 16)
        assert np.asarray(corpus.read_image(record)).mean() == pytest.approx(number, abs=1)
        assert corpus.read_label_map(record) is None and corpus.read_detections(record, 1, 0.0) is None
    copy = pickle.loads(pickle.dumps(corpus))
    assert copy.read_image(copy.records[7]).size == (23, 16)
    assert corpus.fingerprint == open_corpus(shards.parent).fingerprint


def test_a_folder_of_shards_by_itself_and_its_val(shards: Path, pack: Callable[..., None]) -> None:
    pack(shards / "val/00000.tar", [*sample(50), *sample(51)])
    corpus = open_corpus(shards)
    assert [r.captions[0] for r in corpus.split("val")] == ["Pair 50", "Pair 51"]
    assert len(corpus.split("train")) == 12


def test_missing_shards_are_counted(shards: Path) -> None:
    (shards / "shards.txt").write_text("".join(f"{n:05d}.tar\n" for n in range(5)))
    corpus = open_corpus(shards)
    assert corpus.report.skipped == {"listed shards without a file (cc3m)": 2}
    assert len(corpus.records) == 12


def test_a_broken_image_is_named_when_it_is_read(shards: Path, pack: Callable[..., None]) -> None:
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(noise, "jpeg")
    pack(shards / "00000.tar", [("1.jpg", noise.getvalue()[: len(noise.getvalue()) // 2]), ("1.txt", b"cut")])
    corpus = open_corpus(shards.parent)
    with pytest.raises(UserError, match=r"00000\.tar/1\.jpg is truncated"):
        corpus.read_image(corpus.records[0])
    (shards / "00001.tar").unlink()
    with pytest.raises(UserError, match=r"00001\.tar cannot be read"):
        corpus.read_image(corpus.records[1])


def test_shards_without_a_sample_are_refused(tmp_path: Path, pack: Callable[..., None]) -> None:
    pack(tmp_path / "cc/0.tar", [])
    with pytest.raises(UserError, match="no usable sample"):
        open_corpus(tmp_path)


def test_any_step_reads_its_own_pairs(shards: Path) -> None:
    records = open_corpus(shards.parent).split("train")

    def read(start: int) -> list[list[str]]:
        order = TrainingOrder(len(records), 4, 6, seed=3, start=start)
        return [[records[key.pair].captions[0] for key in keys] for keys in order]

    assert read(0)[4:] == read(4)

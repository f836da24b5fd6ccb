import gzip
from pathlib import Path
from typing import Any

import pytest

from vlp_lib.corpora.flickr30k import find_split_lists, read_split_lists, read_tokens
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.errors import UserError


def test_token_file(tmp_path: Path) -> None:
    path = tmp_path / "results.token"
    path.write_text("20.jpg#0\tTwo  men .\n10.jpg#0\tA dog .\n20.jpg#1\tThey stand .\n20.jpg#2\t \n\n")
    first, second = read_tokens(path)
    assert (first.image_id, first.path.name, first.captions) == (20, "20.jpg", ("Two men .", "They stand ."))
    assert (first.caption_ids, first.flickr_id, first.coco_id) == ((200, 201), 20, None)
    assert second.captions == ("A dog .",)


@pytest.mark.parametrize("line", ["20.jpg#0 a dog", "20.png#0\ta dog", "a.jpg#0\ta dog"])
def test_other_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "results.token"
    path.write_text(f"20.jpg#0\tok\n{line}\n")
    with pytest.raises(UserError, match=r"results\.token, line 2"):
        read_tokens(path)


def test_split_lists(tmp_path: Path) -> None:
    for part, text in (("train", "1\n2\n"), ("val", "3.jpg\n"), ("test", "4\n\n")):
        (tmp_path / f"{part}.txt").write_text(text)
    assert read_split_lists(find_split_lists(tmp_path)) == {1: "train", 2: "train", 3: "val", 4: "test"}
    (tmp_path / "test.txt").write_text("1\n")
    with pytest.raises(UserError, match="image 1 is also in train"):
        read_split_lists(find_split_lists(tmp_path))
    (tmp_path / "test.txt").write_text("four\n")
    with pytest.raises(UserError, match=r"test\.txt, line 1"):
        read_split_lists(find_split_lists(tmp_path))
    (tmp_path / "test.txt").unlink()
    assert find_split_lists(tmp_path) == {}


def test_entities_split_serves_where_it_is_alone(official: Any) -> None:
    official.flickr30k({"train": [11, 12], "val": [13], "test": [14]})
    corpus = open_corpus(official.path / "flickr30k")
    assert [[r.image_id for r in corpus.split(name)] for name in ("train", "val", "test")] == [[11, 12], [13], [14]]
    assert "Entities" in str(corpus.report)
    official.flickr30k({"train": [11], "val": [13], "test": [12, 14]}, karpathy=True)
    corpus = open_corpus(official.path / "flickr30k")
    assert [r.image_id for r in corpus.split("test")] == [12, 14]
    assert "Entities" not in str(corpus.report)


def test_images_outside_the_lists_are_counted(official: Any) -> None:
    official.flickr30k({"train": [11, 12], "val": [13], "test": [14]})
    (official.path / "flickr30k/train.txt").write_text("11\n")
    corpus = open_corpus(official.path / "flickr30k")
    assert [r.image_id for r in corpus.split("train")] == [11]
    assert corpus.report.skipped["images that no split list names"] == 1


def test_tokens_without_a_split_are_refused(official: Any) -> None:
    official.flickr30k({"train": [11]})
    (official.path / "flickr30k/test.txt").unlink()
    with pytest.raises(UserError, match="has no split beside it"):
        open_corpus(official.path / "flickr30k")


def test_real_captions_and_lists(shared_data: Path, tmp_path: Path) -> None:
    folder, lines, expected = shared_data / "flickr30k/multi30k/task2", [], {}
    for part, names in (("train", "train_images"), ("val", "val_images"), ("test_2016", "test_2016_images")):
        images = (folder / f"image_splits/{names}.txt").read_text().split()
        said = [gzip.decompress((folder / f"raw/{part}.{k}.en.gz").read_bytes()).decode() for k in range(1, 6)]
        columns = [text.rstrip("\n").split("\n") for text in said]
        for i, name in enumerate(images):
            expected[name] = tuple(" ".join(column[i].split()) for column in columns)
            lines += [f"{name}#{k}\t{column[i]}" for k, column in enumerate(columns)]
    path = tmp_path / "results_20130124.token"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    images = read_tokens(path)
    assert len(images) == 31_014
    assert {image.path.name: image.captions for image in images} == expected
    splits = read_split_lists(find_split_lists(shared_data / "flickr30k"))
    assert len(splits) == 31_783
    assert all(image.image_id in splits for image in images)

"""Prepared images: the same pixels, whole or refused, made once however often it is interrupted."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vlp_lib.batches.augment import draw_view, show_image
from vlp_lib.corpora import prepared as module
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.prepared import fit_image, open_prepared, prepare, prepared_folder, prepared_side
from vlp_lib.errors import UserError
from vlp_lib.io import read_json, write_json

SIZE, RESIZE = 16, (0.8, 1.2)


@pytest.fixture(autouse=True)
def small_packs(monkeypatch):
    monkeypatch.setattr(module, "PACK", 8)  # the tiny corpus's 36 images in 5 packs


@pytest.fixture
def corpus(tiny_corpus, tmp_path):
    """A corpus that a test may damage."""
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus.root, root)
    return open_corpus(root)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_the_side_holds_the_largest_view():
    assert prepared_side(384, (0.8, 1.2)) == 461
    assert prepared_side(10, (0.8, 1.1)) == 11  # and not 12 for 1.1 · 10 = 11.000000000000002
    assert prepared_side(64, (0.5, 0.9)) == 64  # validation shows the whole image on the whole canvas


def test_what_is_prepared_is_read(corpus):
    done = prepare(corpus, SIZE, RESIZE)
    assert (done.side, done.images, done.made, done.kept, done.skipped) == (20, 36, 5, 0, {})
    found = open_prepared(corpus, SIZE, RESIZE)
    assert found.count == 36
    maps = 0
    for record in (*corpus.split("train"), *corpus.split("val")):
        pixels = found.read_pixels(record)
        expected = corpus.read_image(record).resize((20, 20), Image.Resampling.LANCZOS)
        assert np.array_equal(pixels, np.asarray(expected))
        assert np.array_equal(np.asarray(found.read_image(record)), pixels)
        labels, whole = found.read_label_map(record), corpus.read_label_map(record)
        assert (labels is None) == (whole is None)
        if whole is not None:
            centres, border = np.divmod(np.arange(20) * 32 + 16, 20)
            clear = border > 0  # of pixels whose centre lies between two stored ones either is right
            assert np.array_equal(labels[clear][:, clear], whole[np.ix_(centres[clear], centres[clear])])
            maps += 1
    assert maps == done.label_maps > 0
    assert done.bytes == 36 * 20 * 20 * 3 + maps * 20 * 20
    assert "36 images" in str(done)


def test_small_images_are_not_touched(corpus):
    prepare(corpus, 64, RESIZE)
    found = open_prepared(corpus, 64, RESIZE)
    record = corpus.split("train")[0]
    assert np.array_equal(found.read_pixels(record), np.asarray(corpus.read_image(record)))
    assert fit_image(Image.new("RGB", (50, 10)), 20).size == (20, 10)


def test_a_corpus_without_packs_is_read_from_its_files(corpus):
    assert open_prepared(corpus, SIZE, RESIZE) is None


@pytest.mark.parametrize("when", ["before the index", "before the manifest"])
def test_interrupted_and_started_again(corpus, tmp_path, monkeypatch, when):
    prepare(corpus, SIZE, RESIZE, tmp_path / "whole")
    folder = tmp_path / "resumed"
    last = "pack-00003.json" if when == "before the index" else "manifest.json"

    def write(path, value):
        if path.name == last:
            raise KeyboardInterrupt
        write_json(path, value)

    monkeypatch.setattr(module, "write_json", write)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, SIZE, RESIZE, folder)
    with pytest.raises(UserError, match=f"{folder} holds no finished packs: finish them with `vlp data prepare"):
        open_prepared(corpus, SIZE, RESIZE, str(folder))
    (folder / ".pack-00003.bin.x1y2_z3w").touch()  # what a killed process leaves
    monkeypatch.setattr(module, "write_json", write_json)
    done = prepare(corpus, SIZE, RESIZE, folder)
    assert (done.made, done.kept) == ((2, 3) if when == "before the index" else (0, 5))
    assert contents(folder) == contents(tmp_path / "whole")


def test_workers_change_nothing(corpus, tmp_path):
    for workers in (0, 2):
        prepare(corpus, SIZE, RESIZE, tmp_path / str(workers), workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_only_packs_of_changed_images_are_made_again(corpus, tmp_path):
    folder = prepare(corpus, SIZE, RESIZE).folder
    record = corpus.split("train")[9]
    Image.new("RGB", (32, 32), (1, 2, 3)).save(record.path)
    with pytest.raises(UserError, match=f"{folder} was made from other images or label maps than {corpus.root} has"):
        open_prepared(corpus, SIZE, RESIZE)
    done = prepare(corpus, SIZE, RESIZE)
    assert (done.made, done.kept) == (1, 4)
    assert set(open_prepared(corpus, SIZE, RESIZE).read_pixels(record).ravel()) == {1, 2, 3}


def test_later_captions_and_labels_leave_the_packs_current(corpus):
    prepare(corpus, SIZE, RESIZE)
    (corpus.root / "detections_train2017.npz").unlink(missing_ok=True)
    other = dataclasses.replace(corpus, detections=None)
    assert open_prepared(other, SIZE, RESIZE).count == 36


def test_truncated_packs_are_refused(corpus):
    folder = prepare(corpus, SIZE, RESIZE).folder
    pack = folder / "pack-00002.bin"
    size = pack.stat().st_size
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{pack} has {size - 1:,} bytes instead of {size:,}: make it again with"):
        open_prepared(corpus, SIZE, RESIZE)
    assert prepare(corpus, SIZE, RESIZE).made == 1
    pack.unlink()
    with pytest.raises(UserError, match=f"{pack} has 0 bytes instead of"):
        open_prepared(corpus, SIZE, RESIZE)


def test_packs_for_smaller_views_are_refused(corpus):
    folder = prepare(corpus, SIZE, RESIZE).folder
    with pytest.raises(UserError, match="at most 20 px and the views of this configuration need 24"):
        open_prepared(corpus, SIZE, (0.8, 1.5))
    assert open_prepared(corpus, SIZE, (1.0, 1.0)).count == 36
    manifest = read_json(folder / "manifest.json")
    changes = (({"format": 9}, "has the format 9 instead of 1"), ({"packs": "x"}, "has a broken manifest"))
    for change, message in changes:
        (folder / "manifest.json").write_text(json.dumps(manifest | change))
        with pytest.raises(UserError, match=message):
            open_prepared(corpus, SIZE, RESIZE)


def test_a_named_folder_must_have_packs(corpus, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no finished packs"):
        open_prepared(corpus, SIZE, RESIZE, str(tmp_path))


def test_broken_images_are_counted_and_named_when_read(corpus):
    broken, other = corpus.split("train")[3], corpus.split("train")[4]
    broken.path.write_bytes(broken.path.read_bytes()[:90])
    done = prepare(corpus, SIZE, RESIZE)
    assert done.images == 35
    assert "skipped: 1 images that cannot be read" in str(done)
    assert str(broken.path) in str(done)
    found = open_prepared(corpus, SIZE, RESIZE)
    assert (found.count, found.skipped) == (35, 1)
    assert found.read_pixels(other).shape == (20, 20, 3)
    with pytest.raises(UserError, match=f"{broken.path} is truncated or not an image"):
        found.read_pixels(broken)


def test_a_full_disk_is_said_before(corpus, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(UserError, match=r"a disk with 0.0 GB free and the packs may take 0.0 GB: make room"):
        prepare(corpus, SIZE, RESIZE)


def test_the_same_pixels_within_a_tolerance_on_real_images(shared_data, tmp_path):
    """Views of prepared images beside views of the files: 1.5 levels of 255 in the mean, 8 at the 99th percentile.

    The files have a short side of 256 px, so a canvas of 205 px brings them down (to 246) as one of 384 px brings down
    COCO's own 640 × 480 (to 461).
    """
    whole = open_corpus(shared_data / "coco")
    corpus = dataclasses.replace(whole, records=whole.records[::16])
    prepare(corpus, 205, RESIZE, tmp_path / "packs")
    found = open_prepared(corpus, 205, RESIZE, str(tmp_path / "packs"))
    rng = np.random.default_rng(0)
    errors = []
    for record in (*corpus.split("train"), *corpus.split("val")):
        view = draw_view(rng, RESIZE, 0.5)
        shown = show_image(found.read_image(record), view, 205).astype(int)
        errors.append(np.abs(shown - show_image(corpus.read_image(record), view, 205)))
    assert len(errors) >= 10
    assert np.mean(errors) <= 1.5
    assert np.percentile(errors, 99) <= 8
    assert np.mean(errors) > 0  # they were resized


def test_where_they_lie_by_themselves(corpus):
    assert prepare(corpus, SIZE, RESIZE).folder == prepared_folder(corpus.root, SIZE) == corpus.root / "prepared/16"


@pytest.mark.parametrize("name", ["manifest.json.bak", "pack-notes.json", "thesis/pack-00000.bin", "web.html"])
def test_no_folder_of_other_files_is_written_into(corpus, tmp_path, name):
    mine = tmp_path / "mine"
    for one in ("manifest.json", "pack-00099.bin", name):
        (mine / one).parent.mkdir(parents=True, exist_ok=True)
        (mine / one).write_text("mine")
    with pytest.raises(UserError, match=r"would be lost: give another folder"):
        prepare(corpus, SIZE, RESIZE, mine)
    assert {(mine / one).read_text() for one in ("manifest.json", "pack-00099.bin", name)} == {"mine"}


@pytest.mark.parametrize(("place", "value"), [(1, 1.0), (2, 4.5), (3, True), (1, -1), (2, 10**9), (3, 0), (1, "0")])
def test_an_index_that_cannot_be_is_refused(corpus, place, value):
    folder = prepare(corpus, SIZE, RESIZE).folder
    index = read_json(folder / "pack-00000.json")
    index["pictures"][0][place] = value
    write_json(folder / "pack-00000.json", index)
    with pytest.raises(UserError, match="broken manifest or index"):
        open_prepared(corpus, SIZE, RESIZE)

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlp_lib.corpora.detections import write_detections
from vlp_lib.corpora.joined import JoinedCorpus
from vlp_lib.corpora.layout import find_folder
from vlp_lib.corpora.opening import open_corpus
from vlp_lib.corpora.records import Detections
from vlp_lib.corpora.table import ID_STRIDE
from vlp_lib.errors import UserError
from vlp_lib.tasks.vqa import image_files

FLICKR, GENOME = ID_STRIDE, 2 * ID_STRIDE
FLICKR_OF_COCO = 70_000  # as the fixture `official` writes COCO's addresses


def ids(corpus: JoinedCorpus, split: str) -> list[int]:
    return [record.image_id for record in corpus.split(split)]


@pytest.fixture
def everything(official: Any) -> Any:
    """COCO 1–6 (5 validates, 6 tests), Flickr30k 11–14 and Visual Genome 1–7 below one folder."""
    official.coco({"train": [1, 2], "restval": [3, 4], "val": [5], "test": [6]})
    official.flickr30k({"train": [11, 12, FLICKR_OF_COCO + 2, FLICKR_OF_COCO + 6], "val": [13], "test": [14]})
    official.genome(
        {
            1: (None, 99),  # no one else's
            2: (1, FLICKR_OF_COCO + 1),  # COCO's, trained on there too
            3: (6, None),  # COCO's test
            4: (None, 14),  # Flickr30k's test
            5: (5, None),  # COCO's val
            6: (None, FLICKR_OF_COCO + 6),  # COCO's test, by its Flickr number alone
            7: (None, None),
        }
    )
    return official


def open_joined(official: Any) -> JoinedCorpus:
    corpus = open_corpus(official.path)
    assert isinstance(corpus, JoinedCorpus)
    return corpus


def test_one_corpus_without_downstream_images(everything: Any) -> None:
    corpus = open_joined(everything)
    # COCO 2 is a photograph of Flickr30k's; Flickr30k's 70006 is COCO's test image 6.
    assert ids(corpus, "train") == [
        *(1, 3, 4),
        *(FLICKR + i for i in (11, 12, FLICKR_OF_COCO + 2)),
        *(GENOME + i for i in (1, 2, 7)),
    ]
    assert ids(corpus, "val") == [5, FLICKR + 13, GENOME + 5]
    assert ids(corpus, "test") == [6, FLICKR + 14]
    assert corpus.report.images == {"train": 9, "val": 3, "test": 2}
    assert corpus.report.captions == {"train": 18, "val": 6, "test": 4}
    assert corpus.report.skipped == {
        "images of coco kept out of pretraining: Flickr30k": 1,
        "images of flickr30k kept out of pretraining: Karpathy test by Flickr number": 1,
        "images of vg kept out of pretraining: Karpathy test": 1,
        "images of vg kept out of pretraining: Flickr30k": 2,
        "regions without a sentence (vg)": 7,
    }
    said = str(corpus.report)
    assert "to train on: 3 images, 6 sentences of vg" in said
    assert "kept out of pretraining: Karpathy test" in said and "Entities" in said


def test_records_are_read_from_their_own_data_set(everything: Any) -> None:
    corpus = open_joined(everything)
    by_id = {record.image_id: record for record in corpus.records}
    assert len(by_id) == len(corpus.records) == 14
    assert by_id[GENOME + 2].captions == ("region of 2", "another of 2")
    assert by_id[GENOME + 2].path == everything.path / "vg/VG_100K_2/2.jpg"
    assert by_id[FLICKR + 11].captions == ("flickr 11 0 .", "flickr 11 1 .")
    for image_id, record in by_id.items():
        own = image_id % ID_STRIDE % 256
        assert np.asarray(corpus.read_image(record))[..., 0].mean() == pytest.approx(own, abs=2)
    copy = pickle.loads(pickle.dumps(corpus))
    assert list(copy.records) == list(corpus.records)


def test_label_maps_and_detections_are_found_for_each_data_set(everything: Any) -> None:
    maps = everything.path / "coco/stuffthingmaps/train2017"
    maps.mkdir(parents=True)
    Image.new("L", (12, 8), 8).save(maps / "000000000001.png")
    one = Detections(np.array([1]), np.array([0.5]), np.array([[0, 0, 0.5, 1]]), np.array([-1]))
    other = Detections(np.array([0]), np.array([0.25]), np.array([[0, 0, 1, 1]]), np.array([-1]))
    for name, image_id, found in (("coco/detections_a", 1, one), ("vg/detections_a", 1, other),
                                  ("detections_web", FLICKR + 11, one)):  # fmt: skip
        write_detections(everything.path / f"{name}.npz", [(image_id, (12, 8), found)], ("ball", "box"))
    corpus = open_joined(everything)
    by_id = {record.image_id: record for record in corpus.records}
    labels = corpus.read_label_map(by_id[1])
    assert labels is not None and (labels == corpus.segmentation_classes.lookup[8]).all()
    assert corpus.read_label_map(by_id[GENOME + 1]) is None and not corpus.has_label_map(by_id[GENOME + 1])
    scores = {
        image_id: found.scores.tolist()
        for image_id, record in by_id.items()
        if (found := corpus.read_detections(record, 9, 0.0)) is not None
    }
    assert scores == {1: [0.5], GENOME + 1: [0.25], FLICKR + 11: [0.5]}
    assert corpus.report.with_detections == {"train": 3, "val": 0, "test": 0}
    assert corpus.report.with_label_map == {"train": 1, "val": 0, "test": 0}


def test_reference_images_are_kept_out(everything: Any) -> None:
    assert "RefCOCO's val and test images are not known" in str(open_joined(everything).report)
    folder = everything.path / "refer/refcoco"
    folder.mkdir(parents=True)
    pickled = [{"split": "val", "image_id": 1}, {"split": "testB", "image_id": 4}, {"split": "train", "image_id": 3}]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(pickled, protocol=2))
    corpus = open_joined(everything)
    assert [i for i in ids(corpus, "train") if i < ID_STRIDE] == [3]
    assert GENOME + 2 not in ids(corpus, "train")
    assert corpus.report.skipped["images of coco kept out of pretraining: RefCOCO test"] == 1


def test_one_data_set_is_read_as_before(official: Any) -> None:
    official.coco({"train": [1, 2], "val": [5], "test": [6]})
    alone = open_corpus(official.path / "coco")
    assert type(alone).__name__ == "Corpus" and isinstance(alone.records, tuple)
    assert [(r.image_id, r.coco_id, r.flickr_id) for r in alone.split("test")] == [(6, 6, FLICKR_OF_COCO + 6)]
    below = open_corpus(official.path)
    assert [(r.image_id, r.split, r.captions) for r in below.records] == [
        (r.image_id, r.split, r.captions) for r in alone.records
    ]


def test_lists_of_flickr30k_beside_coco_are_enough(official: Any) -> None:
    official.coco({"train": [1, 2], "val": [5]}, folder=".")
    (official.path / "flickr30k/entities_splits").mkdir(parents=True)
    for split, numbers in (("train", [FLICKR_OF_COCO + 2]), ("val", []), ("test", [FLICKR_OF_COCO + 5])):
        path = official.path / f"flickr30k/entities_splits/{split}.txt"
        path.write_text("".join(f"{n}\n" for n in numbers))
    corpus = open_joined(official)
    assert (ids(corpus, "train"), ids(corpus, "val")) == ([1], [])


def test_visual_genome_without_karpathys_file_says_so(official: Any) -> None:
    official.genome({1: (6, None), 2: (None, None)})
    corpus = open_corpus(official.path / "vg")
    assert len(corpus.split("train")) == 2
    assert "no Karpathy split of COCO" in str(corpus.report)
    (official.path / "vg/image_data.json").write_text("[]")
    with pytest.raises(UserError, match=r"image_data\.json does not list image 1"):
        open_corpus(official.path / "vg")


def test_missing_images_are_counted(everything: Any) -> None:
    (everything.path / "vg/VG_100K/7.jpg").unlink()
    corpus = open_corpus(everything.path)
    assert corpus.report.skipped["listed images without a file (vg)"] == 1


def test_the_same_data_set_twice_is_refused(official: Any) -> None:
    official.genome({1: (None, None)})
    official.genome({1: (None, None)}, folder="visual_genome")
    with pytest.raises(UserError, match=r"vg is both in .*/vg and in .*/visual_genome"):
        open_corpus(official.path)


def test_fingerprint_follows_contents_and_exclusion(everything: Any) -> None:
    before = open_joined(everything).fingerprint
    assert open_joined(everything).fingerprint == before
    (everything.path / "flickr30k/val.txt").write_text("13\n71001\n")
    changed = open_joined(everything).fingerprint
    assert changed != before


def test_vqa_finds_coco_images_below_the_joined_root(everything: Any) -> None:
    corpus = open_joined(everything)
    assert find_folder(everything.path, "train2014") == everything.path / "coco/train2014"
    files = image_files(corpus)
    assert sorted(files) == [1, 2, 3, 4, 5, 6]
    assert files[2].is_file()


def test_a_record_of_another_corpus_is_named(everything: Any, tmp_path: Path) -> None:
    record = open_joined(everything).split("train")[-1]
    other = type(everything)(tmp_path / "other")
    other.coco({"train": [1], "val": [2]})
    with pytest.raises(UserError, match="is of no data set in"):
        open_joined(other).read_image(record)


def test_real_coco_without_flickr30k_photographs(shared_data: Path) -> None:
    alone = open_corpus(shared_data / "coco")
    corpus = open_corpus(shared_data)
    assert isinstance(corpus, JoinedCorpus)
    assert [m.source for m in corpus.members] == ["coco"]
    flickr30k = {
        int(word)
        for part in ("train", "val", "test")
        for word in (shared_data / f"flickr30k/entities_splits/{part}.txt").read_text().split()
    }
    kept = [r for r in alone.records if r.split == "test" or r.flickr_id not in flickr30k]
    assert [(r.image_id, r.split) for r in corpus.records] == [(r.image_id, r.split) for r in kept]
    assert sum(n for why, n in corpus.report.skipped.items() if "Flickr30k" in why) == len(alone.records) - len(kept)
    for record in corpus.records[::80]:
        assert corpus.read_image(record).size == alone.read_image(record).size

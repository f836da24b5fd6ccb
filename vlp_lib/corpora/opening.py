"""Opening a corpus: one data set, several below one folder, or the embedded one."""

from __future__ import annotations

from pathlib import Path

from vlp_lib.corpora.corpus import Corpus, is_synthetic, open_annotated
from vlp_lib.corpora.joined import needs_joining, open_joined
from vlp_lib.corpora.members import find_places
from vlp_lib.errors import UserError


def open_corpus(root: Path, allow_missing: float = 0.0) -> Corpus:
    """Open a corpus: one data set, several below one folder as one corpus, or the embedded one.

    COCO 2017 or 2014 at root or in coco/: annotations/{captions,instances,stuff}_{train,val}2017.json; the images in
    images/{train,val}2017 or {train,val}2017; pixel maps in stuffthingmaps/{train,val}2017; Karpathy's dataset_*.json
    beside annotations/ or in it. Only captions and images must be there. Karpathy's file decides the split by COCO id
    ("restval" is train); images that it does not name are train or val as their folder is.

    Flickr30k at root or in flickr30k/: the images in flickr30k-images/, with dataset_flickr30k.json, or with
    results_20130124.token and Entities' train.txt, val.txt and test.txt. Karpathy's file decides where both are there.

    Visual Genome at root or in vg/: region_descriptions.json, image_data.json, VG_100K/ and VG_100K_2/.

    Web pairs in any subfolder with shards, as `shards.find_shards` reads it.

    detections_*.npz or *.tsv lie with their data set or in its detections/. Where there is more than one data set, or
    refer/ with RefCOCO's references, or a list of Flickr30k's images beside COCO, UNITER's exclusion rule (`exclusion`)
    decides what is trained on, and ids are made unique (`table.ID_STRIDE`); COCO's stay as they are.

    Args:
        root: the folder.
        allow_missing: share of the listed images whose file may be missing; they are counted in the report.

    Raises:
        UserError: no corpus is there, a file is broken, or more images are missing than allowed.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is no folder: name the folder of a corpus")
    if not is_synthetic(root):
        places = find_places(root)
        if needs_joining(root, places):
            return open_joined(root, places, allow_missing)
    return open_annotated(root, allow_missing)

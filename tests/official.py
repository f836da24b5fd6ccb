import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SIZE = (12, 8)
FLICKR_OF_COCO = 70_000
"""COCO image i of the official roots is the Flickr photograph i + 70 000."""


def save_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def save_image(path: Path, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (colour % 256, 0, 0)).save(path)


class OfficialRoot:
    """Writes miniature data sets in their official layouts below one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def coco(self, splits: dict[str, Sequence[int]], folder: str = "coco") -> None:
        """COCO 2014 with two captions an image, and Karpathy's file; all images lie in train2014."""
        root, images, said, entries = self.path / folder, [], [], []
        for split, ids in splits.items():
            for i in ids:
                name = f"COCO_train2014_{i:012d}.jpg"
                save_image(root / "train2014" / name, i)
                address = f"http://farm4.staticflickr.com/3446/{i + FLICKR_OF_COCO}_13d84bd0a1_z.jpg"
                images.append({"id": i, "file_name": name, "width": 12, "height": 8, "flickr_url": address})
                said += [{"image_id": i, "id": 10 * i + k, "caption": f"coco {i} {k}"} for k in range(2)]
                entries.append(
                    {"cocoid": i, "split": split, "filename": name, "filepath": "train2014", "sentences": []}
                )
        save_json(root / "annotations/captions_train2014.json", {"images": images, "annotations": said})
        save_json(root / "dataset_coco.json", {"images": entries, "dataset": "coco"})

    def genome(self, images: dict[int, tuple[int | None, int | None]], folder: str = "vg") -> None:
        """Visual Genome, image id → (coco_id, flickr_id), with three regions an image, one of them empty."""
        root, data, regions = self.path / folder, [], []
        for n, (i, (coco, flickr)) in enumerate(images.items()):
            save_image(root / ("VG_100K", "VG_100K_2")[n % 2] / f"{i}.jpg", i)
            url = f"https://cs.stanford.edu/people/rak248/VG_100K/{i}.jpg"
            data.append({"image_id": i, "url": url, "width": 12, "height": 8, "coco_id": coco, "flickr_id": flickr})
            texts = (f"region of {i}", "", f"  another\nof {i} ")
            own = [
                {"region_id": 10 * i + k, "image_id": i, "phrase": text, "x": 0, "y": 0, "width": 5, "height": 5}
                for k, text in enumerate(texts)
            ]
            regions.append({"id": i, "regions": own})
        save_json(root / "image_data.json", data)
        save_json(root / "region_descriptions.json", regions)

    def flickr30k(self, splits: dict[str, Sequence[int]], karpathy: bool = False) -> None:
        """Flickr30k with two captions an image: the token file and Entities' lists, or Karpathy's file."""
        root, lines, entries = self.path / "flickr30k", [], []
        for split, ids in splits.items():
            for i in ids:
                save_image(root / "flickr30k-images" / f"{i}.jpg", i)
                lines += [f"{i}.jpg#{k}\tflickr {i} {k} ." for k in range(2)]
                said = [{"raw": f"flickr {i} {k} .", "sentid": 2 * i + k, "tokens": []} for k in range(2)]
                entries.append({"filename": f"{i}.jpg", "split": split, "sentences": said})
        if karpathy:
            save_json(root / "dataset_flickr30k.json", {"images": entries, "dataset": "flickr30k"})
            return
        (root / "results_20130124.token").write_text("\n".join(lines) + "\n")
        for split in ("train", "val", "test"):
            (root / f"{split}.txt").write_text("".join(f"{i}\n" for i in splits.get(split, ())))


@pytest.fixture
def official(tmp_path: Path) -> OfficialRoot:
    """A folder to write miniature data sets into."""
    return OfficialRoot(tmp_path / "data")


@pytest.fixture
def pack(results: Path) -> Callable[..., None]:
    """Writes a tar of named contents, as WebDataset's tools do; its index lands in the results of the test."""
    import io
    import tarfile

    def write(path: Path, files: Sequence[tuple[str, bytes]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, content in files:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    return write

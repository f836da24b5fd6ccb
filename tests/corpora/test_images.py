import csv
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlp_lib.corpora.images import image_size, read_image, read_label_values
from vlp_lib.errors import UserError


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_colours_and_size_stay(tmp_path: Path) -> None:
    pixels = noise((7, 5, 3))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), pixels)
    assert image_size(tmp_path / "a.png") == (5, 7)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    pixels = noise((7, 5))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png")), np.stack([pixels] * 3, -1))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    pixels = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png"))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_other_modes_keep_their_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert np.asarray(image).min() > 250


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - (200, 30, 60)).max() < 12


def test_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise((8, 24, 3))).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (24, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise((64, 64, 3))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"a\.{suffix} is truncated or not an image .*fetch it again or delete it"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_image, image_size, read_label_values):
        with pytest.raises(UserError, match=r"a\.jpg is truncated or not an image"):
            read(tmp_path / "a.jpg")


def test_palette_gives_indices(tmp_path: Path) -> None:
    values = noise((6, 4))
    image = Image.frombytes("P", (4, 6), values.tobytes())
    image.putpalette(noise((768,)).tobytes())
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_label_values(tmp_path / "a.png"), values)


def test_colour_image_is_no_pixel_map(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is no pixel map"):
        read_label_values(tmp_path / "a.png")


def test_real_images_have_their_recorded_sizes(shared_data: Path) -> None:
    with (shared_data / "coco" / "images_index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 865
    for row in [r for r in rows if r["mode"] == "L"] + rows[::40]:
        image = read_image(shared_data / f"coco/images/{row['split']}/{int(row['image_id']):012d}.jpg")
        assert (image.mode, *image.size) == ("RGB", int(row["width"]), int(row["height"]))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_shows_white_and_no_hidden_colour(tmp_path: Path, mode: str) -> None:
    pixels = np.full((4, 4, 4), (200, 200, 200, 255), np.uint8)
    pixels[:2] = (10, 10, 10, 0)
    image, plain = Image.fromarray(pixels), Image.fromarray(pixels[..., :3].copy())
    if mode == "RGB":
        plain.save(tmp_path / "a.png", transparency=(10, 10, 10))
    elif mode == "P":
        palette = plain.quantize(2)
        palette.save(tmp_path / "a.png", transparency=palette.getpixel((0, 0)))
    else:
        image.convert(mode).save(tmp_path / "a.png")
    shown = np.asarray(read_image(tmp_path / "a.png"))
    assert shown[:2].min() == 255
    assert np.abs(shown[2:].astype(int) - 200).max() <= 1


@pytest.mark.parametrize("brightest", [1, 200, 4095])
def test_sixteen_bits_that_hold_fewer_are_refused(tmp_path: Path, brightest: int) -> None:
    Image.fromarray(np.full((4, 4), brightest, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png .*16 bits hold small values"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["I", "F"])
def test_thirty_two_bits_are_refused(tmp_path: Path, kind: str) -> None:
    Image.new(kind, (4, 4), 1).save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png is truncated or not an image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("reader", [read_image, image_size, read_label_values])
def test_no_program_is_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Any) -> None:
    """Pillow gives Encapsulated PostScript to whatever is called gs."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    (tmp_path / "a.jpg").write_text(head + "showpage\n%%EOF\n" + "%" * 1000)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "EPS"
    with pytest.raises(UserError, match=r"a\.jpg is truncated or not an image"):
        reader(tmp_path / "a.jpg")
    assert not (tmp_path / "started").exists()


def png_of_nothing(path: Path, width: int, height: int) -> None:
    """The header of a PNG of any size, and no pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("size", [(1, 170_000_000), (170_000_000, 1), (9_460, 9_460), (65_536, 1), (2**31 - 1, 9)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels_are_refused_by_their_header(tmp_path: Path, size: tuple[int, int]) -> None:
    png_of_nothing(tmp_path / "a.png", *size)
    for reader in (read_image, image_size, read_label_values):
        with pytest.raises(UserError, match=r"a\.png is truncated or not an image"):
            reader(tmp_path / "a.png")


def test_a_folder_a_pipe_and_nothing_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    os.mkfifo(tmp_path / "b.jpg")
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(UserError, match=rf"{name} is truncated or not an image \(it is no file\)"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match=r"c\.jpg is missing"):
        read_image(tmp_path / "c.jpg")

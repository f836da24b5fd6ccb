"""Hostile inputs, drawn from a seed: what becomes of a sound file, and files that would run a program."""

import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

RAW = {
    "@deep@": "[" * 3_000 + "]" * 3_000,
    "@deeper@": "[" * 200_000,
    "@long@": "9" * 5_000,
    "@inf@": "Infinity",
    "@nan@": "NaN",
    "@huge@": "1e999",
    "@half@": '"\\ud800"',
}
# fmt: off
ABSURD: list[Any] = [
    None, True, False, -1, 0, 1, 1.5, -0.0, 2**31, 2**53, 2**63, -(2**63), 10**20, 1e9, -1e9, 1e300, "", " ", "0", "-1",
    "7", "\0", "x" * 100_000, "../../../pwned", "/pwned", "a/b", "..", "\u202e", [], {}, [[]], [None], {"": None},
    [0] * 10_000, [1e9] * 6, [-1e9, 1e9] * 3, [3_000_000_000], ["@nan@"] * 6, ["@inf@"] * 8, *RAW,
]
BLOCKS = [
    b"\xff" * 4, b"\x00" * 4, b"\xff\xff\xff\x7f", b"\x7f" + b"\xff" * 7, b"\x80" + b"\x00" * 7, b"[" * 500,
    b"\n", b"\t", b"\0", b"9" * 40, b"NaN", b"-1", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"../", b"%00", b"'", b'"',
    b"{0..99999999999}.tar",
]
KINDS = (
    "<f4", "<i8", "|b1", "<f8", "|O", "<U3", "<U999999999", "|V0", "<c16", "<M8[s]", "|S0", "<f2", "<u8",
)
SHAPES = (
    "()", "(1,)", "(3,)", "(3, 4)", "(-3,)", "(1000000000000,)", "(0,)", "(2**70,)", "(1, 5)", "'a'", "(" * 50, "None",
)
# fmt: on


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within plain data."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def absurd_json(rng: random.Random, text: str) -> bytes:
    """JSON with one to three places replaced, removed or doubled."""
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        path = rng.choice(list(places(content)))
        if not path:
            content = deepcopy(rng.choice([content, content, [content], *ABSURD]))
            continue
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        deed = rng.random()
        if deed < 0.12:
            del inner[path[-1]]
        elif deed < 0.2 and isinstance(inner, list):
            inner.append(deepcopy(inner[path[-1]]))
        elif deed < 0.3 and isinstance(inner[path[-1]], (int, float)) and not isinstance(inner[path[-1]], bool):
            inner[path[-1]] *= rng.choice([-1, 1000, 1e9, 2**40, 0])
        else:
            inner[path[-1]] = deepcopy(rng.choice(ABSURD))
        if not isinstance(content, list | dict):
            break
    made = json.dumps(content)
    for mark, raw in RAW.items():
        made = made.replace(f'"{mark}"', raw)
    return made.encode()


def broken_bytes(rng: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut, doubled or put in between."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(made) + 1)
        deed = rng.randrange(6)
        if deed == 0:
            made = made[:place]
        elif deed == 1:
            made[place:place] = rng.choice(BLOCKS)
        elif deed == 2:
            block = rng.choice(BLOCKS)
            made[place : place + len(block)] = block
        elif deed == 3:
            made[place:place] = made[max(0, place - rng.randrange(1, 200)) : place]
        elif deed == 4:
            del made[place : place + rng.randrange(1, 50)]
        elif place < len(made):
            made[place] ^= 1 << rng.randrange(8)
    return bytes(made)


def lying_npy(rng: random.Random) -> bytes:
    """A .npy of a few bytes that says anything about itself."""
    order = rng.choice((False, True))
    header = f"{{'descr': '{rng.choice(KINDS)}', 'fortran_order': {order}, 'shape': {rng.choice(SHAPES)}, }}"
    header = rng.choice([header] * 8 + ["'''", "[" * 110, "{'descr'", "\\x00", "exec('1')"])
    padded = header.encode().ljust(118) + b"\n"
    content = rng.randbytes(rng.choice((0, 4, 12, 24, 96, 400)))
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + content


def broken_zip(rng: random.Random, content: bytes) -> bytes:
    """A zip file with members exchanged, removed, made to lie or to unfold, its checksums sound."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            data, deed = old.read(name), rng.randrange(7) if name == chosen else -1
            if deed == 0:
                continue
            if deed in (1, 2):
                data = lying_npy(rng)
            elif deed == 3:
                data = old.read(rng.choice(names))
            elif deed == 4:
                data = broken_bytes(rng, data)
            elif deed == 5:
                new.writestr(name, data[:128].ljust(128, b" ") + bytes(24 * 2**20), zipfile.ZIP_DEFLATED)
                continue
            packings = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
            new.writestr(name, data, rng.choice(packings) if deed > 0 else zipfile.ZIP_STORED)
    return made.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def broken_png(rng: random.Random, content: bytes) -> bytes:
    """A PNG whose chunks are changed, with sound checksums."""
    made, place = content[:8], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind, data = content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IHDR" and rng.random() < 0.6:
            sizes = [rng.choice((0, 1, 8, 12, 65_535, 65_536, 170_000_000, 2**31 - 1, 2**32 - 1)) for _ in range(2)]
            data = struct.pack(">II", *sizes) + bytes(rng.choice((data[8:], rng.randbytes(5))))
        elif rng.random() < 0.3:
            data = broken_bytes(rng, data)
        if kind == b"IDAT" and rng.random() < 0.2:
            data = zlib.compress(bytes(24 * 2**20))
        made += _chunk(kind, data)
    return made


def hostile(rng: random.Random, content: bytes) -> bytes:
    """One hostile version of a sound file."""
    if content.startswith(b"PK") and rng.random() < 0.6:
        return broken_zip(rng, content)
    if content.startswith(b"\x93NUMPY") and rng.random() < 0.6:
        return lying_npy(rng)
    if content.startswith(b"\x89PNG") and rng.random() < 0.5:
        return broken_png(rng, content)
    if content.startswith(b"\x1f\x8b") and rng.random() < 0.7:
        inner = rng.choice((bytes(32 * 2**20), absurd_json(rng, gzip.decompress(content).decode())))
        return gzip.compress(inner, 1, mtime=0)
    if content[:1] in b"[{" and rng.random() < 0.75:
        try:
            return absurd_json(rng, content.decode())
        except ValueError:
            pass  # TOML, or lines of JSON
    if content[8:9] == b"{" and rng.random() < 0.6:  # safetensors: a length and a header of JSON
        size = int.from_bytes(content[:8], "little")
        header = absurd_json(rng, content[8 : 8 + size].decode())
        return struct.pack("<Q", rng.choice((len(header), len(header), 2**62))) + header + content[8 + size :]
    return broken_bytes(rng, content)


class _Call:
    """A pickle of this calls a function."""

    def __init__(self, function: Any, argument: str) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> Any:
        return self.function, (self.argument,)


def payloads(canary: str) -> Iterator[tuple[str, bytes]]:
    """Target and file of what would write the canary if anything in it were run."""
    writing = f"open({canary!r}, 'w')"
    calls = [_Call(os.system, f"touch '{canary}'"), _Call(exec, writing), _Call(eval, writing)]
    for protocol in range(6):
        for call in calls:
            content = pickle.dumps([call], protocol)
            for target in ("refs", "weights of torch", "scores", "detections"):
                yield target, content
            header = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(118).encode() + b"\n"
            array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
            yield "scores", array
            archive = io.BytesIO()
            with zipfile.ZipFile(archive, "w") as made:
                made.writestr("labels.npy", array)
                made.writestr("archive/data.pkl", content)
                made.writestr("archive/version", "3")
            for target in ("detections", "corpus labels", "items", "weights of torch"):
                yield target, archive.getvalue()
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    drawn = head + f"(%pipe%touch {canary}) (w) file showpage\n%%EOF\n".encode() + b"%" * 1_000
    for target in ("image jpeg RGB", "image png RGB", "image bmp RGB", "label map", "corpus image"):
        yield target, drawn
    yield "plug-in", f"{writing}\n".encode()
    called = f"from vlp_lib.losses import visual_loss\n@visual_loss({writing}.name)\nclass A: pass\n"
    yield "plug-in", called.encode()
    yield "study", f'[[run]]\nvariant = "segl"\nname = "$(touch {canary})"\n'.encode()
    yield "settings", f"training.steps=__import__('os').system('touch {canary}')".encode()
    yield "shard list", f"$(touch {canary}).tar\n|touch {canary}\n{canary}\n".encode()


def _png(width: int, height: int, pixels: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")


def _zip(name: str, head: bytes = b"") -> bytes:
    """A zip file of a few hundred kilobytes that unfolds to 300 MB."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as member,
    ):
        member.write(head)
        for _ in range(300):
            member.write(bytes(10**6))
    return made.getvalue()


def bombs(sound: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Target and file of what is small and would take all memory or time."""

    def changed(name: str, value: Any, *path: Any) -> tuple[str, bytes]:
        content = json.loads(sound[name])
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return name, json.dumps(content).encode()

    def masks(segmentation: Any) -> tuple[str, bytes]:
        return changed("masks", segmentation, "annotations", 0, "segmentation")

    yield "captions packed", gzip.compress(b" " * 300_000_000, 1)
    yield "captions packed", gzip.compress(b"[" + b"{}," * 60_000_000, 1)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,), }".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00v\x00" + header
    for target in ("detections", "corpus labels", "items"):
        yield target, _zip("labels.npy", array)
    yield "weights of torch", _zip("archive/data/0")
    for size in ((1, 170_000_000), (170_000_000, 1), (13_000, 13_000), (2**31 - 1, 2**31 - 1)):
        yield "image png RGB", _png(*size, bytes(1_000))
        yield "label map", _png(*size, bytes(1_000))
    yield "image gif P", b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + sound["image gif P"][13:]
    bmp = sound["image bmp RGB"]
    yield "image bmp RGB", bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:]
    for content in (b"]r\xff\xff\xff\x7f0.", b"\x96\xff\xff\xff\xff\x01\x00\x00\x00.", b"(" * 200_000):
        yield "refs", content
    yield masks({"size": [8, 12], "counts": [3_000_000_000]})
    yield masks({"size": [8, 12], "counts": [3e9]})
    yield masks({"size": [8, 12], "counts": "oooooo1oooooo1oooooo1"})
    yield masks([[0, 0, 12, 8] * 500_000])
    yield masks([[0, 0, 1e9, 0, 1e9, 1e9]])
    yield changed("masks", 60_000, "images", 0, "width")
    yield changed("masks", 3_000_000_000, "images", 0, "height")
    for name, value in (("words", 10**9), ("segmentation", 10**9)):
        yield changed("hub", value, "vocabularies", name)
    for path in (("language_layers",), ("cross_layers",), ("vit", "layers"), ("hidden",), ("image_size",)):
        yield changed("hub", 10**9, "model", *path)
    yield "json", b"[" * 50_000_000
    yield "detections tsv", sound["detections tsv"].replace(b"\t1\t", b"\t999999999999\t")

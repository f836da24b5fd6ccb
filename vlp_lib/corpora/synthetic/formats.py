"""Byte-exact writers of JSON, PNG and npz: the same contents give the same bytes with every library version."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np


class Folder:
    """Writes files below a root and remembers their digests, so that nothing has to be read again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: set[str] = set()
        self._digests: dict[str, str] = {}

    def write(self, path: str, data: bytes) -> None:
        """Write one file; the path is relative, with forward slashes."""
        parent = path.rpartition("/")[0]
        if parent not in self._made:
            (self.root / parent).mkdir(parents=True, exist_ok=True)
            self._made.add(parent)
        (self.root / path).write_bytes(data)
        self._digests[path] = hashlib.sha256(data).hexdigest()

    def fingerprint(self) -> str:
        """One SHA-256 over sorted lines of the relative path and the digest of what was written."""
        lines = "".join(f"{path}\0{digest}\n" for path, digest in sorted(self._digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def json_bytes(value: object) -> bytes:
    """Compact JSON with sorted keys, ASCII only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def json_lines(values: list[dict[str, object]]) -> bytes:
    """One JSON object a line."""
    return b"".join(json_bytes(value) + b"\n" for value in values)


def png_bytes(pixels: np.ndarray) -> bytes:
    """A PNG of a [H, W] grayscale or [H, W, 3] RGB uint8 array.

    Its deflate blocks are stored, not compressed: compressed bytes differ between zlib versions and their successors.
    """
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rows], axis=1).tobytes()  # filter 0 before each row
    blocks = []
    for start in range(0, len(raw), 65535):  # a stored block holds no more
        part = raw[start : start + 65535]
        last = start + 65535 >= len(raw)
        blocks.append(struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part)
    stream = b"\x78\x01" + b"".join(blocks) + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An uncompressed npz; np.savez would leave the operating system and the version of numpy in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # always Unix
            info.external_attr = 0o644 << 16
            archive.writestr(info, _npy_bytes(array))
    return buffer.getvalue()


def _npy_bytes(array: np.ndarray) -> bytes:
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin1") + array.tobytes()

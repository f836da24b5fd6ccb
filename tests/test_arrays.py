import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlp_lib.arrays import read_npz
from vlp_lib.errors import UserError


def npy(shape: object, descr: str = "<f4", content: bytes = b"", header: str = "") -> bytes:
    """A .npy file that says whatever it is told to."""
    text = header or f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    padded = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + content


def test_arrays_come_back(tmp_path: Path) -> None:
    given = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "b": np.asfortranarray(np.random.default_rng(0).random((3, 4))),
        "nothing": np.zeros((0, 4), np.float32),
        "one": np.array("text"),
        "words": np.array(["dog", "ü"]),
        "rows": np.array([(1, 2.5)], dtype=[("x", "<i8"), ("y", "<f4")]),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **given)  # type: ignore[operator]
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == given.keys()
        for name, array in given.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    assert read_npz(tmp_path / "a.npz", leave=("a", "b")).keys() == given.keys() - {"a", "b"}


def packed(*members: bytes, compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for place, content in enumerate(members):
            archive.writestr(f"{place}.npy", content)
    return buffer.getvalue()


class Command:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("started"),)


SOUND = packed(npy((2,), content=bytes(8)))


@pytest.mark.parametrize(
    "content",
    [
        packed(npy((10**9,), content=bytes(8))),
        packed(npy((2**62, 2**62), content=bytes(8))),
        packed(npy((-7,), content=bytes(8))),
        packed(npy((1,), content=bytes(8))),
        packed(npy((20 * 2**20,), "|u1", bytes(20 * 2**20)), compress=True),
        packed(npy("", header="{'descr': '<f4', 'shape': (" + "(" * 90)),
        packed(npy("", header="'" * 3)),
        packed(npy("", header="[" * 110)),
        packed(npy("", header="__import__('pathlib').Path('started').touch()")),
        packed(npy((1,), "|O", pickle.dumps(Command()))),
        packed(npy((1,), "|V99999999999", bytes(8))),
        packed(b""),
        packed(b"\x93NUMPY\x09\x00"),
        SOUND[:-10],
        SOUND[:90],
        SOUND.replace(b"NUMPY", b"NUMPX"),
        SOUND[:160] + b"\x01" + SOUND[161:],
        b"",
        b"PK\x05\x06" + b"\xff" * 18,
        pickle.dumps(Command()),
    ],
    ids=lambda content: f"{len(content)} bytes",  # not the contents, which hold the time
)
def test_what_lies_is_refused_and_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.npz"):
        read_npz(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert not (tmp_path / "started").exists()

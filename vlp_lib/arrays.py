"""Arrays in .npz files from whatever hand: nothing in them is run, and no more is held than the files have in them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vlp_lib.errors import UserError, reason
from vlp_lib.io import most_unpacked, readable, write_atomically


def refuse_bomb(path: Path) -> None:
    """Raise UserError where a zip file, such as .npz or PyTorch's, says that it unfolds to far more than its size."""
    with readable(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        most = most_unpacked(path.stat().st_size)
    if size > most:
        raise UserError(f"{path} unfolds to {size:,} bytes, more than 50 times its size: save it without compression")


def read_npz(path: Path, leave: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz but those to `leave`.

    Raises UserError where it is missing, broken, holds objects, or an array is not as large as it says.
    """
    arrays = {}
    try:
        refuse_bomb(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if (name := member.filename.removesuffix(".npy")) not in leave:
                    with archive.open(member) as file:
                        shape, fortran, dtype = array_header(file)
                        content = file.read()
                    arrays[name] = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy's parser of headers have one for each kind of broken bytes
        raise UserError(f"{path} is truncated or no npz ({reason(error)}): write it again") from error
    return arrays


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all."""
    _write(path, lambda file: np.save(file, array))


def write_arrays(path: Path, arrays: Mapping[str, Any], compressed: bool = True) -> None:
    """Write arrays by name as an .npz, whole or not at all."""
    _write(path, lambda file: (np.savez_compressed if compressed else np.savez)(file, **arrays))


def _write(path: Path, save: Callable[[IO[bytes]], None]) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # to a name without their ending, numpy's writers append it
            save(file)

    write_atomically(path, write)


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and kind of a .npy file's array; raises ValueError for rubbish, objects too."""
    read = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read[np.lib.format.read_magic(file) != (1, 0)](file)
    except Exception as error:  # Python's own parser reads the header
        raise ValueError(f"no header of an array ({reason(error)})") from error
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("it holds Python objects, or a negative number of values")
    return shape, fortran, dtype

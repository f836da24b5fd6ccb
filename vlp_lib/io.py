"""Files: text, JSON and JSON lines, plain or gzipped; writes are atomic, errors name the file and the mend.

What is read may come from anybody: a packed file may not unfold to far more than its size.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError

_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""What `write_atomically` calls a file until it is whole."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then give it its name; a failure leaves `path` as it was.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    with writable(path, "make room or choose a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writable(path: Path, mend: str = "choose another folder with VLP_RESULTS") -> Iterator[None]:
    """Make a UserError that names the file and the mend of what the system says against writing it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path} ({error}): {mend}") from error


def remove_temporaries(folder: Path) -> None:
    """Delete what processes that were killed while they wrote into this folder have left there."""
    for path in folder.glob(".*.*"):
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def require_ours(folder: Path, ours: Callable[[str], bool]) -> None:
    """Raise UserError unless a folder is absent, or holds only files whose paths below it `ours` says are the kit's."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder")
    for path in folder.rglob("*"):
        if (path.is_symlink() or not path.is_dir()) and not ours(path.relative_to(folder).as_posix()):
            raise UserError(f"{path} is not what this command writes there, and would be lost: give another folder")


def write_text(path: Path, text: str) -> None:
    """A text file, atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def markdown_table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Cells as a table of Markdown."""
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_json(path: Path, value: Any) -> None:
    """A JSON file, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def most_unpacked(packed: int) -> int:
    """To how many bytes a packed file of a size may unfold: data sets' JSON and arrays shrink to a tenth at best."""
    return max(16 * 2**20, 50 * packed)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Make a UserError that names the file of what the system says against reading it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no such file: {path}; check the path") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): give a file that can be read") from error


def read_text(path: Path) -> str:
    """A UTF-8 text file, gzipped where its name ends in .gz; raises UserError for one that cannot be read."""
    with readable(path):
        try:
            data = _unzipped(path) if path.suffix == ".gz" else path.read_bytes()
            return data.decode("utf-8-sig")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
        except ValueError as error:  # a name with a null character, or bytes that are no UTF-8
            raise UserError(f"{path} is not UTF-8 text ({error}): fetch it again") from error
        except MemoryError:
            raise UserError(f"{path} needs more memory than there is: give a smaller file") from None


def _unzipped(path: Path) -> bytes:
    most = most_unpacked(path.stat().st_size)
    with gzip.open(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UserError(
            f"{path} unfolds to more than {most:,} bytes, 50 times its size: unpack it and give what is in it"
        )
    return data


def parse_json(text: str, where: object) -> Any:
    """JSON from whatever hand; raises UserError, which names `where`, for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where} is not JSON ({error or 'too large'}): write or fetch it again") from error


def read_json(path: Path) -> Any:
    """A JSON file, gzipped or not; raises UserError for one that cannot be read or is not JSON."""
    return parse_json(read_text(path), path)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON-lines file, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; none where it does not exist; raises UserError naming a broken line."""
    whole = "the folder of a whole run, or delete this one and run it again"
    return [row for _, row in placed_lines(path, whole)] if path.is_file() else []


def read_entries(path: Path, key: str, expected: str) -> list[dict[str, Any]]:
    """The list of objects under `key` of a JSON file, e.g. "questions".

    Raises UserError where there is none; `expected` says which file to give instead.
    """
    content = read_json(path)
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path} has no list {key!r}: give {expected}")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: {key}[{position}] is no object: give {expected}")
    return entries


def take(entry: dict[str, Any], name: str, kinds: tuple[type, ...], where: str) -> Any:
    """The field `name` of a JSON object; raises UserError where it is absent or of another kind.

    `where` names the file and the place in it.
    """
    value = entry.get(name)
    # bool is an int to Python, but never an id.
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = " or ".join({str: "a text", int: "a whole number", list: "a list"}[kind] for kind in kinds)
        found = f"is {value!r:.60}" if name in entry else "is missing"
        raise UserError(f"{where}: field {name!r} {found} where {wanted} is needed: mend that entry")
    return value


def take_all(entry: dict[str, Any], kinds: Mapping[str, tuple[type, ...]], where: str) -> dict[str, Any]:
    """Several fields of a JSON object by name; raises UserError as `take`."""
    return {name: take(entry, name, kind, where) for name, kind in kinds.items()}


def placed_entries(path: Path, key: str, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of `read_entries` behind its place, which errors name."""
    return ((f"{path}: {key}[{i}]", entry) for i, entry in enumerate(read_entries(path, key, expected)))


def placed_lines(path: Path, expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of JSON lines (.gz accepted) behind its place; blank lines are left out.

    Raises UserError where a line is no object; `expected` says which file to give instead.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        entry = parse_json(line, where)
        if not isinstance(entry, dict):
            raise UserError(f"{where} is no object: give {expected}")
        yield where, entry


def refuse_repeated(ids: Iterable[Hashable], what: str, path: Path) -> None:
    """Raise UserError where an id stands in a file twice; `what` calls them, e.g. "question ids"."""
    refuse(list(duplicates(ids)), f"{what} stand more than once in {path}", "keep one entry of each")


def duplicates(ids: Iterable[Hashable]) -> Iterator[Hashable]:
    """The ids that have occurred before, in order."""
    seen: set[Hashable] = set()
    for one in ids:
        if one in seen:
            yield one
        seen.add(one)


def find_file(folder: Path, name: str) -> Path | None:
    """The file, or its gzipped form, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def refuse(ids: Collection[object], complaint: str, mend: str) -> None:
    """Raise UserError where `ids` is not empty: how many, the complaint, the first of them, and the mend."""
    if ids:
        raise UserError(f"{len(ids):,} {complaint} (the first: {next(iter(ids))!r}): {mend}")

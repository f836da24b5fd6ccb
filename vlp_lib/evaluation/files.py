"""How the evaluators read what a user hands them: text and JSON, plain or gzipped, and checks that name the mend."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Hashable, Iterator
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError


def read_text(path: Path) -> str:
    """A UTF-8 text file, gzipped where its name ends in .gz; raises UserError for one that cannot be read."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"no such file: {path}; check the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): fetch it again") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): fetch it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): give a file that can be read") from error


def read_json(path: Path) -> Any:
    """A JSON file, gzipped or not; raises UserError for one that cannot be read or is not JSON."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): write or fetch it again") from error


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


def duplicates(ids: Collection[Hashable]) -> Iterator[Hashable]:
    """The ids that have occurred before, in order."""
    seen: set[Hashable] = set()
    for one in ids:
        if one in seen:
            yield one
        seen.add(one)


def refuse(ids: Collection[object], complaint: str, mend: str) -> None:
    """Raise UserError where `ids` is not empty: how many, the complaint, the first of them, and the mend."""
    if ids:
        raise UserError(f"{len(ids):,} {complaint} (the first: {next(iter(ids))!r}): {mend}")

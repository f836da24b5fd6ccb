"""Image lists of RefCOCO, RefCOCO+ and RefCOCOg: the `refs(….p)` files of github.com/lichengunc/refer."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from vlp_lib.errors import UserError

_HELD_OUT = {"val": "val", "test": "test", "testA": "test", "testB": "test"}


class _PlainUnpickler(pickle.Unpickler):
    """Lists, dictionaries, numbers and strings only: a pickle could otherwise run whatever its author likes."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def find_refs(root: Path) -> list[Path]:
    """The files of references below a folder `refer/`: refer/refcoco/refs(unc).p and its like."""
    return sorted(root.glob("refer/ref*/refs(*).p"))


def read_held_out(paths: list[Path]) -> dict[str, frozenset[int]]:
    """The COCO ids of the val and of the test images, by "RefCOCO val" and "RefCOCO test"; empty without files.

    Raises UserError where a file is broken or of another form.
    """
    found: dict[str, set[int]] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                refs = _PlainUnpickler(file, encoding="latin1").load()
            for ref in refs:
                if ref["split"] in _HELD_OUT:
                    found.setdefault(f"RefCOCO {_HELD_OUT[ref['split']]}", set()).add(int(ref["image_id"]))
        except (OSError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{path} is no list of references ({error}): fetch refer/ again") from error
    return {name: frozenset(ids) for name, ids in sorted(found.items())}

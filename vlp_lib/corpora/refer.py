"""Image lists of RefCOCO, RefCOCO+ and RefCOCOg: the `refs(….p)` files of github.com/lichengunc/refer."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

from vlp_lib.errors import UserError

_HELD_OUT = {"val": "val", "test": "test", "testA": "test", "testB": "test"}


_PLAIN = (
    "MARK STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT "
    "DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT "
    "MEMOIZE PROTO FRAME"
)


class _PlainUnpickler(pickle._Unpickler):
    """Lists, dictionaries, numbers and strings only: a pickle could otherwise run whatever its author likes.

    The one in Python, for that in C makes room for as many objects as the bytes say that there are.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code in {getattr(pickle, name)[0] for name in _PLAIN.split()}
    }


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
            refs = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
            for ref in refs:
                if ref["split"] in _HELD_OUT:
                    found.setdefault(f"RefCOCO {_HELD_OUT[ref['split']]}", set()).add(int(ref["image_id"]))
        except Exception as error:  # unpickling raises whatever the bytes make it raise
            raise UserError(f"{path} is no list of references ({error}): fetch refer/ again") from error
    return {name: frozenset(ids) for name, ids in sorted(found.items())}

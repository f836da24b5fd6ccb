"""Which values a setting may have: written beside its type, refused where the configuration is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from vlp_lib.errors import UserError


@dataclass(frozen=True)
class Range:
    """The values that a setting may have, both ends included; of a tuple, each of its values."""

    low: float
    high: float = math.inf
    lengths: tuple[int, ...] = ()  # that the tuple may have; empty: any
    ascending: bool = False  # whether no value of the tuple may be below the one before

    def holds(self, value: Any) -> bool:
        """Whether a value lies within; what is not finite never does."""
        values = value if isinstance(value, tuple) else (value,)
        return (
            all(math.isfinite(one) and self.low <= one <= self.high for one in values)
            and not (self.lengths and len(values) not in self.lengths)
            and not (self.ascending and list(values) != sorted(values))
        )

    def __str__(self) -> str:
        low = "above 0" if self.low == ABOVE_0 else f"at least {self.low:g}"
        text = low if self.high == math.inf else f"{low} and at most {self.high:,}"
        count = f"{' or '.join(map(str, self.lengths))} numbers, each " if self.lengths else ""
        return f"{count}{text}{', ascending' if self.ascending else ''}"


ABOVE_0 = math.ulp(0.0)
_LARGEST = 2**31 - 1

Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(ABOVE_0)]
NotNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1, _LARGEST)]
Whole = Annotated[int, Range(0, _LARGEST)]
Size = Annotated[int, Range(1, 65_536)]
Layers = Annotated[int, Range(1, 1_000)]
TextLength = Annotated[int, Range(3, 65_536)]
Colour = Annotated[tuple[float, ...], Range(0, 1, lengths=(0, 3))]
Deviation = Annotated[tuple[float, ...], Range(ABOVE_0, 1, lengths=(0, 3))]
SplitSizes = Annotated[tuple[int, int, int], Range(0, 1_000_000)]
"""The settings' types: each says which values make sense, and its class refuses the others."""


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are floats, too, and truth values are no numbers."""
    kinds = get_args(hint)
    if get_origin(hint) is Literal:
        return value in kinds
    if get_origin(hint) is tuple:
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value) if isinstance(value, tuple) else kinds
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(fits, value, kinds))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


@cache
def _ranges(config: type) -> dict[str, Range]:
    """The ranges of a class's fields, or of a function's arguments, by name."""
    hints = get_type_hints(config, include_extras=True)
    metadata = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: one for name, several in metadata.items() for one in several if isinstance(one, Range)}


def require_in_range(owner: Any, name: str, value: Any, setting: str) -> None:
    """Refuse a value outside of the range of a class's field or a function's argument; raises UserError.

    `setting` is what the error calls it.
    """
    limits = _ranges(owner).get(name)
    if limits and not limits.holds(value):
        raise UserError(f"setting {setting!r} is {value!r}: it must be {limits}")


class Checked:
    """A configuration that refuses values of another type or outside of their range when it is made."""

    def __post_init__(self) -> None:
        owner: Any = type(self)
        for name, hint in get_type_hints(owner).items():
            if name in _ranges(owner):
                value, setting = getattr(self, name), f"{owner.__name__}.{name}"
                if not fits(value, hint):
                    raise UserError(f"setting {setting!r} is {value!r}: it must be like {getattr(owner, name)!r}")
                require_in_range(owner, name, value, setting)

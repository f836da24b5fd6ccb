"""The exceptions that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A failure that the user can mend.

    Its text is one sentence that names the file, folder or parameter at fault and says what to do about it.
    The command line prints it without a traceback and exits with status 2.
    """


class UnreadableImageError(UserError):
    """An image file that is missing or broken; training can go on without it, within a share."""


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones; names the nearest."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")

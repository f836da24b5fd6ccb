"""The exceptions that a user is meant to read."""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable


class UserError(Exception):
    """A failure that the user can mend.

    Its text is one sentence that names the file, folder or parameter at fault and says what to do about it.
    The command line prints it without a traceback and exits with status 2; so does JupyterLab.
    """

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython shows. A person is shown the sentence; a kept notebook keeps the traceback, too."""
        if in_jupyter():
            return [str(self)]
        return "".join(traceback.format_exception(self)).splitlines()


class UnreadableImageError(UserError):
    """An image file that is missing or broken; training can go on without it, within a share."""


def in_jupyter() -> bool:
    """Whether a person opened this kernel: a Jupyter server names the session of those, papermill's have none."""
    return "JPY_SESSION_NAME" in os.environ


def reason(error: Exception) -> str:
    """What an error of a library says, on one line and cut."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def unknown(kind: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the known ones; names the nearest."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")

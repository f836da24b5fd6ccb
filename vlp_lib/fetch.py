"""The Hugging Face hub, where it answers; where it does not, what was fetched before, at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_PATIENCE = 3.0
"""Seconds that the hub has to answer."""


@contextlib.contextmanager
def hub() -> Iterator[None]:
    """Ask once whether the hub answers; where it does not, its libraries are offline within the block.

    They would try each file five times otherwise, for half a minute, and say so each time.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str) -> bool:
    """Whether anything answers; in a thread, because looking up a name knows no limit of time."""
    from huggingface_hub.utils import get_session

    found: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(Exception):
            get_session().head(address, timeout=_PATIENCE)
            found.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(found)

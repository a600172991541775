"""Whether operations are recorded, which each thread says for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


class _Mode(threading.local):
    recording = True


mode = _Mode()


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Record operations of the calling thread within the context, or do not."""
    before = mode.recording
    mode.recording = on
    try:
        yield
    finally:
        mode.recording = before


def no_grad() -> AbstractContextManager[None]:
    """Record nothing within the context: results do not require gradients.

    Also a decorator: `@no_grad()` before a function.
    """
    return recording(False)


def is_recording() -> bool:
    """Whether operations of the calling thread are recorded."""
    return mode.recording

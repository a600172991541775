"""Set-up for every test: workspaces are poisoned, small problems too are shared among threads,
nothing is read or written in the user's cache, and threads spin briefly before they sleep."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when the extension loads GNU's OpenMP runtime. By default its threads spin for milliseconds
# before they sleep, on a busy machine for one that has no processor; without, every call sleeps.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")
os.environ["CONVOLITH_CACHE"] = "off"


@pytest.fixture(autouse=True, scope="session")
def poison_and_threads() -> Iterator[None]:
    from convolith import _core

    _core.set_poison(True)
    before = _core.set_brief_operations(0)
    yield
    _core.set_poison(False)
    _core.set_brief_operations(before)

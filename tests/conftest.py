"""Set-up for every test: workspaces are poisoned, small problems too are shared among threads,
nothing is read or written in the user's cache, and threads wait without spinning."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when the extension loads the OpenMP runtime: on a busy machine, a thread that spins while
# it waits for one that has no processor costs milliseconds a call.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["CONVOLITH_CACHE"] = "off"


@pytest.fixture(autouse=True, scope="session")
def poison_and_threads() -> Iterator[None]:
    from convolith import _core

    _core.set_poison(True)
    before = _core.set_brief_operations(0)
    yield
    _core.set_poison(False)
    _core.set_brief_operations(before)

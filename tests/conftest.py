"""Set-up for every test: workspaces are poisoned, and threads wait without spinning."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when the extension loads the OpenMP runtime: on a busy machine, a thread that spins while
# it waits for one that has no processor costs milliseconds a call.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True, scope="session")
def poisoned_workspaces() -> Iterator[None]:
    from convolith import _core

    _core.set_poison(True)
    yield
    _core.set_poison(False)

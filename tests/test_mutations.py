"""The planted mistakes of tests/mutate.py still fit the sources."""

from __future__ import annotations

import mutate
import pytest
from mutations import MUTATIONS


@pytest.mark.parametrize("file", MUTATIONS)
def test_every_mistake_has_its_place(file: str) -> None:
    source = (mutate.ROOT / file).read_text(encoding="utf-8")
    assert mutate.plant(source, mutate.find(file, source, 1)) != source

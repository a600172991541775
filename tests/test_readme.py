"""What the README shows is what its examples print."""

import doctest
import pathlib


def test_examples():
    readme = pathlib.Path(__file__).parent.parent / "README.md"
    results = doctest.testfile(str(readme), module_relative=False)
    assert results.attempted > 40
    assert results.failed == 0

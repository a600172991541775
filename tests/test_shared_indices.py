"""How threads share the indices of a loop, in a program of its own: chosen orders, and races."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_every_index_is_taken_once(tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    program = tmp_path / "shared_indices"
    source = ROOT / "tests" / "native" / "shared_indices.cpp"
    flags = ["-std=c++20", "-O1", "-pthread", f"-I{ROOT / 'src'}", "-o", str(program), str(source)]
    built = subprocess.run([*compiler.split(), *flags], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

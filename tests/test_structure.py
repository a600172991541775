"""The rules of the source tree, read from its includes and imports: each layer uses what stands
before it, and what is dangerous or heavy stays where it belongs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import convolith as cl

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for pattern in ("include/**/*.[ch]pp", "src/**/*.[ch]pp", "src/cuda/**/*.cu*")
    for path in sorted(ROOT.glob(pattern))
]
PACKAGE = ROOT / "python" / "convolith"

# A file includes from its own layer and the ones before it.
CPP_LAYERS = (
    "include/convolith",
    "src/simd",
    "src/kernels",
    "src/kernels/units",
    "src/runtime",
    "src",  # what algorithms share: taps, epilogue, tolerance, ...
    "src/gemm",
    "src/implicit_gemm",
    "src/winograd",
    "src/fft",
    "src/column_sums",
    "src/depthwise",
    "src/grouped",
    "src/stride_two",
    "src/algorithms",
    "src/pooling",
    "src/training",
    "src/registry.cpp",
    "src/selection.hpp",
    "src/selection.cpp",
    "src/plan.cpp",
    "src/cuda/kernels",
    "src/cuda",
    "src/cuda/algorithms",
    "src/cuda/registry.hpp",
    "src/cuda/registry.cpp",
    "src/cuda/plan.hpp",
    "src/cuda/plan.cpp",
    "src/cuda/library.cpp",
    "src/bindings",
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> int:
    name = name_of(path)
    return CPP_LAYERS.index(name if name in CPP_LAYERS else name.rpartition("/")[0])


def code_of(path: Path) -> str:
    """The text of a C++ file without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*([<"][^>"]+)[>"]', code_of(path), flags=re.MULTILINE)


def own_includes(path: Path) -> Iterator[Path]:
    for name in includes(path):
        if name.startswith('"'):
            found = [base / name[1:] for base in (ROOT / "include", ROOT / "src", path.parent)]
            existing = [candidate for candidate in found if candidate.is_file()]
            assert existing, f"{name_of(path)} includes {name[1:]}, which is not there"
            yield existing[0]


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 30
    assert {layer_of(path) for path in SOURCES} > {0, 1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_includes_go_one_way(path: Path) -> None:
    for included in own_includes(path):
        if included.suffix == ".def":
            assert name_of(path) in ("src/registry.cpp", "src/cuda/registry.cpp")
        else:
            assert layer_of(included) <= layer_of(path), name_of(included)


@pytest.mark.parametrize("folder", ["src", "src/cuda"])
def test_algorithms_do_not_know_one_another(folder: str) -> None:
    for path in (ROOT / folder / "algorithms").iterdir():
        assert all(included.parent != path.parent for included in own_includes(path)), path


@pytest.mark.parametrize(("folder", "suffix"), [("src", "cpp"), ("src/cuda", "cu")])
def test_every_algorithm_is_one_file_and_one_line(folder: str, suffix: str) -> None:
    lines = code_of(ROOT / folder / "algorithms.def").split()
    names = [re.fullmatch(r"CONVOLITH_ALGORITHM\((\w+)\)", line) for line in lines]
    files = sorted(p.stem for p in (ROOT / folder / "algorithms").glob(f"*.{suffix}"))
    assert sorted(match[1] for match in names if match) == files
    assert len(names) == len(files)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_dangerous_things_stay_in_their_folders(path: Path) -> None:
    code, folder = code_of(path), path.parent.name
    if folder != "runtime":
        assert not re.search(r"omp\.h|#\s*pragma\s+omp|\bomp_\w+|_OPENMP", code)
        assert not re.search(r"<(thread|mutex|future|pthread\.h)>", code)
    if folder != "bindings":
        assert not re.search(r"pybind11|Python\.h|PyObject|\bpy::", code)
        # The core never prints, never ends the process.
        assert not re.search(r"std::(cout|cerr|abort|exit|terminate)|\bf?printf\s*\(", code)
        assert not re.search(r"\b(abort|exit|assert|puts|perror)\s*\(|<(iostream|cassert)>", code)
    if folder != "simd":
        assert not re.search(r"\b_?_mm\w*_|\b__m\d+|\bv\w+q_[fsu]\d+|\w*intrin\.h|arm_neon", code)


def isa_unit_files() -> list[Path]:
    """Everything that is compiled once per ISA."""
    found, waiting = [], sorted((ROOT / "src" / "kernels" / "units").glob("*.cpp"))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting.extend(own_includes(path))
    return found


def test_isa_units_use_no_library_templates() -> None:
    """The linker could give a template's AVX-512 copy to a machine without it."""
    files = isa_unit_files()
    assert len(files) > 5
    for path in files:
        system = [name[1:] for name in includes(path) if name.startswith("<")]
        allowed = {"cstdint"} | (
            {"immintrin.h", "arm_neon.h"} if path.parent.name == "simd" else set()
        )
        assert set(system) <= allowed, name_of(path)
        names = set(re.findall(r"std::(\w+)", code_of(path)))
        assert all(re.fullmatch(r"u?int\d+_t|uintptr_t", name) for name in names), name_of(path)


def test_isa_units_stay_in_their_namespace() -> None:
    for path in isa_unit_files():
        code = code_of(path)
        if path.parent.name in ("simd", "kernels", "units") and "table" not in path.name:
            for opened in re.findall(r"^namespace\b([^{;=]*)\{", code, flags=re.MULTILINE):
                assert opened.strip() in ("", "convolith::CONVOLITH_ISA_NAMESPACE"), name_of(path)


# ---- the package ---------------------------------------------------------------------------

# A module imports from its own layer and the ones before it; `reference` from none of ours.
PYTHON_LAYERS = ("functional", "autograd", "nn", "zoo")
FREE = ("testing", "interop", "bench", "train", "viz", "cli", "__main__")  # may see everything
LAYER_OF = {"optim": "nn", **{name: name for name in PYTHON_LAYERS[1:]}}


def module_of(path: Path) -> str:
    """The first component below the package: 'reference', '_convolution', '__init__'."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports."""
    package = ("convolith", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", python_files(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    module = module_of(path)
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("convolith.")}
    others = {name.split(".")[0] for name in imports(path)} - {"convolith"}
    foreign = others - set(sys.stdlib_module_names)
    if module == "reference":
        assert ours <= {"reference"}
        assert foreign <= {"numpy"}
    elif module not in FREE:
        assert foreign <= {"numpy"}
        # The package itself may hand the reference and the upper layers to its users.
        handed = {"testing", "viz"} if module == "__init__" else set()
        assert not ours & set(FREE) - handed
        if module != "__init__":
            level = PYTHON_LAYERS.index(LAYER_OF.get(module, "functional"))
            above = {n for n, layer in LAYER_OF.items() if PYTHON_LAYERS.index(layer) > level}
            assert not ours & (above | {"reference"})


def test_importing_the_package_is_light() -> None:
    code = "import sys, convolith; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"matplotlib", "rich", "PIL", "scipy", "sklearn", "torch", "onnxruntime", "pytest"}
    assert not heavy & set(done.stdout.split())
    assert "numpy" in done.stdout.split()


def test_layers_for_networks_are_imported_when_used() -> None:
    code = (
        "import sys, convolith as cl\n"
        "names = ('autograd', 'nn', 'optim', 'viz', 'zoo')\n"
        "assert not {f'convolith.{n}' for n in names} & set(sys.modules)\n"
        "assert set(names) <= set(dir(cl))\n"
        "print(*(getattr(cl, n).__name__ for n in names))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    words = "convolith.autograd convolith.nn convolith.optim convolith.viz convolith.zoo\n"
    assert done.stdout == words, done.stderr


@pytest.mark.parametrize(
    "module", [cl.autograd, cl.autograd.functional, cl.nn, cl.nn.init, cl.optim, cl.viz, cl.zoo]
)
def test_public_names_of_layers_have_docstrings(module: Any) -> None:
    assert (module.__doc__ or "").strip()
    for name in module.__all__:
        value = getattr(module, name)
        doc = inspect.getdoc(value) or ""
        assert len(doc) > 10, name
        assert "{" not in doc, "a placeholder was left"
        if inspect.isfunction(value):
            for parameter in inspect.signature(value).parameters:
                assert re.search(rf"\b{parameter}\b", doc), (name, parameter)


def test_the_reference_is_part_of_the_package() -> None:
    code = "import convolith as cl; print(cl.reference.conv2d.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "conv2d\n", done.stderr.splitlines()[-1]


def public_names() -> list[str]:
    return [name for name in cl.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", public_names())
def test_public_names_have_docstrings(name: str) -> None:
    value = getattr(cl, name)
    doc = inspect.getdoc(value) or ""
    assert len(doc) > 20
    assert "{" not in doc.replace("{name: value}", ""), "a placeholder was left"
    if inspect.isfunction(value) and len(inspect.signature(value).parameters) > 1:
        # Every parameter is explained, if only together with others.
        for parameter in inspect.signature(value).parameters:
            assert re.search(rf"\b{parameter}\b", doc), parameter
    if inspect.isclass(value):
        for attribute, member in inspect.getmembers(value):
            if not attribute.startswith("_") and callable(member):
                assert inspect.getdoc(member), attribute


def test_all_is_what_the_package_has() -> None:
    public = {
        name
        for name, value in vars(cl).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    modules = {name for name in dir(cl) if inspect.ismodule(getattr(cl, name))}
    assert public <= set(cl.__all__) <= public | modules
    assert len(set(cl.__all__)) == len(cl.__all__)

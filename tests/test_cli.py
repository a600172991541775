"""The command line: `convolith info | bench | check | filter`."""

from __future__ import annotations

import builtins
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import convolith
from convolith.__main__ import main
from convolith.bench.layers import Layer
from convolith.bench.measure import Benchmark
from convolith.cli import filter as photo_filter

Array = npt.NDArray[Any]

SMALL = "conv2d c4 i9x8 k6 f3x3 p1"
BRIEF = ("--problem", SMALL, "--seconds", "0.02")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command, which must be one line, exit code 2 and nothing else."""
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"convolith {arguments[0]}" if arguments else "convolith")
    assert err.count("\n") == 1
    return err


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spares most tests the measurement of the machine's peak; restores the number of threads."""
    monkeypatch.setattr("convolith.bench.measure.fma_peak", lambda dtype, threads: 1e11)
    monkeypatch.setattr("convolith.bench.measure.copy_bandwidth", lambda threads: 3e10)
    before = convolith.get_num_threads()
    yield
    convolith.set_num_threads(before)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package look as if it were not installed."""

    def hide(package: str) -> None:
        real = builtins.__import__

        def refuse(name: str, *rest: Any, **more: Any) -> Any:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *rest, **more)

        for module in [m for m in sys.modules if m.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setattr(builtins, "__import__", refuse)

    return hide


# ---- check ---------------------------------------------------------------------------------


def broken_conv2d(x: Array, weight: Array, **options: Any) -> Array:
    y = convolith.conv2d(x, weight, **options, numerics="strict")
    y[..., :1] = 0
    return y


def test_check_of_a_module(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    problems = [f"--problem=conv2d c2 i5x{n} k2 f3x3 p1:1x1:1 bias" for n in (4, 9)]
    code, out, _ = run(capsys, "check", "--module", "convolith:conv2d", *problems)
    assert code == 0
    assert "No problem failed; 2 passed." in out
    report = tmp_path / "report.json"
    code, out, _ = run(
        capsys,
        *("check", "--module", "test_cli:broken_conv2d", *problems),
        *("--json", str(report), "--pictures", str(tmp_path / "pictures")),
    )
    assert code == 1
    assert "elements are wrong" in out
    assert "again: convolith check --module test_cli:broken_conv2d --problem 'conv2d" in out
    (record,) = json.loads(report.read_text())
    assert (record["passed"], record["failed"]) == (0, 2)
    assert list((tmp_path / "pictures").glob("*.png"))


def test_check_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    isa = convolith.show_config(mode="dicts")["isas_available"][0]
    options = ("--op", "conv1d", "--direction", "backward_weight", "--seed", "5", "--isa", isa)
    options += ("--threads", "2", "--dtype", "float32", "--data-format", "channels_last")
    code, out, _ = run(capsys, "check", "--self", *options, "--algorithm", "direct")
    assert code == 0, out
    assert f"direct, {isa}, 2 threads" in out
    assert "No problem failed; " in out


def test_check_of_the_library_ends_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    """It tells what it left out."""
    isa = convolith.show_config(mode="dicts")["isas_available"][0]
    options = ("--op", "conv2d", "--direction", "forward", "--isa", isa, "--minutes", "0.05")
    code, out, _ = run(capsys, "check", "--self", *options)
    assert code == 0, out
    assert re.search(r"\n\d+ were not run for lack of time: --minutes", out), out
    passed = re.search(r"No problem failed; (\d+) passed", out)
    assert passed is not None, out
    assert int(passed[1]) > 0


def test_check_that_serves_nothing_fails(capsys: pytest.CaptureFixture[str]) -> None:
    problem = "--problem=conv2d c2 i5x4 k2 f3x3 strided"
    code, out, _ = run(
        capsys, "check", "--module", "convolith:conv2d", "--array-module", "numpy", problem
    )
    assert code == 1
    assert "Nothing was checked" in out


def test_check_prints_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", "--header")
    assert code == 0
    assert "convolith_problem" in Path(out.strip()).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lib", "./nothing.so"), "--lib needs --symbol"),
        (("--lib", "./nothing.so", "--symbol", "conv2d_f32"), "nothing.so"),
        (("--lib", "./nothing.so", "--symbol", "kernel"), "does not tell the operation"),
        (("--torch", "--symbol", "f"), "--symbol goes with --lib"),
        (("--module", "convolith:conv2d", "--op", "conv4d"), "op is 'conv4d'"),
        (("--module", "convolith:conv2dd", "--op", "conv2d"), "conv2dd"),
        (("--module", "no.such:conv2d"), "No module named 'no'"),
        (("--module", "convolith", "--op", "conv2d"), "must be package.module:function"),
        (("--self", "--isa", "mmx"), "--isa 'mmx' is not here"),
        (("--self", "--algorithm", "strassen"), "--algorithm 'strassen' is unknown"),
        (("--module", "convolith:conv2d", "--tolerance", "x"), "tolerance is 'x'"),
        (("--module", "convolith:conv2d", "--problem", "conv2d c1 7q"), "'7q' is not understood"),
        (("--module", "convolith:conv2d", "--json", "/no/where.json"), "cannot write"),
        (("--module", "convolith:matmul", "--direction", "backward"), "matmul has forward"),
    ],
)
def test_mistakes_in_check(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fails(capsys, "check", *arguments)


# ---- info and usage ------------------------------------------------------------------------


def test_info_prints_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "info")
    assert (code, err) == (0, "")
    convolith.show_config()
    assert out == capsys.readouterr().out


def test_module_and_exit_code() -> None:
    command = [sys.executable, "-m", "convolith"]
    good = subprocess.run([*command, "info"], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout
    bad = subprocess.run([*command, "bogus"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


@pytest.mark.parametrize("start", ["-m", "script"])
def test_a_wrong_isa_is_one_line(start: str, tmp_path: Path) -> None:
    """Although the import of the package fails, before any of the command line can run."""
    script = tmp_path / "convolith"
    script.write_text("from convolith.__main__ import main\nmain()\n")
    command = [sys.executable, *(("-m", "convolith") if start == "-m" else (str(script),)), "info"]
    done = subprocess.run(
        command,
        env=os.environ | {"CONVOLITH_ISA": "mmx"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("convolith: error: environment variable CONVOLITH_ISA: ISA 'mmx'")


@pytest.mark.parametrize("command", [[], ["info"], ["bench"], ["bench", "peak"], ["filter"]])
def test_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "usage: convolith" in out


def test_no_command_and_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "COMMAND" in fails(capsys)
    code, _, err = run(capsys, "bogus")
    assert code == 2
    assert "bogus" in err


# ---- bench ---------------------------------------------------------------------------------


def test_bench_table_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    paths = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "png")}
    code, out, err = run(
        capsys,
        *("bench", *BRIEF, "--json", str(paths["json"])),
        *("--csv", str(paths["csv"]), "--plot", str(paths["png"])),
    )
    assert (code, err) == (0, "")
    assert SMALL in out
    assert "of peak" in out
    records = json.loads(paths["json"].read_text())
    assert set(records[0]) == {
        *("problem", "net", "layer", "algorithm", "seconds"),
        *("gflops", "peak_share", "workspace_bytes", "error"),
    }
    with paths["csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["algorithm"] for row in rows] == [record["algorithm"] for record in records]
    assert paths["png"].read_bytes().startswith(b"\x89PNG")


def test_bench_options_change_the_problem(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "out.json"
    code, _, err = run(
        capsys,
        *("bench", *BRIEF, "--json", str(path), "--threads", "1", "--no-reference"),
        *("--batch", "2", "--direction", "backward_weight", "--dtype", "float64"),
        *("--data-format", "channels_last", "--algorithm", "auto"),
    )
    assert (code, err) == (0, "")
    (record,) = json.loads(path.read_text())
    assert record["algorithm"] == "auto"
    assert record["error"] < 1e-13
    words = set(record["problem"].split())
    assert words >= {"n2", "backward_weight", "float64", "channels_last"}


def test_bench_of_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    code, out, err = run(capsys, "bench", "--net", "lenet", "--seconds", "0.05", "--no-prepack")
    assert (code, err) == (0, "")
    for name in ("lenet", "c1", "c3", "c5", "reference"):
        assert name in out


def test_interrupted_bench_prints_what_it_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    original = Benchmark.run

    def interrupted(self: Benchmark) -> Iterator[tuple[str, Layer]]:
        for place, step in enumerate(original(self)):
            if place == 2:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(Benchmark, "run", interrupted)
    code, out, err = run(capsys, "bench", "--net", "lenet", "--seconds", "0.05")
    assert code == 130
    assert "c1" in out
    assert "c3" in out
    assert "c5" not in out
    assert err == "convolith bench: interrupted after 2 of 3 layers\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "bogus"], "lenet, alexnet"),
        (["--algorithm", "bogus"], "known: auto"),
        (["--problem", "conv2d bogus"], "bogus"),
        (["--problem", "conv2d c3 i4x4 k1 f7x7"], "7"),
        (["--problem", ""], "problem"),
        (["--problem", f"{SMALL} n0"], "batch 0"),
        (["--threads", "0"], "at least 1"),
        (["--threads", "1000000"], "1000000"),
        (["--batch", "x"], "'x'"),
        (["--seconds", "nan"], "'nan'"),
        (["--dtype", "float16"], "float64"),
        (["--direction", "sideways"], "backward_input"),
        (["--json", "no/such/folder/x.json"], "no/such/folder"),
        (["--csv", "/"], "cannot write"),
        (["--plot", "x.bmp"], ".png"),
        (["bogus"], "peak"),
    ],
)
def test_bench_errors(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pytest.importorskip("rich")
    assert message in fails(capsys, "bench", *arguments)


@pytest.mark.parametrize("command", [["bench"], ["bench", "peak"]])
def test_bench_without_rich_names_the_extra(
    capsys: pytest.CaptureFixture[str], without: Callable[[str], None], command: list[str]
) -> None:
    without("rich")
    assert "pip install 'convolith[bench]'" in fails(capsys, *command)


def test_plot_without_matplotlib_names_the_extra(
    capsys: pytest.CaptureFixture[str], without: Callable[[str], None]
) -> None:
    pytest.importorskip("rich")
    without("matplotlib")
    assert "pip install 'convolith[bench]'" in fails(capsys, "bench", *BRIEF, "--plot", "x.png")


def test_bench_peak(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("rich")
    path = tmp_path / "peak.json"
    arguments = ("bench", "peak", "--rounds", "1", "--threads", "1", "--json", str(path))
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    assert "GEMM" in out
    records = json.loads(path.read_text())
    assert {record["quantity"] for record in records} == {"fma", "gemm", "copy"}
    assert all(record["rate"] > 0 for record in records)


# ---- filter --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> Array:
    """A small colour picture [row, column, channel] with edges, a gradient and noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (17, 23, 3))
    image[4:11, 6:15] += 150
    image += np.arange(23)[None, :, None]
    return image.astype(np.uint8)


def save(path: Path, array: Array, **options: Any) -> Path:
    pytest.importorskip("PIL.Image").fromarray(array).save(path, **options)
    return path


def load(path: Path) -> Array:
    with pytest.importorskip("PIL.Image").open(path) as image:
        return np.asarray(image)


def expected(pixels: Array, kernel: Array) -> Array:
    """One matrix over [row, column, channel], by shifting the picture."""
    rows, columns = kernel.shape
    before = ((rows - 1) // 2, (columns - 1) // 2)
    margins = [(before[0], rows // 2), (before[1], columns // 2), (0, 0)]
    padded = np.pad(pixels.astype(float), margins, mode="edge")
    height, width = pixels.shape[:2]
    return sum(
        kernel[r, c] * padded[r : r + height, c : c + width]
        for r in range(rows)
        for c in range(columns)
    )


def as_bytes(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def filtered(
    capsys: pytest.CaptureFixture[str], source: Path, kernel: str, name: str = "out.png"
) -> Array:
    target = source.parent / name
    code, out, err = run(capsys, "filter", str(source), "--kernel", kernel, "-o", str(target))
    assert (code, err) == (0, "")
    assert str(target) in out
    assert " ms" in out
    return load(target)


@pytest.mark.parametrize("kernel", ["sharpen", "blur", "emboss", "edge"])
def test_filter_with_one_matrix(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array, kernel: str
) -> None:
    result = filtered(capsys, save(tmp_path / "in.png", photo), kernel)
    matrix = photo_filter.KERNELS[kernel][0]
    np.testing.assert_array_equal(result, as_bytes(expected(photo, matrix)))


def test_sobel_is_the_length_of_the_gradient(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    result = filtered(capsys, save(tmp_path / "in.png", photo), "sobel")
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    length = np.hypot(expected(photo, across), expected(photo, across.T))
    np.testing.assert_array_equal(result, as_bytes(length))


def test_kernels_keep_their_sums() -> None:
    sums = {name: float(kernel.sum()) for name, kernel in photo_filter.KERNELS.items()}
    assert sums == {"sobel": 0, "sharpen": 1, "blur": 1, "emboss": 1, "edge": 0}


def test_filter_with_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    matrix = np.array([[0, 0.25], [0.5, 0], [0, -0.75], [1, 0]])
    np.savetxt(tmp_path / "kernel.txt", matrix)
    result = filtered(capsys, save(tmp_path / "in.png", photo), str(tmp_path / "kernel.txt"))
    np.testing.assert_array_equal(result, as_bytes(expected(photo, matrix)))


def test_grey_and_single_pixel(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    grey = photo[..., 0]
    result = filtered(capsys, save(tmp_path / "in.png", grey), "blur")
    matrix = photo_filter.KERNELS["blur"][0]
    np.testing.assert_array_equal(result, as_bytes(expected(grey[..., None], matrix))[..., 0])
    dot = filtered(capsys, save(tmp_path / "dot.png", np.array([[77]], np.uint8)), "blur")
    np.testing.assert_array_equal(dot, [[77]])


def test_transparency_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    alpha = np.arange(17 * 23, dtype=np.uint8).reshape(17, 23, 1)
    opaque = filtered(capsys, save(tmp_path / "rgb.png", photo), "edge")
    result = filtered(
        capsys, save(tmp_path / "rgba.png", np.concatenate([photo, alpha], axis=2)), "edge"
    )
    np.testing.assert_array_equal(result[..., :3], opaque)
    np.testing.assert_array_equal(result[..., 3:], alpha)
    grey = filtered(
        capsys, save(tmp_path / "la.png", np.concatenate([photo[..., :1], alpha], axis=2)), "edge"
    )
    np.testing.assert_array_equal(grey, np.concatenate([opaque[..., :1], alpha], axis=2))


def test_palette(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(photo).quantize(16)
    image.save(tmp_path / "palette.png")
    colours = np.asarray(image.convert("RGB"))
    result = filtered(capsys, tmp_path / "palette.png", "sharpen")
    matrix = photo_filter.KERNELS["sharpen"][0]
    np.testing.assert_array_equal(result, as_bytes(expected(colours, matrix)))
    image.save(tmp_path / "clear.png", transparency=3)
    clear = filtered(capsys, tmp_path / "clear.png", "sharpen")
    np.testing.assert_array_equal(clear[..., :3], result)
    np.testing.assert_array_equal(clear[..., 3] == 0, np.asarray(image) == 3)


def test_sixteen_bits(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array) -> None:
    grey = photo[..., 0]
    deep = save(tmp_path / "deep.png", grey.astype(np.uint16) * 257)
    shallow = save(tmp_path / "shallow.png", grey)
    np.testing.assert_array_equal(filtered(capsys, deep, "edge"), filtered(capsys, shallow, "edge"))


def test_one_bit_and_jpeg(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    grey = np.zeros((9, 9), np.uint8)
    grey[3:6, 3:6] = 255
    image = pytest.importorskip("PIL.Image").fromarray(grey)
    image.convert("1").save(tmp_path / "bits.png")
    result = filtered(capsys, tmp_path / "bits.png", "blur", "out.jpg")
    assert result.shape == (9, 9)
    assert result.max() > 100


def test_photo_is_turned_upright(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    image_module = pytest.importorskip("PIL.Image")
    exif = image_module.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    source = save(tmp_path / "turned.png", photo, exif=exif)
    assert filtered(capsys, source, "blur").shape == (23, 17, 3)


def filter_error(capsys: pytest.CaptureFixture[str], photo: Path, kernel: str, out: Path) -> str:
    message = fails(capsys, "filter", str(photo), "--kernel", kernel, "-o", str(out))
    assert not out.exists()
    return message


def test_photo_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array) -> None:
    out = tmp_path / "out.png"
    good = save(tmp_path / "good.png", photo)
    assert "no photo" in filter_error(capsys, tmp_path / "missing.png", "blur", out)
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert "not an image" in filter_error(capsys, text, "blur", out)
    assert filter_error(capsys, tmp_path, "blur", out)
    data = good.read_bytes()
    for end in (20, len(data) // 2):
        cut = tmp_path / "cut.png"
        cut.write_bytes(data[:end])
        assert "cut.png" in filter_error(capsys, cut, "blur", out)
    floating = save(tmp_path / "float.tiff", photo[..., 0].astype(np.float32))
    assert "floating-point" in filter_error(capsys, floating, "blur", out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n4 5\n", "not a matrix"),
        ("1 two 3\n", "not a matrix"),
        ("", "no numbers"),
        ("# nothing\n", "no numbers"),
        ("1 nan\n", "finite"),
        ("1e300 1\n", "finite"),
    ],
)
def test_kernel_errors(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array, text: str, message: str
) -> None:
    source = save(tmp_path / "good.png", photo)
    kernel = tmp_path / "kernel.txt"
    kernel.write_text(text)
    assert message in filter_error(capsys, source, str(kernel), tmp_path / "out.png")


def test_unknown_kernel_and_binary_kernel(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array
) -> None:
    source, out = save(tmp_path / "good.png", photo), tmp_path / "out.png"
    assert "sobel, sharpen" in filter_error(capsys, source, "bogus", out)
    assert "not a matrix" in filter_error(capsys, source, str(source), out)
    assert "cannot be read" in filter_error(capsys, source, str(tmp_path), out)


def test_output_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path, photo: Array) -> None:
    source = save(tmp_path / "good.png", photo)
    for out in (tmp_path / "no" / "out.png", tmp_path / "out.bogus", tmp_path / "out"):
        assert "cannot write" in filter_error(capsys, source, "blur", out)
    alpha = save(tmp_path / "alpha.png", np.concatenate([photo, photo[..., :1]], axis=2))
    assert "cannot write" in filter_error(capsys, alpha, "blur", tmp_path / "out.jpg")


def test_filter_without_pillow_names_the_extra(
    capsys: pytest.CaptureFixture[str], without: Callable[[str], None]
) -> None:
    without("PIL")
    error = fails(capsys, "filter", "x.png", "--kernel", "blur", "-o", "y.png")
    assert "pip install 'convolith[viz]'" in error

"""algorithm="fastest" and autotune: what is measured, remembered, shared and ignored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import ALGORITHMS, DIRECTIONS

import convolith as cl
from convolith import _autotune, _core

X = np.random.default_rng(0).standard_normal((1, 4, 10, 9)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((6, 4, 3, 3)).astype(np.float32)
SECONDS = 0.01


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder that does not exist yet, and a process that knows nothing."""
    path = tmp_path / "cache" / "convolith"
    monkeypatch.setenv("CONVOLITH_CACHE", str(path))
    monkeypatch.setattr(_autotune, "BUDGET_SECONDS", SECONDS)
    forget()
    yield path
    forget()


def forget() -> None:
    """As a new process would be."""
    _autotune._memory.clear()
    _autotune._read.clear()
    _autotune._warned.clear()
    _core.forget_plans()


def file_of(folder: Path) -> Path:
    return folder / _autotune.FILE_NAME


def entries(folder: Path) -> dict[str, Any]:
    content = json.loads(file_of(folder).read_text())
    assert content["format"] == _autotune.FORMAT
    found = content["entries"]
    assert isinstance(found, dict)
    return found


def tune(**options: Any) -> dict[str, Any]:
    return cl.autotune(X.shape, W, padding=1, seconds=SECONDS, **options)


def conv(**options: Any) -> Any:
    return cl.conv2d(X, W, padding=1, algorithm="fastest", **options)


def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The problems that are measured from now on."""
    problems: list[str] = []
    original = _autotune._measure

    def spy(*arguments: Any) -> _autotune.Times:
        problems.append("measured")
        return original(*arguments)

    monkeypatch.setattr(_autotune, "_measure", spy)
    return problems


def fake(monkeypatch: pytest.MonkeyPatch, winner: str) -> None:
    """Let `winner` be the fastest."""
    monkeypatch.setattr(
        _autotune, "_measure", lambda runs, _: {n: 1.0 if n == winner else 2.0 for n in runs}
    )


# ---- measuring -----------------------------------------------------------------------------


def test_the_record(folder: Path) -> None:
    record = tune()
    supported = {r["name"] for r in cl.algorithms(X.shape, W.shape, padding=1) if r["supported"]}
    assert set(record["seconds"]) == supported
    assert all(seconds > 0 for seconds in record["seconds"].values())
    assert record["algorithm"] == min(record["seconds"], key=lambda n: record["seconds"][n])
    assert record["problem"] == "conv2d c4 i10x9 k6 f3x3 p1"
    assert record["threads"] == cl.get_num_threads()
    assert record["isa"] == cl.show_config(mode="dicts")["isa"]
    assert (record["numerics"], record["prepacked"]) == ("fast", True)
    assert json.dumps(record)


def test_the_arguments_of_plan_conv(folder: Path) -> None:
    bias = np.zeros(6, np.float32)
    options: dict[str, Any] = {"stride": 2, "activation": "relu", "residual": True, "threads": 1}
    record = cl.autotune(X.shape, W, bias, seconds=SECONDS, **options)
    assert record["problem"] == str(cl.plan_conv(X.shape, W, bias, **options).problem)
    assert record["threads"] == 1
    by_shape = cl.autotune(X.shape, W.shape, True, seconds=SECONDS, **options)
    assert by_shape["problem"] == record["problem"]
    assert len(entries(folder)) == 1
    wide = cl.autotune(X.shape, W.astype(float), seconds=SECONDS)
    assert wide["problem"].endswith("float64")
    strict = cl.autotune(X.shape, W, numerics="strict", prepacked=False, seconds=SECONDS)
    assert (strict["numerics"], strict["prepacked"]) == ("strict", False)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_directions(folder: Path, direction: str) -> None:
    record = cl.autotune(X.shape, W.shape, direction=direction, seconds=SECONDS)
    assert record["prepacked"] == (direction == "forward")
    assert record["algorithm"] in ALGORITHMS


@pytest.mark.parametrize(
    ("options", "error", "pattern"),
    [
        ({"seconds": 0}, ValueError, "seconds is 0"),
        ({"seconds": float("nan")}, ValueError, "seconds is nan"),
        ({"seconds": "1"}, TypeError, "seconds is '1'"),
        ({"prepacked": 1}, TypeError, "prepacked is 1"),
        ({"direction": "up"}, ValueError, "direction is 'up'"),
        ({"workspace_limit": -1}, ValueError, "workspace_limit is -1"),
        ({"groups": 3}, ValueError, "groups is 3"),
    ],
)
def test_errors(options: dict[str, Any], error: type[Exception], pattern: str) -> None:
    with pytest.raises(error, match=pattern):
        cl.autotune(X.shape, W, **options)


def test_problems_that_cannot_be_served(folder: Path) -> None:
    with pytest.raises(ValueError, match="weight has 2 axes"):
        cl.autotune(X.shape, (3, 3))
    sizes = [r["workspace_bytes"] for r in cl.algorithms(X.shape, W.shape) if r["supported"]]
    if min(sizes) > 0:
        for call in (
            lambda: cl.autotune(X.shape, W, workspace_limit=0),
            lambda: cl.plan_conv(X.shape, W, algorithm="fastest", workspace_limit=0),
        ):
            with pytest.raises(cl.UnsupportedError, match="over the limit of 0"):
                call()
    assert not folder.exists()


@pytest.mark.parametrize("winner", ALGORITHMS)
def test_fastest_takes_the_winner(
    folder: Path, monkeypatch: pytest.MonkeyPatch, winner: str
) -> None:
    records = {r["name"]: r for r in cl.algorithms(X.shape, W.shape, padding=1)}
    if not records[winner]["supported"]:
        pytest.skip("not for this problem")
    fake(monkeypatch, winner)
    plan = cl.plan_conv(X.shape, W, padding=1, algorithm="fastest")
    assert plan.algorithm == winner
    assert f"\nmeasured {winner}: 1e+06 us" in plan.explain()
    np.testing.assert_array_equal(conv(), cl.conv2d(X, W, padding=1, algorithm=winner))


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_fastest_in_every_function(folder: Path, layout: str) -> None:
    x = X if layout == "channels_first" else np.moveaxis(X, 1, -1)
    o: dict[str, Any] = {"padding": 1, "data_format": layout}
    y = cl.conv2d(x, W, **o)
    for call in (
        lambda **a: cl.conv2d(x, W, **o, **a),
        lambda **a: cl.conv_transpose2d(y, W, **o, **a),
        lambda **a: cl.conv_backward_input(y, W, x.shape, **o, **a),
        lambda **a: cl.conv_backward_weight(y, x, W.shape, **o, **a),
        lambda **a: cl.conv_transpose_backward_input(x, W, y.shape, **o, **a),
        lambda **a: cl.conv_transpose_backward_weight(x, y, W.shape, **o, **a),
    ):
        for _ in range(2):
            np.testing.assert_allclose(call(algorithm="fastest"), call(), rtol=1e-3, atol=1e-3)
    assert len(entries(folder)) == len(DIRECTIONS)  # transposed ones are among them


def test_an_empty_batch_is_not_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = measured(monkeypatch)
    y = cl.conv2d(X[:0], W, algorithm="fastest")
    assert y.shape == (0, 6, 8, 7)
    assert not problems
    assert not folder.exists()


def test_memory_that_does_not_suffice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out() -> None:
        raise MemoryError

    times = _autotune._measure({"a": run_out, "b": lambda: None}, SECONDS)
    assert times["a"] is None
    assert _autotune.winner(times) == "b"
    assert _autotune.winner({"a": None}) == "auto"
    monkeypatch.setattr(_autotune, "_measure", lambda runs, _: dict.fromkeys(runs))
    np.testing.assert_array_equal(conv(), cl.conv2d(X, W, padding=1))


# ---- remembering ---------------------------------------------------------------------------


def test_an_answer_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = measured(monkeypatch)
    for _ in range(3):
        conv()
        _core.forget_plans()
        conv()
    assert len(problems) == 1
    forget()
    conv()
    assert len(problems) == 1  # from the file
    cl.plan_conv(X.shape, W, padding=1, algorithm="fastest")
    assert len(problems) == 2  # with packed weights it is another question
    tune()
    assert len(problems) == 3  # asked to measure, it does
    cl.plan_conv(X.shape, W, padding=1, algorithm="fastest")
    assert len(problems) == 3


def test_what_an_answer_depends_on(folder: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"numerics": "strict"},
        {"threads": cl.get_num_threads() + 1},
        {"prepacked": False},
        {"dtype": "float64"},
        {"activation": "relu"},
    ]
    for number, options in enumerate(variants, start=1):
        tune(**options)
        assert len(entries(folder)) == number
    cl.autotune((1, 10, 9, 4), W, padding=1, data_format="NHWC", seconds=SECONDS)
    assert len(entries(folder)) == len(variants) + 1
    for key in entries(folder):
        for word in (cl.show_config(mode="dicts")["isa"], f"version {cl.__version__}", "conv2d"):
            assert word in key


def test_a_new_measurement_replaces_plans(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for winner in ("direct", "im2col_gemm", "direct"):
        fake(monkeypatch, winner)
        tune(prepacked=False)
        np.testing.assert_array_equal(conv(), cl.conv2d(X, W, padding=1, algorithm=winner))


def test_a_workspace_limit_is_respected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = {
        r["name"]: r["workspace_bytes"]
        for r in _core.algorithms(_core.ConvProblem.parse("conv2d c4 i10x9 k6 f3x3 p1"))
        if r["supported"]
    }
    greediest = max(records, key=lambda name: records[name])
    limit = records[greediest] - 1
    fake(monkeypatch, greediest)
    assert tune()["algorithm"] == greediest
    plan = cl.plan_conv(X.shape, W, padding=1, algorithm="fastest", workspace_limit=limit)
    assert plan.algorithm != greediest
    assert plan.workspace_bytes <= limit
    assert greediest not in tune(workspace_limit=limit)["seconds"]
    assert cl.plan_conv(X.shape, W, padding=1, algorithm="fastest").algorithm == greediest


def test_the_file_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_autotune, "MOST_ENTRIES", 3)
    fake(monkeypatch, "direct")
    for n in range(4, 10):
        cl.autotune((1, 1, n), (1, 1, 3))
    assert [key.split()[-3] for key in entries(folder)] == ["i7", "i8", "i9"]
    assert sorted(p.name for p in folder.iterdir()) == ["autotune-1.json", "autotune-1.lock"]


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for off in ("", "off"):
        monkeypatch.setenv("CONVOLITH_CACHE", off)
        assert _autotune.cache_folder() is None
    monkeypatch.setenv("CONVOLITH_CACHE", str(tmp_path / "own"))
    assert _autotune.cache_folder() == tmp_path / "own"
    monkeypatch.delenv("CONVOLITH_CACHE")
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert _autotune.cache_folder() == tmp_path / "xdg" / "convolith"
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert _autotune.cache_folder() == tmp_path / "home" / ".cache" / "convolith"


def test_without_a_file_the_process_remembers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONVOLITH_CACHE", "off")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_autotune, "BUDGET_SECONDS", SECONDS)
    forget()
    problems = measured(monkeypatch)
    conv()
    _core.forget_plans()
    conv()
    assert len(problems) == 1
    assert not list(tmp_path.iterdir())
    forget()


# ---- files that are not as they should be --------------------------------------------------


def warned(call: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            _core.forget_plans()
            call()
    return [str(w.message) for w in caught]


CORRUPT = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": "convolith autotune 1"}']


@pytest.mark.parametrize("content", CORRUPT, ids=lambda c: repr(c[:12]))
def test_a_corrupt_file_is_replaced(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    file_of(folder).write_bytes(content)
    messages = warned(conv)
    assert len(messages) == 1
    assert "is ignored" in messages[0]
    assert str(file_of(folder)) in messages[0]
    assert len(entries(folder)) == 1
    forget()
    assert warned(conv) == []


@pytest.mark.parametrize("content", ["[]", "3", '{"format": "another 1", "entries": {}}'])
def test_a_foreign_file_is_left_alone(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    file_of(folder).write_text(content)
    messages = warned(conv)
    assert len(messages) == 2
    assert "is ignored" in messages[0]
    assert "cannot be written" in messages[1]
    assert file_of(folder).read_text() == content


def test_entries_that_are_none_are_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conv()
    (key, good) = next(iter(entries(folder).items()))
    problems = measured(monkeypatch)
    for bad in (
        None,
        [],
        "direct",
        {},
        dict.fromkeys(good, "1"),
        dict.fromkeys(good, -1.0),
        dict.fromkeys(good, float("nan")),
        {"no_such_algorithm": 1e-9},
        {name: good[name] for name in list(good)[:-1]},  # one is new since then
    ):
        content = {"format": _autotune.FORMAT, "entries": {"other": {}, key: bad}}
        file_of(folder).write_text(json.dumps(content))
        forget()
        assert warned(conv) == []
        assert len(problems) == 1, bad
        problems.clear()
    # One that no longer exists does not win.
    content = {"format": _autotune.FORMAT, "entries": {key: {"no_such_algorithm": 1e-9} | good}}
    file_of(folder).write_text(json.dumps(content))
    forget()
    assert warned(conv) == []
    assert not problems


def test_a_folder_that_cannot_be_written(tmp_path: Path, folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("a file in the folder's place")
    messages = warned(conv)
    assert 1 <= len(messages) <= 2
    assert "cannot be written" in messages[-1]


def test_a_file_that_is_a_folder(folder: Path) -> None:
    file_of(folder).mkdir(parents=True)
    messages = warned(conv)
    assert len(messages) == 2
    assert file_of(folder).is_dir()


def test_a_lock_that_is_held_does_not_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(_autotune, "LOCK_SECONDS", 0.05)
    folder.mkdir(parents=True)
    with file_of(folder).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        messages = warned(conv)
    assert len(messages) == 1
    assert "stays locked" in messages[0]
    assert not file_of(folder).exists()


# ---- processes and threads -----------------------------------------------------------------


def test_processes_share_the_file(folder: Path) -> None:
    code = """
    import sys
    import convolith as cl
    from convolith import _autotune
    _autotune._measure = lambda runs, _: {name: 1.0 for name in runs}
    _autotune.LOCK_SECONDS = 100.0  # patience, also on a busy machine
    for n in range(25):
        cl.autotune((1, 1, 5 + n), (1, 1, 1 + int(sys.argv[1])))
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(number)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for number in range(4)
    ]
    assert [child.wait(120) for child in children] == [0] * len(children)
    assert len(entries(folder)) == 25 * len(children)


def test_another_process_is_heard_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, "direct")
    cl.autotune((1, 1, 9), (1, 1, 3))  # the file is read and known
    forget()
    conv()
    content = json.loads(file_of(folder).read_text())
    stored = content["entries"]
    forget()
    cl.plan_conv((1, 1, 8), np.ones((1, 1, 3), np.float32), algorithm="fastest")
    key = next(k for k in stored if "i9" not in k)
    new = key.replace("i10x9", "i11x9")
    stored[new] = dict.fromkeys(stored[key], 2.0) | {"im2col_gemm": 1.0}
    time.sleep(0.02)  # the time of the file must differ
    file_of(folder).write_text(json.dumps(content))
    problems = measured(monkeypatch)
    x = np.ones((1, 4, 11, 9), np.float32)
    y = cl.conv2d(x, W, padding=1, algorithm="fastest")
    assert not problems
    np.testing.assert_array_equal(y, cl.conv2d(x, W, padding=1, algorithm="im2col_gemm"))


def test_auto_does_not_look_at_the_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cl.plan_conv(X.shape, W, padding=1).algorithm
    other = next(name for name in ("direct", "im2col_gemm") if name != before)
    fake(monkeypatch, other)
    tune()
    assert cl.plan_conv(X.shape, W, padding=1).algorithm == before

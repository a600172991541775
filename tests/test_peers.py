"""`convolith bench --peers`: the protocol, libraries that break, the table and the files."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import convolith
from convolith import _core
from convolith.__main__ import main
from convolith.bench import pools
from convolith.bench.layers import Layer, parse_layers
from convolith.bench.peers import OWN, PEERS, Address, adapter
from convolith.bench.peers.comparison import OURS, Comparison, Standing, Timing
from convolith.bench.peers.process import PeerError, PeerProcess

SMALL = "conv2d c4 i9x8 k6 f3x3 p1"
OTHER = "conv2d c3 i7x7 k5 f3x3"
STUBS = ("Right", "Wrong", "Picky", "Raising", "Crashing", "Failing")
PATIENCE = 60.0


def stub(name: str) -> Address:
    return ("stub_peers", name)


@pytest.fixture(autouse=True, scope="module")
def stubs_in_reach() -> Iterator[None]:
    """Lets processes import the stubs; they need not spin for the next call."""
    with pytest.MonkeyPatch.context() as patch:
        found = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
        patch.setenv("OMP_WAIT_POLICY", "passive")
        yield


@pytest.fixture
def few_threads() -> Iterator[None]:
    before = convolith.get_num_threads()
    yield
    convolith.set_num_threads(before)


# ---- the protocol --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("backward_weight", "gradient of the weights"),
        ("float64", "float64"),
        ("reflect", "padding mode reflect"),
        ("bias", "epilogue"),
        ("relu", "epilogue"),
    ],
)
def test_problems_that_frameworks_do_not_have(words: str, reason: str) -> None:
    with pytest.raises(adapter.Unsupported, match=reason):
        adapter.check_plain(_core.ConvProblem.parse(f"{SMALL} {words}"))


@pytest.mark.parametrize(
    ("text", "padding"),
    [
        ("conv2d c3 i64x64 k8 f4x4 s2 p1 backward_input", (0, 0)),
        ("conv2d c1 i224x224 k56 f9x9 s2 p4 backward_input", (1, 1)),
        ("conv1d c3 i13 k8 f3 s4 p1:0 d2 backward_input", (1,)),
    ],
)
def test_output_padding(text: str, padding: tuple[int, ...]) -> None:
    problem = _core.ConvProblem.parse(text)
    assert adapter.is_transposed(problem)
    assert adapter.output_padding(problem) == padding


def test_a_process_answers_and_ends() -> None:
    process = PeerProcess(stub("Right"), threads=3)
    try:
        assert process.receive(PATIENCE) == {"versions": {"right": "1.0 with 3"}}
        process.send({"problem": SMALL, "seed": 0})
        assert process.receive(PATIENCE)["errors"]["plain"] < 1e-12
        process.send({"way": "plain", "seconds": 1e-3})
        answer = process.receive(PATIENCE)
        assert all(seconds > 0 for seconds in answer["clean"] + answer["disturbed"])
        process.send({"way": "bogus", "seconds": 1e-3})
        assert process.receive(PATIENCE) == {"failed": "KeyError: 'bogus'"}
        process.send({"problem": f"{SMALL} relu", "seed": 0})
        assert process.receive(PATIENCE) == {"unsupported": "epilogue"}
    finally:
        process.close()
    assert process.process.returncode is not None
    process.close()  # once more is no error


def test_a_process_that_hangs_is_ended() -> None:
    process = PeerProcess(stub("Hanging"), threads=1)
    process.receive(PATIENCE)
    process.send({"problem": SMALL, "seed": 0})
    with pytest.raises(PeerError, match=r"no answer within 0\.1 s"):
        process.receive(0.1)
    assert process.process.returncode is not None


@pytest.mark.parametrize(("name", "address"), [(OURS, OWN), *PEERS.items()])
def test_the_adapter_of_each_installed_library(name: str, address: Address) -> None:
    process = PeerProcess(address, threads=2)
    try:
        answer = process.receive(PATIENCE)
        if "absent" in answer:
            pytest.skip(f"no module {answer['absent']}")
        assert name in answer["versions"]
        for text in (
            "conv1d c4 i20 k6 f3 s2 p1",
            "conv1d c4 i20 k6 f2 p4:0 d4",
            "conv2d c4 i9x8 k6 f3x2 s2x1 p1x0 d1x2 g2",
            "conv2d c8 i9x8 k8 f3x3 p1 g8",
            "conv2d c4 i9x8 k6 f3x3 p2x1 d2x1",
            "conv3d c4 i5x6x7 k6 f3x2x3 s1x2x1 p1x0x1",
            "conv1d c4 i20 k6 f3 s2 p1 backward_input",
            "conv2d c4 i9x8 k6 f3x4 s2 p1x2 g2 backward_input",
            "conv2d c4 i8x9 k4 f2x2 s2x3 g4 backward_input",
            "conv3d c4 i5x6x7 k6 f3x2x3 s1x2x1 p1x0x1 backward_input",
        ):
            process.send({"problem": text, "seed": 1})
            answer = process.receive(PATIENCE)
            assert "errors" in answer, (text, answer)
            assert all(error < 1e-5 for error in answer["errors"].values()), (text, answer)
    finally:
        process.close()


@pytest.mark.parametrize("text", ["max_pool2d", "sum_pool2d c4 i8x8 f2x2", "max_pool2d i8x8 f2x2"])
def test_pooling_problems_that_are_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="pool"):
        pools.PoolProblem.parse(text)


def test_pooling_layers() -> None:
    layers = pools.pool_layers()
    assert len({str(layer.problem) for layer in layers}) == len(layers)
    stem = next(la.problem for la in layers if (la.net, la.name) == ("resnet50", "maxpool"))
    assert stem.arguments == ((3, 3), (2, 2), (1, 1))
    assert stem.window.y_shape == (1, 64, 56, 56)
    assert stem.flops == 64 * 56 * 56 * 9
    assert {layer.problem.is_global for layer in layers} == {True, False}


@pytest.mark.parametrize("name", [OURS, "torch", "right"])
def test_pooling_of_each_library(name: str) -> None:
    process = PeerProcess({OURS: OWN, "right": stub("Right"), **PEERS}[name], threads=1)
    try:
        if "absent" in process.receive(PATIENCE):
            pytest.skip("not installed")
        for text in (
            "max_pool1d c3 i9 f3 s2 p1",
            "max_pool2d c3 i9x8 f3x2 s2x1 p1x0",
            "avg_pool2d c3 i9x8 f3x3 p1",
            "avg_pool2d c3 i7x7 f7x7",
            "max_pool3d c3 i7x7x7 f7x7x7",
            "max_pool2d c3 i9x8 f3x2 s2x1 p1x0 backward",
            "avg_pool2d c3 i9x8 f3x3 p1 backward",
            "avg_pool2d c3 i7x7 f7x7 backward",
            "max_pool3d c3 i7x7x7 f2x2x2 s2 backward",
        ):
            process.send({"problem": text, "seed": 1})
            answer = process.receive(PATIENCE)
            if name == "right":
                assert answer == {"unsupported": "pooling"}
            else:
                assert all(error < 1e-6 for error in answer["errors"].values()), (text, answer)
    finally:
        process.close()


@pytest.mark.parametrize("name", [OURS, "torch", "right"])
@pytest.mark.parametrize("direction", ["backward_input", "backward_weight"])
def test_gradients_of_each_library(name: str, direction: str) -> None:
    process = PeerProcess({OURS: OWN, "right": stub("Right"), **PEERS}[name], threads=1)
    try:
        if "absent" in process.receive(PATIENCE):
            pytest.skip("not installed")
        for text in ("conv1d n2 c4 i9 k6 f3 s2 g2", "conv2d n2 c3 i9x8 k5 f3x2 p1 d2"):
            process.send({"problem": f"{text} {direction}", "seed": 1})
            answer = process.receive(PATIENCE)
            if name == "right":
                refused = direction == "backward_weight"
                assert ("unsupported" in answer) == refused, answer
                continue
            layouts = {way.split()[0] for way in answer["errors"]}
            assert "channels_first" in layouts
            assert all(error < 1e-6 for error in answer["errors"].values()), (text, answer)
    finally:
        process.close()


# ---- the comparison ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def standing() -> Standing:
    layers = parse_layers("one", f"a: {SMALL}\nb: {OTHER}\n") + parse_layers("two", f"c: {SMALL}")
    peers = {name.lower(): stub(name) for name in STUBS}
    peers["absent"] = ("no_such_module_of_any_library", "Adapter")
    with Comparison(layers, peers, threads=1, seconds=0.1, timeout=PATIENCE) as comparison:
        assert list(comparison.run()) == layers
        processes = list(comparison.processes.values())
        assert len(processes) == 5  # ours, and the peers that are still there
    assert all(process.process.returncode is not None for process in processes)
    return comparison.standing


def timings_of(standing: Standing, library: str, layer: str) -> list[Timing]:
    return [t for t in standing.timings if (t.library, t.layer) == (library, layer)]


def test_libraries_that_cannot_start_are_left_out(standing: Standing) -> None:
    assert set(standing.versions) == {OURS, "right", "wrong", "picky", "raising", "crashing"}
    notes = sorted(standing.notes)
    assert notes[0] == "absent: not installed (no module no_such_module_of_any_library)"
    assert notes[1] == (
        "crashing: its process ended with status 7 at one b, left out from there on"
    )
    assert notes[2:] == ["failing: OSError: no licence", "raising: RuntimeError: first line"]


def test_ways_are_timed_and_judged(standing: Standing) -> None:
    ours = timings_of(standing, OURS, "a")
    assert {t.way for t in ours} == {
        f"{layout} {how}"
        for layout in ("channels_first", "channels_last")
        for how in ("plan", "call")
    }
    (right,) = timings_of(standing, "right", "a")
    flops = _core.ConvProblem.parse(SMALL).flops
    for timing in (*ours, right):
        assert timing.seconds is not None
        assert timing.gflops == pytest.approx(flops / timing.seconds / 1e9)
        assert timing.error is not None
        assert timing.error < 1e-5
        assert timing.samples >= timing.disturbed >= 0
        assert timing.samples > 0
        assert not timing.note
    (wrong,) = timings_of(standing, "wrong", "a")
    assert wrong.error == 1.0


def test_notes_of_layers(standing: Standing) -> None:
    assert [t.note for t in timings_of(standing, "picky", "a")] == ["not today"]
    assert [t.note for t in timings_of(standing, "raising", "a")] == ["RuntimeError: first line"]
    assert timings_of(standing, "crashing", "a")[0].seconds is not None
    assert [t.note for t in timings_of(standing, "crashing", "b")] == ["left out"]


def test_a_shape_is_measured_once(standing: Standing) -> None:
    first = [replace(t, net="", layer="") for t in standing.timings if t.layer == "a"]
    again = [replace(t, net="", layer="") for t in standing.timings if t.layer == "c"]
    assert first == again


def test_without_our_own_process_there_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convolith.bench.peers.comparison.OWN", stub("Failing"))
    layers = parse_layers("one", f"a: {SMALL}\n")
    with Comparison(layers, {}, threads=1, seconds=0.1) as comparison:
        assert list(comparison.run()) == []
    assert comparison.standing.notes == ["convolith: OSError: no licence"]


# ---- report --------------------------------------------------------------------------------


def timing(layer: str, library: str, way: str, seconds: float, **rest: Any) -> Timing:
    rest = {"error": 1e-7, "samples": 4, **rest}
    return Timing(SMALL, "net", layer, library, way, seconds=seconds, gflops=1.0, **rest)


def synthetic() -> Standing:
    """Ahead by 3 on one layer, behind by 2 on the next, no peer on the last."""
    timings = [
        timing("a", OURS, "channels_first plan", 2e-3),
        timing("a", OURS, "channels_last plan", 1e-3),
        timing("a", OURS, "channels_last call", 0.5e-3),
        timing("a", "torch", "channels_first", 4e-3),
        timing("a", "torch", "channels_last packed", 3e-3),
        timing("a", "ncnn", "", 0.1e-3, error=0.5),
        timing("b", OURS, "channels_first plan", 1e-3),
        timing("b", "torch", "channels_first", 0.5e-3),
        timing("b", "ncnn", "", 0.6e-3, disturbed=2),
        timing("c", OURS, "channels_first plan", 1e-3),
        Timing(SMALL, "net", "c", "torch", "", note="RuntimeError: oh"),
        Timing(SMALL, "net", "c", "ncnn", "", note="batch"),
    ]
    return Standing(timings, {OURS: "0", "torch": "2", "ncnn": "1"}, ["x: y"], threads=2)


def rendered(*parts: Any) -> str:
    console = pytest.importorskip("rich.console").Console(width=150, record=True)
    with console.capture() as capture:
        console.print(*parts, soft_wrap=True)
    return str(capture.get())


def test_ratios() -> None:
    pytest.importorskip("rich")
    from convolith.bench.peers import report

    rows = report.rows_of(synthetic().timings)
    assert [row.ratio for row in rows] == [pytest.approx(3), pytest.approx(0.5), None]
    summary = report.summarize(rows)
    assert summary == report.Summary(
        layers=2, ahead=1, mean=pytest.approx(1.5**0.5), least=pytest.approx(0.5), least_at="net b"
    )
    assert report.peer_ratio(rows, "torch") == pytest.approx(1.5**0.5)
    assert report.peer_ratio(rows, "ncnn") == pytest.approx(0.6)
    assert report.summarize(rows[2:]) is None


def test_table_and_conclusion() -> None:
    pytest.importorskip("rich")
    from convolith.bench.peers import report

    standing = synthetic()
    table = rendered(report.layer_table(standing.timings)).splitlines()
    cells = {line.split()[0]: line for line in table if line.strip()}
    for text in (SMALL, "2.00 ms", "1.00 ms", "500 µs", "3.00 ms", "wrong", "3.00"):
        assert text in cells["a"]
    assert "0.50" in cells["b"]
    assert "RuntimeError" in cells["c"]
    assert "batch" in cells["c"]
    assert SMALL not in rendered(report.layer_table(standing.timings, wide=False))
    line = report.conclusion(standing)
    assert "takes 1.22 times as long" in line
    assert "0.50 at net b" in line
    assert "ahead on 1 of 2" in line
    assert "1 results are WRONG" in line
    assert "ncnn 1" in report.heading(standing)
    assert "2 of 40 samples" in (report.disturbance(standing.timings) or "")
    alone = replace(standing, timings=standing.timings[:1])
    assert "No layer was timed on both sides" in report.conclusion(alone)
    assert report.disturbance(alone.timings) is None


def test_files_carry_everything(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    from convolith.bench.peers import report

    standing = synthetic()
    report.write_json(tmp_path / "p.json", standing)
    content = json.loads((tmp_path / "p.json").read_text())
    assert [Timing(**entry) for entry in content["timings"]] == standing.timings
    assert content["machine"]["threads"] == 2
    assert content["machine"].keys() >= {"cpu", "isa", "cores", "system", "python", "numpy"}
    assert content["versions"] == standing.versions
    assert content["notes"] == ["x: y"]
    assert [layer["ratio"] for layer in content["layers"]] == [pytest.approx(3), 0.5, None]
    assert content["layers"][0]["peer_way"] == "torch channels_last packed"
    assert content["layers"][2]["peer_seconds"] is None
    assert content["summary"]["ahead"] == 1
    report.write_csv(tmp_path / "p.csv", standing)
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(standing.timings)
    assert (rows[3]["library"], rows[3]["version"], rows[3]["threads"]) == ("torch", "2", "2")
    assert float(rows[0]["seconds"]) == standing.timings[0].seconds
    assert rows[-1]["note"] == "batch"


@pytest.mark.parametrize("copies", [1, 50])
def test_plot(tmp_path: Path, copies: int) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    from convolith.bench.peers import plot

    standing = synthetic()
    standing.timings = [
        replace(timing, net=f"{timing.net}{copy % 3}", layer=f"{timing.layer}{copy}")
        for copy in range(copies)
        for timing in standing.timings
    ]
    plot.draw(tmp_path / "p.svg", standing)
    text = (tmp_path / "p.svg").read_text(encoding="utf-8")
    assert len(text) > 5000


# ---- the command ---------------------------------------------------------------------------


def test_command(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    few_threads: None,
) -> None:
    pytest.importorskip("rich")
    pytest.importorskip("matplotlib")
    peers = {"right": stub("Right"), "absent": ("no_such_module_of_any_library", "Adapter")}
    monkeypatch.setattr("convolith.cli.peers.PEERS", peers)
    paths = [tmp_path / f"p.{kind}" for kind in ("json", "csv", "png")]
    files = [part for path in paths for part in (f"--{path.suffix[1:]}", str(path))]
    files[-2] = "--plot"
    code = main(["bench", "--problem", SMALL, "--seconds", "0.05", "--threads", "1", "--peers"])
    captured = capsys.readouterr()
    assert code == 0
    assert captured.err == ""
    for text in (SMALL, "right", "Note: absent: not installed", "agrees with float64"):
        assert text in captured.out
    arguments = ["bench", "--problem", SMALL, "--seconds", "0.05", *files, "--peers", "right"]
    assert main(arguments) == 0
    assert "absent" not in capsys.readouterr().out
    assert all(path.stat().st_size > 500 for path in paths)


def test_interrupt_leaves_no_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, few_threads: None
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr("convolith.cli.peers.PEERS", {"right": stub("Right")})
    original, seen = Comparison.sample, []

    def interrupted(self: Comparison, *arguments: Any) -> Any:
        seen.append(list(self.processes.values()))
        if len(seen) > 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Comparison, "sample", interrupted)
    problems = ["--problem", SMALL, "--problem", OTHER]
    code = main(["bench", *problems, "--seconds", "0.05", "--threads", "1", "--peers"])
    captured = capsys.readouterr()
    assert code == 130
    assert captured.err == "convolith bench: interrupted after 1 of 2 layers\n"
    assert "problem 1" in captured.out
    assert len(seen[0]) == 2
    assert all(process.process.returncode is not None for process in seen[0])


def test_command_on_pooling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, few_threads: None
) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr("convolith.cli.peers.PEERS", {"torch": ("no_such_module", "Adapter")})
    layers = [pools.PoolLayer("net", "a", pools.PoolProblem.parse("max_pool2d c3 i9x8 f3x2"))]
    monkeypatch.setattr("convolith.cli.bench.pool_layers", lambda backward: layers)
    assert main(["bench", "--pool", "--seconds", "0.05", "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for text in ("max_pool2d c3 i9x8 f3x2", "ours", "Note: torch: not installed"):
        assert text in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pool"], "--problem does not go with --pool"),
        (["--direction", "backward"], "--direction backward goes with --pool alone"),
        (["--peers", "bogus"], "known: torch, onnxruntime, openvino, ncnn"),
        (["--peers", "--algorithm", "direct"], "--algorithm does not go with --peers"),
        (["--peers", "--data-format", "channels_last"], "--data-format does not go"),
        (["--peers", "--no-prepack"], "--no-prepack does not go"),
    ],
)
def test_command_errors(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pytest.importorskip("rich")
    assert main(["bench", "--problem", SMALL, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_layers_are_described() -> None:
    from convolith.cli import peers

    assert peers.describe(Layer("net", "a", _core.ConvProblem.parse(SMALL))) == "net a"

"""`convolith bench training`: the process of this library, its answers, its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convolith.bench.training import LIBRARIES, TASKS, Task
from convolith.bench.training.comparison import TrainingBenchmark
from convolith.bench.training.own import Trainer
from convolith.bench.training.report import conclusion

SMALL = Task("lenet", 4, channels=1, pixels=32, classes=10)


def run(libraries: dict[str, str], **options: Any) -> TrainingBenchmark:
    settings: dict[str, Any] = {"threads": 1, "rounds": 2, "seconds": 0.01, **options}
    with TrainingBenchmark(SMALL, libraries, **settings) as benchmark:
        for _ in benchmark.run():
            pass
    return benchmark


def test_steps_learn() -> None:
    trainer = Trainer(SMALL, 1)
    losses = [trainer.step().loss for _ in range(60)]
    assert losses[0] == pytest.approx(np.log(10), abs=1.5)
    assert losses[-1] < losses[0] - 0.01


def test_a_library_in_its_process() -> None:
    benchmark = run({"convolith": LIBRARIES["convolith"]})
    ours = benchmark.results["convolith"]
    assert not ours.note
    assert ours.steps >= 2
    assert min(ours.forward, ours.backward, ours.update) > 0
    assert ours.peak_bytes > 1e7
    assert ours.loss == Trainer(SMALL, 1).step().loss  # the very first step, bit for bit


def test_libraries_that_are_absent_or_fail_are_left_out() -> None:
    benchmark = run({"convolith": LIBRARIES["convolith"], "other": "no_such_module"})
    assert "no_such_module" in benchmark.results["other"].note
    assert benchmark.results["convolith"].steps
    assert not conclusion(benchmark)


def test_same_first_loss_as_torch() -> None:
    pytest.importorskip("torch")
    benchmark = run(LIBRARIES)
    torch, ours = benchmark.results["torch"], benchmark.results["convolith"]
    assert not torch.note
    assert ours.loss == pytest.approx(torch.loss, rel=1e-5)
    assert "times the speed of torch" in conclusion(benchmark)


@pytest.mark.parametrize("net", TASKS)
def test_weights_go_by_the_same_names_in_torch(net: str) -> None:
    torch = pytest.importorskip("torch")
    from convolith import nn, zoo
    from convolith.bench.training.pytorch import NETS

    with nn.init.skip():
        ours = getattr(zoo, net)(num_classes=TASKS[net].classes).state_dict()
    with torch.device("meta"):
        theirs = NETS[net](TASKS[net]).state_dict()
    assert {name: array.shape for name, array in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in theirs.items()
    }


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    from convolith.__main__ import main

    path = tmp_path / "out.json"
    options = ["--net", "lenet", "--batch", "2", "--rounds", "1", "--seconds", "0.01"]
    assert main(["bench", "training", *options, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "lenet, batch 2" in printed
    record = json.loads(path.read_text())[0]
    assert record["library"] == "convolith"
    assert record["batch"] == 2
    assert len(record["samples"]) == record["steps"]


def test_every_task_has_a_network() -> None:
    from convolith import zoo

    assert all(hasattr(zoo, net) for net in TASKS)

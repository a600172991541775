"""Data sets from files, the training loop, and `convolith train`."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import nn, train, zoo
from convolith.__main__ import main
from convolith.cli.train import matrix_text
from convolith.nn import safetensors
from convolith.train._loop import shift_windows

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)


# ---- files of data sets ------------------------------------------------------------------------


def idx(array: Array) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, count: int = 6) -> dict[str, Array]:
    arrays = {}
    for part, n in (("train", count), ("t10k", 3)):
        arrays[f"{part}-images-idx3-ubyte"] = RNG.integers(0, 256, (n, 28, 28))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n) % 10
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
    return arrays


def test_mnist(tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path)
    packed = tmp_path / "t10k-images-idx3-ubyte"
    (tmp_path / f"{packed.name}.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    data = train.load("mnist", tmp_path)
    assert data.train.images.shape == (6, 32, 32, 1)
    assert data.test.images.shape == (3, 32, 32, 1)
    assert data.train.images.dtype == np.float32
    assert data.channels == 1
    np.testing.assert_array_equal(data.train.labels, np.arange(6))
    assert abs(data.train.images.mean()) < 1e-4
    assert data.train.images.std() == pytest.approx(1, rel=1e-4)
    inner = data.train.images[:, 2:-2, 2:-2, 0]
    pixels = arrays["train-images-idx3-ubyte"]
    scale = np.polyfit(pixels.ravel(), inner.ravel(), 1)
    np.testing.assert_allclose(np.polyval(scale, pixels), inner, atol=1e-4)


WRONG_MNIST: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda b: b[:-1], r"has 4719 bytes; shape \(6, 28, 28\) needs 4720"),
    "too long": (lambda b: b + b"\0", "needs 4720"),
    "no header": (lambda b: b[:10], "its header alone has 16"),
    "empty": (lambda b: b"", "0 bytes"),
    "labels": (lambda b: idx(np.zeros(60)), "begins with 00 00 08 01"),
    "text": (lambda b: b"<html>" + b, "begins with 3c 68 74 6d"),
    "fewer": (lambda b: idx(np.zeros((5, 28, 28))), "5 images and 6 labels"),
    "extent": (lambda b: idx(np.zeros((6, 27, 28))), r"\(27, 28\), not \(28, 28\)"),
}


@pytest.mark.parametrize("name", WRONG_MNIST)
def test_wrong_mnist(name: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    change, words = WRONG_MNIST[name]
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as caught:
        train.mnist(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no train-images-idx3-ubyte and no"):
        train.mnist(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        train.mnist(tmp_path / "nowhere")
    write_mnist(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([10]))
    with pytest.raises(ValueError, match="label 10"):
        train.mnist(tmp_path)
    path.unlink()
    (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(ValueError, match="no whole gzip file"):
        train.mnist(tmp_path)
    for name, folder, words in (
        ("imagenet", tmp_path, "imagenet"),
        ("mnist", None, "needs the folder"),
        ("digits", tmp_path, "no folder"),
    ):
        with pytest.raises(ValueError, match=words):
            train.load(name, folder)


def cifar_records(count: int) -> Array:
    records = RNG.integers(0, 256, (count, 3073)).astype(np.uint8)
    records[:, 0] %= 10
    return records


def test_cifar10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    records = {n: cifar_records(n) for n in (2, 3, 4)}
    (folder / "data_batch_1.bin").write_bytes(records[2].tobytes())
    (folder / "data_batch_4.bin").write_bytes(records[3].tobytes())
    (folder / "test_batch.bin").write_bytes(records[4].tobytes())
    for given in (tmp_path, folder):
        data = train.load("cifar10", given)
        assert data.train.images.shape == (5, 32, 32, 3)
        assert data.test.images.shape == (4, 32, 32, 3)
        assert len(data.classes) == 10
        np.testing.assert_array_equal(data.test.labels, records[4][:, 0])
    green = records[3][1, 1 + 1024 : 1 + 2048].reshape(32, 32)
    image = data.train.images[3, :, :, 1]
    np.testing.assert_allclose(
        np.polyval(np.polyfit(green.ravel(), image.ravel(), 1), green), image, atol=1e-4
    )
    path = folder / "data_batch_4.bin"
    path.write_bytes(records[3].tobytes()[:-5])
    with pytest.raises(ValueError, match=r"data_batch_4.bin has 9214 bytes.*multiple of 3073"):
        train.cifar10(tmp_path)
    records[3][0, 0] = 11
    path.write_bytes(records[3].tobytes())
    with pytest.raises(ValueError, match="label 11"):
        train.cifar10(tmp_path)
    (folder / "test_batch.bin").unlink()
    path.unlink()
    with pytest.raises(ValueError, match=r"no test_batch.bin"):
        train.cifar10(tmp_path)


def test_digits() -> None:
    pytest.importorskip("sklearn")
    data = train.digits()
    assert (len(data.train), len(data.test)) == (1437, 360)
    assert data.train.images.shape == (1437, 32, 32, 1)
    assert np.bincount(data.test.labels, minlength=10).min() > 20
    again = train.digits()
    np.testing.assert_array_equal(data.test.images, again.test.images)


# ---- the loop --------------------------------------------------------------------------------


def stripes(count: int, seed: int) -> train.Split:
    """Images of four classes: which quarter is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = 0.3 * rng.standard_normal((count, 32, 32, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 8] += 1
    return train.Split(images, labels)


STRIPES = train.Data("stripes", ("a", "b", "c", "d"), stripes(100, 0), stripes(40, 1))
SETTINGS = train.Settings(epochs=3, batch=16, shift=1)


def trainer(settings: train.Settings = SETTINGS) -> train.Trainer:
    nn.manual_seed(settings.seed)
    net = nn.Sequential(zoo.lenet(4, data_format="channels_last"), nn.Dropout(0.1))
    return train.Trainer(net, STRIPES, settings)


def bits(t: train.Trainer) -> bytes:
    return b"".join(value.tobytes() for value in t.net.state_dict().values())


def test_training_learns_and_tells() -> None:
    t = trainer()
    calls: list[tuple[int, float, float, float]] = []
    epochs = list(t.run(lambda *figures: calls.append(figures)))
    assert [e.epoch for e in epochs] == [1, 2, 3]
    assert epochs[-1].test_accuracy > 0.9
    assert epochs[-1].loss < epochs[0].loss
    assert len(calls) == 3 * 7
    assert calls[6][0] == 100
    assert calls[6][1:3] == (epochs[0].loss, epochs[0].accuracy)
    matrix = train.confusion_matrix(t.net, STRIPES.test, 4)
    assert matrix.trace() / 40 == epochs[-1].test_accuracy
    np.testing.assert_array_equal(matrix.sum(1), np.bincount(STRIPES.test.labels, minlength=4))
    assert t.optimizer.lr == pytest.approx(0)
    assert t.net.training


def test_interrupted_and_resumed_is_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole = trainer()
    list(whole.run())
    first = trainer()
    for _ in first.run():
        first.save(path)
        break
    second = trainer()
    second.resume(path)
    assert second.epoch == 1
    with cl.threads(1):
        rest = list(second.run())
    assert [e.epoch for e in rest] == [2, 3]
    assert bits(second) == bits(whole)
    assert [(e.loss, e.lr) for e in second.history] == [(e.loss, e.lr) for e in whole.history]


def test_checkpoints_of_other_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    trainer().save(path)
    with pytest.raises(ValueError, match="has epochs 3; a run with 4"):
        trainer(replace(SETTINGS, epochs=4)).resume(path)
    other = trainer()
    other.data = replace(STRIPES, name="dots")
    with pytest.raises(ValueError, match="trained on stripes, not on dots"):
        other.resume(path)
    with pytest.raises(ValueError, match=r"0\.conv1\.weight is unknown"):
        train.Trainer(zoo.fully_connected(4), STRIPES, SETTINGS).resume(path)
    safetensors.save_file({}, path)
    with pytest.raises(ValueError, match="no checkpoint"):
        trainer().resume(path)


def test_shifted_images() -> None:
    images = RNG.random((5, 6, 7, 2))
    windows = shift_windows(images, 2)
    assert windows.shape == (5, 5, 5, 6, 7, 2)
    np.testing.assert_array_equal(windows[:, 2, 2], images)
    np.testing.assert_array_equal(windows[3, 0, 4, 2:, :5], images[3, :4, 2:])
    np.testing.assert_array_equal(windows[3, 0, 4, 1, :5], images[3, 0, 2:])
    np.testing.assert_array_equal(shift_windows(images, 0)[:, 0, 0], images)


def test_matrix_text() -> None:
    text = matrix_text(np.array([[3, 0], [12, 4]]), ("0", "ship"))
    assert text.splitlines() == ["         0 ship", "    0    3    .", " ship   12    4"]


# ---- the command -----------------------------------------------------------------------------


def test_lenet_on_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    options = ("--epochs", "12", "--json", "log.jsonl")
    assert main(("train", "lenet", "--data", "digits", *options)) == 0
    lines = capsys.readouterr().out.splitlines()
    words, accuracy = lines[-1][:-1].rsplit(" ", 1)
    assert words == "test accuracy"
    assert lines[-1] == f"test accuracy {float(accuracy):.2f}%"
    assert float(accuracy) >= 98.5
    assert sum("rows are what the images show" in line for line in lines) == 2
    records = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [r["net"] for r in records] == ["lenet"] * 12 + ["fully_connected"] * 12
    assert f"{100 * records[11]['test_accuracy']:.2f}" == accuracy
    net = zoo.lenet(data_format="channels_last")
    net.load("lenet-digits.safetensors")
    data = train.digits()
    assert (
        f"{100 * (train.predict(net, data.test.images) == data.test.labels).mean():.2f}" == accuracy
    )
    metadata = safetensors.load_metadata("lenet-digits.safetensors")
    assert metadata["net"] == "lenet"
    assert metadata["epochs"] == "12"
    # Nothing is left to do: the checkpoint is that of the end.
    assert main(("train", "lenet", "--resume", "--no-beside", *options[:2])) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[1].startswith("0 epochs in")
    assert again[-1] == lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lenet", "--data", "mnist"), "needs the folder"),
        (("lenet", "--data", "mnist", "--folder", "nowhere"), "nowhere is no folder"),
        (("lenet", "--folder", "."), "no folder"),
        (("resnet", "--data", "digits"), "resnet"),
        (("lenet", "--lr", "0"), "positive"),
        (("lenet", "--seed", "-1"), "negative"),
        (("lenet", "-o", "nowhere/out.safetensors"), "nowhere is no folder"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    try:
        code = main(("train", *arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    error = capsys.readouterr().err
    assert code == 2
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Train on a folder's files, long enough to be stopped."""
    command = [sys.executable, "-m", "convolith", "train", "lenet", "--data", "mnist"]
    command += ["--folder", str(folder), "--epochs", "5000", "--no-beside", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Children of background jobs ignore interrupts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_interrupt_leaves_weights(tmp_path: Path) -> None:
    write_mnist(tmp_path, 40)
    process = start(tmp_path, "--json", "log.jsonl")
    wait_for(tmp_path / "lenet-mnist.checkpoint.safetensors", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.splitlines()[-1].startswith("interrupted in epoch")
    zoo.lenet().load(tmp_path / "lenet-mnist.safetensors")
    assert (tmp_path / "log.jsonl").read_text().count("\n") >= 1


def test_killed_at_any_moment_the_checkpoint_is_whole(tmp_path: Path) -> None:
    write_mnist(tmp_path, 40)
    path = tmp_path / "lenet-mnist.checkpoint.safetensors"
    for delay in (0.0, 0.03, 0.1):
        process = start(tmp_path, "--resume")
        wait_for(path, process)
        time.sleep(delay)
        process.kill()
        process.communicate(timeout=60)
        tensors = safetensors.load_file(path)
        assert "net.conv1.weight" in tensors
        assert "optimizer.mean.0" in tensors
        assert len(json.loads(safetensors.load_metadata(path)["training"])["history"]) >= 1

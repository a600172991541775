"""`convolith train`: a network on images."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import convolith
from convolith import nn, zoo
from convolith._arguments import Array
from convolith.cli.common import add_threads, positive, thread_count
from convolith.cli.errors import CliError, require
from convolith.train import Data, Settings, Trainer, confusion_matrix, load

DESCRIPTION = """\
Train a network on images, and beside it, in the same way, one that is fully connected; then print
how often images of each held-out class were taken for which. One seed gives one run, bit for bit,
for any number of threads.

After every epoch the state goes to OUT.checkpoint.safetensors, from which --resume goes on; after
the last, or Ctrl-C, the weights go to OUT.safetensors.
"""
EPILOG = """\
examples:
  convolith train lenet --data digits
  convolith train lenet --data mnist --folder ~/mnist --epochs 10 --json log.jsonl
  convolith train all_convolutional --data cifar10 --folder ~/cifar-10-batches-bin --batch 128
"""
INTERRUPTED = 130
Make = Callable[[int, int], nn.Module]

# By name: from the number of classes and of channels to a network for 32x32 pixels.
NETS: dict[str, Make] = {
    "lenet": lambda classes, channels: zoo.lenet(classes, channels, data_format="channels_last"),
    "fully_connected": lambda classes, channels: zoo.fully_connected(classes, 32 * 32 * channels),
    "all_convolutional": lambda classes, channels: zoo.all_convolutional(
        classes, channels, data_format="channels_last"
    ),
}
BESIDE = "fully_connected"


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "train",
        help="train a network on handwritten digits, MNIST or CIFAR-10",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Settings()
    parser.add_argument("net", choices=NETS, metavar="NET", help=", ".join(NETS))
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        choices=("digits", "mnist", "cifar10"),
        default="digits",
        help="digits (scikit-learn's; default), mnist (IDX files) or cifar10 (binary files)",
    )
    data.add_argument("--folder", type=Path, help="where the files of mnist or cifar10 are")
    how = parser.add_argument_group("how to train")
    how.add_argument("--epochs", type=positive, default=default.epochs, help="(%(default)s)")
    how.add_argument("--batch", type=positive, default=default.batch, help="(%(default)s)")
    how.add_argument("--lr", type=rate, default=default.lr, help="AdamW's at first (%(default)s)")
    how.add_argument("--seed", type=natural, default=default.seed, help="(%(default)s)")
    how.add_argument(
        "--beside",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train a fully connected network too",
    )
    add_threads(how)
    output = parser.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT.safetensors",
        help="the weights (default: NET-DATA.safetensors)",
    )
    output.add_argument("--resume", action="store_true", help="go on from the checkpoint, if any")
    output.add_argument(
        "--json", type=Path, metavar="FILE", help="write a record on a line for every epoch"
    )
    parser.set_defaults(run=run)


def rate(text: str) -> float:
    """A learning rate."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def natural(text: str) -> int:
    """A seed."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Train, and tell."""
    require("rich.progress", "train")
    thread_count(arguments.threads)
    if arguments.data == "digits":
        require("sklearn.datasets", "train")
    data = load(arguments.data, arguments.folder)
    settings = Settings(
        epochs=arguments.epochs, batch=arguments.batch, lr=arguments.lr, seed=arguments.seed
    )
    name: str = arguments.net
    output: Path = arguments.output or Path(f"{name}-{data.name}.safetensors")
    if not output.parent.is_dir():
        raise CliError(f"{output.parent} is no folder")
    with log_to(arguments.json) as log:
        nets = [name] + ([BESIDE] if arguments.beside and name != BESIDE else [])
        found = []
        for net_name in nets:
            path = output if net_name == name else beside(output)
            try:
                matrix = train(net_name, data, settings, path, arguments.resume, log)
            except KeyboardInterrupt:
                return INTERRUPTED
            found.append((net_name, matrix))
    for net_name, matrix in reversed(found):
        print(f"\n{net_name}: rows are what the images show, columns what they were taken for")
        print(matrix_text(matrix, data.classes))
        print(f"{'test accuracy' if net_name == name else net_name} {accuracy_text(matrix)}")
    return 0


def beside(output: Path) -> Path:
    """The file of the fully connected network."""
    return output.with_name(f"{output.stem}-{BESIDE}{output.suffix}")


def checkpoint_of(output: Path) -> Path:
    """The checkpoint's file."""
    return output.with_name(f"{output.stem}.checkpoint{output.suffix}")


@contextmanager
def log_to(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write records on lines, each at once."""
    if path is None:
        yield lambda record: None
        return
    with open(path, "w", encoding="utf-8") as file:

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(record) + "\n")
            file.flush()

        yield log


def train(
    name: str,
    data: Data,
    settings: Settings,
    output: Path,
    resume: bool,
    log: Callable[[dict[str, Any]], None],
) -> Array:
    """Train one network; returns its confusion matrix."""
    nn.manual_seed(settings.seed)
    net = NETS[name](len(data.classes), data.channels)
    trainer = Trainer(net, data, settings)
    checkpoint = checkpoint_of(output)
    if resume and checkpoint.exists():
        trainer.resume(checkpoint)
    print(
        f"{name}, {net.parameter_count():,} parameters, on {data.name}: {len(data.train):,} images "
        f"to learn, {len(data.test):,} held out, {convolith.get_num_threads()} threads"
    )
    start = time.perf_counter()
    before = trainer.epoch
    try:
        with progress_bar(name, len(data.train), trainer) as progress:
            for epoch in trainer.run(progress):
                trainer.save(checkpoint)
                log({"net": name, **asdict(epoch)})
    except KeyboardInterrupt:
        write(net, trainer, output, name)
        print(f"interrupted in epoch {trainer.epoch + 1} of {settings.epochs}; wrote {output}")
        raise
    write(net, trainer, output, name)
    epochs = trainer.epoch - before
    print(f"{epochs} epochs in {time.perf_counter() - start:.1f} s; wrote {output}")
    return confusion_matrix(net, data.test, len(data.classes))


def write(net: nn.Module, trainer: Trainer, output: Path, name: str) -> None:
    """The weights, and how they came about."""
    metadata = {"net": name, "data": trainer.data.name, "epochs": str(trainer.epoch)}
    net.save(output, metadata | {"classes": " ".join(trainer.data.classes)})


@contextmanager
def progress_bar(
    name: str, images: int, trainer: Trainer
) -> Iterator[Callable[[int, float, float, float], None]]:
    """A bar over all images of all epochs; one line per epoch where nobody watches is none."""
    rich = require("rich.progress", "train")
    console = require("rich.console", "train").Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[figures]}"),
        rich.TimeRemainingColumn(),
    )
    epochs = trainer.settings.epochs
    with rich.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=epochs * images, figures="")
        last = 0.0

        def progress(seen: int, loss: float, accuracy: float, per_second: float) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last < 0.1 and seen < images:  # drawing costs time
                return
            last = now
            bar.update(
                task,
                completed=trainer.epoch * images + seen,
                description=f"{name} epoch {trainer.epoch + 1}/{epochs}",
                figures=f"loss {loss:.3f}  {100 * accuracy:.1f} %  {per_second:,.0f} images/s",
            )

        yield progress


def accuracy_text(matrix: Array) -> str:
    """The share of the diagonal."""
    return f"{100 * matrix.trace() / max(1, matrix.sum()):.2f}%"


def matrix_text(matrix: Array, classes: tuple[str, ...]) -> str:
    """A table of counts; dots are zeros."""
    width = max(3, *(len(name) for name in classes), len(str(matrix.max()))) + 1
    lines = [" " * width + "".join(f"{name:>{width}}" for name in classes)]
    for name, row in zip(classes, matrix, strict=True):
        lines.append(f"{name:>{width}}" + "".join(f"{n or '.':>{width}}" for n in row))
    return "\n".join(lines)

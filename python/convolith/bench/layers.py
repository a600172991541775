"""Layer lists: the distinct convolutions of networks, named, in the problem text form.

A list is a text file: one `name: problem` a line, `#` starts a comment, blank lines are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from convolith._core import ConvProblem

NETS = ("lenet", "alexnet", "vgg16", "googlenet", "resnet50", "densenet121", "mobilenet_v2")
"""The networks of a default run, oldest first; further lists come when they are asked for."""


@dataclass(frozen=True)
class Layer:
    """One convolution of a network."""

    net: str
    name: str
    problem: ConvProblem


def problem_files() -> dict[str, str]:
    """The installed layer lists: name -> text, the networks first.

    Raises FileNotFoundError where the package was installed without its lists.
    """
    folder = resources.files("convolith.bench").joinpath("problems")
    if not folder.is_dir():
        raise FileNotFoundError(f"the layer lists are missing: no folder {folder}")
    texts = {
        entry.name.removesuffix(".txt"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".txt")
    }
    order = {net: place for place, net in enumerate(NETS)}
    return {net: texts[net] for net in sorted(texts, key=lambda n: (order.get(n, len(NETS)), n))}


def parse_layers(net: str, text: str) -> list[Layer]:
    """The layers of one list; ValueError names the list and the line that is wrong."""
    layers = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        name, colon, problem = (part.strip() for part in content.partition(":"))
        if not (name and colon and problem):
            raise ValueError(f"{net}, line {number}: expected 'name: problem', got {content!r}")
        try:
            layers.append(Layer(net, name, ConvProblem.parse(problem)))
        except ValueError as error:
            raise ValueError(f"{net}, line {number}: {error}") from error
    return layers

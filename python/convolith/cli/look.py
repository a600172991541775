"""`convolith look`: pictures of what a network has learned and what it sees."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from convolith import nn, viz, zoo
from convolith._arguments import Array
from convolith.cli.common import add_threads, check_writable, positive, thread_count
from convolith.cli.errors import CliError, require
from convolith.cli.filter import load_photo
from convolith.cli.train import NETS, natural
from convolith.nn import safetensors
from convolith.train import Data, load, predict

DESCRIPTION = """\
Make a picture of a network, which is a file that `convolith train` wrote, or one of the zoo's by
name, with the weights of a file or, without one, as it is before training.
"""
EPILOG = """\
what:
  overview   a convolution's filters, its maps of an image, and an input for each class
  filters    a convolution's filters (the first's; or --layer's)
  maps       what a layer makes of an image
  templates  the weights of a linear layer that looks at pixels, laid out as an image
  exciting   the images that excite units of a layer most, and what the units see of them
  maximize   inputs that units respond to strongly; without --layer, the classes
  dream      deep-dream: a photo in which a layer sees more of what it sees
  confusion  which class was taken for which, on held-out images
  curves     loss and error by epoch; NET is the file that `convolith train --json` wrote

examples:
  convolith train lenet --data digits --json log.jsonl
  convolith look lenet-digits.safetensors
  convolith look lenet-digits.safetensors --what maps --layer conv2 --image 7 -o maps.png
  convolith look lenet-digits.safetensors --what exciting --layer conv2 --unit 0 4 8
  convolith look log.jsonl --what curves
  convolith look resnet18 --weights resnet18.safetensors --what dream --layer layer3 --image me.jpg
"""
ZOO = (
    "alexnet",
    "alexnet_two_groups",
    "all_convolutional",
    "densenet121",
    "googlenet",
    "lenet",
    "mobilenet_v2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "zfnet",
)
SMALL = 32  # pixels on each side of what `convolith train` learns, and LeNet
LARGE = 224
MOST_UNITS = 16
LONGEST = 512  # pixels of a photo that is dreamed of


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "look",
        help="pictures of what a network has learned and sees",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net", metavar="NET", help="FILE.safetensors of convolith train, or: " + ", ".join(ZOO)
    )
    parser.add_argument(
        "--what",
        default="overview",
        choices=(*PICTURES, CURVES),
        metavar="WHAT",
        help=f"{', '.join(PICTURES)} or {CURVES}; see below (default: overview)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.png", help="the picture (default: NET-WHAT.png)"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="safetensors, of a zoo's net")
    parser.add_argument("--layer", help="its name, such as conv2 or layer1.0.conv1")
    parser.add_argument("--unit", type=natural, nargs="+", metavar="N", help="units of the layer")
    parser.add_argument(
        "--image", metavar="N|FILE", help="a held-out image's number, or a photo (default: 0)"
    )
    parser.add_argument("--count", type=positive, default=8, help="images a unit (%(default)s)")
    parser.add_argument("--steps", type=positive, help="of gradient ascent")
    parser.add_argument("--seed", type=natural, default=0, help="(%(default)s)")
    parser.add_argument(
        "--data", choices=("digits", "mnist", "cifar10"), help="(default: what the net learned)"
    )
    parser.add_argument("--folder", type=Path, help="where the files of mnist or cifar10 are")
    add_threads(parser)
    parser.set_defaults(run=run)


@dataclass
class Subject:
    """A network and what belongs to it.

    Attributes:
        arguments: Of the command.
        name: Of the network.
        net: The network, whose images have the channels last.
        data_name: Of the data set it learned, if that is known.
        channels: Of its images.
        extent: Rows and columns of its images.
        classes: Names of its outputs, if they are known.
    """

    arguments: argparse.Namespace
    name: str
    net: nn.Module
    data_name: str | None
    channels: int
    extent: int
    classes: tuple[str, ...] | None

    @cached_property
    def data(self) -> Data:
        """The data set."""
        name = self.arguments.data or self.data_name
        if name is None:
            raise CliError(f"--what {self.arguments.what} of {self.name} needs --data")
        if name == "digits":
            require("sklearn.datasets", "train")
        data = load(name, self.arguments.folder)
        if data.channels != self.channels:
            raise CliError(
                f"--data {name} has images of {data.channels} channels; {self.name} takes "
                f"{self.channels}"
            )
        if self.extent != SMALL:
            raise CliError(f"--data {name} has images of {SMALL}x{SMALL}; {self.name} takes others")
        return data

    def image(self) -> Array:
        """What --image names, as the network takes it, (rows, columns, channels)."""
        text = self.arguments.image
        if text is None and self.data_name is None and self.arguments.data is None:
            raise CliError(f"--what {self.arguments.what} of {self.name} needs --image FILE")
        if text is None or (text.isdigit() and not Path(text).exists()):
            number = int(text or 0)
            images = self.data.test.images
            if number >= len(images):
                raise CliError(f"--image is {number}; {self.data.name} holds out {len(images)}")
            return np.asarray(images[number])
        return standardized(self.photo((self.extent, self.extent)))

    def photo(self, size: tuple[int, int] | None) -> Array:
        """The photo that --image names, (rows, columns, channels), shrunk or resized."""
        photo = load_photo(Path(self.arguments.image))
        photo = photo.convert("L" if self.channels == 1 else "RGB")
        if size is not None:
            photo = photo.resize(size)
        else:
            photo.thumbnail((LONGEST, LONGEST))
        pixels = np.asarray(photo, np.float32)
        return pixels.reshape(*pixels.shape[:2], -1)

    def layer(self, kinds: type[nn.Module] | tuple[type[nn.Module], ...], last: bool) -> str:
        """The layer that --layer names, or else the first or the last of those kinds."""
        if self.arguments.layer is not None:
            return str(self.arguments.layer)
        found = [name for name, module in self.net.named_modules() if isinstance(module, kinds)]
        if not found:
            raise CliError(f"--what {self.arguments.what} of {self.name} needs --layer")
        return found[-1 if last else 0]

    def module(self, layer: str, kind: type[nn.Module]) -> Any:
        """The module of a name, which must be of a kind."""
        module = viz.module_named(self.net, layer)
        if not isinstance(module, kind):
            raise CliError(
                f"--layer {layer!r} is a {type(module).__name__}; --what {self.arguments.what} "
                f"needs a {kind.__name__}"
            )
        return module

    def units(self, layer: str, most: int) -> list[int]:
        """What --unit names, or else the first ones."""
        given: list[int] | None = self.arguments.unit
        if given is not None:
            return given
        shape = (1, self.extent, self.extent, self.channels)
        with_zeros = viz.layer_output(self.net, layer, np.zeros(shape, np.float32))
        return list(range(min(with_zeros.shape[-1], most)))


def standardized(pixels: Array) -> Array:
    """Of mean 0 and deviation 1, as what networks learn from; colours keep their proportions."""
    deviation = float(pixels.std()) or 1.0
    return np.asarray((pixels - pixels.mean()) / deviation, np.float32)


def subject(arguments: argparse.Namespace) -> Subject:
    """The network that NET and --weights name."""
    text: str = arguments.net
    path = Path(text)
    if path.is_file():
        return trained(arguments, path)
    if text not in ZOO:
        raise CliError(f"NET {text!r} is neither a file nor one of {', '.join(ZOO)}")
    weights: Path | None = arguments.weights
    if weights is not None and not weights.is_file():
        raise CliError(f"--weights {str(weights)!r} is no file")
    small = text in ("lenet", "all_convolutional")
    nn.manual_seed(arguments.seed)
    if text == "lenet":
        channels = {"cifar10": 3}.get(arguments.data, 1)
        net = NETS["lenet"](10, channels)
    else:
        channels = 3
        net = getattr(zoo, text)(data_format="channels_last")
    if weights is not None:
        net.load(weights)
    extent = SMALL if small else LARGE
    return Subject(arguments, text, net, None, channels, extent, None)


def trained(arguments: argparse.Namespace, path: Path) -> Subject:
    """A network of `convolith train`."""
    if arguments.weights is not None:
        raise CliError(f"--weights goes with a zoo's name; NET {str(path)!r} has weights")
    metadata = safetensors.load_metadata(path)
    name, data, classes = (metadata.get(key) for key in ("net", "data", "classes"))
    if name not in NETS or data is None or classes is None:
        raise CliError(
            f"NET {str(path)!r} was not written by convolith train: its metadata lacks net, data "
            "and classes; give a zoo's name and --weights"
        )
    names = tuple(classes.split())
    channels = 3 if data == "cifar10" else 1
    net = NETS[name](len(names), channels)
    net.load(path)
    return Subject(arguments, name, net, data, channels, SMALL, names)


# ---- pictures ------------------------------------------------------------------------------------

LAST: dict[str, Any] = {"data_format": "channels_last"}


def filters(s: Subject, out: Path) -> None:
    """The filters of a convolution."""
    layer = s.layer(nn.Conv2d, last=False)
    weight = s.module(layer, nn.Conv2d).weight
    count, channels, rows, columns = weight.shape
    of = f" of {channels} channels" if channels > 1 else ""
    viz.filters(weight, title=f"{s.name}, {layer}: {count} filters {rows}x{columns}{of}", path=out)


def maps(s: Subject, out: Path) -> None:
    """What a layer makes of an image."""
    viz.activations(s.net, s.image(), s.layer(nn.Conv2d, last=False), path=out, **LAST)


def templates(s: Subject, out: Path) -> None:
    """The weights of a linear layer on pixels."""
    layer = s.layer(nn.Linear, last=False)
    weight = s.module(layer, nn.Linear).weight.data
    if weight.shape[1] != s.extent * s.extent * s.channels:
        raise CliError(
            f"--layer {layer!r} has {weight.shape[1]} inputs, which are no pixels of "
            f"{s.extent}x{s.extent}x{s.channels}; fully_connected has a layer that looks at them"
        )
    laid_out = weight.reshape(-1, s.extent, s.extent, s.channels)
    first = np.moveaxis(laid_out, 3, 1).reshape(len(weight), -1)
    shape = (s.channels, s.extent, s.extent)
    classes = s.classes if s.classes is not None and len(s.classes) == len(weight) else None
    text = f"{s.name}, {layer}: {len(weight)} templates {s.extent}x{s.extent}"
    viz.templates(first, shape, classes=classes, title=text, path=out)


def exciting(s: Subject, out: Path) -> None:
    """The images that excite units most."""
    layer = s.layer(nn.Conv2d, last=False)
    images = s.data.test.images
    units = s.units(layer, 6)
    viz.exciting_images(s.net, layer, units, images, count=s.arguments.count, path=out, **LAST)


def ascent(s: Subject, of_classes: bool) -> dict[str, Any]:
    """Options of gradient ascent: within the data's limits; for classes from their mean image."""
    options: dict[str, Any] = {"seed": s.arguments.seed, **LAST}
    if s.arguments.steps is not None:
        options["steps"] = s.arguments.steps
    if s.arguments.data or s.data_name == "digits" or s.arguments.folder is not None:
        images = s.data.train.images
        options["limits"] = (float(images.min()), float(images.max()))
        if of_classes:
            options |= {"start": images.mean(0), "l2": 0.0}
    return options


def overview(s: Subject, out: Path) -> None:
    """The picture of a network."""
    layer = s.layer(nn.Conv2d, last=False)
    s.module(layer, nn.Conv2d)
    options = ascent(s, of_classes=True)
    viz.overview(s.net, s.image(), layer=layer, classes=s.classes, path=out, **options)


def maximize(s: Subject, out: Path) -> None:
    """Inputs that units or classes respond to strongly."""
    layer = s.arguments.layer or ""
    options = ascent(s, of_classes=layer == "")
    if "start" not in options:
        options["shape"] = (s.extent, s.extent, s.channels)
    classes = s.classes if layer == "" else None
    units = s.units(layer, MOST_UNITS)
    viz.maximize(s.net, layer, units, classes=classes, path=out, **options)


def dream(s: Subject, out: Path) -> None:
    """A photo and what a layer dreams of it."""
    layer = s.layer(nn.Conv2d, last=True)
    options: dict[str, Any] = {"seed": s.arguments.seed, **LAST}
    if s.arguments.steps is not None:
        options["steps"] = s.arguments.steps
    if s.arguments.unit is not None:
        if len(s.arguments.unit) > 1:
            raise CliError(f"--unit has {len(s.arguments.unit)} units; --what dream takes one")
        options["unit"] = s.arguments.unit[0]
    image = s.arguments.image
    a_file = image is not None and (not image.isdigit() or Path(image).exists())
    photo = standardized(s.photo(None)) if a_file else s.image()
    viz.deep_dream(s.net, layer, photo, title=f"{s.name} dreams, {layer}", path=out, **options)


def confusion(s: Subject, out: Path) -> None:
    """Which class was taken for which."""
    test = s.data.test
    taken = predict(s.net, test.images)
    viz.confusion_matrix(test.labels, taken, s.data.classes, path=out)


PICTURES: dict[str, Callable[[Subject, Path], None]] = {
    "overview": overview,
    "filters": filters,
    "maps": maps,
    "templates": templates,
    "exciting": exciting,
    "maximize": maximize,
    "dream": dream,
    "confusion": confusion,
}
CURVES = "curves"  # of a log, not of a network


def run(arguments: argparse.Namespace) -> int:
    """Draw, and tell."""
    require("matplotlib.figure", "viz")
    thread_count(arguments.threads)
    what: str = arguments.what
    stem = Path(arguments.net).stem or "net"
    output: Path = arguments.output or Path(f"{stem}-{what}.png")
    check_writable(output)
    if what == CURVES:
        if not Path(arguments.net).is_file():
            raise CliError(f"NET {arguments.net!r} is no file; curves are of a log of train --json")
        viz.training_curves(arguments.net, path=output)
    else:
        PICTURES[what](subject(arguments), output)
    print(f"wrote {output}")
    return 0

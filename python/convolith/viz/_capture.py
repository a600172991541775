"""What a layer of a network gives: its results caught on their way, the network left as it is."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from convolith import _arguments
from convolith._arguments import Array
from convolith.autograd import Tensor
from convolith.nn import Module


class _Reached(Exception):
    """A layer has its result; what stands behind it need not run."""

    def __init__(self, result: Any) -> None:
        super().__init__("the layer was reached")
        self.result = result


def module_named(net: Module, layer: str) -> Module:
    """The module of a name.

    Args:
        net: The network.
        layer: A name of `net.named_modules()`, such as "layer1.0.conv1"; "" is the network.

    Raises:
        ValueError: There is no such layer; the message tells which there are.
    """
    modules = dict(net.named_modules())
    if layer not in modules:
        names = [name for name in modules if name]
        near = difflib.get_close_matches(str(layer), names, 12, 0) if len(names) > 12 else names
        raise ValueError(
            f"layer is {layer!r}; {type(net).__name__} has {', '.join(map(repr, near))}"
            + (f" and {len(names) - len(near)} more" if len(names) > len(near) else "")
        )
    return modules[layer]


@contextmanager
def _instead(module: Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """A method of one object replaced."""
    own = vars(module)
    before = own.get(name)
    own[name] = function
    try:
        yield
    finally:
        if before is None:
            del own[name]
        else:
            own[name] = before


def _unfused(module: Module) -> Callable[..., Any]:
    """`module.after` without folding, so that the layer before has a result of its own."""

    def after(layer: Module, x: Any, *rest: Any) -> Any:
        return module.forward(layer.forward(x), *rest)

    return after


@contextmanager
def _watching(net: Module, watchers: dict[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Within the context every result of a layer goes to its watcher."""
    layers = [(module_named(net, name), watcher) for name, watcher in watchers.items()]

    def watched(module: Module, watcher: Callable[[Any], Any]) -> Callable[..., Any]:
        forward = module.forward

        def replacement(*inputs: Any) -> Any:
            result = forward(*inputs)
            watcher(result)
            return result

        return replacement

    with ExitStack() as stack:
        for module in net.modules():
            if hasattr(module, "after"):
                stack.enter_context(_instead(module, "after", _unfused(module)))
        for module, watcher in layers:
            stack.enter_context(_instead(module, "forward", watched(module, watcher)))
        yield


@contextmanager
def capture(net: Module, *layers: str) -> Iterator[dict[str, Tensor]]:
    """Within the context, keep what layers of a network give.

    The results are on the tape where operations are recorded, so that gradients can be taken of
    them. Within the context norms are not folded into convolutions; nothing else changes, and
    after it nothing at all.

    >>> from convolith import nn, viz
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
    >>> with viz.capture(net, "0") as found:
    ...     y = net(np.ones((1, 1, 5, 5), np.float32))
    >>> found["0"].shape
    (1, 4, 3, 3)

    Args:
        net: The network.
        layers: Names of `net.named_modules()`, such as "layer1.0.conv1".

    Yields:
        The results by name, empty at first; where a layer is called again, the last one.

    Raises:
        ValueError: There is no such layer.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any], Any]:
        return lambda result: found.__setitem__(name, result)

    with _watching(net, {name: keep(name) for name in layers}):
        yield found


@contextmanager
def evaluating(net: Module) -> Iterator[None]:
    """The network out of training; each module as it was afterwards."""
    before = [(module, vars(module).get("training")) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in before:
            if training is None:
                del vars(module)["training"]
            else:
                module.training = training


@contextmanager
def _linear(module: Module) -> Iterator[None]:
    """The module without the activation that it applies itself, if any."""
    activation = vars(module).get("activation")
    if activation is None:
        yield
        return
    module.activation = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.activation = activation  # type: ignore[attr-defined]


def layer_output(net: Module, layer: str, x: Any, *, before_activation: bool = False) -> Tensor:
    """What a layer gives, out of training; the network behind the layer does not run.

    Args:
        net: The network.
        layer: A name of `net.named_modules()`; "" is the network.
        x: Its input.
        before_activation: Without the activation that the layer applies itself.

    Raises:
        ValueError: There is no such layer, or the network does not come to it.
    """

    def stop(result: Any) -> None:
        raise _Reached(result)

    module = module_named(net, layer)
    with ExitStack() as stack:
        stack.enter_context(evaluating(net))
        stack.enter_context(_watching(net, {layer: stop}))
        if before_activation:
            stack.enter_context(_linear(module))
        try:
            net.forward(x)
        except _Reached as reached:
            if not isinstance(reached.result, Tensor):
                raise ValueError(f"layer {layer!r} gives no Tensor") from None
            return reached.result
    raise ValueError(f"layer is {layer!r}, which {type(net).__name__}.forward does not call")


def data_format_of(net: Module, data_format: str | None = None) -> str:
    """The data format of a network's images: what its first layer that has one says.

    Args:
        net: The network.
        data_format: If not None, this one.
    """
    if data_format is not None:
        return _arguments.data_format(data_format, 2)
    for module in net.modules():
        own = vars(module)
        for options in (own, own.get("window"), own.get("options")):
            if isinstance(options, dict) and isinstance(options.get("data_format"), str):
                return _arguments.data_format(options["data_format"], 2)
    return "channels_first"


def _dtype_of(net: Module) -> Any:
    """The dtype of a network's parameters, and of its images."""
    return next((parameter.dtype for parameter in net.parameters()), np.dtype(np.float32))


def as_batch(net: Module, image: Any, name: str = "image") -> Array:
    """An image with a batch axis, in the dtype of a network.

    Args:
        net: The network.
        image: (channels, rows, columns), or with the channels last, or with a batch axis of 1.
        name: Of the argument.
    """
    pixels = np.asarray(image)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim != 3 or not pixels.size:
        raise ValueError(
            f"{name} has shape {np.shape(image)}; one image has three axes: channels and pixels"
        )
    return np.ascontiguousarray(pixels[None], _dtype_of(net))


def as_batches(net: Module, images: Any, name: str = "images") -> Array:
    """A batch of images, in the dtype of a network."""
    pixels = np.asarray(images)
    if pixels.ndim != 4 or not pixels.size:
        raise ValueError(f"{name} has shape {pixels.shape}; it must have four axes and an image")
    return pixels.astype(_dtype_of(net), copy=False)


def maps_of(result: Tensor, layer: str, channels_last: bool) -> Array:
    """A layer's result as (batch, units, rows, columns); units without places have one each."""
    array = result.data
    if array.ndim == 2:
        return array[:, :, None, None]
    if array.ndim != 4:
        raise ValueError(
            f"layer {layer!r} gives shape {array.shape}; only maps (4 axes) and vectors (2 axes) "
            "can be shown"
        )
    return np.moveaxis(array, 3, 1) if channels_last else array


def check_unit(unit: int, units: int, layer: str) -> int:
    """A unit's number, from the end where it is negative."""
    number = _arguments.integer(unit, "unit")
    if not -units <= number < units:
        raise ValueError(f"unit is {number}; layer {layer!r} has {units}, 0 to {units - 1}")
    return number % units

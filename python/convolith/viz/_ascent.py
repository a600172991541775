"""Gradient ascent on the input: what a unit or a class would like to see, and dreams of photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import convolith
from convolith import _arguments
from convolith._arguments import Array
from convolith.autograd import Tensor, grad, no_grad
from convolith.autograd import functional as F
from convolith.nn import Module
from convolith.viz._capture import as_batch, check_unit, data_format_of, layer_output
from convolith.viz._draw import Path, as_picture, saved, scale_of, tile_figure
from convolith.viz._receptive_field import check_position

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Objective = Callable[[Tensor], Tensor]


def _at_least(value: Any, name: str, least: float) -> float:
    number = _arguments.real(value, name)
    if not (math.isfinite(number) and number >= least):
        raise ValueError(f"{name} is {value}; it must be a number of at least {least}")
    return number


def _blurred(x: Array, sigma: float, layout: str) -> Array:
    """Every channel convolved with a Gaussian, edges repeated."""
    reach = math.ceil(3 * sigma)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    bell /= bell.sum()
    channels = x.shape[3 if layout == "channels_last" else 1]
    for extents, padding in (((-1, 1), (reach, 0)), ((1, -1), (0, reach))):
        kernel = bell.astype(x.dtype).reshape(1, 1, *extents)
        x = convolith.conv2d(
            x,
            np.repeat(kernel, channels, 0),
            padding=padding,
            groups=channels,
            padding_mode="replicate",
            data_format=layout,
        )
    return x


def _total_variation(x: Tensor, axes: tuple[int, int]) -> Tensor:
    """Mean over the pixels of the distance between neighbours."""
    total: Any = 0.0
    for axis in axes:
        if x.shape[axis] > 1:
            before = (slice(None),) * axis
            steps = x[(*before, slice(1, None))] - x[(*before, slice(None, -1))]
            total = total + F.sum(F.sqrt(steps * steps + 1e-8))
    return total * (1 / x.size)  # type: ignore[no-any-return]


def _ascend(
    x: Array,
    objective: Objective,
    layout: str,
    rng: np.random.Generator,
    *,
    steps: int,
    rate: float,
    l2: float,
    jitter: int,
    blur: float,
    blur_every: int,
    total_variation: float,
    limits: tuple[float, float] | None,
) -> Array:
    """Steps of a fixed root mean square up the gradient; the last are a tenth of the first."""
    axes = (1, 2) if layout == "channels_last" else (2, 3)
    for step in range(steps):
        shift = tuple(int(n) for n in rng.integers(-jitter, jitter + 1, 2))
        moved = Tensor(np.roll(x, shift, axes), requires_grad=True)
        value = objective(moved)
        if total_variation:
            value = value - total_variation * _total_variation(moved, axes)
        found = grad(value, moved, allow_unused=True)[0]
        if found is None:
            raise ValueError("the layer does not depend on the image")
        slope = np.roll(found.data, (-shift[0], -shift[1]), axes)
        length = float(np.sqrt(np.mean(np.square(slope, dtype=np.float64))))
        if length > 0:
            now = rate * (1 - 0.9 * step / max(1, steps - 1))
            x = x + (now / length) * slope
        x = x * (1 - l2)
        if blur and (step + 1) % blur_every == 0 and step + 1 < steps:
            x = _blurred(np.ascontiguousarray(x), blur, layout)
        if limits is not None:
            x = np.clip(x, *limits)
        x = np.ascontiguousarray(x, dtype=moved.dtype)
    return x


def _unit_objective(
    net: Module, layer: str, unit: int, position: Any, channels_last: bool
) -> Objective:
    """The mean of a unit over its maps, or its value at a place, before the layer's activation."""

    def value(x: Tensor) -> Tensor:
        result = layer_output(net, layer, x, before_activation=True)
        if result.ndim == 2:
            chosen = check_unit(unit, result.shape[1], layer)
            return F.sum(result[:, chosen])
        if result.ndim != 4:
            raise ValueError(f"layer {layer!r} gives shape {result.shape}; it must be maps")
        maps = F.transpose(result, (0, 3, 1, 2)) if channels_last else result
        chosen = check_unit(unit, maps.shape[1], layer)
        if position is None:
            return F.mean(maps[:, chosen])
        row, column = check_position(position, (maps.shape[2], maps.shape[3]))
        return F.sum(maps[:, chosen, row, column])

    return value


def unit_value(
    net: Module,
    layer: str,
    unit: int,
    image: Any,
    *,
    position: tuple[int, int] | None = None,
    data_format: str | None = None,
) -> float:
    """What `maximized_input` maximises: a unit's value before the activation of its layer.

    Args:
        net: The network; it is run out of training.
        layer: A name of `net.named_modules()`; "" for the network's own result, its classes.
        unit: The number of a map, of an element of a vector, or of a class.
        image: (channels, rows, columns), or with the channels last.
        position: Row and column of the map; None for the mean over it.
        data_format: Of images and maps; None for that of the network's first layer.

    Raises:
        ValueError: No such layer, unit or position.
    """
    last = data_format_of(net, data_format) == "channels_last"
    with no_grad():
        value = _unit_objective(net, layer, unit, position, last)(Tensor(as_batch(net, image)))
    return float(value.item())


def maximized_input(
    net: Module,
    layer: str = "",
    unit: int = 0,
    *,
    shape: Sequence[int] | None = None,
    start: Any = None,
    position: tuple[int, int] | None = None,
    steps: int = 200,
    rate: float = 0.1,
    l2: float = 0.01,
    jitter: int = 2,
    blur: float = 0.5,
    blur_every: int = 4,
    total_variation: float = 0.0,
    limits: tuple[float, float] | None = None,
    seed: int = 0,
    data_format: str | None = None,
) -> Array:
    """An input that a unit or a class responds to strongly, by gradient ascent.

    Each step goes up the normalised gradient of `unit_value` less the total variation; then follow
    L2 decay, blur and limits. Sources: Simonyan, Vedaldi & Zisserman, arXiv:1312.6034 (L2);
    Yosinski et al., arXiv:1506.06579 (decay and blur); Mahendran & Vedaldi, arXiv:1412.0035 (total
    variation); Mordvintsev, Olah & Tyka, Inceptionism (2015) (jitter).

    Args:
        net: The network; it is run out of training.
        layer: A name of `net.named_modules()`; "" for the network's own result, its classes.
        unit: The number of a map, of an element of a vector, or of a class.
        shape: Of the input as the network takes it, without the batch axis; or else
        start: the input to begin with; without one, weak noise about 0.
        position: Row and column of the map; None for the mean over it.
        steps: Number of steps.
        rate: Root mean square of the first step, in units of the input.
        l2: Share of the input that each step takes off.
        jitter: For each step the input is shifted at random by up to so many pixels.
        blur: Deviation in pixels of a Gaussian; 0 for none.
        blur_every: Steps from one blur to the next.
        total_variation: Weight of the mean distance between neighbouring pixels, which is taken
            off the unit's value.
        limits: Least and greatest number that the input may hold, or None.
        seed: Of the noise and the jitter.
        data_format: Of images and maps; None for that of the network's first layer.

    Returns:
        float32 or float64, of that shape.

    Raises:
        ValueError: No such layer, unit or position, neither shape nor start, or a number that makes
            no sense.
    """
    layout = data_format_of(net, data_format)
    rng = np.random.default_rng(seed)
    if (shape is None) == (start is None):
        raise ValueError("give either shape or start")
    if start is None:
        extents = _arguments.shape(shape, "shape")
        if len(extents) != 3 or 0 in extents:
            raise ValueError(f"shape is {extents}; it must be that of one image, of three axes")
        noise = as_batch(net, 0.1 * rng.standard_normal(extents, np.float32))
    else:
        noise = as_batch(net, start, "start")
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits is {limits}; the first must be less than the second")
    x = _ascend(
        noise if limits is None else np.clip(noise, *limits),
        _unit_objective(net, layer, unit, position, layout == "channels_last"),
        layout,
        rng,
        steps=int(_at_least(_arguments.integer(steps, "steps"), "steps", 0)),
        rate=_at_least(rate, "rate", 0),
        l2=_at_least(l2, "l2", 0),
        jitter=int(_at_least(_arguments.integer(jitter, "jitter"), "jitter", 0)),
        blur=_at_least(blur, "blur", 0),
        blur_every=int(_at_least(_arguments.integer(blur_every, "blur_every"), "blur_every", 1)),
        total_variation=_at_least(total_variation, "total_variation", 0),
        limits=limits,
    )
    result: Array = x[0]
    return result


def maximize(
    net: Module,
    layer: str = "",
    unit: int | Sequence[int] = 0,
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    data_format: str | None = None,
    path: Path | None = None,
    **options: Any,
) -> Figure:
    """Inputs that units or classes respond to strongly, as tiles with the values they reach.

    Args:
        net: The network; it is run out of training.
        layer: A name of `net.named_modules()`; "" for the network's own result, its classes.
        unit: A unit or class, or several.
        classes: Names of the layer's units, or None for their numbers.
        columns: Tiles of a row; None chooses.
        title: Over the tiles; None for one that tells the layer.
        data_format: Of images and maps; None for that of the network's first layer.
        path: A file to write, or None.
        options: Those of `maximized_input`, of which shape or start is needed.

    Returns:
        A Figure, which notebooks show.

    Raises:
        ValueError: As `maximized_input`, and for names that are too few.
    """
    several = _arguments.is_sequence(unit)
    units: list[int] = list(unit) if several else [unit]  # type: ignore[arg-type, list-item]
    if not units:
        raise ValueError("unit is empty; it must name a unit or several")
    if classes is not None and max(units) >= len(classes):
        raise ValueError(f"classes has {len(classes)} names; unit is {max(units)}")
    last = data_format_of(net, data_format) == "channels_last"
    layout = "channels_last" if last else "channels_first"
    tiles, labels = [], []
    for number in units:
        x = maximized_input(net, layer, number, data_format=layout, **options)
        where = options.get("position")
        value = unit_value(net, layer, number, x, position=where, data_format=layout)
        name = str(number) if classes is None else classes[number]
        labels.append(f"{name}: {value:.3g}")
        tiles.append(as_picture(x if last else np.moveaxis(x, 0, 2)))
    text = title or f"inputs that maximise {layer or 'the outputs of ' + type(net).__name__}"
    grey = not tiles[0][1]
    pictures = [picture for picture, _ in tiles]
    scale = scale_of(np.stack(pictures), False) if grey else {}
    figure, _ = tile_figure(
        pictures, title=text, labels=labels, columns=columns, tile=1.2, per_tile=grey, **scale
    )
    return saved(figure, path)


# ---- dreams ------------------------------------------------------------------------------------


def _resized(x: Array, extents: tuple[int, int], layout: str) -> Array:
    if x.shape[1:3] == extents and layout == "channels_last":
        return x
    with no_grad():
        return F.upsample(x, extents, mode="bilinear", data_format=layout).data


def dreamed(
    net: Module,
    layer: str,
    photo: Any,
    *,
    unit: int | None = None,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    rate: float = 0.03,
    jitter: int = 4,
    seed: int = 0,
    data_format: str | None = None,
) -> Array:
    """A photo in which a layer sees more of what it sees: deep-dream.

    Gradient ascent on half the mean square of the layer's maps, from small copies of the photo to
    the photo itself; what one octave added is enlarged for the next. Source: Mordvintsev, Olah &
    Tyka, Inceptionism: going deeper into neural networks (2015).

    Args:
        net: The network; it is run out of training, and only up to the layer, so that photos may
            be of any extents that its windows fit in.
        layer: A name of `net.named_modules()`.
        photo: (rows, columns) or (rows, columns, channels), whatever the network's data format, in
            the units that the network takes.
        unit: The map to see more of; None for all.
        octaves: How many extents; those of less than 32 pixels are left out.
        scale: From one extent to the next.
        steps: Of gradient ascent in each octave.
        rate: Root mean square of a step, over the photo's deviation.
        jitter: For each step the photo is shifted at random by up to so many pixels.
        seed: Of the jitter.
        data_format: Of the network; None for that of its first layer.

    Returns:
        (rows, columns, channels), between the least and the greatest number of the photo.

    Raises:
        ValueError: No such layer or unit, a photo of another shape, or a number without sense.
    """
    layout = data_format_of(net, data_format)
    pixels = np.asarray(photo)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or not pixels.size:
        raise ValueError(f"photo has shape {np.shape(photo)}; it must be (rows, columns, channels)")
    base = as_batch(net, pixels if layout == "channels_last" else np.moveaxis(pixels, 2, 0))
    if _at_least(scale, "scale", 1) == 1 and octaves > 1:
        raise ValueError("scale is 1; octaves must differ")
    count = int(_at_least(_arguments.integer(octaves, "octaves"), "octaves", 1))
    rows, columns = pixels.shape[:2]
    ladder = [(round(rows / scale**i), round(columns / scale**i)) for i in range(count)]
    ladder = [e for i, e in enumerate(ladder) if i == 0 or min(e) >= 32][::-1]
    limits = (float(pixels.min()), float(pixels.max()))
    deviation = float(base.std()) or 1.0
    channels_last = layout == "channels_last"

    def objective(x: Tensor) -> Tensor:
        if unit is not None:
            return _unit_objective(net, layer, unit, None, channels_last)(x)
        y = layer_output(net, layer, x)
        return 0.5 * F.mean(y * y)

    rng = np.random.default_rng(seed)
    x = added = np.zeros_like(_resized(base, ladder[0], layout))
    for extents in ladder:
        small = _resized(base, extents, layout)
        x = _ascend(
            small + _resized(added, extents, layout),
            objective,
            layout,
            rng,
            steps=int(_at_least(_arguments.integer(steps, "steps"), "steps", 0)),
            rate=_at_least(rate, "rate", 0) * deviation,
            l2=0.0,
            jitter=int(_at_least(_arguments.integer(jitter, "jitter"), "jitter", 0)),
            blur=0.0,
            blur_every=1,
            total_variation=0.0,
            limits=limits if limits[0] < limits[1] else None,
        )
        added = x - small
    return x[0] if channels_last else np.ascontiguousarray(np.moveaxis(x[0], 0, 2))


def deep_dream(
    net: Module,
    layer: str,
    photo: Any,
    *,
    title: str | None = None,
    path: Path | None = None,
    **options: Any,
) -> Figure:
    """A photo beside what a layer dreams of it.

    Args:
        net: The network; see `dreamed`.
        layer: A name of `net.named_modules()`.
        photo: (rows, columns) or (rows, columns, channels), in the units that the network takes.
        title: Over the two; None for one that tells the layer.
        path: A file to write, or None.
        options: Those of `dreamed`: unit, octaves, scale, steps, rate, jitter, seed, data_format.

    Returns:
        A Figure, which notebooks show.

    Raises:
        ValueError: As `dreamed`.
    """
    dream = dreamed(net, layer, photo, **options)
    both = np.concatenate([np.asarray(photo, dream.dtype).reshape(dream.shape), dream], 1)
    picture, colour = as_picture(both)
    width = dream.shape[1]
    figure, _ = tile_figure(
        [picture[:, :width], picture[:, width:]],
        title=title or f"deep dream of {layer}",
        labels=["photo", "dream"],
        columns=2,
        tile=4.0,
        **({} if colour else scale_of(picture, False)),
    )
    return saved(figure, path)

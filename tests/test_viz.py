"""Pictures of networks: what they show, and what they are made from."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import nn, viz, zoo
from convolith.__main__ import main
from convolith.autograd import Tensor, no_grad
from convolith.autograd import functional as F
from convolith.zoo._googlenet import Inception

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure
from PIL import Image

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)
LAST = {"data_format": "channels_last"}


def random(*shape: int) -> Array:
    return RNG.standard_normal(shape, dtype=np.float32)


def tiles_of(figure: Figure) -> list[Array]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def titles_of(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.images]


@pytest.fixture
def lenet() -> nn.Module:
    nn.manual_seed(3)
    return zoo.lenet(**LAST)


# ---- capture -----------------------------------------------------------------------------------


def test_capture_gives_what_layers_give_and_leaves_the_network_as_it_was(lenet: nn.Module) -> None:
    x = random(2, 32, 32, 1)
    before = {name: set(vars(module)) for name, module in lenet.named_modules()}
    y = lenet(x)
    with viz.capture(lenet, "conv1", "pool1", "fc3") as found:
        again = lenet(x)
    expected = lenet.conv1(x)
    np.testing.assert_array_equal(found["conv1"].data, expected.data)
    np.testing.assert_array_equal(found["pool1"].data, lenet.pool1(expected).data)
    assert found["fc3"] is again
    np.testing.assert_array_equal(y.data, again.data)
    assert before == {name: set(vars(module)) for name, module in lenet.named_modules()}
    lenet(x[:1])
    assert found["conv1"].shape[0] == 2, "a call after the context was captured"


def test_captured_results_are_on_the_tape(lenet: nn.Module) -> None:
    x = Tensor(random(1, 32, 32, 1), requires_grad=True)
    with viz.capture(lenet, "conv2") as found:
        lenet(x)
    F.sum(found["conv2"]).backward()
    assert x.grad is not None
    assert np.abs(x.grad.data).max() > 0


def test_capture_is_undone_after_an_error(lenet: nn.Module) -> None:
    with pytest.raises(ValueError, match="channels"), viz.capture(lenet, "conv1"):
        lenet(random(1, 32, 32, 2))
    assert "forward" not in vars(lenet.conv1)


@pytest.mark.parametrize("layer", ["layer1.0.conv1", "layer2.0.downsample.0", "bn1"])
def test_capture_where_norms_are_folded_into_convolutions(layer: str) -> None:
    net = zoo.resnet18(10, **LAST)
    net.eval()
    x = random(1, 32, 32, 3)
    with no_grad():
        folded = net(x)
        with viz.capture(net, layer) as found:
            net(x)
        np.testing.assert_array_equal(net(x).data, folded.data)
    with viz.capture(net, layer) as recorded:
        net(x)
    np.testing.assert_allclose(found[layer].data, recorded[layer].data, rtol=1e-4, atol=1e-5)


def test_layer_output_stops_at_the_layer_and_restores_the_mode(lenet: nn.Module) -> None:
    lenet.train()
    wide = random(1, 40, 48, 1)  # the linear layers could not take it
    assert viz.layer_output(lenet, "conv2", wide).shape == (1, 14, 18, 16)
    assert lenet.training
    assert lenet.conv2.training
    x = random(1, 32, 32, 1)
    linear = viz.layer_output(lenet, "conv1", x, before_activation=True).data
    assert linear.min() < 0
    np.testing.assert_allclose(np.maximum(linear, 0), lenet.conv1(x).data, atol=1e-5)
    assert lenet.conv1.activation == "relu"


def test_unknown_layers_are_told_with_those_that_there_are(lenet: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"'conv9'; LeNet has 'conv1', 'pool1'"):
        viz.layer_output(lenet, "conv9", random(1, 32, 32, 1))
    with pytest.raises(ValueError, match=r"'layer1\.0\.conv1'.* more"):
        viz.module_named(zoo.resnet18(10), "layer1.0.conv")


# ---- receptive fields --------------------------------------------------------------------------


def support(net: nn.Module, layer: str, image: Array, position: tuple[int, int]) -> Any:
    """Rows and columns where the gradient of a layer's place is not zero, over random inputs."""
    last = viz._capture.data_format_of(net) == "channels_last"
    found = np.zeros(image.shape[:2] if last else image.shape[1:], bool)
    for _ in range(12):
        x = Tensor(random(1, *image.shape), requires_grad=True)
        with cl.numerics("strict"):  # transforms leave roundings beside the support
            y = viz.layer_output(net, layer, x)
            row, column = position
            F.sum(y[:, row, column] if last else y[:, :, row, column]).backward()
        assert x.grad is not None
        found |= np.abs(x.grad.data[0]).max(-1 if last else 0) > 0
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


class Branches(nn.Module):
    """A shortcut, a wide branch, a strided one that is enlarged again, joined along channels."""

    def __init__(self) -> None:
        self.wide = nn.Conv2d(2, 4, 5, padding=4, dilation=2)
        self.narrow = nn.Conv2d(2, 4, 3, padding="same")
        self.down = nn.Conv2d(2, 3, 3, 2, 1)
        self.up = nn.ConvTranspose2d(3, 4, 4, 2, 1)
        self.last = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Any) -> Tensor:
        y = F.tanh(self.wide.forward(x)) + self.up.forward(self.down.forward(x))
        return self.last.forward(F.concat([y, self.narrow.forward(x)], 1))


def sequences() -> dict[str, tuple[nn.Module, str, tuple[int, ...]]]:
    maps = {"padding": 1, **LAST}
    return {
        "valid": (
            nn.Sequential(nn.Conv2d(1, 3, 5, **LAST), nn.AvgPool2d(2, **LAST),
                          nn.Conv2d(3, 4, 3, **LAST)),
            "2",
            (24, 20, 1),
        ),
        "strided": (
            nn.Sequential(nn.Conv2d(2, 3, 7, 2, 3), nn.MaxPool2d(3, 2, 1),
                          nn.Conv2d(3, 3, 3, padding=1)),
            "2",
            (2, 40, 44),
        ),
        "dilated": (
            nn.Sequential(nn.Conv2d(1, 3, 3, dilation=(2, 3), **LAST),
                          nn.Conv2d(3, 2, (1, 3), dilation=2, **LAST)),
            "1",
            (20, 24, 1),
        ),
        "padded": (
            nn.Sequential(nn.Conv2d(1, 3, 3, **maps), nn.Conv2d(3, 3, 3, **maps)), "1", (9, 9, 1)
        ),
        "same": (nn.Sequential(nn.Conv2d(1, 3, 4, 3, "same")), "0", (1, 17, 18)),
        "same_lower": (nn.Sequential(nn.Conv2d(1, 3, 4, 3, "same_lower")), "0", (1, 17, 18)),
        "circular": (
            nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular")), "0", (1, 8, 8)
        ),
        "adaptive": (nn.Sequential(nn.AdaptiveAvgPool2d(3)), "0", (1, 17, 20)),
        "lp": (
            nn.Sequential(nn.LPPool2d(2, 3, 2), nn.SumPool2d(2, 1)), "1", (1, 17, 20)
        ),
        "transposed": (nn.Sequential(nn.ConvTranspose2d(1, 2, 3, 2, 1)), "0", (1, 9, 9)),
        "upsampled": (
            nn.Sequential(nn.Upsample(scale_factor=2.0, mode="bilinear"), nn.Conv2d(1, 2, 3)),
            "1",
            (1, 9, 9),
        ),
        "branches": (Branches(), "", (2, 20, 24)),
        "inception": (Inception(4, (2, 2, 3, 2, 3, 2), "channels_last"), "", (16, 18, 4)),
        "batch_norm": (
            nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU()),
            "2",
            (1, 9, 9),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", sequences())
@pytest.mark.parametrize("where", ["middle", "first", "last"])
def test_a_receptive_field_is_the_support_of_the_gradient(name: str, where: str) -> None:
    nn.manual_seed(1)
    net, layer, shape = sequences()[name]
    image = np.zeros(shape, np.float32)
    last = viz._capture.data_format_of(net) == "channels_last"
    maps = viz.layer_output(net, layer, image[None]).shape
    rows, columns = (maps[1], maps[2]) if last else (maps[2], maps[3])
    position = {
        "middle": (rows // 2, columns // 2),
        "first": (0, 0),
        "last": (rows - 1, columns - 1),
    }[where]
    field = viz.receptive_field(net, layer, image, position)
    assert field == support(net, layer, image, position)


def test_receptive_fields_of_known_networks(lenet: nn.Module) -> None:
    image = np.zeros((32, 32, 1), np.float32)
    assert viz.receptive_field(lenet, "conv1", image, (3, 4)) == (slice(3, 8), slice(4, 9))
    assert viz.receptive_field(lenet, "pool2", image, (0, 1)) == (slice(0, 16), slice(4, 20))
    assert viz.receptive_field(lenet, "fc1", image) == (slice(0, 32), slice(0, 32))
    # 43 pixels at stride 8, as in Araujo et al. for the first block of the second stage, and more.
    net = zoo.resnet18(10, **LAST)
    large = np.zeros((224, 224, 3), np.float32)
    rows, columns = viz.receptive_field(net, "layer1.1", large, (28, 28))
    assert rows.stop - rows.start == columns.stop - columns.start == 43


def test_positions_beyond_the_maps_are_told(lenet: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"position is \(28, 0\); the maps have extents \(28, 28"):
        viz.receptive_field(lenet, "conv1", np.zeros((32, 32, 1)), (28, 0))


# ---- pictures of what is there -----------------------------------------------------------------


def test_filters_of_one_channel_are_about_zero() -> None:
    weight = random(5, 1, 3, 4)
    figure = viz.filters(weight)
    tiles = tiles_of(figure)
    assert len(tiles) == 5
    for tile, kernel in zip(tiles, weight, strict=True):
        np.testing.assert_array_equal(tile, kernel[0])
    most = np.abs(weight).max()
    for axes in figure.axes:
        if axes.images:
            assert axes.images[0].get_clim() == (-most, most)


def test_filters_of_three_channels_are_coloured_each_on_its_own_scale() -> None:
    weight = random(4, 3, 7, 7)
    for tile, kernel in zip(tiles_of(viz.filters(weight)), weight, strict=True):
        assert tile.shape == (7, 7, 3)
        expected = (kernel - kernel.min()) / (kernel.max() - kernel.min())
        np.testing.assert_allclose(tile, expected.transpose(1, 2, 0), atol=1e-6)
    flat = tiles_of(viz.filters(np.ones((1, 3, 2, 2))))
    assert np.isfinite(flat[0]).all()


def test_filters_of_several_channels_have_a_row_each() -> None:
    weight = random(3, 4, 5, 5)
    figure = viz.filters(weight)
    tiles = tiles_of(figure)
    np.testing.assert_array_equal(np.stack(tiles), weight.reshape(12, 5, 5))
    places = [axes.get_position() for axes in figure.axes if axes.images]
    order = sorted(range(12), key=lambda i: (-round(places[i].y0, 3), places[i].x0))
    assert order == list(range(12))
    assert len({round(place.y0, 3) for place in places}) == 3
    many = viz.filters(random(64, 32, 3, 3))
    assert len(tiles_of(many)) == 256
    assert "256 of 2048" in many.get_suptitle()


def test_activations_are_the_maps(lenet: nn.Module) -> None:
    image = random(32, 32, 1)
    figure = viz.activations(lenet, image, "conv2")
    maps = lenet.pool1(lenet.conv1(image[None]))
    expected = lenet.conv2(maps).data[0]
    tiles = tiles_of(figure)
    assert len(tiles) == 16
    np.testing.assert_array_equal(np.stack(tiles, -1), expected)
    assert titles_of(figure) == [str(i) for i in range(16)]
    first = zoo.lenet()
    first.load_state_dict(lenet.state_dict())
    others = tiles_of(viz.activations(first, np.moveaxis(image, 2, 0), "conv2"))
    np.testing.assert_allclose(np.stack(others, -1), expected, atol=1e-5)


def test_activations_of_a_vector_are_bars(lenet: nn.Module) -> None:
    image = random(32, 32, 1)
    heights = [bar.get_height() for bar in viz.activations(lenet, image, "fc3").axes[0].patches]
    np.testing.assert_allclose(heights, lenet(image[None]).data[0], rtol=1e-6)


def test_templates_are_the_rows_of_the_weight() -> None:
    weight = random(10, 12)
    figure = viz.templates(weight, (3, 4), classes="abcdefghij")
    np.testing.assert_array_equal(np.stack(tiles_of(figure)), weight.reshape(10, 3, 4))
    assert titles_of(figure) == list("abcdefghij")
    colours = tiles_of(viz.templates(random(2, 3 * 4 * 5), (3, 4, 5)))
    assert [tile.shape for tile in colours] == [(4, 5, 3)] * 2


def test_confusion_counts() -> None:
    targets, predictions = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0]
    counts = viz.confusion_counts(targets, predictions, 3)
    np.testing.assert_array_equal(counts, [[1, 1, 0], [0, 1, 0], [2, 0, 1]])
    axes = viz.confusion_matrix(targets, predictions, ["cat", "dog", "hen"]).axes[0]
    texts = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert texts == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 0): "2", (2, 2): "1"}
    assert axes.get_title() == "3 of 6 right, 50.00 %"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "hen"]
    np.testing.assert_allclose(axes.images[0].get_array()[2], [2 / 3, 0, 1 / 3])


EPOCHS = [
    {"net": net, "epoch": i, "loss": 1 / i, "accuracy": 0.5 + i / 10, "test_accuracy": 0.6 + i / 10}
    for net in ("lenet", "fully_connected")
    for i in (1, 2, 3)
]


def test_training_curves(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(epoch) + "\n" for epoch in EPOCHS))
    for given in (log, str(log), EPOCHS):
        losses, errors = viz.training_curves(given).axes
        lines = {line.get_label(): line for line in losses.lines}
        assert set(lines) == {"lenet", "fully_connected"}
        np.testing.assert_allclose(lines["lenet"].get_ydata(), [1, 1 / 2, 1 / 3])
        held_out = {line.get_label(): line for line in errors.lines}["lenet, held out"]
        np.testing.assert_allclose(held_out.get_ydata(), [30, 20, 10])
    from convolith.train import Epoch

    history = [Epoch(1, 0.5, 0.9, 0.8, 100.0, 1e-3)]
    assert viz.training_curves(history).axes[0].lines[0].get_ydata() == [0.5]


# ---- what excites ------------------------------------------------------------------------------


def test_most_exciting_images_and_their_fields() -> None:
    """A filter that is a corner finds the image that has one, and where."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False, activation="relu"))
    corner = np.array([[1, 1, 1], [1, -1, -1], [1, -1, -1]], np.float32)
    net[0].weight.data[0, 0], net[0].weight.data[1, 0] = corner, -corner
    images = 0.1 * random(5, 1, 9, 11)
    images[3, 0, 4:7, 6:9] = corner
    images[1, 0, 2:5, 1:4] = 0.5 * corner
    found = viz.most_exciting(net, "0", 0, images, 2, batch=2)
    assert [one.image for one in found] == [3, 1]
    assert [one.position for one in found] == [(4, 6), (2, 1)]
    np.testing.assert_allclose([one.value for one in found], [9, 4.5], rtol=1e-6)
    figure = viz.exciting_images(net, "0", 0, images, count=2)
    np.testing.assert_array_equal(tiles_of(figure)[0], images[3, 0])
    box = figure.axes[0].patches[0]
    assert (box.get_x(), box.get_y()) == (5.5, 3.5)
    assert (box.get_width(), box.get_height()) == (3, 3)
    several = viz.exciting_images(net, "0", [0, 1], images, count=3)
    assert len(tiles_of(several)) == 6


# ---- gradient ascent ---------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["", "conv1", "conv2", "fc1"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_ascent_raises_the_value(layer: str, layout: str) -> None:
    nn.manual_seed(3)
    net = zoo.lenet(data_format=layout)
    shape = (32, 32, 1) if layout == "channels_last" else (1, 32, 32)
    options = {"shape": shape, "limits": (-1.0, 1.0)}
    values = []
    for steps in (0, 5, 40):
        x = viz.maximized_input(net, layer, 4, steps=steps, **options)
        assert x.shape == shape
        assert np.abs(x).max() <= 1
        values.append(viz.unit_value(net, layer, 4, x))
    assert values[0] < values[1] < values[2]
    again = viz.maximized_input(net, layer, 4, steps=40, **options)
    np.testing.assert_array_equal(again, x)


def test_a_unit_at_a_place_changes_its_receptive_field_alone(lenet: nn.Module) -> None:
    start = np.zeros((32, 32, 1), np.float32)
    x = viz.maximized_input(
        lenet, "conv1", 2, start=start, position=(10, 7), jitter=0, blur=0, l2=0, steps=5
    )
    changed = np.argwhere(x[..., 0] != 0)
    np.testing.assert_array_equal(changed.min(0), [10, 7])
    np.testing.assert_array_equal(changed.max(0), [14, 11])
    # The best input of a linear unit is its filter.
    patch, kernel = x[10:15, 7:12, 0], lenet.conv1.weight.data[2, 0]
    np.testing.assert_allclose(np.corrcoef(patch.ravel(), kernel.ravel())[0, 1], 1, atol=1e-5)


def rough(x: Array) -> float:
    return float(np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean())


@pytest.mark.parametrize("regulariser", [{"blur": 1.0}, {"total_variation": 5.0}, {"jitter": 3}])
def test_regularisers_make_inputs_smoother(lenet: nn.Module, regulariser: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"l2": 0, "jitter": 0, "blur": 0, "total_variation": 0, "steps": 30}
    inputs = [
        viz.maximized_input(lenet, "", 1, shape=(32, 32, 1), **(plain | more))
        for more in ({}, regulariser)
    ]
    assert rough(inputs[1]) < 0.9 * rough(inputs[0])


def test_decay_makes_inputs_smaller(lenet: nn.Module) -> None:
    norms = [
        np.linalg.norm(viz.maximized_input(lenet, "", 1, shape=(32, 32, 1), l2=l2, steps=30))
        for l2 in (0.0, 0.1)
    ]
    assert norms[1] < 0.8 * norms[0]


def test_the_picture_of_ascent(lenet: nn.Module) -> None:
    figure = viz.maximize(lenet, "", [1, 3], shape=(32, 32, 1), steps=3, classes=list("abcdefghij"))
    expected = viz.maximized_input(lenet, "", 3, shape=(32, 32, 1), steps=3)
    np.testing.assert_allclose(tiles_of(figure)[1], expected[..., 0])
    assert [title.partition(":")[0] for title in titles_of(figure)] == ["b", "d"]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_dreams_see_more(layout: str) -> None:
    nn.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, activation="relu", data_format=layout),
        nn.MaxPool2d(2, data_format=layout),
    )
    photo = RNG.random((70, 90, 3), dtype=np.float32)

    def energy(x: Array) -> float:
        batch = x[None] if layout == "channels_last" else np.moveaxis(x, 2, 0)[None]
        return float(np.square(viz.layer_output(net, "1", np.ascontiguousarray(batch)).data).mean())

    dream = viz.dreamed(net, "1", photo, octaves=2, steps=4)
    assert dream.shape == photo.shape
    assert energy(dream) > 1.1 * energy(photo)
    assert dream.min() >= photo.min()
    assert dream.max() <= photo.max()
    np.testing.assert_allclose(viz.dreamed(net, "1", photo, octaves=1, steps=0), photo)
    figure = viz.deep_dream(net, "1", photo, octaves=2, steps=4)
    before, after = tiles_of(figure)
    low, high = photo.min(), photo.max()
    np.testing.assert_allclose(before, (photo - low) / (high - low), atol=1e-6)
    np.testing.assert_allclose(after, (dream - low) / (high - low), atol=1e-6)


def test_overview(lenet: nn.Module) -> None:
    image = random(32, 32, 1)
    figure = viz.overview(lenet, image, steps=2)
    tiles = tiles_of(figure)
    assert len(tiles) == 6 + 1 + 6 + 10
    np.testing.assert_array_equal(np.stack(tiles[:6]), lenet.conv1.weight.data[:, 0])
    np.testing.assert_array_equal(tiles[6], image[..., 0])
    np.testing.assert_array_equal(np.stack(tiles[7:13], -1), lenet.conv1(image[None]).data[0])
    expected = viz.maximized_input(lenet, "", 9, shape=(32, 32, 1), steps=2)
    np.testing.assert_allclose(tiles[-1], expected[..., 0])


# ---- files, notebooks, errors ------------------------------------------------------------------


def test_files_and_notebooks(tmp_path: Path) -> None:
    weight = random(6, 1, 5, 5)
    for name in ("a.png", "b"):
        figure = viz.filters(weight, path=tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            width, height = figure.get_size_inches() * figure.dpi
            assert picture.size == (int(width), int(height))
            assert len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 50
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"path is .*c\.xyz.*png"):
        viz.filters(weight, path=tmp_path / "c.xyz")
    with pytest.raises(OSError, match="nowhere"):
        viz.filters(weight, path=tmp_path / "nowhere" / "c.png")


IMAGE = np.zeros((32, 32, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: viz.filters(np.zeros((3, 3))), r"weight has shape \(3, 3\)"),
        (lambda net: viz.filters(np.zeros((0, 1, 3, 3))), r"weight has shape \(0, 1, 3, 3\)"),
        (lambda net: viz.filters(np.zeros((2, 1, 3, 3)), columns=0), "columns is 0"),
        (lambda net: viz.activations(net, np.zeros((32, 32)), "conv1"), "image has shape"),
        (lambda net: viz.activations(net, IMAGE, "flat"), "layer is 'flat'"),
        (lambda net: viz.templates(np.zeros((2, 12)), (3, 5)), "15 elements"),
        (lambda net: viz.templates(np.zeros((2, 12)), (12,)), r"shape is \(12,\)"),
        (lambda net: viz.templates(np.zeros((2, 12)), (3, 4), classes=["a"]), "classes has 1"),
        (lambda net: viz.templates(np.zeros(12), (3, 4)), "linear_weight has shape"),
        (lambda net: viz.exciting_images(net, "conv1", 6, IMAGE[None]), "unit is 6; .* 0 to 5"),
        (lambda net: viz.exciting_images(net, "conv1", [], IMAGE[None]), "unit is empty"),
        (lambda net: viz.exciting_images(net, "conv1", 0, IMAGE), "images has shape"),
        (lambda net: viz.most_exciting(net, "conv1", 0, IMAGE[None], 0), "count is 0"),
        (lambda net: viz.maximize(net, "", 10, shape=(32, 32, 1)), "unit is 10"),
        (lambda net: viz.maximize(net, "", 0), "either shape or start"),
        (lambda net: viz.maximize(net, "", 0, shape=(32, 32)), r"shape is \(32, 32\)"),
        (lambda net: viz.maximize(net, shape=(32, 32, 1), l2=-1), "l2 is -1"),
        (lambda net: viz.maximize(net, shape=(32, 32, 1), steps=-1), "steps is -1"),
        (lambda net: viz.maximize(net, shape=(32, 32, 1), limits=(1, 0)), r"limits is \(1, 0\)"),
        (lambda net: viz.maximize(net, "", 3, shape=(32, 32, 1), classes="ab"), "classes has 2"),
        (lambda net: viz.deep_dream(net, "conv1", np.zeros(5)), r"photo has shape \(5,\)"),
        (lambda net: viz.deep_dream(net, "conv1", np.zeros((40, 40)), scale=1), "scale is 1"),
        (lambda net: viz.overview(net, IMAGE, layer="fc1"), "'fc1' is a Linear"),
        (lambda net: viz.confusion_matrix([0, 1], [0], 2), "targets has 2 elements"),
        (lambda net: viz.confusion_matrix([0, 2], [0, 0], 2), "targets has 2; the classes"),
        (lambda net: viz.confusion_matrix([0, 1], [0, -1], 2), "predictions has -1"),
        (lambda net: viz.confusion_matrix([0.5], [0], 2), "targets has shape .* float64"),
        (lambda net: viz.training_curves([]), "log has no records"),
        (lambda net: viz.training_curves([{"epoch": 1}]), "record 1 lacks the number 'loss'"),
    ],
)  # fmt: skip
def test_mistakes(lenet: nn.Module, call: Callable[[nn.Module], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(lenet)


def test_importing_is_light_and_needs_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, convolith as cl; cl.viz.filters; "
        "print('matplotlib' in sys.modules, 'PIL' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False False\n"
    missing(monkeypatch, "matplotlib")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'convolith\[viz\]'"):
        viz.filters(np.zeros((1, 1, 3, 3)))


def missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make a package look as if it were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    original = builtins.__import__

    class Finder:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert builtins.__import__ is original


# ---- the command -------------------------------------------------------------------------------


def write_mnist(folder: Path) -> None:
    for part, count in (("train", 12), ("t10k", 8)):
        for name, array in (
            ("images-idx3", RNG.integers(0, 256, (count, 28, 28))),
            ("labels-idx1", np.arange(count) % 10),
        ):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = header + array.astype(np.uint8).tobytes()
            (folder / f"{part}-{name}-ubyte").write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what `convolith train` writes, data, and a photo."""
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path)
    metadata = {"net": "lenet", "data": "mnist", "epochs": "1", "classes": "0 1 2 3 4 5 6 7 8 9"}
    nn.manual_seed(0)
    zoo.lenet(**LAST).save("lenet.safetensors", metadata)
    zoo.fully_connected(10).save("flat.safetensors", metadata | {"net": "fully_connected"})
    zoo.resnet18().save("resnet.safetensors")
    Image.fromarray(RNG.integers(0, 256, (50, 60, 3)).astype(np.uint8)).save("photo.png")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in EPOCHS))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("lenet.safetensors", "--steps", "2", "--folder", "."),
        ("lenet.safetensors", "--what", "filters", "--layer", "conv2"),
        ("lenet.safetensors", "--what", "maps", "--image", "3", "--folder", "."),
        ("lenet.safetensors", "--what", "maps", "--image", "photo.png", "--layer", "fc3"),
        ("flat.safetensors", "--what", "templates"),
        ("lenet.safetensors", "--what", "exciting", "--unit", "1", "2", "--folder", "."),
        ("lenet.safetensors", "--what", "maximize", "--steps", "2"),
        ("lenet.safetensors", "--what", "maximize", "--steps", "2", "--layer", "conv2"),
        ("lenet.safetensors", "--what", "dream", "--image", "photo.png", "--steps", "1"),
        ("lenet.safetensors", "--what", "confusion", "--folder", "."),
        ("log.jsonl", "--what", "curves"),
        ("resnet18", "--weights", "resnet.safetensors", "--what", "filters"),
        ("all_convolutional", "--what", "maps", "--image", "photo.png"),
    ],
    ids=" ".join,
)
def test_look(folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert main(("look", *arguments, "-o", "out.png")) == 0
    assert capsys.readouterr().out == "wrote out.png\n"
    with Image.open(folder / "out.png") as picture:
        assert min(picture.size) > 100


def test_look_names_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("look", "lenet.safetensors", "--what", "filters")) == 0
    assert capsys.readouterr().out == "wrote lenet-filters.png\n"
    assert (folder / "lenet-filters.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonet",), "NET 'nonet' is neither a file nor one of alexnet"),
        (("lenet.safetensors", "--what", "smell"), "--what"),
        (("lenet.safetensors", "--what", "filters", "--layer", "conv9"), "layer is 'conv9'"),
        (("lenet.safetensors", "--what", "filters", "--layer", "fc1"), "--layer 'fc1' is a Linear"),
        (("lenet.safetensors", "--what", "templates"), "--layer 'fc1' has 400 inputs"),
        (("lenet.safetensors", "--what", "confusion"), "mnist needs the folder"),
        (("lenet.safetensors", "--what", "maps", "--image", "8", "--folder", "."), "--image is 8"),
        (("lenet.safetensors", "--what", "maps", "--image", "no.png"), "no photo 'no.png'"),
        (("lenet.safetensors", "--weights", "flat.safetensors"), "--weights goes with a zoo's"),
        (("resnet.safetensors", "--what", "filters"), "its metadata lacks net, data and classes"),
        (("resnet18", "--weights", "no.safetensors"), "--weights 'no.safetensors' is no file"),
        (("resnet18", "--what", "maps"), "needs --image FILE"),
        (("lenet", "--what", "exciting"), "needs --data"),
        (("photo.png", "--what", "filters"), "is no safetensors file"),
        (("flat.safetensors", "--what", "filters"), "needs --layer"),
        (("no.jsonl", "--what", "curves"), "NET 'no.jsonl' is no file"),
        (("photo.png", "--what", "curves"), "record 1 is not JSON"),
        (("lenet.safetensors", "--what", "maximize", "--unit", "77"), "unit is 77"),
        (("lenet.safetensors", "--what", "filters", "-o", "no/out.png"), "no folder 'no'"),
        (("lenet.safetensors", "--what", "filters", "-o", "out.xyz"), "formats are"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_of_look(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    try:
        code = main(("look", *arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not list(folder.glob("out*"))
    assert not list(folder.glob("*-*.png"))

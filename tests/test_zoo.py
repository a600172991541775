"""The networks: parameter counts, names and shapes of states, output shapes, a training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from convolith import nn, optim, zoo
from convolith.autograd import Tensor, no_grad
from convolith.autograd import functional as F

PARAMETERS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "lenet": (zoo.lenet, 156 + 2416 + 48_120 + 12_100 + 1010),
    "fully_connected": (zoo.fully_connected, 123_000 + 12_100 + 1010),
    "example_digit": (zoo.example_digit, 208),
    "example_color": (zoo.example_color, 2960 + 15_030),
    "example_photo": (zoo.example_photo, 456),
    "alexnet": (zoo.alexnet, 61_100_840),
    "alexnet_two_groups": (zoo.alexnet_two_groups, 60_965_224),
    "zfnet": (zoo.zfnet, 62_357_608),
    "vgg11": (zoo.vgg11, 132_863_336),
    "vgg13": (zoo.vgg13, 133_047_848),
    "vgg16": (zoo.vgg16, 138_357_544),
    "vgg19": (zoo.vgg19, 143_667_240),
    "vgg16_bn": (lambda: zoo.vgg16(batch_norm=True), 138_365_992),
    "googlenet": (zoo.googlenet, 6_624_904),
    "resnet18": (zoo.resnet18, 11_689_512),
    "resnet34": (zoo.resnet34, 21_797_672),
    "resnet50": (zoo.resnet50, 25_557_032),
    "resnet101": (zoo.resnet101, 44_549_160),
    "densenet121": (zoo.densenet121, 7_978_856),
    "mobilenet_v2": (zoo.mobilenet_v2, 3_504_872),
    "all_convolutional": (zoo.all_convolutional, 1_369_738),
    "tiny_yolo_v2": (zoo.tiny_yolo_v2, 15_861_773),
    "unet": (zoo.unet, 31_030_658),
    # causal 2 taps; filter and gate, skip; residual in all layers but the last; the head
    "wavenet": (
        zoo.wavenet,
        (256 * 32 * 2 + 32)
        + 30 * (2 * (32 * 32 * 2 + 32) + (32 * 256 + 256))
        + 29 * (32 * 32 + 32)
        + 2 * (256 * 256 + 256),
    ),
    "neocognitron": (
        zoo.neocognitron,
        (12 * 25 + 12) + (12 * 38 * 25 + 38) + (38 * 32 * 25 + 32) + (32 * 10 * 9 + 10),
    ),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name: str) -> None:
    make, count = PARAMETERS[name]
    with nn.init.skip():
        assert make().parameter_count() == count


def chains(names: str) -> list[str]:
    """'a.{1,2}.b' -> ['a.1.b', 'a.2.b']."""
    before, brace, rest = names.partition("{")
    if not brace:
        return [names]
    middle, _, after = rest.partition("}")
    return [c for choice in middle.split(",") for c in chains(before + choice + after)]


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
AFFINE = ("weight", "bias")


def named(prefixes: list[str], kinds: tuple[str, ...]) -> set[str]:
    return {f"{prefix}.{kind}" for prefix in prefixes for kind in kinds}


def vgg_names() -> set[str]:
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    return named([f"features.{i}" for i in convolutions] + chains("classifier.{0,3,6}"), AFFINE)


def resnet_names() -> set[str]:
    names = {"conv1.weight"} | named(["bn1"], NORM) | named(["fc"], AFFINE)
    for stage, count in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True):
        for block in range(count):
            for i in (1, 2, 3):
                names.add(f"layer{stage}.{block}.conv{i}.weight")
                names |= named([f"layer{stage}.{block}.bn{i}"], NORM)
        names.add(f"layer{stage}.0.downsample.0.weight")
        names |= named([f"layer{stage}.0.downsample.1"], NORM)
    return names


def densenet_names() -> set[str]:
    names = {"features.conv0.weight"} | named(["features.norm0", "features.norm5"], NORM)
    for block, count in zip((1, 2, 3, 4), (6, 12, 24, 16), strict=True):
        for layer in range(1, count + 1):
            prefix = f"features.denseblock{block}.denselayer{layer}"
            names |= {f"{prefix}.conv1.weight", f"{prefix}.conv2.weight"}
            names |= named([f"{prefix}.norm1", f"{prefix}.norm2"], NORM)
        if block < 4:
            names.add(f"features.transition{block}.conv.weight")
            names |= named([f"features.transition{block}.norm"], NORM)
    return names | named(["classifier"], AFFINE)


def mobilenet_names() -> set[str]:
    names = named(["classifier.1"], AFFINE)
    for i in range(19):
        prefix = f"features.{i}"
        if i in (0, 18):
            names |= {f"{prefix}.0.weight"} | named([f"{prefix}.1"], NORM)
            continue
        expanding = i > 1
        for j in range(1 + expanding):
            names |= {f"{prefix}.conv.{j}.0.weight"} | named([f"{prefix}.conv.{j}.1"], NORM)
        names |= {f"{prefix}.conv.{1 + expanding}.weight"}
        names |= named([f"{prefix}.conv.{2 + expanding}"], NORM)
    return names


def googlenet_names() -> set[str]:
    units = ["conv1", "conv2", "conv3"]
    units += chains("inception{3a,3b,4a,4b,4c,4d,4e,5a,5b}.{branch1,branch2.0,branch2.1,branch3.0,branch3.1,branch4.1}")  # fmt: skip  # noqa: E501
    names = {f"{unit}.conv.weight" for unit in units}
    return names | named([f"{unit}.bn" for unit in units], NORM) | named(["fc"], AFFINE)


# As in torchvision 0.15: all names, and some shapes.
STATES: dict[str, tuple[Callable[..., nn.Module], set[str], dict[str, tuple[int, ...]]]] = {
    "alexnet": (
        zoo.alexnet,
        named(chains("features.{0,3,6,8,10}") + chains("classifier.{1,4,6}"), AFFINE),
        {"features.0.weight": (64, 3, 11, 11), "classifier.1.weight": (4096, 9216)},
    ),
    "vgg16": (zoo.vgg16, vgg_names(), {"classifier.0.weight": (4096, 25_088)}),
    "resnet50": (
        zoo.resnet50,
        resnet_names(),
        {
            "layer2.0.conv2.weight": (128, 128, 3, 3),
            "layer4.0.downsample.0.weight": (2048, 1024, 1, 1),
        },
    ),
    "densenet121": (
        zoo.densenet121,
        densenet_names(),
        {"features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3)},
    ),
    "mobilenet_v2": (
        zoo.mobilenet_v2,
        mobilenet_names(),
        {"features.2.conv.1.0.weight": (96, 1, 3, 3), "features.18.0.weight": (1280, 320, 1, 1)},
    ),
    "googlenet": (
        zoo.googlenet,
        googlenet_names(),
        {"inception4a.branch3.1.conv.weight": (48, 16, 3, 3), "fc.weight": (1000, 1024)},
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_names_are_those_of_torchvision(name: str) -> None:
    make, names, shapes = STATES[name]
    with nn.init.skip():
        state = make().state_dict()
    assert set(state) == names
    for key, shape in shapes.items():
        assert state[key].shape == shape


# Inputs small enough to train on in a test; the shapes of the logits.
RUNS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "lenet": (zoo.lenet, (2, 1, 32, 32), (2, 10)),
    "fully_connected": (zoo.fully_connected, (2, 1, 32, 32), (2, 10)),
    "example_digit": (zoo.example_digit, (1, 1, 28, 28), (1, 8, 12, 12)),
    "example_color": (zoo.example_color, (1, 3, 32, 32), (1, 30, 22, 22)),
    "example_photo": (zoo.example_photo, (1, 3, 443, 592), (1, 6, 439, 588)),
    "alexnet": (lambda **o: zoo.alexnet(7, **o), (1, 3, 67, 67), (1, 7)),
    "alexnet_two_groups": (lambda **o: zoo.alexnet_two_groups(7, **o), (1, 3, 67, 67), (1, 7)),
    "zfnet": (lambda **o: zoo.zfnet(7, **o), (1, 3, 64, 64), (1, 7)),
    "vgg11": (lambda **o: zoo.vgg11(7, **o), (1, 3, 32, 32), (1, 7)),
    "googlenet": (lambda **o: zoo.googlenet(7, **o), (2, 3, 64, 64), (2, 7)),
    "resnet18": (lambda **o: zoo.resnet18(7, **o), (2, 3, 64, 64), (2, 7)),
    "resnet50": (lambda **o: zoo.resnet50(7, **o), (2, 3, 64, 64), (2, 7)),
    "densenet121": (lambda **o: zoo.densenet121(7, **o), (2, 3, 64, 64), (2, 7)),
    "mobilenet_v2": (lambda **o: zoo.mobilenet_v2(7, **o), (2, 3, 64, 64), (2, 7)),
    "all_convolutional": (zoo.all_convolutional, (2, 3, 32, 32), (2, 10)),
    "tiny_yolo_v2": (zoo.tiny_yolo_v2, (1, 3, 96, 96), (1, 125, 3, 3)),
    "unet": (lambda **o: zoo.unet(width=8, **o), (1, 1, 188, 188), (1, 2, 4, 4)),
    "unet_same": (
        lambda **o: zoo.unet(3, 2, 8, 3, "same", **o),
        (1, 3, 32, 48),
        (1, 2, 32, 48),
    ),
    "wavenet": (lambda **o: zoo.wavenet(32, 8, 16, 4, 2, **o), (2, 32, 50), (2, 32, 50)),
    "neocognitron": (zoo.neocognitron, (2, 1, 16, 16), (2, 10)),
}


def channels_last(x: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("name", RUNS)
def test_forward_and_a_training_step(name: str) -> None:
    """In channels_last; evaluation in channels_first gives the same with the same weights."""
    make, shape, out = RUNS[name]
    nn.manual_seed(0)
    net = make() if name == "fully_connected" else make(data_format="channels_last")
    x = np.random.default_rng(0).random(shape, np.float32)
    arranged = x if name == "fully_connected" else channels_last(x)
    optimizer = optim.SGD(net.parameters(), 1e-4)
    before = {key: value.copy() for key, value in net.state_dict().items() if value.size < 1e6}
    y = net(Tensor(arranged))
    F.mean(y * y).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert np.isfinite(parameter.grad.data).all(), parameter_name
    optimizer.step()
    changed = [
        key for key, value in before.items() if not np.array_equal(value, net.state_dict()[key])
    ]
    assert changed, "nothing was learned"
    net.eval()
    with no_grad():
        y = net(arranged)
        assert y.node is None
        assert np.isfinite(y.data).all()
        result = y.data if y.ndim == 2 else np.moveaxis(y.data, -1, 1)
        assert result.shape == out
        if name != "fully_connected":
            with nn.init.skip():
                other = make(data_format="channels_first").eval()
            for a, b in zip(other.parameters(), net.parameters(), strict=True):
                a.data = b.data  # not copied: some are large
            for (_, a), (_, b) in zip(other.named_buffers(), net.named_buffers(), strict=True):
                a.data = b.data
            close = {"rtol": 1e-3, "atol": 1e-4 * float(np.abs(result).max())}
            np.testing.assert_allclose(other(x).data, result, **close)


OUTPUTS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": (zoo.resnet18, (1, 3, 224, 224), (1, 1000)),
    "mobilenet_v2": (zoo.mobilenet_v2, (1, 3, 224, 224), (1, 1000)),
    "googlenet": (zoo.googlenet, (1, 3, 224, 224), (1, 1000)),
    "tiny_yolo_v2": (zoo.tiny_yolo_v2, (1, 3, 416, 416), (1, 125, 13, 13)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_output_shape_at_full_size(name: str) -> None:
    make, shape, out = OUTPUTS[name]
    with nn.init.skip(), no_grad():
        assert make().eval()(np.zeros(shape, np.float32)).shape == out


@pytest.mark.parametrize(
    ("make", "extent", "maps"),
    [
        (zoo.alexnet, 224, (1, 256, 6, 6)),
        (zoo.alexnet_two_groups, 227, (1, 256, 6, 6)),
        (zoo.zfnet, 224, (1, 256, 6, 6)),
    ],
)
def test_features_at_full_size(
    make: Callable[..., Any], extent: int, maps: tuple[int, ...]
) -> None:
    with nn.init.skip(), no_grad():
        features = make().features
        assert features(np.zeros((1, 3, extent, extent), np.float32)).shape == maps


def test_old_checkpoints() -> None:
    """DenseNet's of old have other names, GoogLeNet's have auxiliary heads."""
    with nn.init.skip():
        dense, google = zoo.densenet121(), zoo.googlenet()
    state = dict(dense.state_dict())
    old = {
        name.replace("norm1", "norm.1").replace("conv2", "conv.2"): np.full_like(value, 3)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    dense.load_state_dict(old)
    assert state["features.denseblock1.denselayer1.norm1.weight"][0] == 3
    google.load_state_dict({**google.state_dict(), "aux1.fc1.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"fc3\.weight is unknown"):
        google.load_state_dict({**google.state_dict(), "fc3.weight": np.zeros(3)})


def test_wavenet_is_causal() -> None:
    nn.manual_seed(0)
    net = zoo.wavenet(8, 4, 8, 3, 2)
    assert net.receptive_field == 1 + 1 + 2 * 7
    x = np.random.default_rng(0).random((1, 8, 40), np.float32)
    x_later = x.copy()
    x_later[:, :, 20] += 1
    with no_grad():
        changed = np.abs(net(x).data - net(x_later).data).max((0, 1)) > 0
    assert not changed[:20].any()
    assert changed[20]
    assert not changed[20 + net.receptive_field :].any()


# ---- boxes ---------------------------------------------------------------------------------


def test_decode_boxes() -> None:
    maps = np.zeros((1, 2 * 7, 2, 4))
    maps[0, 7 : 7 + 7, 1, 2] = [0.3, -0.2, 0.1, -0.4, 2.0, 1.0, 0.0]
    boxes, scores = zoo.decode_boxes(maps, [(1.0, 2.0), (3.0, 0.5)], 2)
    assert boxes.shape == (1, 16, 4)
    assert scores.shape == (1, 16, 2)
    left, top, right, bottom = boxes[0, (1 * 4 + 2) * 2 + 1]

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    assert (left + right) / 2 == pytest.approx((2 + sigmoid(0.3)) / 4)
    assert (top + bottom) / 2 == pytest.approx((1 + sigmoid(-0.2)) / 2)
    assert right - left == pytest.approx(3 * math.exp(0.1) / 4)
    assert bottom - top == pytest.approx(0.5 * math.exp(-0.4) / 2)
    expected = sigmoid(2.0) * np.array([sigmoid(1.0), sigmoid(-1.0)])
    np.testing.assert_allclose(scores[0, 13], expected)
    with pytest.raises(ValueError, match="14"):
        zoo.decode_boxes(np.zeros((1, 13, 2, 4)), [(1.0, 2.0), (3.0, 0.5)], 2)


def test_non_maximum_suppression() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 4], [0, 0, 0, 0]], float
    )
    np.testing.assert_allclose(
        zoo.box_overlap(boxes[0], boxes), [1, 90 / 110, 0, 0.4, 0], rtol=1e-12
    )
    scores = np.array([[0.8, 0.1], [0.9, 0.0], [0.4, 0.5], [0.6, 0.0], [0.2, 0.0]])
    kept, values, classes = zoo.non_maximum_suppression(boxes, scores, 0.3, 0.45)
    assert values.tolist() == [0.9, 0.6, 0.5, 0.4]
    assert classes.tolist() == [0, 0, 1, 0]
    np.testing.assert_array_equal(kept, boxes[[1, 3, 2, 2]])
    nothing = zoo.non_maximum_suppression(boxes, scores, 0.95)
    assert [a.shape for a in nothing] == [(0, 4), (0,), (0,)]


def test_detect() -> None:
    nn.manual_seed(0)
    net = zoo.tiny_yolo_v2(data_format="channels_last").eval()
    net.layers.conv9.bias.data[4::25] = 3.0  # everything is an object
    found = net.detect(np.zeros((1, 64, 64, 3), np.float32), threshold=0.01)
    assert len(found) == 1
    boxes, scores, classes = found[0]
    assert boxes.shape == (len(scores), 4)
    assert len(scores) == len(classes) > 0

"""Modules, their states and files, initial values, optimizers and schedules."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import nn, optim
from convolith.autograd import Tensor, gradcheck, no_grad
from convolith.autograd import functional as F
from convolith.nn import init, safetensors

Array = np.ndarray[Any, np.dtype[Any]]


class Small(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 2, 3)
        self.bn = nn.BatchNorm2d(2)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Any) -> Tensor:
        return self.head(F.relu(self.bn(self.conv(x))))


# ---- modules -------------------------------------------------------------------------------


def test_names_and_modes() -> None:
    net = Small()
    assert [name for name, _ in net.named_parameters()] == [
        "conv.weight",
        "conv.bias",
        "bn.weight",
        "bn.bias",
        "head.2.weight",
        "head.2.bias",
    ]
    assert [name for name, _ in net.named_buffers()] == [
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
    ]
    assert [name for name, _ in net.named_modules()][:4] == ["", "conv", "bn", "head"]
    assert net.parameter_count() == sum(p.size for p in net.parameters()) == 20 + 4 + 27
    assert all(module.training for module in net.modules())
    net.eval()
    assert not any(module.training for module in net.modules())
    x = np.random.default_rng(0).random((2, 1, 4, 4), np.float32)
    np.testing.assert_array_equal(net(x).data, net(x).data)
    net.train().requires_grad_(False)
    assert not net(x).requires_grad
    net.requires_grad_()
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.state_dict()["bn.num_batches_tracked"] == 2
    assert "Conv2d(1, 2, kernel_size=(3, 3))" in repr(net)
    visited: list[str] = []
    net.apply(lambda module: visited.append(type(module).__name__))
    assert visited[0] == "Conv2d"
    assert visited[-1] == "Small"


def test_shared_parameters_come_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert net.parameter_count() == 9 + 3 + 3
    assert len(net.state_dict()) == 4


def test_containers() -> None:
    layers = nn.ModuleList([nn.ReLU(), nn.Tanh()])
    layers.append(nn.Sigmoid())
    assert [type(layer).__name__ for layer in layers] == ["ReLU", "Tanh", "Sigmoid"]
    assert len(layers) == 3
    chain = nn.Sequential({"first": nn.ReLU(), "second": nn.Tanh()}).append(nn.Identity())
    assert [name for name, _ in chain.named_children()] == ["first", "second", "2"]
    assert len(chain) == 3
    np.testing.assert_allclose(chain(np.array([-1.0, 2.0])).data, [0, math.tanh(2)])
    with pytest.raises(NotImplementedError, match="Module"):
        nn.Module()(1)


def test_to_another_dtype() -> None:
    net = Small().to(np.float64)
    kinds = {name: value.dtype.name for name, value in net.state_dict().items()}
    assert kinds.pop("bn.num_batches_tracked") == "int64"
    assert set(kinds.values()) == {"float64"}
    with pytest.raises(TypeError, match="int32"):
        net.to(np.int32)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, 2, 1), (2, 2, 7), (2, 3, 4)),
    "conv2d": (lambda: nn.Conv2d(2, 4, 3, padding="same", groups=2), (1, 2, 4, 5), (1, 4, 4, 5)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, activation="silu"), (1, 1, 3, 4, 3), (1, 2, 2, 3, 2)),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(2, 3, 2, 2), (1, 2, 4), (1, 3, 8)),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2, data_format="NHWC"),
        (1, 3, 4, 2),
        (1, 6, 8, 4),
    ),
    "conv_transpose3d": (
        lambda: nn.ConvTranspose3d(1, 2, 2, activation="hardswish"),
        (1, 1, 2, 2, 2),
        (1, 2, 3, 3, 3),
    ),
    "linear": (lambda: nn.Linear(4, 3, activation="tanh"), (2, 5, 4), (2, 5, 3)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(3), (4, 3), (4, 3)),
    "batch_norm2d": (
        lambda: nn.BatchNorm2d(3, activation="tanh", data_format="NHWC"),
        (2, 2, 2, 3),
        (2, 2, 2, 3),
    ),
    "batch_norm3d": (lambda: nn.BatchNorm3d(2, affine=False), (2, 2, 1, 2, 2), (2, 2, 1, 2, 2)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (2, 4, 3), (2, 4, 3)),
    "layer_norm": (lambda: nn.LayerNorm((2, 3)), (2, 2, 3), (2, 2, 3)),
    "instance_norm1d": (lambda: nn.InstanceNorm1d(2, affine=True), (2, 2, 4), (2, 2, 4)),
    "instance_norm2d": (lambda: nn.InstanceNorm2d(2), (1, 2, 2, 3), (1, 2, 2, 3)),
    "instance_norm3d": (lambda: nn.InstanceNorm3d(2), (1, 2, 2, 2, 2), (1, 2, 2, 2, 2)),
    "local_response_norm": (lambda: nn.LocalResponseNorm(3, 0.5), (1, 4, 2, 2), (1, 4, 2, 2)),
    "max_pool": (lambda: nn.MaxPool2d(2), (1, 2, 4, 5), (1, 2, 2, 2)),
    "avg_pool": (lambda: nn.AvgPool1d(2, ceil_mode=True), (1, 2, 5), (1, 2, 3)),
    "sum_pool": (lambda: nn.SumPool3d(2), (1, 1, 2, 2, 2), (1, 1, 1, 1, 1)),
    "lp_pool": (lambda: nn.LPPool2d(2.0, 2), (1, 1, 4, 4), (1, 1, 2, 2)),
    "adaptive_avg": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (1, 1, 4, 4), (1, 1, 2, 3)),
    "adaptive_max": (lambda: nn.AdaptiveMaxPool1d(2), (1, 1, 5), (1, 1, 2)),
    "stochastic": (lambda: nn.StochasticPool2d(2, rng=3), (1, 1, 4, 4), (1, 1, 2, 2)),
    "global_avg": (lambda: nn.GlobalAvgPool(data_format="NHWC"), (1, 4, 4, 2), (1, 1, 1, 2)),
    "global_max": (lambda: nn.GlobalMaxPool(), (1, 2, 4), (1, 2, 1)),
    "upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 1, 2, 3), (1, 1, 4, 6)),
    "flatten": (lambda: nn.Flatten(), (2, 3, 4), (2, 12)),
    "relu6": (nn.ReLU6, (3,), (3,)),
    "leaky_relu": (lambda: nn.LeakyReLU(0.2), (3,), (3,)),
    "silu": (nn.SiLU, (3,), (3,)),
    "hardswish": (nn.Hardswish, (3,), (3,)),
    "gelu": (lambda: nn.GELU("tanh"), (3,), (3,)),
    "softmax": (lambda: nn.Softmax(), (2, 3), (2, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """Shape, and gradients of inputs and parameters."""
    make, shape, out = LAYERS[name]
    nn.manual_seed(0)
    layer = make().to(np.float64)
    x = Tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    assert layer(x).shape == out
    assert layer.eval()(x).shape == out
    layer.train()
    own = dict(layer.named_parameters())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        for name, value in zip(own, values, strict=True):
            vars(layer)[name] = value
        return layer(x)

    assert gradcheck(function, [x, *own.values()])
    assert repr(layer)


def test_flatten_keeps_the_order_of_channels_first() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    last = np.moveaxis(x, 1, -1)
    np.testing.assert_array_equal(nn.Flatten("channels_last")(last).data, nn.Flatten()(x).data)


def test_dropout_draws_from_the_generator_of_the_process() -> None:
    layer, x = nn.Dropout(0.5), np.ones((50,), np.float32)
    nn.manual_seed(3)
    first = layer(x).data
    second = layer(x).data
    assert not np.array_equal(first, second)
    nn.manual_seed(3)
    np.testing.assert_array_equal(layer(x).data, first)
    own = nn.Dropout(0.5, rng=np.random.default_rng(1))
    assert not np.array_equal(own(x).data, own(x).data)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_norms_are_folded_into_convolutions(bias: bool, affine: bool) -> None:
    rng = np.random.default_rng(0)
    conv = nn.Conv2d(2, 3, 3, bias=bias)
    norm = nn.BatchNorm2d(3, affine=affine, activation="relu")
    net = nn.Sequential(nn.Identity(), conv, norm, nn.Identity()).to(np.float64)
    x = rng.standard_normal((2, 2, 5, 5))
    residual = rng.standard_normal((2, 3, 3, 3))

    def check() -> None:
        recorded = net(x).data
        with_residual = norm(conv(x), residual).data
        with no_grad():
            np.testing.assert_allclose(net(x).data, recorded, rtol=1e-12, atol=1e-12)
            y = norm.after(conv, x, residual).data
            np.testing.assert_allclose(y, with_residual, rtol=1e-12, atol=1e-12)

    for _ in range(3):
        net(x)  # statistics
    net.eval()
    check()
    kept = norm.folded
    check()
    assert norm.folded is kept is not None, "folded anew without need"
    with no_grad():
        conv.weight += 0.5
    check()
    assert norm.folded is not kept
    if norm.bias is not None:
        norm.bias.data = np.arange(3.0)
        check()
    net.train()
    with no_grad():
        net(x)
    net.eval()
    check()


def test_errors_of_layers() -> None:
    with pytest.raises(ValueError, match="in_channels is 3 and groups 2"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="kernel_size"):
        nn.Conv2d(3, 4, (3, 3, 3))
    with pytest.raises(ValueError, match="data_format"):
        nn.Conv2d(3, 4, 3, data_format="NCL")
    with pytest.raises(ValueError, match="num_channels, 3"):
        nn.GroupNorm(2, 3)


# ---- states --------------------------------------------------------------------------------


def test_state_round_trip(tmp_path: Path) -> None:
    nn.manual_seed(1)
    a, b = Small(), Small()
    a(np.random.default_rng(0).random((2, 1, 4, 4), np.float32))
    a.save(tmp_path / "net.safetensors", {"epoch": "3"})
    version = b.conv.weight.version[0]
    b.load(tmp_path / "net.safetensors")
    assert b.conv.weight.version[0] > version
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        np.testing.assert_array_equal(x, y)
    assert safetensors.load_metadata(tmp_path / "net.safetensors") == {"epoch": "3"}


def test_states_that_do_not_fit() -> None:
    net = Small()
    state = {name: np.ones_like(value) for name, value in net.state_dict().items()}
    state["head.2.weight"] = np.ones((4, 8), np.float32)
    del state["conv.bias"]
    del state["bn.num_batches_tracked"]
    state["extra"] = np.ones(1)
    before = net.conv.weight.data.copy()
    with pytest.raises(ValueError, match="Small") as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "conv.bias is missing, shape (2,)" in text
    assert "head.2.weight has shape (4, 8); it must be (3, 8)" in text
    assert "extra is unknown" in text
    assert "num_batches_tracked" not in text
    np.testing.assert_array_equal(net.conv.weight.data, before)
    state["head.2.weight"] = np.ones((3, 8), np.float16)
    net.load_state_dict(state, strict=False)
    assert net.conv.weight.data.min() == 1
    assert net.head[2].weight.dtype == np.float32


# ---- safetensors ---------------------------------------------------------------------------

DTYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def test_arrays_in_a_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"a.{code}": (rng.random((3, 5)) * 3).astype(code) for code in DTYPES}
    arrays |= {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 4), np.float32),
        "strided": np.arange(12.0).reshape(3, 4).T[::-1],
        "big-endian": np.arange(3, dtype=">i4"),
        "ünïcode": np.ones(1, np.int8),
    }
    path = tmp_path / "a.safetensors"
    safetensors.save_file(arrays, path)
    found = safetensors.load_file(path)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)
        assert found[name].flags.aligned
        assert found[name].flags.writeable
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_the_official_package_agrees(tmp_path: Path) -> None:
    official = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {f"a.{code}": (rng.random((3, 5)) * 3).astype(code) for code in DTYPES}
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    safetensors.save_file(arrays, ours, {"k": "v"})
    official.save_file(arrays, theirs, {"k": "v"})
    for found in (official.load_file(ours), safetensors.load_file(theirs)):
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert safetensors.load_metadata(theirs) == {"k": "v"}


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_bfloat16_and_unaligned_arrays(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    values = np.array([1.5, -2.0, 3.140625], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = {"a": entry(0, 1, "U8", [1]), "b": entry(1, 7, "BF16", [3]), "c": entry(7, 11)}
    path.write_bytes(file_of(header, b"\1" + halves + np.float32(7).tobytes()))
    found = safetensors.load_file(path)
    np.testing.assert_array_equal(found["b"], values)
    np.testing.assert_array_equal(found["c"], [7])
    assert found["c"].flags.aligned


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 bytes"),
    "short": (b"1234567", "7 bytes"),
    "header beyond the file": (file_of({}, length=50), "50 bytes, and it has 10"),
    "huge header": (file_of({}, length=2**62), "more than 100 MB"),
    "no JSON": (file_of(b"{'a': 1}"), "not JSON"),
    "no UTF-8": (file_of(b'{"\xff": 1}'), "not JSON"),
    "deep JSON": (file_of(b"[" * 200_000), "JSON"),
    "a list": (file_of([]), "no JSON object"),
    "twice": (file_of(b'{"a": {}, "a": {}}'), "'a' is there twice"),
    "metadata": (file_of({"__metadata__": {"a": 1}}), "__metadata__"),
    "a number": (file_of({"a": 1}), "a must have dtype"),
    "more keys": (file_of({"a": entry(0, 4) | {"more": 1}}, bytes(4)), "a must have dtype"),
    "dtype": (file_of({"a": entry(0, 4, "F8_E4M3")}, bytes(4)), "F8_E4M3"),
    "dtype list": (file_of({"a": entry(0, 4, ["F32"])}, bytes(4)), "dtype"),  # type: ignore[arg-type]
    "negative shape": (file_of({"a": entry(0, 4, shape=[-1])}, bytes(4)), "shape"),
    "bool shape": (file_of({"a": entry(0, 4, shape=[True])}, bytes(4)), "shape"),
    "float shape": (file_of({"a": entry(0, 4, shape=[1.0])}, bytes(4)), "shape"),
    "many axes": (file_of({"a": entry(0, 4, shape=[1] * 70)}, bytes(4)), "70 axes"),
    "three offsets": (
        file_of({"a": entry(0, 4) | {"data_offsets": [0, 2, 4]}}, bytes(4)),
        "data_offsets",
    ),
    "beyond": (file_of({"a": entry(0, 8)}, bytes(4)), "the arrays have 4 bytes"),
    "backwards": (file_of({"a": entry(4, 0, shape=[0])}, bytes(4)), "data_offsets"),
    "size": (file_of({"a": entry(0, 4, shape=[2])}, bytes(4)), "needs 8 bytes and has 4"),
    "overflow": (file_of({"a": entry(0, 4, shape=[2**40, 2**40])}, bytes(4)), "needs"),
    "overlap": (file_of({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "overlaps"),
    "gap": (file_of({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "gap from 4"),
    "more bytes": (file_of({"a": entry(0, 4)}, bytes(5)), "1 bytes at the end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(name: str, tmp_path: Path) -> None:
    content, words = HOSTILE[name]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        safetensors.load_file(path)
    assert "hostile.safetensors is no safetensors file" in str(caught.value)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"a": np.arange(3.0), "b": np.ones(2, np.int8)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="no safetensors file"):
            safetensors.load_file(path)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.save_file({"a": np.ones(3)}, path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        safetensors.save_file({"a": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(TypeError, match="complex128"):
        safetensors.save_file({"a": np.ones(1, complex)}, path)
    with pytest.raises(TypeError, match="metadata"):
        safetensors.save_file({}, path, {"epoch": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="__metadata__"):
        safetensors.save_file({"__metadata__": np.ones(1)}, path)
    with pytest.raises(FileNotFoundError):
        safetensors.load_file(path)


# ---- initial values ------------------------------------------------------------------------


def test_initial_values() -> None:
    weight = Tensor(np.zeros((64, 32, 3, 3), np.float32))
    rng = np.random.default_rng(0)
    fan_in, fan_out = 32 * 9, 64 * 9

    def spread() -> float:
        return float(weight.data.std())

    init.kaiming_normal_(weight, nonlinearity="relu", rng=rng)
    assert spread() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
    init.kaiming_uniform_(weight, a=math.sqrt(5), mode="fan_out", rng=rng)
    assert np.abs(weight.data).max() == pytest.approx(1 / math.sqrt(fan_out), rel=0.01)
    init.xavier_normal_(weight, 2.0, rng=rng)
    assert spread() == pytest.approx(2 * math.sqrt(2 / (fan_in + fan_out)), rel=0.02)
    init.xavier_uniform_(weight, rng=rng)
    assert np.abs(weight.data).max() == pytest.approx(math.sqrt(6 / (fan_in + fan_out)), rel=0.01)
    init.trunc_normal_(weight, 1, 0.5, 0.5, 1.2, rng=rng)
    assert weight.data.min() >= 0.5
    assert weight.data.max() <= 1.2
    init.uniform_(weight, 2, 3, rng=rng)
    assert 2 <= weight.data.min() < 2.01 < 2.99 < weight.data.max() <= 3
    init.normal_(weight, 5, 2, rng=rng)
    assert weight.data.mean() == pytest.approx(5, rel=0.02)
    assert init.constant_(weight, 4).data.min() == 4
    assert init.ones_(weight).data.max() == 1
    assert init.zeros_(weight) is weight
    assert not weight.data.any()
    for wrong in (
        lambda: init.kaiming_normal_(weight, mode="fan"),
        lambda: init.kaiming_normal_(weight, nonlinearity="gelu"),
        lambda: init.xavier_normal_(Tensor(np.zeros(3))),
        lambda: init.trunc_normal_(weight, 0, 1, 9, 10),
    ):
        with pytest.raises(ValueError, match=r"mode|nonlinearity|axes|never"):
            wrong()


def test_one_seed_gives_one_network() -> None:
    def bits() -> bytes:
        nn.manual_seed(5)
        return b"".join(value.tobytes() for value in Small().state_dict().values())

    assert bits() == bits()
    with init.skip():
        assert not nn.Conv2d(3, 4, 3).weight.data.any()
        assert not nn.BatchNorm2d(3).weight.data.any()
    assert nn.Conv2d(3, 4, 3).weight.data.any()


# ---- optimizers ----------------------------------------------------------------------------

OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], str, dict[str, Any]]] = {
    "sgd": (optim.SGD, "SGD", {"lr": 0.1}),
    "sgd_momentum": (
        optim.SGD,
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    ),
    "sgd_nesterov": (
        optim.SGD,
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (optim.Adam, "Adam", {"lr": 0.1, "weight_decay": 0.01}),
    "adamw": (optim.AdamW, "AdamW", {"lr": 0.1, "betas": (0.8, 0.99), "weight_decay": 0.1}),
}


def descend(optimizer: Any, parameters: Any, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(((p - 1.5 * i - step) ** 2).sum() for i, p in enumerate(parameters))
        loss.backward()
        optimizer.step()


def leaves() -> list[nn.Parameter]:
    rng = np.random.default_rng(0)
    return [nn.Parameter(rng.standard_normal(shape)) for shape in ((3,), (2, 2))]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on_from_their_state(name: str) -> None:
    make, _, options = OPTIMIZERS[name]
    ours = leaves()
    optimizer = make(ours, **options)
    descend(optimizer, ours, 3)
    again = [nn.Parameter(p.data.copy()) for p in ours]
    state = {key: value.copy() for key, value in optimizer.state_dict().items()}
    resumed = make(again, lr=7.0, **{k: v for k, v in options.items() if k != "lr"})
    resumed.load_state_dict(state)
    assert resumed.lr == options["lr"]
    descend(optimizer, ours, 2)
    descend(resumed, again, 2)
    for a, b in zip(ours, again, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert a.version[0] > 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_torch_s(name: str) -> None:
    torch = pytest.importorskip("torch")
    make, theirs_name, options = OPTIMIZERS[name]
    ours = leaves()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in ours]
    descend(make(ours, **options), ours, 5)
    descend(getattr(torch.optim, theirs_name)(theirs, **options), theirs, 5)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-12)


def test_parameters_without_a_gradient_stay() -> None:
    a, b = leaves()
    before = b.data.copy()
    optimizer = optim.Adam([a, b])
    (a * a).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(b.data, before)
    assert not any(key.endswith(".1") for key in optimizer.state_dict())


def test_a_step_before_a_backward_is_noticed() -> None:
    w = nn.Parameter(np.ones(3))
    x = Tensor(np.ones(3), requires_grad=True)
    y = (w * x).sum()
    y.backward(retain_graph=True)
    optim.SGD([w], 0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_errors_of_optimizers() -> None:
    p = leaves()
    for wrong, words in (
        (lambda: optim.SGD([], 0.1), "empty"),
        (lambda: optim.SGD(p, -1), "lr is -1"),
        (lambda: optim.SGD(p, math.nan), "lr is nan"),
        (lambda: optim.SGD(p, 0.1, nesterov=True), "nesterov"),
        (lambda: optim.Adam(p, betas=(0.9, 1.0)), r"betas\[1\] is 1.0"),
        (lambda: optim.Adam(p).load_state_dict({"lr": 1}), "lacks steps"),
        (
            lambda: optim.Adam(p).load_state_dict({"lr": 1, "steps": 1, "momentum.0": np.ones(3)}),
            "momentum.0",
        ),
        (
            lambda: optim.Adam(p).load_state_dict({"lr": 1, "steps": 1, "mean.0": np.ones(4)}),
            r"mean.0 has shape \(4,\)",
        ),
        (lambda: optim.StepLR(optim.SGD(p), 0), "step_size"),
        (lambda: optim.CosineAnnealingLR(optim.SGD(p), 0), "t_max"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_schedules() -> None:
    optimizer = optim.SGD(leaves(), 0.8)
    schedule: optim.Schedule = optim.StepLR(optimizer, 2, 0.5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.lr)
        schedule.step()
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])
    optimizer = optim.SGD(leaves(), 1.0)
    schedule = optim.CosineAnnealingLR(optimizer, 4, 0.2)
    rates = []
    for _ in range(5):
        rates.append(optimizer.lr)
        schedule.step()
    middle = 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2
    assert rates == pytest.approx([1.0, middle, 0.6, 1.2 - middle, 0.2])
    other = optim.CosineAnnealingLR(optim.SGD(leaves(), 9.0), 4, 0.2)
    other.load_state_dict(schedule.state_dict())
    assert other.optimizer.lr == optimizer.lr
    with pytest.raises(NotImplementedError):
        optim.Schedule(optimizer).step()


# ---- training ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_one_seed_gives_one_training_run(layout: str) -> None:
    """Bit for bit, for any number of threads."""
    rng = np.random.default_rng(0)
    shape = (12, 1, 32, 32) if layout == "channels_first" else (12, 32, 32, 1)
    x, labels = rng.random(shape, np.float32), rng.integers(0, 10, 12)

    def train() -> bytes:
        nn.manual_seed(7)
        net = cl.zoo.lenet(data_format=layout)
        optimizer = optim.Adam(net.parameters(), 1e-3)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels).backward()
            optimizer.step()
        return b"".join(value.tobytes() for value in net.state_dict().values())

    found = []
    for threads in (1, 2, 5):
        with cl.threads(threads):
            found.append(train())
    assert found[0] == found[1] == found[2]


def test_lenet_learns() -> None:
    nn.manual_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    x = rng.random((40, 32, 32, 1), np.float32) * 0.1
    for i, label in enumerate(labels):
        x[i, 8 * label : 8 * label + 8] += 1
    net = cl.zoo.lenet(4, data_format="channels_last")
    optimizer = optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
    with no_grad():
        assert (net.eval()(x).argmax(1) == labels).all()
    assert loss.item() < 0.1

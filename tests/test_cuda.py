"""The CUDA part: kernels, plans and the functions that lead there, on a device where there is one,
and on the processor, compiled with an emulator, where two orders of threads show missing barriers.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import cuda_devices
import numpy as np
import pytest
from cuda_devices import Emulated, TorchDevice, rounded
from problems import (
    DIRECTIONS,
    LAYOUTS,
    PADDING_MODES,
    Operands,
    error_bound,
    expected,
    move_channels,
    operands,
    parse,
    shapes,
)

import convolith as cl
from convolith import _core
from convolith.cuda import _arrays, _backend, _library

DTYPES = ("float32", "float64", "float16", "bfloat16")
W = np.ones((4, 3, 3, 3))


@pytest.fixture(
    scope="module", params=[pytest.param("emulated", marks=pytest.mark.emulated), "device"]
)
def where(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Emulated | TorchDevice]:
    _backend._backends.clear()
    if request.param == "emulated":
        if cuda_devices.compiler() is None:
            pytest.skip("there is no C++ compiler for the emulated device")
        file = cuda_devices.build_emulated(tmp_path_factory.mktemp("emulated"))
        _library.replace(file)
        yield Emulated(file)
        _library.replace(None)
    else:
        if not cl.cuda.is_available():
            pytest.skip(cl.cuda.show_config("dicts")["reason"])
        yield TorchDevice(pytest.importorskip("torch"))
    _backend._backends.clear()


def run(where: Any, plan: _backend.DevicePlan, a: Operands, dtype: str) -> Any:
    """The plan's result, written over NaN."""
    p = plan.problem
    out = where.put(np.full(shapes(p)[2], np.nan), dtype)
    arrays = [where.put(array, dtype) for array in a.as_tuple()]
    assert plan.execute(*arrays, out) is out
    return where.get(out)


def check(where: Any, p: _core.ConvProblem, seed: int, dtypes: tuple[str, ...] = DTYPES) -> int:
    """Every algorithm on integer data, both layouts; returns how many ran."""
    p = p.replace(data_format="channels_first", dtype="float64")
    a = operands(p, np.random.default_rng(seed))
    exact = expected(p, a)
    ran = 0
    for layout, dtype in itertools.product(LAYOUTS, dtypes):
        variant = p.replace(data_format=layout, dtype=dtype)
        maps = p.direction != "backward_weight"
        answer = move_channels(exact, "channels_first", layout) if maps else exact
        held = Operands(
            move_channels(a.first, "channels_first", layout),
            a.second if maps else move_channels(a.second, "channels_first", layout),
            a.bias,
            None if a.residual is None else move_channels(a.residual, "channels_first", layout),
        )
        for record in _backend.algorithms(variant):
            # A block for each weight takes the emulator long.
            slow = record["name"] == "direct" and not maps and np.prod(p.weight_shape) > 500
            if not record["supported"] or slow:
                continue
            plan = _backend.DevicePlan(variant, record["name"])
            results = []
            for order in where.orders:
                where.set_order(order)
                results.append(run(where, plan, held, dtype))
            where.set_order(0)
            bits = {result.tobytes() for result in results}
            assert len(bits) == 1, f"{variant}: {record['name']}"
            if not np.array_equal(results[0], rounded(answer, dtype)):
                error = np.abs(results[0].astype(np.float64) - answer)
                bound = error_bound(variant, held, record["tolerance"])
                assert record["tolerance"]["uniform"] > 0 or p.activation == "leaky_relu", (
                    f"{variant}: {record['name']}, {error.max()}"
                )
                assert np.all(error <= bound), f"{variant}: {record['name']}"
            ran += 1
    return ran


def seed_of(*key: object) -> int:
    return zlib.crc32(repr(key).encode())


STEPS = ("", "s2", "s3x2 d1x2", "d2", "s2x3 d2x1")
CHANNELS = ("c5 k7", "c6 k4 g2", "c3 k3 g3", "c3 k6 g3", "c17 k9", "c16 k8", "c16 k16 g2")
PADS = ("p0", "p1", "p1:2", "psame")
WORDS = ("", "bias", "bias relu", "residual leaky_relu slope=0.5", "bias residual relu6")


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_convolution(direction: str, mode: str, where: Any) -> None:
    ran = 0
    for turn, (step, channels) in enumerate(itertools.product(STEPS, CHANNELS)):
        words = "" if direction == "backward_weight" else WORDS[turn % len(WORDS)]
        pad = PADS[1 + turn % 3] if mode != "zeros" else PADS[turn % 4]
        kernel = ("3x3", "1x1", "2x3")[turn % 3]
        text = (
            f"conv2d n2 {channels} i{7 + turn % 3}x{6 + turn % 5} f{kernel} {step} {pad} {mode} "
            f"{direction} {words}"
        )
        dtypes = (DTYPES[turn % 4], "float32")
        ran += check(where, parse(text), seed_of(text), tuple(dict.fromkeys(dtypes)))
    assert ran > len(STEPS) * len(CHANNELS)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "text",
    [
        "conv1d n2 c5 i41 k6 f3 s2 p1",
        "conv1d n1 c8 i17 k16 f5 d2 p4 g2",
        "conv3d n2 c4 i5x6x5 k6 f3 s2 p1 g2",
        "conv3d n1 c8 i4x5x6 k8 f2x3x1 p1:0",
        "conv2d n0 c4 i5x6 k3 f3",
        "conv2d n1 c24 i12x11 k72 f3 p1",
    ],
)
def test_ranks_and_tails(text: str, direction: str, where: Any) -> None:
    assert check(where, parse(text).replace(direction=direction), seed_of(text))


POOLINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool2d", {"kernel_size": (2, 3), "dilation": 2, "ceil_mode": True}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("avg_pool2d", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", {"kernel_size": 2, "divisor_override": 8}),
    ("sum_pool2d", {"kernel_size": (4, 1), "stride": (1, 2)}),
    ("lp_pool2d", {"norm_type": 2, "kernel_size": 3, "stride": 2}),
    ("adaptive_avg_pool2d", {"output_size": (4, 3)}),
    ("adaptive_max_pool2d", {"output_size": 5}),
    ("global_avg_pool", {}),
    ("global_max_pool", {}),
)


@pytest.mark.parametrize("data_format", LAYOUTS)
@pytest.mark.parametrize(("name", "options"), POOLINGS)
def test_pooling(name: str, options: dict[str, Any], data_format: str, where: Any) -> None:
    rng = np.random.default_rng(0)
    # Multiples of 8 have exact means of 8 and fewer elements; ties and NaN are among them.
    x = 8.0 * rng.integers(
        -4, 5, (2, 3, 9, 10) if data_format == "channels_first" else (2, 9, 10, 3)
    )
    if "max" in name:
        x[0, 1, 1, 1] = np.nan
    forward, backward = getattr(cl, name), getattr(cl, f"{name}_backward")
    y = forward(x, **options, data_format=data_format)
    dy = rng.integers(-4, 5, y.shape).astype(np.float64)
    dx = backward(dy, x, **options, data_format=data_format)
    for dtype, close in zip(DTYPES, (1e-6, 1e-14, 1e-3, 1e-2), strict=True):
        on_device, slope = where.put(x, dtype), where.put(dy, dtype)
        computed = where.get(forward(on_device, **options, data_format=data_format))
        np.testing.assert_allclose(computed, y, rtol=close, atol=close)
        computed = where.get(backward(slope, on_device, **options, data_format=data_format))
        np.testing.assert_allclose(computed, dx, rtol=close, atol=8 * close)


def test_indices_of_max_pooling(where: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 3, 7, 8)).astype(np.float32)
    y, indices = cl.max_pool2d(x, 3, 2, 1, return_indices=True)
    on_device = where.put(x, "float32")
    results = cl.max_pool2d(on_device, 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(where.get(results[0]), y)
    np.testing.assert_array_equal(where.get(results[1]), indices)
    dx = cl.max_pool2d_backward(results[0], on_device, 3, 2, 1, indices=results[1])
    np.testing.assert_array_equal(where.get(dx), cl.max_pool2d_backward(y, x, 3, 2, 1))


@pytest.mark.parametrize("data_format", LAYOUTS)
def test_bias_gradient(data_format: str, where: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 5, 6, 40)).astype(np.float32)
    w_shape = (x.shape[1 if data_format == "channels_first" else 3], 1, 1, 1)
    options: dict[str, Any] = {"groups": w_shape[0], "bias_grad": True, "data_format": data_format}
    dw, db = cl.conv_backward_weight(x, x, w_shape, **options)
    a = where.put(x, "float32")
    results = cl.conv_backward_weight(a, a, w_shape, **options)
    np.testing.assert_array_equal(where.get(results[0]), dw)
    np.testing.assert_array_equal(where.get(results[1]), db)


def test_functions_take_arrays_of_a_device(where: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 3, 8, 9)).astype(np.float32)
    w = rng.integers(-4, 5, (4, 3, 3, 3)).astype(np.float32)
    b = np.arange(4, dtype=np.float32)
    on_device = [where.put(a, "float32") for a in (x, w, b)]
    y = cl.conv2d(*on_device, stride=2, padding="same", activation="relu")
    assert type(y) is type(on_device[0])
    np.testing.assert_array_equal(
        where.get(y), cl.conv2d(x, w, b, stride=2, padding="same", activation="relu")
    )
    dx = cl.conv_backward_input(y, on_device[1], x.shape, stride=2, padding="same")
    np.testing.assert_array_equal(
        where.get(dx), cl.conv_backward_input(where.get(y), w, x.shape, stride=2, padding="same")
    )
    plan = cl.plan_conv(x.shape, on_device[1], on_device[2], stride=2, padding="same")
    np.testing.assert_array_equal(
        where.get(plan(on_device[0])), cl.conv2d(x, w, b, stride=2, padding="same")
    )
    assert "* " + plan.algorithm in plan.explain()


def test_arrays_whose_channels_touch_stay_so(where: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 8, 9, 3)).astype(np.float32)
    w = rng.integers(-4, 5, (4, 3, 3, 3)).astype(np.float32)
    first = where.put(x, "float32").permute((0, 3, 1, 2))
    y = cl.conv2d(first, where.put(w, "float32"), padding=1)
    assert (tuple(y.shape), _arrays.kind_of(y).view(y).strides[1]) == ((2, 4, 8, 9), 1)
    exact = cl.conv2d(x, w, padding=1, data_format="channels_last")
    np.testing.assert_array_equal(where.get(y.permute((0, 2, 3, 1))), exact)


@pytest.mark.parametrize(
    ("call", "error", "pattern"),
    [
        (lambda x, w, put: cl.conv2d(x, np.ones((4, 3, 3, 3))), TypeError, "weight is a nd"),
        (lambda x, w, put: cl.conv2d(x, put(W, "float64")), TypeError, "dtype"),
        (lambda x, w, put: cl.conv2d(x, w, groups=2), ValueError, "groups is 2"),
        (lambda x, w, put: cl.conv2d(x, w, algorithm="none"), cl.UnsupportedError, "direct: supp"),
        (lambda x, w, put: cl.conv2d(x, w, out=x), ValueError, "out has shape"),
        (lambda x, w, put: cl.conv2d(x, w, bias=w), ValueError, "bias has shape"),
    ],
)
def test_errors(call: Any, error: type[Exception], pattern: str, where: Any) -> None:
    x = where.put(np.ones((1, 3, 5, 5)), "float32")
    w = where.put(W, "float32")
    with pytest.raises(error, match=pattern):
        call(x, w, where.put)


def test_algorithms_of_a_device(where: Any) -> None:
    records = cl.algorithms(
        (2, 8, 8, 16), (16, 16, 3, 3), dtype="float16", data_format="NHWC", device="cuda"
    )
    assert "tensor_gemm" in [record["name"] for record in records if record["supported"]]
    with pytest.raises(ValueError, match="device is 'tpu'"):
        cl.algorithms((2, 16, 8, 8), (16, 16, 3, 3), device="tpu")


def test_float32_is_not_rounded_unasked(where: Any) -> None:
    x = where.put(np.ones((1, 8, 8, 16)), "float32")
    w = where.put(np.ones((16, 16, 3, 3)), "float32")
    plan = cl.plan_conv(x.shape, w, data_format="NHWC")
    assert plan.algorithm != "tensor_gemm_tf32"
    assert "tensor_gemm_tf32: predicted" in plan.explain()
    plan = cl.plan_conv(x.shape, w, data_format="NHWC", algorithm="tensor_gemm_tf32")
    np.testing.assert_array_equal(where.get(plan(x)), 144.0)


@pytest.fixture(scope="module")
def torch() -> Any:
    if not cl.cuda.is_available():
        pytest.skip(cl.cuda.show_config("dicts")["reason"])
    return pytest.importorskip("torch")


def test_device_layers(torch: Any) -> None:
    """A layer too large for the emulator, of normal numbers, within the bounds."""
    rng = np.random.default_rng(0)
    for text in ("conv2d n8 c64 i56x56 k64 f3x3 p1", "conv2d n4 c96 i31x29 k160 f3x3 s2 p1"):
        for direction, dtype in itertools.product(DIRECTIONS, DTYPES):
            p = parse(text).replace(direction=direction, dtype=dtype, data_format="channels_last")
            a = operands(p.replace(dtype="float64"), rng, integers=False)
            held = Operands(*(None if v is None else rounded(v, dtype) for v in a.as_tuple()))
            wide = Operands(*(None if v is None else v.astype(np.float64) for v in held.as_tuple()))
            exact = expected(p.replace(dtype="float64"), wide)
            for record in _backend.algorithms(p):
                if record["supported"]:
                    plan = _backend.DevicePlan(p, record["name"])
                    computed = run(TorchDevice(torch), plan, wide, dtype).astype(np.float64)
                    bound = error_bound(p, wide, record["tolerance"])
                    assert np.all(np.abs(computed - exact) <= bound), f"{p}: {record['name']}"


def test_device_streams_and_memory(torch: Any) -> None:
    x = torch.randn(8, 16, 32, 32, device="cuda")
    w = torch.randn(16, 16, 3, 3, device="cuda")
    y = cl.conv2d(x, w, padding=1)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        again = cl.conv2d(x, w, padding=1)
    stream.synchronize()
    assert torch.equal(y, again)
    free, _ = torch.cuda.mem_get_info()
    huge = torch.empty(1, 1, 1, 1, device="cuda").expand(free // 4, 1, 4, 4)
    with pytest.raises(MemoryError):
        cl.conv2d(huge, torch.ones(1, 1, 1, 1, device="cuda"))
    assert torch.equal(cl.conv2d(x, w, padding=1), y)


@pytest.mark.parametrize("library", ["cupy", "jax.numpy"])
def test_device_arrays_of_other_libraries(library: str, torch: Any) -> None:
    module = pytest.importorskip(library)
    x = np.arange(2 * 3 * 5 * 6, dtype=np.float32).reshape(2, 3, 5, 6)
    w = np.ones((4, 3, 3, 3), np.float32)
    y = cl.conv2d(module.asarray(x), module.asarray(w), padding=1)
    assert type(y) is type(module.asarray(x))
    computed = y.get() if library == "cupy" else np.asarray(y)
    np.testing.assert_array_equal(computed, cl.conv2d(x, w, padding=1))


def test_configuration(where: Any) -> None:
    assert cl.cuda.is_available()
    assert cl.cuda.devices()[0]["multiprocessors"] > 0
    assert cl.cuda.show_config("dicts")["available"]

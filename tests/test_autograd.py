"""Gradients and gradients of gradients against central differences, and the rules of the tape."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith.autograd import (
    Tensor,
    _table,
    grad,
    gradcheck,
    gradgradcheck,
    is_recording,
    no_grad,
)
from convolith.autograd import functional as F
from convolith.autograd._operation import Operation

RNG = np.random.default_rng(0)


def tensor(*shape: int, seed: int = 0, away_from: float | None = None) -> Tensor:
    """Normal numbers; `away_from` a corner of the function, by a tenth or more."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    if away_from is not None:
        distance = values - away_from
        values = away_from + distance + np.copysign(0.1, distance)
    return Tensor(values, requires_grad=True)


def distinct(*shape: int) -> Tensor:
    """No two elements are close: what is the greatest does not change by a small step."""
    values = np.random.default_rng(1).permutation(math.prod(shape)).reshape(shape)
    return Tensor(values / values.size - 0.37, requires_grad=True)


def positive(*shape: int) -> Tensor:
    return Tensor(0.5 + np.random.default_rng(2).random(shape), requires_grad=True)


CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
LABELS = np.array([2, 0, -100, 1])
INDEX = np.array([[0, 2], [2, 1]])

Case = tuple[Callable[..., Any], list[Tensor]]
CASES: dict[str, Case] = {
    "add": (lambda a, b: a + b, [tensor(2, 3), tensor(3)]),
    "subtract": (lambda a, b: 1.5 - a - b, [tensor(2, 1), tensor(3)]),
    "multiply": (lambda a, b: a * b * 2, [tensor(2, 3), tensor(2, 1, seed=1)]),
    "divide": (lambda a, b: a / b + 1 / b, [tensor(2, 3), positive(3)]),
    "negative": (lambda x: -x, [tensor(3)]),
    "power": (lambda a, b: a**b + a**3 + 2**b, [positive(2, 3), tensor(3)]),
    "power_0": (lambda x: x**0 + x**1 + x**2, [Tensor(np.zeros(2), requires_grad=True)]),
    "exp": (F.exp, [tensor(4)]),
    "log": (F.log, [positive(4)]),
    "sqrt": (F.sqrt, [positive(4)]),
    "abs": (F.abs, [tensor(4, away_from=0)]),
    "erf": (F.erf, [tensor(6)]),
    "maximum": (F.maximum, [distinct(2, 3), tensor(3)]),
    "minimum": (F.minimum, [distinct(2, 3), tensor(3)]),
    "where": (lambda a, b: F.where(a.data > 0, a * b, b), [tensor(2, 3), tensor(3)]),
    "clip": (lambda x: F.clip(x, -0.51, 0.52) * x, [tensor(8)]),
    "clip_below": (lambda x: F.clip(x, high=0.52) * x, [tensor(8)]),
    "tanh": (F.tanh, [tensor(4)]),
    "sigmoid": (F.sigmoid, [tensor(4)]),
    "relu": (lambda x: F.relu(x) * x, [tensor(5, away_from=0)]),
    "relu6": (lambda x: F.relu6(8 * x) * x, [tensor(9, away_from=0)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2) * x, [tensor(5, away_from=0)]),
    "silu": (F.silu, [tensor(4)]),
    "hardswish": (lambda x: F.hardswish(3 * x), [tensor(9)]),
    "gelu": (F.gelu, [tensor(4)]),
    "gelu_tanh": (lambda x: F.gelu(x, "tanh"), [tensor(4)]),
    "dropout": (lambda x: F.dropout(x, 0.4, rng=np.random.default_rng(3)) * x, [tensor(9)]),
    "sum": (lambda x: x.sum() + x.sum(0) * x.sum((0, -1), keepdims=True), [tensor(2, 3)]),
    "mean": (lambda x: F.mean(x * x, 1), [tensor(2, 3)]),
    "var": (lambda x: F.var(x, (0, 2), correction=1), [tensor(2, 3, 4)]),
    "max": (lambda x: F.max(x * x, 1) + F.max(x), [distinct(3, 4)]),
    "min": (lambda x: F.min(x * x, (0, 1)) * F.min(x, 0, True), [distinct(3, 4)]),
    "logsumexp": (lambda x: F.logsumexp(x, 1) * F.logsumexp(x), [tensor(2, 3)]),
    "reshape": (lambda x: x.reshape(3, -1) * x.reshape((3, 2)), [tensor(2, 3)]),
    "transpose": (lambda x: x.transpose(2, 0, 1) * F.exp(x.transpose(2, 0, 1)), [tensor(2, 3, 2)]),
    "T": (lambda x: x.T * x.T, [tensor(2, 3)]),
    "flatten": (lambda x: F.flatten(x) ** 2, [tensor(2, 3, 2)]),
    "broadcast_to": (lambda x: F.broadcast_to(x, (2, 3)) ** 2, [tensor(2, 1)]),
    "slices": (lambda x: x[1:, ::2] * x[:-1, None, 1], [tensor(3, 3)]),
    "indices": (lambda x: x[INDEX] ** 2, [tensor(3, 2)]),
    "mask": (lambda x: x[x.data > 0] ** 2, [tensor(3, 4)]),
    "iterate": (lambda x: sum(row * row for row in x), [tensor(3, 2)]),
    "concat": (lambda a, b: F.concat([a, b, a * b[:, :2]], -1) ** 2, [tensor(2, 2), tensor(2, 3)]),
    "stack": (lambda a, b: F.stack([a, b], 1) ** 2, [tensor(2, 2), tensor(2, 2, seed=1)]),
    "pad": (lambda x: F.pad(x, [(1, 0), (2, 1)], value=3.0) ** 2, [tensor(2, 3)]),
    "pad_reflect": (lambda x: F.pad(x, [(1, 0), (2, 1)], "reflect") ** 2, [tensor(2, 3)]),
    "pad_replicate": (lambda x: F.pad(x, [(1, 0), (2, 4)], "replicate") ** 2, [tensor(2, 3)]),
    "pad_circular": (lambda x: F.pad(x, [(1, 0), (2, 1)], "circular") ** 2, [tensor(2, 3)]),
    "matmul": (lambda a, b: a @ b, [tensor(2, 3), tensor(3, 4)]),
    "matmul_stacks": (lambda a, b: a @ b, [tensor(2, 1, 2, 3), tensor(2, 3, 2)]),
    "matmul_vectors": (lambda a, b: (a @ b) * (b @ b), [tensor(2, 3), tensor(3)]),
    "matmul_transposed": (
        lambda a, b: _table.matmul(a, b, True, True) * _table.matmul(b, a, False, False).T,
        [tensor(3, 2), tensor(2, 3)],
    ),
    "matmul_one_transposed": (
        lambda a, b: _table.matmul(a, b, True, False) * _table.matmul(b, a, True, False).T,
        [tensor(3, 2), tensor(3, 4)],
    ),
    "linear": (lambda x, w, b: F.linear(x, w, b), [tensor(2, 3), tensor(4, 3), tensor(4)]),
    "linear_3d": (
        lambda x, w, b: F.linear(x, w, b, activation="tanh"),
        [tensor(2, 2, 3), tensor(4, 3), tensor(4)],
    ),
    "softmax": (lambda x: F.softmax(x, 0), [tensor(3, 2)]),
    "log_softmax": (F.log_softmax, [tensor(2, 3)]),
    "mse": (lambda a, b: F.mse_loss(a, b), [tensor(2, 3), tensor(2, 3, seed=1)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, LABELS), [tensor(4, 3)]),
    "cross_entropy_weighted": (
        lambda x: F.cross_entropy(x, LABELS, np.array([1.0, 2.0, 0.5]), label_smoothing=0.2),
        [tensor(4, 3)],
    ),
    "cross_entropy_maps": (
        lambda x: F.cross_entropy(x, INDEX[:, None], reduction="none"),
        [tensor(2, 3, 1, 2)],
    ),
    "nll": (lambda x: F.nll_loss(x, LABELS, reduction="sum") ** 2, [tensor(4, 3)]),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, activation="tanh"),
        [tensor(2, 3, 2), tensor(3), tensor(3, seed=1)],
    ),
    "batch_norm_last": (
        lambda x, w, r: F.batch_norm(
            x, None, None, w, training=True, residual=r, data_format="NLC"
        ),
        [tensor(2, 2, 3), tensor(3), tensor(2, 2, 3, seed=1)],
    ),
    "batch_norm_2d": (
        lambda x: F.batch_norm(x, None, None, training=True),
        [tensor(4, 2)],
    ),
    "batch_norm_eval": (
        lambda x, w, b: F.batch_norm(x, np.arange(3.0), np.arange(1.0, 4.0), w, b),
        [tensor(2, 3, 2), tensor(3), tensor(3, seed=1)],
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, 2, w, b),
        [tensor(2, 4, 2), tensor(4), tensor(4, seed=1)],
    ),
    "group_norm_last": (
        lambda x, w, b: F.group_norm(x, 2, w, b, data_format="channels_last"),
        [tensor(2, 2, 4), tensor(4), tensor(4, seed=1)],
    ),
    "instance_norm": (
        lambda x, w, b: F.instance_norm(x, w, b),
        [tensor(2, 2, 3), tensor(2), tensor(2, seed=1)],
    ),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (2, 3), w, b),
        [tensor(2, 2, 3), tensor(2, 3), tensor(2, 3, seed=1)],
    ),
    "upsample_nearest": (lambda x: F.upsample(x, scale_factor=2) ** 2, [tensor(1, 2, 2, 3)]),
    "upsample_nearest_odd": (lambda x: F.upsample(x, (5, 4)) ** 2, [tensor(1, 1, 2, 3)]),
    "upsample_linear": (
        lambda x: F.upsample(x, (5, 2), mode="bilinear", data_format="NHWC") ** 2,
        [tensor(1, 2, 3, 2)],
    ),
    "upsample_corners": (
        lambda x: F.upsample(x, 5, mode="linear", align_corners=True) ** 2,
        [tensor(1, 2, 3)],
    ),
    "max_pool_unpool": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2) ** 2,
        [distinct(1, 2, 4, 4)],
    ),
    "stochastic_pool": (
        lambda x: F.stochastic_pool2d(x, 2, 1, rng=5) ** 2,
        [tensor(1, 2, 3, 3)],
    ),
    "stochastic_pool_mean": (
        lambda x: F.stochastic_pool2d(x, 2, 1, training=False),
        [tensor(1, 2, 3, 3, away_from=0)],
    ),
    "global_avg_pool": (lambda x: F.global_avg_pool(x) ** 2, [tensor(2, 2, 3)]),
    "global_max_pool": (
        lambda x: F.global_max_pool(x, data_format="NHWC") ** 2,
        [distinct(2, 2, 2)],
    ),
    "cast": (lambda x: _table.cast(x, np.dtype("float64")) ** 2, [tensor(3)]),
}

for nd in (1, 2, 3):
    sides = (5, 4, 3)[:nd]
    for layout in ("channels_first", "channels_last"):
        maps = (1, 4, *sides) if layout == "channels_first" else (1, *sides, 4)
        form = {"data_format": layout}
        window = {"stride": 2, "padding": ((1, 0),) * nd, "groups": 2, **form}
        kernel = (2,) * nd
        few = (1, 4, *kernel) if layout == "channels_first" else (1, *kernel, 4)
        CASES[f"conv{nd}d_{layout}"] = (
            lambda x, w, b, nd=nd, window=window: CONV[nd](x, w, b, **window, activation="sigmoid"),
            [tensor(*maps), tensor(2, 2, *kernel), tensor(2)],
        )
        CASES[f"conv_transpose{nd}d_{layout}"] = (
            lambda x, w, b, nd=nd, window=window: CONV_TRANSPOSE[nd](
                x, w, b, **window, output_padding=1, activation="tanh"
            ),
            [tensor(*few), tensor(4, 1, *kernel), tensor(2)],
        )
        pools = {
            "max_pool": (2, 1, 1),
            "avg_pool": (2, 1, 1),
            "sum_pool": (2, 2),
            "lp_pool": (3.0, 2, 1),
            "adaptive_avg_pool": (2,),
            "adaptive_max_pool": (2,),
        }
        maps = (1, 2, *sides) if layout == "channels_first" else (1, *sides, 2)
        for name, arguments in pools.items():
            CASES[f"{name}{nd}d_{layout}"] = (
                lambda x, f=f"{name}{nd}d", a=arguments, form=form: (
                    getattr(F, f)(x, *a, **form) ** 2
                ),
                [distinct(*maps)],
            )


def replaced(x: Tensor, v: Tensor) -> Tensor:
    y = x * 1
    y[1:] = v[:2] * 3
    return y * y


CASES["replaced"] = (replaced, [tensor(3), tensor(3, seed=1)])
CASES["lp_pool_inf"] = (lambda x: F.lp_pool2d(x, math.inf, 2, 1) ** 2, [distinct(1, 1, 3, 3)])
CASES["padding_modes"] = (
    lambda x, w: F.conv1d(x, w, padding=2, padding_mode="circular", activation="hardswish"),
    [tensor(1, 2, 4), tensor(2, 2, 3)],
)
CASES["residual"] = (
    lambda x, w, r: F.conv2d(x, w, residual=r, padding="same", activation=("leaky_relu", 0.3)) ** 2,
    [tensor(1, 1, 3, 3), tensor(1, 1, 2, 2), tensor(1, 1, 3, 3, seed=1)],
)
CASES["one_sample"] = (
    lambda x, w, b: F.conv2d(x, w, b, activation="silu"),
    [tensor(2, 3, 3), tensor(1, 2, 2, 2), tensor(1)],
)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    function, inputs = CASES[name]
    assert gradcheck(function, inputs)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_gradients(name: str) -> None:
    function, inputs = CASES[name]
    assert gradgradcheck(function, inputs, atol=1e-4)


def test_every_operation_is_reached() -> None:
    """Each line of the table runs in a test above, forward and backward."""
    used: set[str] = set()
    call, gradients = Operation.__call__, Operation.gradients

    def noting(self: Operation, *arguments: Any) -> Tensor:
        used.add(self.name)
        return call(self, *arguments)

    def noting_gradients(self: Operation, *arguments: Any) -> Any:
        used.add(f"{self.name} backward")
        return gradients(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operation, "__call__", noting)
        patch.setattr(Operation, "gradients", noting_gradients)
        for function, inputs in CASES.values():
            g = grad(function(*inputs).sum(), inputs, create_graph=True, allow_unused=True)
            total = sum((t * t).sum() for t in g if t is not None and t.requires_grad)
            if isinstance(total, Tensor):
                grad(total, inputs, allow_unused=True)
    for operation in vars(_table).values():
        if isinstance(operation, Operation):
            assert operation.name in used, operation.name
            if any(operation.rules) or operation.together:
                assert f"{operation.name} backward" in used, operation.name


# ---- what the check sees -------------------------------------------------------------------


def test_gradcheck_sees_wrong_gradients() -> None:
    wrong = Operation("wrong", np.exp, x=lambda g, y: g * y * 1.01)
    with pytest.raises(AssertionError, match=r"inputs\[0\].*differences give"):
        gradcheck(wrong, tensor(3))
    wrong_twice = Operation("wrong", np.exp, x=lambda g, y: g * y.detach())
    gradcheck(wrong_twice, tensor(3))
    with pytest.raises(AssertionError, match="differences give"):
        gradgradcheck(wrong_twice, tensor(3))
    with pytest.raises(TypeError, match="float64"):
        gradcheck(F.exp, Tensor(np.ones(2, np.float32), requires_grad=True))
    with pytest.raises(ValueError, match="none requires"):
        gradcheck(F.exp, Tensor(np.ones(2)))


# ---- tensors as arrays ---------------------------------------------------------------------


def test_no_copy_in_or_out() -> None:
    array = np.arange(6.0).reshape(2, 3)
    x = Tensor(array)
    assert x.data is array
    assert x.numpy() is array
    assert np.asarray(x) is array
    assert np.shares_memory(np.from_dlpack(x), array)
    assert np.shares_memory(x.detach().data, array)
    assert np.array(x) is not array
    assert np.asarray(x, np.float32).dtype == np.float32
    assert (x.shape, x.dtype, x.ndim, x.size, len(x)) == ((2, 3), np.float64, 2, 6, 2)
    assert [row.shape for row in x] == [(3,), (3,)]


def test_arrays_and_numbers_on_either_side() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    for y in (x + 1, 1 + x, x * 2.5, 2.5 * x, 1 - x, 1 / x, x**2, np.float32([1, 2]) * x):
        assert isinstance(y, Tensor)
        assert y.dtype == np.float32
    total = (np.float64([1, 1]) * x).sum()
    assert total.dtype == np.float64
    total.backward()
    assert x.grad is not None
    assert x.grad.dtype == np.float32


def test_methods_are_the_functions_of_their_names() -> None:
    x = Tensor(np.random.default_rng(0).random((3, 4)) + 0.5, requires_grad=True)
    assert x.is_leaf
    assert not abs(x).is_leaf
    for name in ("abs", "exp", "log", "max", "mean", "min", "sqrt", "sum"):
        y = getattr(x, name)()
        assert np.allclose(y.data, getattr(np, name)(x.data)), name
    assert np.allclose(x.var(1, correction=1).data, x.data.var(1, ddof=1))
    assert np.array_equal((np.eye(3) @ x).data, x.data)


def test_comparisons_and_conversions() -> None:
    x = Tensor([1.0, 3.0])
    assert (x > 2).data.tolist() == [False, True]
    assert (x >= 3).data.tolist() == (x == 3).data.tolist() == [False, True]
    assert (x < 2).data.tolist() == (x <= 1).data.tolist() == (x != 3).data.tolist()
    assert float(x[0]) == 1.0
    assert int(x[1]) == 3
    assert bool(x[0])
    assert x.max().item() == 3.0
    assert [10, 20, 30][Tensor(1)] == 20
    assert "requires_grad" in repr(Tensor([1.0], requires_grad=True))
    assert "from=exp" in repr(Tensor([1.0], requires_grad=True).exp())


def test_integers_take_no_gradient() -> None:
    assert (Tensor([1, 2]) + 1).dtype.kind == "i"
    with pytest.raises(TypeError, match="int64"):
        Tensor([1, 2], requires_grad=True)


# ---- the tape ------------------------------------------------------------------------------


def test_gradients_add_up() -> None:
    x = Tensor([2.0], requires_grad=True)
    for times in (1, 2, 3):
        (x * x + x).backward()
        assert x.grad is not None
        assert x.grad.item() == 5.0 * times
    y = x + x + x + x
    y.backward()
    assert x.grad.item() == 19.0


@pytest.mark.parametrize("create_graph", [False, True])
def test_convolutions_of_one_input_add_to_its_gradient(create_graph: bool) -> None:
    rng = np.random.default_rng(0)
    kernels = [rng.integers(-3, 4, (3, 2, k, k)).astype(np.float64) for k in (3, 1, 3)]
    x = Tensor(rng.integers(-3, 4, (2, 2, 6, 7)).astype(np.float64), requires_grad=True)
    middle = x * 2  # neither a leaf nor used once
    ys = [F.conv2d(middle, w, padding=w.shape[2] // 2) for w in kernels]
    seeds = [rng.integers(-3, 4, y.shape).astype(np.float64) for y in ys]
    (found,) = grad([*ys, middle], x, [*seeds, x.data], create_graph=create_graph)
    expected = x.data.copy()
    for w, seed in zip(kernels, seeds, strict=True):
        expected += cl.reference.conv_backward_input(seed, w, x.shape, padding=w.shape[2] // 2)
    assert found is not None
    np.testing.assert_array_equal(found.data, 2 * expected)


def test_large_arrays_add_up() -> None:
    a, b = tensor(300, 401), tensor(300, 401, seed=1)
    c = a + b
    np.testing.assert_array_equal(c.data, a.data + b.data)
    (c * 2 + c * 3 + c * 4).backward(np.ones(c.shape))
    assert a.grad is not None
    assert (a.grad.data == 9).all()
    with no_grad():
        c += a.data.T.reshape(a.shape)
    np.testing.assert_array_equal(c.data, a.data + b.data + a.data.T.reshape(a.shape))


def test_leaves_own_their_gradients() -> None:
    a, b = tensor(3), tensor(3, seed=1)
    seed = np.ones(3)
    (a + b).backward(seed)
    assert a.grad is not None
    assert b.grad is not None
    a.grad.data[0] = 7
    assert b.grad.data[0] == seed[0] == 1
    c = tensor(2, 2)
    c.sum().backward()
    assert c.grad is not None
    c.grad.data[0, 0] = 5


def test_nothing_is_recorded_without_need() -> None:
    x = Tensor([1.0], requires_grad=True)
    assert (Tensor([1.0]) * 2).node is None
    with no_grad():
        assert not is_recording()
        assert (x * 2).node is None
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append((x * 2).requires_grad))
        thread.start()
        thread.join()
        assert found == [True]
    assert is_recording()
    (x * x).backward()
    assert x.grad is not None
    assert not x.grad.requires_grad

    @no_grad()
    def silent(t: Tensor) -> Tensor:
        return t * 2

    assert silent(x).node is None


def test_only_what_gradients_ask_for_is_kept() -> None:
    x, w = tensor(1, 1, 3, 3), Tensor(np.ones((1, 1, 2, 2)))
    hidden = x + 1
    kept = weakref.ref(hidden)
    y = F.conv2d(hidden, w)  # the weights are constant: the input is not needed
    del hidden
    assert kept() is None
    y.sum().backward()
    w = tensor(1, 1, 2, 2)
    hidden = x + 1
    kept = weakref.ref(hidden)
    y = F.conv2d(hidden, w)
    del hidden
    assert kept() is not None
    y.sum().backward()
    assert kept() is None, "a backward frees what was kept"


def test_the_graph_has_no_cycles() -> None:
    gc.collect()
    gc.disable()
    try:
        x = tensor(3)
        y = F.exp(F.tanh(x)) * F.softmax(x)
        kept = weakref.ref(y)
        del y
        assert kept() is None
    finally:
        gc.enable()


def test_deep_graphs() -> None:
    x = Tensor([1.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 1
    y = x
    for _ in range(20_000):
        y = y * 1
    del y


def test_a_second_backward() -> None:
    x = tensor(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match=r"freed by an earlier backward.*retain_graph=True"):
        y.backward()
    with pytest.raises(RuntimeError, match="freed"):
        grad(y, x)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, 4 * x.data)


def test_grad() -> None:
    x, z = tensor(3), tensor(3, seed=1)
    y = x * x
    total = (y * z).sum()
    gy, gx = grad(total, [y, x], retain_graph=True)
    assert gy is not None
    assert gx is not None
    np.testing.assert_array_equal(gy.data, z.data)
    np.testing.assert_allclose(gx.data, 2 * x.data * z.data)
    assert x.grad is z.grad is None
    other = tensor(2)
    with pytest.raises(RuntimeError, match=r"inputs\[1\]"):
        grad(total, [x, other], retain_graph=True)
    assert grad(total, [other], allow_unused=True, retain_graph=True) == (None,)
    (both,) = grad([y, y], x, [np.ones(3), np.full(3, 2.0)])
    assert both is not None
    np.testing.assert_allclose(both.data, 6 * x.data)


def test_third_derivative() -> None:
    x = Tensor([0.7], requires_grad=True)
    y = F.tanh(x) * F.exp(2 * x)
    found = y
    for _ in range(3):
        (g,) = grad(found, x, create_graph=True)
        assert g is not None
        found = g
    t, e = math.tanh(0.7), math.exp(1.4)
    d1 = 1 - t * t
    d2 = -2 * t * d1
    d3 = -2 * d1 * d1 - 2 * t * d2
    assert found.item() == pytest.approx(e * (d3 + 6 * d2 + 12 * d1 + 8 * t))


def test_errors_of_backward() -> None:
    x = tensor(3)
    with pytest.raises(RuntimeError, match=r"shape \(3,\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"shape \(2,\); it must be \(3,\)"):
        (x * 2).backward(np.ones(2))
    with pytest.raises(RuntimeError, match="does not require"):
        Tensor([1.0]).backward()
    with pytest.raises(TypeError, match="float"):
        grad((x * 2).sum(), 3.0)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="detach"):
        (x * 2).requires_grad_(False)


# ---- changes in place ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.__iadd__(1),
        lambda t: t.__imul__(2),
        lambda t: t.__setitem__(0, 5.0),
        lambda t: t.detach().__setitem__(0, 5.0),
        lambda t: t.reshape(3, 1).__isub__(1),
        lambda t: t[1:].__itruediv__(2),
    ],
)
def test_a_changed_input_is_noticed(change: Callable[[Tensor], Any]) -> None:
    x, w = tensor(3), Tensor(np.arange(3.0))
    y = (x * w).sum()
    change(w)
    with pytest.raises(RuntimeError, match=r"multiply saved its input 'b' of shape \(3,\).*place"):
        y.backward()


def test_a_changed_result_is_noticed() -> None:
    x = tensor(3)
    y = F.exp(x)
    with no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="exp saved its result"):
        y.sum().backward()


def test_an_unneeded_array_may_change() -> None:
    x, w = tensor(3), Tensor(np.arange(3.0))
    y = (x + w).sum()
    w += 1
    y.backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, np.ones(3))


def test_an_unneeded_result_may_change() -> None:
    x, w = tensor(1, 1, 3, 3), tensor(1, 1, 2, 2)
    y = F.conv2d(x, w)
    y += 1
    y.sum().backward()
    y = F.conv2d(x, w, activation="tanh")
    with no_grad():
        y += 1
    with pytest.raises(RuntimeError, match="conv saved its result"):
        y.sum().backward()


def test_changes_in_place_have_gradients() -> None:
    def added(x: Tensor, v: Tensor) -> Tensor:
        y = x * 1
        y += v
        y -= 2
        y[1:] = v[:2] * 3
        return y * y

    assert gradcheck(added, [tensor(3), tensor(3, seed=1)])
    assert gradgradcheck(added, [tensor(3), tensor(3, seed=1)])

    def into_a_constant(v: Tensor) -> Tensor:
        y = Tensor(np.ones(3))
        y[0] = v[1]
        y *= 2
        return y * y

    assert gradcheck(into_a_constant, tensor(3))


def test_refused_changes_in_place() -> None:
    x = tensor(3)
    with pytest.raises(RuntimeError, match="leaf"):
        x += 1
    y = x * 1
    view = y[1:]
    with pytest.raises(RuntimeError, match="view"):
        y += 1
    with pytest.raises(RuntimeError, match="view"):
        view += 1
    z = x * 1
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        z += np.ones((2, 3))
    before = x.data.copy()
    with no_grad():
        x += 1
    np.testing.assert_array_equal(x.data, before + 1)


# ---- numerics ------------------------------------------------------------------------------


def test_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 3, 40, 40)).astype(np.float32)
    w = rng.standard_normal((16, 3, 5, 5)).astype(np.float32)
    v = rng.standard_normal((10, 16 * 18 * 18)).astype(np.float32)
    target = rng.integers(0, 10, 8)

    def bits() -> list[bytes]:
        leaves = [Tensor(a, requires_grad=True) for a in (x, w, v)]
        hidden = F.max_pool2d(F.conv2d(leaves[0], leaves[1], activation="relu"), 2)
        hidden = F.batch_norm(hidden, None, None, training=True)
        F.cross_entropy(F.linear(hidden.flatten(1), leaves[2]), target).backward()
        return [leaf.grad.data.tobytes() for leaf in leaves if leaf.grad is not None]

    found = []
    for threads in (1, 2, 5):
        with cl.threads(threads):
            found.append(bits())
    assert len(found[0]) == 3
    assert found[0] == found[1] == found[2]


def test_error_function() -> None:
    x = np.concatenate([np.linspace(-7, 7, 2001), [0.0, -0.0, np.inf, -np.inf]])
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(F.erf(x).data, expected, rtol=1e-15, atol=0)
    assert np.isnan(F.erf(np.array([np.nan])).data[0])


def test_running_statistics() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    mean, var = Tensor(np.zeros(3, np.float32)), Tensor(np.ones(3, np.float32))
    F.batch_norm(x, mean, var, training=True, momentum=0.25)
    np.testing.assert_allclose(mean.data, 0.25 * x.mean((0, 2)), rtol=1e-5)
    np.testing.assert_allclose(var.data, 0.75 + 0.25 * x.var((0, 2), ddof=1), rtol=1e-5)
    assert mean.version[0] == var.version[0] == 1
    y = F.batch_norm(x, mean, var)
    expected = (x - mean.data[:, None]) / np.sqrt(var.data[:, None] + 1e-5)
    np.testing.assert_allclose(y.data, expected, rtol=1e-5, atol=1e-6)


def test_dropout() -> None:
    x = np.ones((100, 100), np.float32)
    y = F.dropout(x, 0.25, rng=np.random.default_rng(0)).data
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert 0.24 < (y == 0).mean() < 0.26
    np.testing.assert_array_equal(y, F.dropout(x, 0.25, rng=np.random.default_rng(0)).data)
    assert F.dropout(x, 0.25, training=False).data is x


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "classes": (
        lambda: F.cross_entropy(np.ones((2, 3)), np.array([0, 3])),
        ValueError,
        "3 classes",
    ),
    "integers": (lambda: F.cross_entropy(np.ones((2, 3)), np.ones(2)), TypeError, "float64"),
    "targets": (lambda: F.cross_entropy(np.ones((2, 3)), np.zeros(3, int)), ValueError, "target"),
    "weight": (
        lambda: F.cross_entropy(np.ones((1, 3)), np.zeros(1, int), np.ones(2)),
        ValueError,
        "weight has shape",
    ),
    "smoothing": (
        lambda: F.cross_entropy(np.ones((1, 3)), np.zeros(1, int), label_smoothing=2.0),
        ValueError,
        "label_smoothing is 2.0",
    ),
    "reduction": (lambda: F.mse_loss(np.ones(1), np.ones(1), "avg"), ValueError, "reduction"),
    "mse": (lambda: F.mse_loss(np.ones(1), np.ones(2)), ValueError, "target has shape"),
    "axis": (lambda: F.sum(np.ones((2, 2)), 2), ValueError, "axis is 2"),
    "axes": (lambda: F.sum(np.ones((2, 2)), (0, -2)), ValueError, "twice"),
    "transpose": (lambda: F.transpose(np.ones((2, 2)), (0,)), ValueError, "axes"),
    "groups": (lambda: F.group_norm(np.ones((1, 3, 2)), 2), ValueError, "divide the 3 channels"),
    "layer": (lambda: F.layer_norm(np.ones((1, 3)), 2), ValueError, "end with"),
    "batch": (lambda: F.batch_norm(np.ones((1, 3)), training=True), ValueError, "at least 2"),
    "dropout": (lambda: F.dropout(np.ones(2), 1.0), ValueError, "p is 1.0"),
    "linear": (lambda: F.linear(np.ones((1, 2)), np.ones((3, 4))), ValueError, "in_features"),
    "matmul": (lambda: F.matmul(np.ones((1, 2)), np.ones((3, 4))), ValueError, "2 columns"),
    "concat": (lambda: F.concat([]), ValueError, "empty"),
    "stack": (lambda: F.stack([]), ValueError, "empty"),
    "rank": (lambda: F.conv2d(np.ones((1, 1, 3)), np.ones((1, 1, 2))), ValueError, "3 axes"),
    "upsample": (lambda: F.upsample(np.ones((1, 1, 2))), ValueError, "size or scale_factor"),
    "mode": (lambda: F.upsample(np.ones((1, 1, 2)), 3, mode="cubic"), ValueError, "cubic"),
    "pad": (lambda: F.pad(np.ones(2), [(2, 0)], "reflect"), ValueError, "widths has"),
    "gelu": (lambda: F.gelu(np.ones(2), "fast"), ValueError, "approximate"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words):
        call()

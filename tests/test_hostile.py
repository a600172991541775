"""Malformed calls of every operation, of the kinds that crashed other libraries: empty filters
(CVE-2021-41209), empty shapes of gradients (CVE-2021-29538), strides of zero (CVE-2023-27579),
window extents of zero in pooling and its gradient (CVE-2022-21735, CVE-2023-25669), mismatched
shapes, indices out of range, negative padding, products of extents that overflow.

Each raises one of a few exceptions, whose message names the argument.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import convolith as cl

REFUSALS = (TypeError, ValueError, OverflowError, MemoryError)  # UnsupportedError is a ValueError
SIDES = {1: (9,), 2: (9, 8), 3: (7, 6, 5)}
HUGE = 2**62

Case = tuple[str, Callable[[], object], str]


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def spoilt(label: str, function: Any, good: dict[str, Any], bad: dict[str, Any]) -> Iterator[Case]:
    """A call for each value of `bad`, in place of the argument of that name."""
    function(**good)  # legal unless spoilt
    for name, values in bad.items():
        for number, value in enumerate(values):

            def call(name: str = name, value: Any = value) -> object:
                return function(**{**good, name: value})

            yield f"{label}-{name}-{number}", call, name


WINDOW = {
    "stride": [0, -1, -(2**40), 2**64, 1.5, "1", (1, 1, 1, 1), (), None, True],
    "padding": [-1, ((-1, 0),) * 3, 2**64, 0.5, "full", (), ((1, 2, 3),), HUGE, (1,) * 1000],
    "dilation": [0, -1, 2**64, HUGE, 1.0, (1, 2, 3, 4), None],
    "groups": [0, -1, 5, 7, 2**64, 1.0, None, (1,)],
    "data_format": ["NWHC", "", "\ud800", 3, None],
    "padding_mode": ["zero", "", "\ud800", None, 1],
}


def convolutions() -> Iterator[Case]:
    for rank, spatial in SIDES.items():
        x, weight = zeros(2, 4, *spatial), zeros(6, 2, *(3,) * rank)
        for kind, first, extra in (
            ("conv", x, {}),
            (
                "conv_transpose",
                zeros(2, 6, *spatial),
                {"output_padding": [-1, 1, 2**64, 1.5, (0,) * (rank + 1)]},
            ),
        ):
            good = {"x": first, "weight": weight, "groups": 2}
            bad = {
                **WINDOW,
                **extra,
                "x": [
                    zeros(2, 5, *spatial),
                    zeros(2, 0, *spatial),
                    zeros(2, first.shape[1], *(0,) * rank),
                    zeros(3),
                    np.float32(1),
                    None,
                ],
                "weight": [
                    zeros(6, 2, *(0,) * rank),
                    zeros(0, 2, *(3,) * rank),
                    zeros(6, 0, *(3,) * rank),
                    zeros(6, 2),
                    zeros(),
                    None,
                ],
                "bias": [zeros(7), zeros(0), zeros(1, 6), zeros(), 0.0],
                "activation": ["gelu", "\ud800", 3, ("leaky_relu",), ("relu", 1.0)],
                "algorithm": ["fast", "\ud800", None, 0],
            }
            yield from spoilt(f"{kind}{rank}d", getattr(cl, f"{kind}{rank}d"), good, bad)


def gradients() -> Iterator[Case]:
    x, weight = zeros(2, 4, 9, 8), zeros(6, 2, 3, 2)
    dy = zeros(2, 6, 7, 7)
    shapes = [(2, 4, 9), (), (2, 4, 9, 8, 7, 6), (2, -4, 9, 8), (2, 4, 0, 0), (2, 4, 9, 2**64), 4]
    no_dy = [zeros(2, 6, 7, 6), zeros(2, 5, 7, 7), zeros(3, 6, 7, 7), zeros(0), zeros(), None]
    for kind, big, small in (("conv", x, dy), ("conv_transpose", dy, x)):
        function = getattr(cl, f"{kind}_backward_input")
        good = {"dy": small, "weight": weight, "input_shape": big.shape, "groups": 2}
        bad = {**WINDOW, "input_shape": shapes, "dy": no_dy, "weight": [zeros(6, 2, 0, 2), None]}
        if kind == "conv":
            yield from spoilt(f"{kind}_dx", function, good, bad)
        else:
            yield from spoilt(f"{kind}_dx", function, good, {"dy": [zeros(0), zeros(), None]})
        function = getattr(cl, f"{kind}_backward_weight")
        good = {"dy": small, "x": big, "weight_shape": weight.shape, "groups": 2}
        w_shapes = [(6, 2, 3), (), (6, 2, 0, 2), (0, 2, 3, 2), (6, -2, 3, 2), (6, 2, 3, 2**64), 6]
        bad = {**WINDOW, "weight_shape": w_shapes, "dy": no_dy, "x": [zeros(2), None]}
        bad["bias_grad"] = [1, None, "yes"]
        if kind == "conv":
            yield from spoilt(f"{kind}_dw", function, good, bad)


POOL = {
    "kernel_size": [0, -1, 2**64, HUGE, 1.0, (), (2, 2, 2, 2), None, 100],
    "stride": [0, -1, 2**64, 1.5, (1, 1, 1, 1)],
    "padding": [-1, 5, 2**64, "full", 0.5],
    "ceil_mode": [1, None],
    "data_format": ["NWHC", None],
}


def poolings() -> Iterator[Case]:
    for rank, spatial in SIDES.items():
        x = zeros(2, 3, *spatial)
        no_x = [zeros(2, 0, *spatial), zeros(2, 3, *(0,) * rank), zeros(2), zeros(), None, [1.0]]
        for kind in ("max", "avg", "sum", "lp", "stochastic"):
            function = getattr(cl, f"{kind}_pool{rank}d")
            good: dict[str, Any] = {"x": x, "kernel_size": 2}
            bad: dict[str, Any] = {**POOL, "x": no_x}
            if kind == "max":
                bad |= {"dilation": [0, -1, 2**64, 1.0], "return_indices": [1, None]}
            if kind == "avg":
                bad |= {"divisor_override": [0, 1.5, "2"], "count_include_pad": [1, None]}
            if kind == "lp":
                good["norm_type"] = 2.0
                bad["norm_type"] = [0, -1, float("nan"), None, "2"]
            if kind == "stochastic":
                bad.pop("ceil_mode")
                bad["rng"] = [-1, 1.5, "seed"]
            yield from spoilt(f"{kind}{rank}d", function, good, bad)
            y = function(**good)
            options = {"rng": 1} if kind == "stochastic" else {}
            backward = getattr(cl, f"{kind}_pool{rank}d_backward")
            no_dy = [y[..., :-1], y[:, :1], y[:1], zeros(0), zeros(), None]
            sizes = [0, -1, 2**64, None]
            yield from spoilt(
                f"{kind}{rank}d_backward",
                backward,
                {"dy": y, **good, **options},
                {"dy": no_dy, "kernel_size": sizes},
            )
        for kind in ("adaptive_avg_pool", "adaptive_max_pool"):
            good = {"x": x, "output_size": 2}
            bad = {"output_size": [0, -1, 1.5, "2", (1,) * (rank + 1), 2**64], "x": no_x}
            yield from spoilt(f"{kind}{rank}d", getattr(cl, f"{kind}{rank}d"), good, bad)
        y, indices = getattr(cl, f"max_pool{rank}d")(x, 2, return_indices=True)
        no_indices = [
            indices + 10**6,
            indices - 1,
            indices + HUGE,
            indices[:1],
            indices * 1.0,
            None,
        ]
        good = {"x": y, "indices": indices, "kernel_size": 2, "output_size": spatial}
        sizes = [(1,) * rank, (10**9,) * rank, (-1,) * rank, (2**64,) * rank, "all"]
        bad = {"indices": no_indices, "output_size": sizes, "kernel_size": [0, -1, 2**64]}
        yield from spoilt(f"unpool{rank}d", getattr(cl, f"max_unpool{rank}d"), good, bad)


def others() -> Iterator[Case]:
    a, b, x = zeros(3, 4), zeros(4, 5), zeros(2, 3, 4)
    no_a = [zeros(3, 5), zeros(4), zeros(), None, a.astype(int), a.tolist()]
    bad: dict[str, Any] = {"a": no_a, "b": [zeros(5, 5), zeros(4), None], "bias": [zeros(4), 1.0]}
    bad |= {"transpose_a": [1, None], "activation": ["gelu", 3], "out": [zeros(3, 4), a[:, :1], 1]}
    yield from spoilt("matmul", cl.matmul, {"a": a, "b": b}, bad)
    for name in ("softmax", "log_softmax"):
        bad = {"x": [None, [1.0], x.astype(int)], "axis": [3, -4, 1.5, None, "1", 2**64]}
        yield from spoilt(name, getattr(cl, name), {"x": x}, bad)
    target = np.array([0, 2])
    logits = zeros(2, 3)
    bad = {
        "logits": [None, zeros(3, 3), logits.astype(int), zeros()],
        "target": [np.array([0, 3]), np.array([-1, 0]), np.array([HUGE, 0]), target[:1], None],
        "weight": [zeros(2), zeros(3, 1), 1.0],
        "reduction": ["average", None, 1],
        "label_smoothing": [-0.1, 1.5, float("nan"), "0"],
        "axis": [2, -3, 1.5],
        "ignore_index": [1.5, "0"],
    }
    yield from spoilt("cross_entropy", cl.cross_entropy, {"logits": logits, "target": target}, bad)
    bad = {"x": [None, [1.0], x.astype(int)], "activation": ["gelu", 3, ("relu", 1.0)]}
    bad["residual"] = [zeros(2, 3), 1.0]
    yield from spoilt("activation", cl.activation, {"x": x, "activation": "relu"}, bad)
    good = {"x": x, "running_mean": zeros(3), "running_var": zeros(3)}
    bad = {
        "x": [None, zeros(2), zeros(2, 4, 4), x.astype(int)],
        "running_mean": [zeros(4), zeros(3, 1), 0.0],
        "running_var": [zeros(2), None, 0.0],
        "weight": [zeros(4), 1.0],
        "bias": [zeros(4), 1.0],
        "eps": [-1.0, float("nan"), "0", None],
        "momentum": ["0", None],
        "training": [1, None],
        "data_format": ["NWHC", None, 3],
        "out": [zeros(2, 3), 1.0],
    }
    yield from spoilt("batch_norm", cl.batch_norm, good, bad)


CASES = list(itertools.chain(convolutions(), gradients(), poolings(), others()))

# What a message may call the matter instead of the argument that brought it up.
ALSO = {
    "x": ("weight", "input", "channels", "axes", "dy", "kernel", "running", "in_channels"),
    "weight": ("kernel", "channels", "x ", "groups"),
    "dy": ("x ", "axes", "input_shape"),
    "a": ("matmul", "shape", "b "),
    "b": ("matmul", "shape", "a "),
    "kernel_size": ("kernel", "padding", "output_size"),
    "groups": ("channels", "weight"),
    "dilation": ("kernel",),
    "padding": ("padded", "pads", "output"),
    "stride": ("output",),
    "input_shape": ("x ", "weight", "channels", "kernel", "input", "axes", "dy"),
    "weight_shape": ("kernel", "channels", "dy", "out_channels", "axes"),
    "logits": ("target", "axis"),
    "running_var": ("running",),
    "indices": ("indices",),
}


def test_there_are_enough_calls() -> None:
    assert len(CASES) > 1000
    assert len({label for label, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize(("call", "name"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_malformed_calls_name_the_argument(call: Callable[[], object], name: str) -> None:
    with pytest.raises(REFUSALS) as caught:
        call()
    assert type(caught.value) in (*REFUSALS, cl.UnsupportedError), "not a subclass of these"
    message = str(caught.value)
    assert any(word in message for word in (name, *ALSO.get(name, ()))), message
    assert "\n" not in message or isinstance(caught.value, cl.UnsupportedError)

"""Properties of convolution over the whole space of problems: hypothesis draws legal calls of the
public functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from problems import (
    CONV,
    CONV_TRANSPOSE,
    DIRECTIONS,
    DTYPES,
    ISAS,
    LAYOUTS,
    PADDING_MODES,
    REFERENCE_CONV,
    REFERENCE_CONV_TRANSPOSE,
    Array,
    is_transform,
    serving,
)

import convolith as cl
from convolith import _core, reference

# The same examples in every run; problems are small, but a busy machine may take its time.
REPEATABLE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def examples(count: int) -> settings:
    return settings(REPEATABLE, max_examples=count)


@dataclass(frozen=True)
class Call:
    """Shapes and arguments of a legal call of a convolution, as a caller would write them."""

    nd: int
    x_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    window: dict[str, Any]  # stride, padding, dilation, groups, data_format, padding_mode
    problem: _core.ConvProblem

    def serving(self, direction: str, numerics: str = "fast") -> tuple[str, ...]:
        return serving(self.problem.replace(direction=direction), numerics)


def per_axis(nd: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[Any]:
    """One value for all, bare or in a tuple, or one for each axis."""
    each = st.tuples(*[values] * nd)
    return st.one_of(values, values.map(lambda v: (v,)), each, each.map(list), each.map(np.array))


def amounts(nd: int) -> st.SearchStrategy[Any]:
    some = st.integers(0, 3)
    pairs = st.tuples(*[st.tuples(some, some)] * nd)
    return st.one_of(st.sampled_from(["valid", "same", "same_lower"]), per_axis(nd, some), pairs)


def kernels(nd: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Any small ones, and those that algorithms are made for."""
    square = st.sampled_from([1, 3, 3, 5] if nd == 3 else [1, 3, 3, 3, 5, 13])
    return st.one_of(
        square.map(lambda extent: (extent,) * nd),
        st.tuples(*[st.integers(1, 5 if nd < 3 else 3)] * nd),
    )


@st.composite
def calls(draw: st.DrawFn, layouts: tuple[str, ...] = LAYOUTS, dtype: str = "float32") -> Call:
    nd = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3, 4, 7, 17]))
    most = {1: 9, 2: 9, 17: 1}.get(groups, 4)
    c, k = (groups * draw(st.integers(1, most)) for _ in range(2))
    batch = draw(st.sampled_from([None, 0, 1, 2, 3]))
    most = {1: 40, 2: 12, 3: 6}[nd]
    spatial = draw(st.tuples(*[st.integers(1, most)] * nd))
    kernel = draw(kernels(nd))
    layout = draw(st.sampled_from(layouts))
    window = {
        "stride": draw(st.one_of(st.just(1), per_axis(nd, st.integers(1, 4)))),
        "padding": draw(amounts(nd)),
        "dilation": draw(st.one_of(st.just(1), per_axis(nd, st.integers(1, 3)))),
        "groups": groups,
        "data_format": layout,
        "padding_mode": draw(st.sampled_from(PADDING_MODES)),
    }

    def maps(channels: int, extents: tuple[int, ...]) -> tuple[int, ...]:
        inner = (channels, *extents) if layout == "channels_first" else (*extents, channels)
        return inner if batch is None else (batch, *inner)

    x_shape, weight_shape = maps(c, spatial), (k, c // groups, *kernel)
    try:
        plan = cl.plan_conv(x_shape, np.zeros(weight_shape, dtype), **window)
    except ValueError as error:
        assume("larger than padded input" not in str(error) and "allows at most" not in str(error))
        raise
    y_shape = maps(k, plan.problem.output)
    return Call(nd, x_shape, weight_shape, y_shape, window, plan.problem)


def integers(call_seed: int, *shapes: tuple[int, ...], dtype: str = "float32") -> list[Array]:
    rng = np.random.default_rng(call_seed)
    return [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]


seeds = st.integers(0, 2**32 - 1)


@examples(300)
@given(calls(), seeds, st.sampled_from(DTYPES), st.data())
def test_equals_the_reference(call: Call, seed: int, dtype: str, data: st.DataObject) -> None:
    shapes = (call.x_shape, call.weight_shape, call.y_shape)
    x, w, y, residual = integers(seed, *shapes, call.y_shape, dtype=dtype)
    bias = integers(seed + 1, call.weight_shape[:1], dtype=dtype)[0]
    exact = {"numerics": "strict", **call.window}
    activation = data.draw(st.sampled_from([None, "relu", "relu6", ("leaky_relu", 0.25)]))
    epilogue = {"activation": activation, "residual": data.draw(st.sampled_from([None, residual]))}
    np.testing.assert_array_equal(
        CONV[call.nd](x, w, bias, **epilogue, **exact),
        REFERENCE_CONV[call.nd](x, w, bias, **epilogue, **call.window),
    )
    np.testing.assert_array_equal(
        cl.conv_backward_input(y, w, call.x_shape, **exact),
        reference.conv_backward_input(y, w, call.x_shape, **call.window),
    )
    dw, db = cl.conv_backward_weight(y, x, call.weight_shape, bias_grad=True, **exact)
    reference_dw, reference_db = reference.conv_backward_weight(
        y, x, call.weight_shape, bias_grad=True, **call.window
    )
    np.testing.assert_array_equal(dw, reference_dw)
    np.testing.assert_array_equal(db, reference_db)
    assert dw.dtype == db.dtype == dtype


@examples(200)
@given(calls(), seeds, st.data())
def test_transposed_equals_the_reference(call: Call, seed: int, data: st.DataObject) -> None:
    """y takes the part of the transposed convolution's input."""
    nd, window = call.nd, {"numerics": "strict", **call.window}
    size = {"output_size": call.problem.input}
    y, w, dx = integers(seed, call.y_shape, call.weight_shape, call.x_shape)
    exact = REFERENCE_CONV_TRANSPOSE[nd](y, w, **size, **call.window)
    np.testing.assert_array_equal(CONV_TRANSPOSE[nd](y, w, **size, **window), exact)
    assert exact.shape == call.x_shape
    sizes = data.draw(st.sampled_from([size, {}]))  # dx's shape tells them
    np.testing.assert_array_equal(
        cl.conv_transpose_backward_input(dx, w, call.y_shape, **sizes, **window),
        reference.conv_transpose_backward_input(dx, w, call.y_shape, **sizes, **call.window),
    )
    for ours, theirs in zip(
        cl.conv_transpose_backward_weight(
            dx, y, call.weight_shape, bias_grad=True, **sizes, **window
        ),
        reference.conv_transpose_backward_weight(
            dx, y, call.weight_shape, bias_grad=True, **sizes, **call.window
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@examples(200)
@given(calls(), seeds, st.data())
def test_gradients_are_adjoints(call: Call, seed: int, data: st.DataObject) -> None:
    """<conv(x, w), y> = <x, conv_backward_input(y, w)> = <w, conv_backward_weight(y, x)>."""
    x, w, y = integers(seed, call.x_shape, call.weight_shape, call.y_shape)
    name = data.draw(st.sampled_from(call.serving("forward")))

    def options(direction: str) -> dict[str, Any]:
        """With the algorithm where it serves the direction."""
        served = name in call.serving(direction)
        return {"algorithm": name if served else "im2col_gemm", **call.window}

    def inner(a: Array, b: Array) -> float:
        return float(np.sum(a.astype(np.float64) * b.astype(np.float64)))

    dx = cl.conv_backward_input(y, w, call.x_shape, **options("backward_input"))
    dw = cl.conv_backward_weight(y, x, call.weight_shape, **options("backward_weight"))
    answer = CONV[call.nd](x, w, **options("forward"))
    slack = 0.0
    if is_transform(call.problem, name):  # each result is off by at most 1.4e-4 of its largest
        slack = 1.4e-4 * sum(
            np.max(np.abs(a), initial=0) * np.sum(np.abs(b)) for a, b in ((answer, y), (dx, x))
        )
    assert abs(inner(answer, y) - inner(x, dx)) <= slack
    assert abs(inner(answer, y) - inner(w, dw)) <= slack


@examples(60)
@given(calls(), seeds)
def test_transposed_is_backward_input(call: Call, seed: int) -> None:
    w, y = integers(seed, call.weight_shape, call.y_shape)
    by_size = CONV_TRANSPOSE[call.nd](y, w, output_size=call.problem.input, **call.window)
    gradient = cl.conv_backward_input(y, w, call.x_shape, **call.window)
    np.testing.assert_array_equal(by_size, gradient)


@examples(25)
@given(calls(dtype="float64"), seeds)
def test_gradients_are_finite_differences(call: Call, seed: int) -> None:
    """Convolution is linear in each operand, so that central differences are exact but for
    rounding."""
    rng = np.random.default_rng(seed)
    x, w, y = (rng.standard_normal(s) for s in (call.x_shape, call.weight_shape, call.y_shape))

    def loss(x: Array, w: Array) -> float:
        return float(np.sum(CONV[call.nd](x, w, **call.window) * y))

    dx = cl.conv_backward_input(y, w, call.x_shape, **call.window)
    dw = cl.conv_backward_weight(y, x, call.weight_shape, **call.window)
    step = 2.0**-10
    for array, gradient in ((x, dx), (w, dw)):
        for index in rng.integers(0, array.size, 8) if array.size else ():
            direction = np.zeros(array.shape)
            direction.flat[index] = step
            if array is x:
                change = loss(x + direction, w) - loss(x - direction, w)
            else:
                change = loss(x, w + direction) - loss(x, w - direction)
            scale = 1 + np.abs(gradient).max()
            assert abs(change / (2 * step) - gradient.flat[index]) <= 1e-8 * scale


@examples(100)
@given(calls(), seeds, st.integers(2, 5), st.data())
def test_strict_results_do_not_depend_on_the_batch(
    call: Call, seed: int, batch: int, data: st.DataObject
) -> None:
    """Forward and backward-input: one sample's bits are the same in any batch."""
    rng = np.random.default_rng(seed)
    unbatched = len(call.x_shape) == call.nd + 1
    sample, answer = (s if unbatched else s[1:] for s in (call.x_shape, call.y_shape))
    x, y = (rng.standard_normal((batch, *s)).astype("float32") for s in (sample, answer))
    w = rng.standard_normal(call.weight_shape).astype("float32")
    options = {"numerics": "strict", **call.window}
    for algorithm in ("auto", data.draw(st.sampled_from(call.serving("forward", "strict")))):
        together = CONV[call.nd](x, w, algorithm=algorithm, **options)
        alone = CONV[call.nd](x[-1], w, algorithm=algorithm, **options)
        assert together[-1].tobytes() == alone.tobytes()
    for algorithm in ("auto", data.draw(st.sampled_from(call.serving("backward_input", "strict")))):
        together = cl.conv_backward_input(y, w, x.shape, algorithm=algorithm, **options)
        alone = cl.conv_backward_input(y[:1], w, (1, *sample), algorithm=algorithm, **options)
        assert together[:1].tobytes() == alone.tobytes()


@examples(60)
@given(calls(), seeds, st.sampled_from(DIRECTIONS), st.sampled_from(ISAS))
def test_results_do_not_depend_on_the_threads(
    call: Call, seed: int, direction: str, isa: str
) -> None:
    rng = np.random.default_rng(seed)
    p = call.problem.replace(direction=direction)
    first, second = {
        "forward": (p.x_shape, p.weight_shape),
        "backward_input": (p.y_shape, p.weight_shape),
        "backward_weight": (p.y_shape, p.x_shape),
    }[direction]
    a, b = (rng.standard_normal(s).astype("float32") for s in (first, second))
    for name in call.serving(direction):
        one, *others = (
            _core.Plan(p, name, threads=threads, isa=isa).execute(a, b).tobytes()
            for threads in (1, 2, 5)
        )
        assert all(other == one for other in others), (str(p), name)


@examples(200)
@given(
    calls(),
    st.sampled_from(DIRECTIONS),
    st.sampled_from(DTYPES),
    st.sampled_from(["", "bias", "residual relu", "bias leaky_relu slope=0.1", "silu"]),
)
def test_text_form_round_trip(call: Call, direction: str, dtype: str, epilogue: str) -> None:
    text = f"{call.problem.replace(dtype=dtype)}"
    if direction != "backward_weight":
        text += f" {epilogue}"
    p = _core.ConvProblem.parse(f"{text} {direction}".replace("  ", " "))
    again = _core.ConvProblem.parse(str(p))
    assert again == p
    assert hash(again) == hash(p)
    assert str(again) == str(p)
    assert p.direction == direction
    assert p.dtype == dtype
    assert p.replace(batch=p.batch + 1) != p
    fields = ("rank", "batch", "groups", "input", "output", "kernel", "stride", "dilation")
    fields += ("padding", "padding_mode", "x_shape", "y_shape", "weight_shape", "slope")
    assert all(getattr(again, field) == getattr(p, field) for field in fields)


@examples(100)
@given(st.text("conv123d nickfspgx:-0 relubias=.", max_size=40))
def test_text_form_refuses_or_round_trips(text: str) -> None:
    for line in (text, f"conv2d {text}", f"conv1d c1 i5 k1 f3 {text}"):
        try:
            p = _core.ConvProblem.parse(line)
        except (ValueError, OverflowError) as error:
            assert str(error)  # noqa: PT017
        else:
            assert _core.ConvProblem.parse(str(p)) == p

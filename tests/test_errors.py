"""Malformed calls: each gets one clear line that names the argument and the value, and nothing
else happens."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import ALGORITHMS, CATALOGUE, DIRECTIONS, parse, serving

import convolith as cl
from convolith import _core

F32, F64 = np.float32, np.float64


def zeros(*shape: int, dtype: Any = F32) -> Any:
    return np.zeros(shape, dtype)


X, W, Y = zeros(2, 4, 9, 8), zeros(6, 2, 3, 2), zeros(2, 6, 7, 7)  # groups=2
SWAPPED = X.astype(X.dtype.newbyteorder())
READ_ONLY = zeros(2, 6, 7, 7)
READ_ONLY.flags.writeable = False
JOINED = zeros(2, 10, 9, 8)
BASE = zeros(4000)

Call = Callable[[], object]


def conv(x: Any = X, weight: Any = W, *args: Any, **options: Any) -> Call:
    return lambda: cl.conv2d(x, weight, *args, **{"groups": 2, **options})


def transposed(x: Any = Y, weight: Any = W, *args: Any, **options: Any) -> Call:
    return lambda: cl.conv_transpose2d(x, weight, *args, **{"groups": 2, **options})


def backward_input(dy: Any = Y, weight: Any = W, shape: Any = X.shape, **options: Any) -> Call:
    return lambda: cl.conv_backward_input(dy, weight, shape, **{"groups": 2, **options})


def backward_weight(dy: Any = Y, x: Any = X, shape: Any = W.shape, **options: Any) -> Call:
    return lambda: cl.conv_backward_weight(dy, x, shape, **{"groups": 2, **options})


def transposed_input(dy: Any = X, weight: Any = W, shape: Any = Y.shape, **options: Any) -> Call:
    options = {"groups": 2, **options}
    return lambda: cl.conv_transpose_backward_input(dy, weight, shape, **options)


def transposed_weight(dy: Any = X, x: Any = Y, shape: Any = W.shape, **options: Any) -> Call:
    options = {"groups": 2, **options}
    return lambda: cl.conv_transpose_backward_weight(dy, x, shape, **options)


def plan(shape: Any = X.shape, weight: Any = W, *args: Any, **options: Any) -> Call:
    return lambda: cl.plan_conv(shape, weight, *args, **{"groups": 2, **options})


def planned(*args: Any, **options: Any) -> Call:
    made = cl.plan_conv(X.shape, W, groups=2)
    return lambda: made(*args, **options)


def transposed_plan(shape: Any = Y.shape, weight: Any = W, *args: Any, **options: Any) -> Call:
    return lambda: cl.plan_conv_transpose(shape, weight, *args, **{"groups": 2, **options})


def transposed_planned(*args: Any, **options: Any) -> Call:
    made = cl.plan_conv_transpose(Y.shape, W, groups=2)
    return lambda: made(*args, **options)


def test_the_calls_are_legal_unless_spoilt() -> None:
    for call in (
        conv,
        transposed,
        backward_input,
        backward_weight,
        transposed_input,
        transposed_weight,
        plan,
        transposed_plan,
    ):
        call()()
    planned(X)()
    transposed_planned(Y)()


# ---- arrays that are none ------------------------------------------------------------------

TYPE_ERRORS = [
    (conv([[1.0]]), "x is a list"),
    (conv(None), "x is a NoneType"),
    (conv(1.0), "x is a float"),
    (conv(memoryview(X)), "x is a memoryview"),
    (conv(np.ma.array(X)), "x is a MaskedArray"),
    (conv(X.astype(object)), "x has dtype object"),
    (conv(X.astype(int)), "x has dtype int64; supported are float32 and float64"),
    (conv(X.astype(np.float16)), "x has dtype float16"),
    (conv(X.astype(np.longdouble)), "x has dtype (float128|float96|longdouble)"),
    (conv(X.astype(complex)), "x has dtype complex128"),
    (conv(X.astype(bool)), "x has dtype bool"),
    (conv(X.astype("S4")), r"x has dtype (\|)?S4"),
    (conv(np.zeros(X.shape, [("a", F32)])), r"x has dtype \[\('a'"),
    (conv(SWAPPED), "x has byte order"),
    (conv(X, W.astype(F64)), "weight has dtype float64; x has float32"),
    (conv(X, None), "weight is a NoneType"),
    (conv(X, W.tolist()), "weight is a list"),
    (conv(X, np.ma.array(W)), "weight is a MaskedArray"),
    (conv(X, W, zeros(6, dtype=F64)), "bias has dtype float64; x has float32"),
    (conv(X, W, 0.0), "bias is a float"),
    (conv(X, W, (0.0,) * 6), "bias is a tuple"),
    (conv(residual=zeros(2, 6, 7, 7, dtype=F64)), "residual has dtype float64"),
    (conv(residual=1), "residual is a int"),
    (conv(out=zeros(2, 6, 7, 7, dtype=F64)), "out has dtype float64; it must be float32"),
    (conv(out=[0.0]), "out is a list"),
    (conv(out=np.ma.array(Y)), "out is a MaskedArray"),
    (conv(out=Y.astype(Y.dtype.newbyteorder())), "out has byte order"),
    (conv(out=True), "out is a bool"),
    (backward_input(Y.tolist()), "dy is a list"),
    (backward_input(None), "dy is a NoneType"),
    (backward_input(Y, None), "weight is a NoneType"),
    (backward_input(Y.astype(F64)), "weight has dtype float32; dy has float64"),
    (backward_weight(Y, None), "x is a NoneType"),
    (backward_weight(None), "dy is a NoneType"),
    (backward_weight(Y, X.astype(F64)), "x has dtype float64; dy has float32"),
    (transposed(None), "x is a NoneType"),
    (transposed(Y, None), "weight is a NoneType"),
    (transposed_input(None), "dy is a NoneType"),
    (transposed_input(X, None), "weight is a NoneType"),
    (transposed_weight(X, None), "x is a NoneType"),
    (transposed_weight(None), "dy is a NoneType"),
    (plan(X.shape, None), "weight is a NoneType"),
    (plan(X.shape, W.tolist()), "weight is a list"),
    (plan(X.shape, W, [0.0] * 6), "bias is a list"),
    (plan(X.shape, W, zeros(6, dtype=F64)), "bias has dtype float64"),
    (planned(X.astype(F64)), "x has dtype float64; the problem has float32"),
    (planned(None), "x is a NoneType"),
    # ---- arguments of a wrong type
    (conv(stride=1.0), "stride is 1.0; it must be an integer"),
    (conv(stride="2"), "stride is '2'; it must be an integer"),
    (conv(stride=None), "stride is None"),
    (conv(stride=True), "stride is a bool"),
    (conv(stride=np.bool_(True)), "stride is a bool"),
    (conv(stride=np.array(True)), "stride is .*True.*; it must be an integer"),
    (conv(stride=np.array([True, False])), "stride is a bool"),
    (conv(stride=(1, 2.0)), "stride is 2.0"),
    (conv(stride=np.array([1.0, 2.0])), "stride is .*1.0"),
    (conv(stride=((1, 1), (2, 2))), "stride is .*1, 1"),
    (conv(dilation=1.5), "dilation is 1.5"),
    (conv(dilation=b"\x01"), "dilation is b"),
    (conv(groups=1.0), "groups is 1.0"),
    (conv(groups=False), "groups is a bool"),
    (conv(groups=(1,)), r"groups is \(1,\)"),
    (conv(padding=0.5), "padding is 0.5"),
    (conv(padding=True), "padding is a bool"),
    (conv(padding=b"same"), "padding is b'same'"),
    (conv(padding=bytearray(b"12")), r"padding is bytearray\(b'12'\)"),
    (conv(padding=((1, 1.5), (0, 0))), "padding is 1.5"),
    (conv(padding=((1, True), (0, 0))), "padding is a bool"),
    (conv(padding=None), "padding is None"),
    (transposed(output_padding=0.0), "output_padding is 0.0"),
    (transposed(output_padding=False), "output_padding is a bool"),
    (transposed(output_size=(9.0, 8.0)), "output_size is 9.0"),
    (transposed(output_size="98"), "output_size is '98'"),
    (backward_input(shape=9), "input_shape is 9; it must be a tuple of integers"),
    (backward_input(shape=None), "input_shape is None"),
    (backward_input(shape=(2, 4, 9.0, 8)), "input_shape is 9.0"),
    (backward_weight(shape="6232"), "weight_shape is '6232'"),
    (backward_weight(bias_grad=1), "bias_grad is 1; it must be True or False"),
    (plan((2, 4, True, 8)), "x_shape is a bool"),
    (plan(residual=None), "residual is None; it must be True or False"),
    (plan(threads=1.0), "threads is 1.0"),
    (plan(workspace_limit=1e6), "workspace_limit is 1000000.0"),
    (conv(data_format=1), "data_format is 1; it must be a string"),
    (conv(data_format=None), "data_format is None"),
    (conv(padding_mode=None), "padding_mode is None"),
    (conv(algorithm=None), "algorithm is None"),
    (conv(numerics=1), "numerics is 1"),
    (conv(activation=max), "activation is .*max"),
    (conv(activation=("leaky_relu", "0.1")), "slope of leaky_relu is '0.1'"),
    (conv(activation=("leaky_relu", True)), "slope of leaky_relu is True"),
    (conv(activation=("leaky_relu", 1j)), "slope of leaky_relu is 1j"),
    (conv(activation=("leaky_relu", None)), "slope of leaky_relu is None"),
    (lambda: cl.set_num_threads(2.0), "threads is 2.0"),
    (lambda: cl.algorithms(X.shape, W.shape, dtype=F32), "dtype is .*float32.*string"),
    (lambda: cl.algorithms(X.shape, 3), "weight_shape is 3"),
]

VALUE_ERRORS = [
    # ---- ranks
    (conv(zeros(9, 8)), "x has 2 axes; it must have 4, or 3"),
    (conv(zeros(1, 2, 4, 9, 8)), "x has 5 axes; it must have 4"),
    (conv(np.zeros((), F32)), "x has 0 axes"),
    (conv(X, zeros(6, 2, 3)), "weight has 3 axes; it must have 4"),
    (lambda: cl.conv1d(zeros(1, 1, 5), zeros(1, 1)), "weight has 2 axes; it must have 3"),
    (backward_input(Y, zeros(6, 2)), "weight has 2 axes"),
    (backward_input(Y, zeros(6, 2, 1, 1, 1, 1)), "weight has 6 axes"),
    (backward_input(shape=(9, 8)), "input_shape has 2 axes"),
    (backward_input(Y[0]), "dy has 3 axes and input_shape has 4"),
    (backward_input(shape=X.shape[1:]), "dy has 4 axes and input_shape has 3"),
    (backward_weight(Y[0]), "dy has 3 axes and x has 4"),
    (backward_weight(shape=(6, 2)), "weight_shape has 2 axes"),
    (transposed_input(X[0]), "dy has 3 axes and input_shape has 4"),
    (transposed_weight(X[0]), "dy has 3 axes and x has 4"),
    (transposed(zeros(2, 6, 7)[0]), "x has 2 axes"),
    (plan((9, 8)), r"x(_shape)? has 2 axes"),
    # ---- shapes that do not match
    (conv(X, zeros(6, 3, 3, 2)), "weight has 3 input channels per group .* x has 4 channels"),
    (conv(X, zeros(5, 2, 3, 2)), "groups is 2; it must divide .*out_channels 5"),
    (conv(X, W, zeros(5)), r"bias has shape \(5,\); it must be \(6,\)"),
    (conv(X, W, zeros(6, 1, 1)), r"bias has shape \(6, 1, 1\); it must be \(6,\)"),
    (conv(X, W, zeros(1, 6)), r"bias has shape \(1, 6\)"),
    (conv(residual=zeros(2, 6, 7, 8)), r"residual has shape \(2, 6, 7, 8\).* \(2, 6, 7, 7\)"),
    (conv(residual=zeros(6, 7, 7)), r"residual has shape \(6, 7, 7\)"),
    (backward_input(zeros(2, 6, 7, 8)), r"dy has shape \(2, 6, 7, 8\).* \(2, 6, 7, 7\)"),
    (backward_input(zeros(3, 6, 7, 7)), r"dy has shape \(3, 6, 7, 7\).* \(2, 6, 7, 7\)"),
    (backward_input(shape=(2, 5, 9, 8)), "groups is 2; it must divide in_channels 5"),
    (backward_input(shape=(2, 6, 9, 8)), "weight has 2 input channels per group .* 6 channels"),
    (backward_weight(zeros(2, 6, 7, 6)), r"dy has shape \(2, 6, 7, 6\).* \(2, 6, 7, 7\)"),
    (backward_weight(shape=(6, 3, 3, 2)), "weight(_shape)? has 3 input channels per group"),
    (transposed(Y, zeros(4, 2, 3, 2)), r"weight has 4 input channels .* x has 6"),
    (transposed(Y, W, zeros(6)), r"bias has shape \(6,\); it must be \(4,\)"),
    (transposed(residual=Y), r"residual has shape \(2, 6, 7, 7\).* \(2, 4, 9, 8\)"),
    (transposed_input(shape=(2, 5, 7, 7)), "weight has 6 input channels .* 5"),
    (transposed_weight(shape=(4, 2, 3, 2)), "weight(_shape)? has 4 input channels .* x has 6"),
    (transposed_input(zeros(2, 3, 9, 8)), r"dy has shape \(2, 3, 9, 8\).* \(2, 4, 9, 8\)"),
    (transposed_input(zeros(1, 4, 9, 8)), r"dy has shape \(1, 4, 9, 8\).* \(2, 4, 9, 8\)"),
    (transposed_weight(zeros(2, 3, 9, 8)), r"dy has shape \(2, 3, 9, 8\).* \(2, 4, 9, 8\)"),
    (planned(zeros(3, 4, 9, 8)), r"x has shape \(3, 4, 9, 8\); it must be \(2, 4, 9, 8\)"),
    (planned(X[0]), r"x has shape \(4, 9, 8\)"),
    (planned(X, residual=Y), "residual is given"),
    (lambda: cl.plan_conv(X.shape, W, groups=2, residual=True)(X), "residual is None"),
    (plan(X.shape, W, zeros(4)), r"bias has shape \(4,\)"),
    (transposed_planned(zeros(*Y.shape)[:1]), r"x has shape .*; it must be"),
    (transposed_planned(Y, residual=X), "residual is given"),
    (transposed_plan(Y.shape, W, zeros(5)), r"bias has shape \(5,\); it must be \(4,\)"),
    (transposed_plan(output_padding=1), "output_padding"),
    (transposed_plan(output_padding=(1, 2, 3), stride=2), "output_padding has 3 values"),
    (transposed_plan(output_padding=1, output_size=9, stride=2), "give one of them"),
    # ---- counts
    (conv(stride=(1, 2, 3)), r"stride has 3 values \(1, 2, 3\); it must have 2"),
    (conv(stride=()), r"stride has 0 values \(\); it must have 2"),
    (conv(padding=()), r"padding has 0 values"),
    (conv(dilation=[1, 1, 1]), "dilation has 3 values"),
    (conv(padding=(1, 2, 3)), "padding has 3 values"),
    (conv(padding=((1, 2), (3, 4), (5, 6))), "padding has 3 pairs; it must have 2"),
    (conv(padding=((1, 2, 3), (1, 2, 3))), r"padding has the entry \(1, 2, 3\)"),
    (conv(padding=(1, (2, 3))), "padding has the entry 1"),
    (lambda: cl.conv1d(zeros(1, 1, 5), zeros(1, 1, 3), padding=(1, 2)), "padding has 2 values"),
    (transposed(output_padding=(0, 0, 0)), "output_padding has 3 values"),
    (transposed(output_size=(9,) * 5), r"output_size .*\(9, 9, 9, 9, 9\); it must have 2"),
    # ---- numbers
    (conv(stride=0), "stride is 0 on axis 2; it must be at least 1"),
    (conv(stride=(1, -2)), "stride is -2 on axis 3"),
    (conv(dilation=0), "dilation is 0 on axis 2; it must be at least 1"),
    (conv(dilation=(1, -1)), "dilation is -1 on axis 3"),
    (conv(padding=-1), "padding is -1 on axis 2; it must be at least 0"),
    (conv(padding=((0, 0), (0, -3))), "padding is -3 on axis 3"),
    (conv(groups=0), "groups is 0; it must be at least 1"),
    (conv(groups=-2), "groups is -2"),
    (conv(groups=3), "groups is 3; it must divide in_channels 4"),
    (conv(data_format="channels_last", stride=(1, 0)), "stride is 0 on axis 2"),
    (transposed(groups=0), "groups is 0; it must be at least 1"),
    (transposed(groups=4), "groups is 4; it must divide in_channels 6"),
    (transposed(stride=0), "stride is 0 on axis 2"),
    (transposed(dilation=-1), "dilation is -1 on axis 2"),
    (transposed(padding=-1), "padding is -1 on axis 2"),
    (transposed(output_padding=-1), "output_padding is -1 on axis 2; it must be at least 0"),
    (transposed(output_padding=1), "output_padding is 1 .* smaller than stride 1 or dilation 1"),
    (transposed(stride=(3, 2), output_padding=2), "output_padding is 2 on axis 3"),
    (transposed(padding="same", stride=2, output_padding=1), "output_padding is 1"),
    (transposed(output_padding=1, output_size=(9, 8), stride=2), "output_padding .* output_size"),
    (transposed(output_size=(9, 9)), "output_size is 9 on axis 3; it must lie in 8 to 8"),
    (transposed(stride=2, output_size=(14, 15)), "output_size is 14 on axis 2.* 15 to 16"),
    (transposed(zeros(2, 6, 1, 1), padding=(1, 1)), "extent comes out as .*on axis 3"),
    (transposed_input(zeros(2, 4, 9, 9)), "is 9 on axis 3"),
    (backward_input(shape=(2, 4, -9, 8)), r"input_shape is \(2, 4, -9, 8\)"),
    (backward_weight(shape=(6, 2, -3, 2)), r"weight_shape is \(6, 2, -3, 2\)"),
    (plan((2, -4, 9, 8)), r"x_shape is \(2, -4, 9, 8\)"),
    (plan(threads=0), "threads is 0; it must be 1 to"),
    (plan(threads=10**6), "threads is 1000000; it must be 1 to"),
    (plan(workspace_limit=-1), "workspace_limit is -1"),
    (lambda: cl.set_num_threads(0), "threads is 0"),
    (lambda: cl.set_num_threads(-1), "threads is -1"),
    # ---- kernels and inputs
    (
        lambda: cl.conv1d(zeros(1, 1, 7), zeros(1, 1, 5), dilation=2),
        r"kernel 5 \(dilation 2: effective 9\) is larger than padded input 7 on axis 2",
    ),
    (conv(X, zeros(6, 2, 10, 2)), "kernel 10 is larger than padded input 9 on axis 2"),
    (conv(X, zeros(6, 2, 3, 11), padding=1), "kernel 11 is larger than padded input 10 on axis 3"),
    (conv(X, zeros(6, 4, 10, 2), data_format="NHWC"), "kernel 10 .* padded input 4 on axis 1"),
    (conv(X[0], zeros(6, 2, 10, 2)), "kernel 10 is larger than padded input 9 on axis 1"),
    (conv(zeros(0, 4, 9, 8), zeros(6, 2, 10, 2)), "kernel 10 is larger than padded input 9"),
    (conv(zeros(0, 4, 9, 8), zeros(6, 3, 3, 2)), "weight has 3 input channels"),
    (conv(zeros(0, 4, 9, 8), stride=0), "stride is 0"),
    (backward_input(zeros(0, 6, 1, 7), zeros(6, 2, 10, 2), (0, 4, 9, 8)), "kernel 10 is larger"),
    (backward_weight(shape=(6, 2, 10, 2)), "kernel 10 is larger than padded input 9"),
    (plan((2, 4, 2, 8)), "kernel 3 is larger than padded input 2 on axis 2"),
    (conv(padding=9, padding_mode="reflect"), "padding is 9 on axis 2.*reflect .* 8"),
    (conv(padding=(0, 9), padding_mode="circular"), "padding is 9 on axis 3.*circular .* 8"),
    (conv(X[0], padding=9, padding_mode="reflect"), "padding is 9 on axis 1"),
    # ---- nothing
    (conv(zeros(2, 0, 9, 8), zeros(6, 0, 3, 2)), "channels.* 0; it must be at least 1"),
    (conv(X, zeros(0, 2, 3, 2)), "channels.* 0; it must be at least 1"),
    (conv(X, zeros(6, 0, 3, 2)), "weight has 0 input channels per group"),
    (conv(X, zeros(6, 2, 0, 2)), "kernel is 0 on axis 2; it must be at least 1"),
    (conv(zeros(2, 4, 0, 8)), "input extent is 0 on axis 2"),
    (conv(zeros(2, 4, 0, 8), padding=5), "input extent is 0 on axis 2"),
    (conv(zeros(2, 4, 9, 0), padding="same"), "input extent is 0 on axis 3"),
    (transposed(zeros(2, 6, 0, 7)), "input extent is 0 on axis 2"),
    (transposed(zeros(2, 0, 7, 7), zeros(0, 2, 3, 2)), "channels.* 0"),
    (transposed(Y, zeros(6, 0, 3, 2)), "channels.* 0"),
    (transposed(Y, zeros(6, 2, 3, 0)), "kernel is 0 on axis 3"),
    (backward_weight(shape=(6, 2, 3, 0)), "kernel is 0 on axis 3"),
    (backward_input(shape=(2, 4, 0, 8)), "input extent is 0 on axis 2"),
    # ---- names
    (conv(padding="full"), "padding is 'full'.*'same'"),
    (conv(padding="SAME"), "padding is 'SAME'"),
    (conv(padding_mode="constant"), "padding_mode is 'constant'.*'zeros'.*'circular'"),
    (conv(padding_mode=""), "padding_mode is ''"),
    (conv(data_format="NCWH"), "data_format is 'NCWH'; it must be one of .*NHWC"),
    (conv(data_format="NCL"), "data_format 'NCL' is for 1 spatial axes; this call has 2"),
    (conv(activation="gelu"), "activation is 'gelu'; it must be 'relu' or .*'hardswish'"),
    (conv(activation=""), "activation is ''"),
    (conv(activation="none"), "activation is 'none'"),
    (conv(activation=("leaky_relu", np.inf)), "slope of leaky_relu"),
    (conv(activation=("leaky_relu", np.nan)), "slope of leaky_relu"),
    (conv(numerics="exact"), "numerics is 'exact'; it must be 'fast' or 'strict'"),
    (lambda: cl.numerics("loose").__enter__(), "numerics is 'loose'"),
    (lambda: cl.show_config(mode="json"), "mode is 'json'"),
    (lambda: cl.algorithms(X.shape, W.shape, groups=2, dtype="float16"), "dtype is 'float16'"),
    (lambda: cl.algorithms(X.shape, W.shape, groups=2, direction="up"), "direction is 'up'"),
    # ---- out
    (conv(out=zeros(2, 6, 7, 8)), r"out has shape \(2, 6, 7, 8\); it must be \(2, 6, 7, 7\)"),
    (conv(out=zeros(588)), r"out has shape \(588,\)"),
    (conv(out=READ_ONLY), "out is read-only"),
    (conv(out=np.broadcast_to(F32(0), Y.shape)), "out is read-only"),
    (conv(JOINED[:, :4], out=JOINED[:, 3:9, :7, :7]), "out shares elements with an input"),
    (conv(X, W, residual=Y, out=Y), "out shares elements with an input"),
    (
        lambda: cl.conv1d(
            zeros(1, 1, 5), BASE[:3].reshape(1, 1, 3), out=BASE[2:5].reshape(1, 1, 3)
        ),
        "out shares elements with an input",
    ),
    (
        lambda: cl.conv1d(zeros(1, 1, 3), zeros(1, 1, 1), BASE[:1], out=BASE[:3].reshape(1, 1, 3)),
        "out shares elements with an input",
    ),
    (backward_input(out=Y), r"out has shape \(2, 6, 7, 7\); it must be \(2, 4, 9, 8\)"),
    (backward_weight(out=zeros(6, 2, 3, 3)), r"out has shape \(6, 2, 3, 3\)"),
    (planned(X, zeros(2, 6, 7, 8)), r"out has shape \(2, 6, 7, 8\)"),
]


def patterns(table: list[tuple[Call, str]]) -> list[str]:
    return [pattern for _, pattern in table]


def error_of(call: Call, kind: type[Exception], pattern: str) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert re.search(pattern, message), message
    return message


@pytest.mark.parametrize(("call", "pattern"), TYPE_ERRORS, ids=patterns(TYPE_ERRORS))
def test_type_errors(call: Call, pattern: str) -> None:
    message = error_of(call, TypeError, f"^{pattern}")
    assert "\n" not in message
    assert len(message) < 250


@pytest.mark.parametrize(("call", "pattern"), VALUE_ERRORS, ids=patterns(VALUE_ERRORS))
def test_value_errors(call: Call, pattern: str) -> None:
    message = error_of(call, ValueError, pattern)
    assert "\n" not in message
    assert len(message) < 250


def test_a_refused_call_writes_nothing() -> None:
    out = np.full(Y.shape, 7, F32)
    for options in (
        {"residual": zeros(1)},
        {"stride": 0},
        {"bias": zeros(1)},
        {"algorithm": "none"},
    ):
        with pytest.raises(ValueError, match=r"residual|stride|bias|algorithm"):
            conv(out=out, **options)()
    assert np.all(out == 7)


# ---- algorithms ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gemm", "", "Direct", "auto "])
def test_unknown_algorithm(name: str) -> None:
    assert issubclass(cl.UnsupportedError, ValueError)
    for call in (conv, transposed, backward_input, backward_weight, plan):
        message = error_of(call(algorithm=name), cl.UnsupportedError, f"^algorithm '{name}'")
        for known in ALGORITHMS:
            assert f"\n  {known}: " in message


def test_no_algorithm_within_the_workspace_limit() -> None:
    def needs(p: _core.ConvProblem) -> int:
        """The least workspace of any algorithm."""
        return min(r["workspace_bytes"] for r in _core.algorithms(p) if r["supported"])

    problems = (parse(f"{text} {direction}") for text in CATALOGUE for direction in DIRECTIONS)
    p = max(problems, key=needs)
    least = needs(p)
    call = functools.partial(_core.Plan, p, workspace_limit=least - 1)
    message = error_of(call, cl.UnsupportedError, "cannot serve")
    for known in ALGORITHMS:
        reason = f".*over the limit of {least - 1}" if known in serving(p) else "."
        assert re.search(f"\n  {known}: {reason}", message)


# ---- sizes ---------------------------------------------------------------------------------


OVERFLOWS = [
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), padding=2**63),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), padding=2**63 - 1),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), padding=2**62),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), padding=2**61),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), stride=2**64),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), stride=-(2**64)),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 3), dilation=2**62),
    lambda: cl.conv1d(zeros(1, 1, 8), zeros(1, 1, 1), groups=10**30),
    lambda: cl.conv2d(zeros(1, 1, 8, 8), zeros(1, 1, 1, 1), padding=2**31),
    lambda: cl.conv3d(zeros(1, 1, 2, 2, 2), zeros(1, 1, 1, 1, 1), padding=2**21),
    lambda: cl.conv_transpose1d(zeros(1, 1, 5), zeros(1, 1, 1), stride=2**62),
    lambda: cl.conv_transpose1d(zeros(1, 1, 2), zeros(1, 1, 1), padding=2**63 - 1),
    lambda: cl.conv_transpose1d(zeros(1, 1, 2), zeros(1, 1, 1), stride=2**62),
    lambda: cl.conv_transpose1d(zeros(1, 1, 2), zeros(1, 1, 2), output_size=(2**64,)),
    lambda: cl.conv_backward_input(zeros(1, 1, 1), zeros(1, 1, 1), (2**31, 2**31, 2)),
    lambda: cl.conv_backward_weight(zeros(1, 1, 1), zeros(1, 1, 1), (1, 1, 2**63)),
    lambda: cl.plan_conv((2**31, 1, 2**31), zeros(1, 1, 1)),
    lambda: cl.algorithms((1, 2**32, 2**32), (2**32, 2**32, 1)),
    lambda: _core.ConvProblem.parse("conv1d c1 i8 k99999999999999999999 f1"),
]


@pytest.mark.parametrize("call", OVERFLOWS)
def test_overflowing_sizes(call: Call) -> None:
    with pytest.raises((OverflowError, ValueError)) as caught:
        call()
    assert re.search(r"\d{8}", str(caught.value)), caught.value


def test_huge_strides_and_dilations_are_legal() -> None:
    x, w = np.ones((1, 1, 8), F32), np.ones((1, 1, 2), F32)
    assert cl.conv1d(x, w, stride=2**63 - 1).shape == (1, 1, 1)
    assert cl.conv1d(x, w[..., :1], dilation=2**63 - 1).shape == (1, 1, 8)
    with pytest.raises(
        ValueError, match=r"effective 4611686018427387905.*larger than padded input"
    ):
        cl.conv1d(x, w, dilation=2**62)


# KiB of a program's own; getrusage counts what its process was before it began, too.
PEAK = 'int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])'

HUGE = """
import resource
import numpy as np
import convolith as cl

limit = 6 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def constant(*shape):
    return np.broadcast_to(np.float32(0), shape)


def attempt(name, call):
    try:
        call()
        print(name, "no error")
    except Exception as error:
        print(name, "MemoryError" if isinstance(error, MemoryError) else repr(error))


one = constant(1, 1, 1)
attempt("padding", lambda: cl.conv1d(constant(1, 1, 8), one, padding=2**36))
attempt("padding2", lambda: cl.conv2d(constant(1, 1, 8, 8), one[None], padding=2**20))
attempt("input", lambda: cl.conv1d(constant(1, 1, 2**36), one))
attempt("input2", lambda: cl.conv2d(constant(1, 1, 2**18, 2**18), one[None]))
attempt("batch", lambda: cl.conv1d(constant(2**40, 1, 8), one))
attempt("channels", lambda: cl.conv1d(constant(1, 2**40, 8), constant(1, 2**40, 1)))
attempt("outputs", lambda: cl.conv1d(constant(1, 1, 8), constant(2**40, 1, 1)))
attempt("gradient", lambda: cl.conv_backward_input(one, one, (1, 1, 2**40), stride=2**40))
attempt("weights", lambda: cl.conv_backward_weight(constant(1, 2**40, 8), constant(1, 1, 8),
                                                   (2**40, 1, 1)))
attempt("stride", lambda: cl.conv_transpose1d(constant(1, 1, 2), one, stride=2**40))
attempt("dilation", lambda: cl.conv_transpose1d(one, constant(1, 1, 2), dilation=2**40))
print("peak", PEAK >> 20, "GiB")
""".replace("PEAK", PEAK)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_sizes_that_cannot_be_allocated() -> None:
    """A MemoryError each, and no memory taken before it: the system might not refuse it."""
    done = subprocess.run(
        [sys.executable, "-c", HUGE], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    *attempts, peak = done.stdout.splitlines()
    assert len(attempts) == 11
    for line in attempts:
        assert line.split()[1] == "MemoryError", line
    assert peak == "peak 0 GiB"


LONG = """
import resource
from convolith import _core

limit = 6 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
n = 2**40
for axes in (
    f"c1 i{n} k1 f3 p1", f"c1 i{n} k1 f3 p1 s2", f"c1 i{n} k1 f3 d{2**20}", f"c1 i{n} k1 f1 s{n}",
    f"c1 i{n} k1 f3 s{n // 4} p1", f"c1 i{n + 1} k1 f2 d{n}", f"c1 i8 k1 f3 p{n}",
    f"c{n} i8 k1 f1", f"c1 i8 k{n} f1", f"n{n} c1 i8 k1 f1", f"c{n} i8 k{n} f1 g{n}",
    f"c1 i{n} k1 f3 p1 reflect", f"c1 i{n} k1 f3 s3 p1 replicate", f"c1 i{n} k1 f3 p1 circular",
    f"c1 i9 k1 f{2**24} p{2**23} replicate",
):
    for direction in ("forward", "backward_input", "backward_weight"):
        for layout in ("channels_first", "channels_last"):
            p = _core.ConvProblem.parse(f"conv1d {axes} {direction} {layout}")
            assert any(record["supported"] for record in _core.algorithms(p))
            _core.Plan(p).explain()
print(PEAK >> 20, "GiB")
""".replace("PEAK", PEAK)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_problems_of_any_size_are_planned() -> None:
    """Nothing that planning makes grows with an axis: a list of runs would take hours here."""
    done = subprocess.run(
        [sys.executable, "-c", LONG], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout == "0 GiB\n", done.stderr


# ---- problem texts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("conv4d c1 i8 k1 f1", "'conv4d' should be conv1d, conv2d or conv3d"),
        ("conv2d c1 i8 k1 f3 q7", "'q7' is not a word"),
        ("conv2d c1 i8 k1 f3 s", "'s' is not a word"),
        ("conv2d c1 i8 k1 f3 s1x2x3", "'s1x2x3' has 3 numbers for 2 axes"),
        ("conv2d c1 i8 k1 f3 s1x", "'s1x'"),
        ("conv2d c1 i8 k1 f3 p1:2:3", "'p1:2:3' has more than before:after"),
        ("conv2d c1 i8 k1 f3 pfull", "'pfull'"),
        ("conv2d c1 i8 k1 f3 s0", "stride is 0"),
        ("conv2d c1.5 i8 k1 f3", "'c1.5'"),
        ("conv2d c1 i8 k1 f9", "kernel 9 is larger than padded input 8"),
        ("conv2d c3 i8 k4 f3 g2", "groups is 2; it must divide in_channels 3"),
        ("conv2d c1 i8 k1 f3 o9", "output extent is 9 .* fit are 6"),
        ("conv2d c1 i8 k1 f3 leaky_relu slope=x", "slope=x"),
        ("conv2d c1 i8 k1 f3 backward_weight relu", "backward_weight takes no"),
        ("conv2d c1 i8 k1 f3 float8", "'float8' is not a word"),
        ("conv2d c1 i8 k1 f3 n-1", "batch is -1"),
    ],
)
def test_problem_texts(text: str, pattern: str) -> None:
    error_of(lambda: _core.ConvProblem.parse(text), ValueError, pattern)


def test_problem_replace() -> None:
    p = _core.ConvProblem.parse("conv1d c1 i8 k1 f3 relu")
    for options, kind, pattern in (
        ({"direction": "up"}, ValueError, "direction is 'up'"),
        ({"direction": "backward_weight"}, ValueError, "backward_weight takes no"),
        ({"batch": -1}, ValueError, "batch is -1"),
        ({"stride": 2}, TypeError, "not stride"),
    ):
        error_of(lambda o=options: p.replace(**o), kind, pattern)


# ---- plans of the core ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "kind", "pattern"),
    [
        (lambda p: p.execute(X, None), TypeError, "weight is a NoneType"),
        (lambda p: p.execute(X, W, zeros(6)), ValueError, "bias is given"),
        (lambda p: p.pack(W).execute(X, W), ValueError, "weight is given"),
        (lambda p: p.pack(zeros(6, 2, 3, 3)), ValueError, r"weight has shape \(6, 2, 3, 3\)"),
        (lambda p: p.pack(W.astype(F64)), TypeError, "weight has dtype float64"),
        (lambda p: p.pack(None), TypeError, "weight is a NoneType"),
        (lambda p: _core.Plan(p.problem, isa="mmx"), ValueError, "ISA 'mmx' is unknown"),
        (lambda p: _core.Plan(p.problem, numerics="x"), ValueError, "numerics is 'x'"),
    ],
)
def test_plans_of_the_core(
    run: Callable[[_core.Plan], object], kind: type[Exception], pattern: str
) -> None:
    made = _core.Plan(_core.ConvProblem.parse("conv2d n2 c4 i9x8 k6 f3x2 g2"))
    error_of(lambda: run(made), kind, pattern)


def test_a_plan_of_a_weight_gradient_packs_nothing() -> None:
    made = _core.Plan(_core.ConvProblem.parse("conv1d c1 i8 k1 f3 backward_weight"))
    error_of(lambda: made.pack(zeros(1, 1, 3)), ValueError, "backward_weight has no weights")

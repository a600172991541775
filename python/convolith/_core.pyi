"""The compiled core. Arguments are in the one form that `_arguments` gives them."""

from typing import Any, Final, Literal, overload

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Padding = str | tuple[tuple[int, int], ...]

class UnsupportedError(ValueError): ...

# ---- runtime -----------------------------------------------------------------------------------

MOST_THREADS: Final[int]

def config() -> dict[str, Any]: ...
def default_threads() -> int: ...
def set_default_threads(threads: int) -> None: ...
def thread_override() -> int: ...
def set_thread_override(threads: int) -> None: ...
def default_numerics() -> str: ...
def set_thread_numerics(mode: str) -> None: ...
def kept_bytes() -> int: ...
def release_memory() -> None: ...
def set_poison(on: bool, subnormal: bool = False) -> None: ...
def measure_peak(dtype: str = "float32", threads: int = 0) -> float: ...
def measure_copy(bytes: int, threads: int = 0) -> float: ...
def gemm(a: _Array, b: _Array, threads: int = 0, out: _Array | None = None) -> _Array: ...

# ---- convolution -------------------------------------------------------------------------------

class ConvProblem:
    @staticmethod
    def parse(text: str) -> ConvProblem: ...
    def replace(
        self,
        *,
        batch: int = ...,
        direction: str = ...,
        dtype: str = ...,
        data_format: str = ...,
    ) -> ConvProblem: ...
    @property
    def direction(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def data_format(self) -> str: ...
    @property
    def padding_mode(self) -> str: ...
    @property
    def activation(self) -> str: ...
    @property
    def slope(self) -> float: ...
    @property
    def bias(self) -> bool: ...
    @property
    def residual(self) -> bool: ...
    @property
    def rank(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def groups(self) -> int: ...
    @property
    def input(self) -> tuple[int, ...]: ...
    @property
    def kernel(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def dilation(self) -> tuple[int, ...]: ...
    @property
    def padding(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def output(self) -> tuple[int, ...]: ...
    @property
    def x_shape(self) -> tuple[int, ...]: ...
    @property
    def weight_shape(self) -> tuple[int, ...]: ...
    @property
    def y_shape(self) -> tuple[int, ...]: ...
    @property
    def flops(self) -> float: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

def make_convolution(
    direction: str,
    nd: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
    *,
    stride: tuple[int, ...],
    padding: _Padding,
    dilation: tuple[int, ...],
    groups: int,
    data_format: str,
    padding_mode: str,
    bias: bool,
    residual: bool,
    activation: str,
    slope: float,
) -> ConvProblem: ...
def make_transposed(
    direction: str,
    nd: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    dtype: str,
    output_padding: tuple[int, ...],
    output_size: tuple[int, ...] | None,
    *,
    stride: tuple[int, ...],
    padding: _Padding,
    dilation: tuple[int, ...],
    groups: int,
    data_format: str,
    padding_mode: str,
    bias: bool,
    residual: bool,
    activation: str,
    slope: float,
) -> ConvProblem: ...

# first, second, bias, residual, out, and whatever else the plan follows from
_Call = tuple[_Array, _Array, _Array | None, _Array | None, _Array | None, tuple[Any, ...]]

def repeat(call: _Call) -> _Array | None: ...
def convolve(
    problem: ConvProblem,
    algorithm: str,
    numerics: str,
    threads: int,
    call: _Call,
    names: tuple[str, str] | None = ...,
) -> _Array: ...
def cached_plans() -> int: ...
def forget_plans() -> None: ...
def set_brief_operations(operations: float) -> float: ...
def choose(
    problem: ConvProblem,
    isa: str,
    l1_bytes: int,
    l2_bytes: int,
    l3_bytes: int,
    numerics: str = "fast",
) -> str: ...

class Plan:
    def __init__(
        self,
        problem: ConvProblem,
        algorithm: str = "auto",
        numerics: str = "fast",
        threads: int = 0,
        isa: str = "",
        workspace_limit: int | None = None,
    ) -> None: ...
    def execute(
        self,
        first: _Array,
        second: _Array | None,
        bias: _Array | None = None,
        residual: _Array | None = None,
        out: _Array | None = None,
        names: tuple[str, str] | None = None,
    ) -> _Array: ...
    def meets_subnormals(
        self,
        first: _Array,
        second: _Array | None,
        bias: _Array | None = None,
        residual: _Array | None = None,
    ) -> bool: ...
    def pack(self, weight: _Array) -> Plan: ...
    def explain(self) -> str: ...
    @property
    def problem(self) -> ConvProblem: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def packed(self) -> bool: ...
    @property
    def flops(self) -> float: ...
    @property
    def workspace_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def tolerance(self) -> dict[str, float]: ...

def algorithms(
    problem: ConvProblem,
    numerics: str = "fast",
    threads: int = 0,
    isa: str = "",
    workspace_limit: int | None = None,
) -> list[dict[str, Any]]: ...
def channel_sums(
    maps: _Array, nd: int, data_format: str, argument: str = "dy", threads: int = 0
) -> _Array: ...
def common_dtype(optional: dict[str, _Array | None] = ..., **arrays: _Array) -> str: ...

# ---- pooling -----------------------------------------------------------------------------------

class PoolProblem:
    @property
    def numbers(self) -> tuple[Any, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def data_format(self) -> str: ...
    @property
    def rank(self) -> int: ...
    def x_shape(self, unbatched: bool = False) -> tuple[int, ...]: ...
    def y_shape(self, unbatched: bool = False) -> tuple[int, ...]: ...

class UnpoolProblem: ...

def make_pool(
    op: str,
    nd: int,
    x_shape: tuple[int, ...],
    dtype: str,
    data_format: str,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: _Padding,
    dilation: tuple[int, ...],
    ceil_mode: bool,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    norm_type: float = 2.0,
) -> PoolProblem: ...
def make_adaptive_pool(
    op: str,
    nd: int,
    x_shape: tuple[int, ...],
    dtype: str,
    data_format: str,
    output_size: tuple[int, ...],
) -> PoolProblem: ...
def make_unpool(
    nd: int,
    x_shape: tuple[int, ...],
    dtype: str,
    data_format: str,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: _Padding,
    output_size: tuple[int, ...] | None,
) -> UnpoolProblem: ...
@overload
def pool(
    problem: PoolProblem,
    x: _Array,
    uniforms: npt.NDArray[np.float64] | None = None,
    return_indices: Literal[False] = False,
    threads: int = 0,
    isa: str = "",
) -> _Array: ...
@overload
def pool(
    problem: PoolProblem,
    x: _Array,
    uniforms: npt.NDArray[np.float64] | None = None,
    *,
    return_indices: Literal[True],
    threads: int = 0,
    isa: str = "",
) -> tuple[_Array, npt.NDArray[np.int64]]: ...
@overload
def pool(
    problem: PoolProblem,
    x: _Array,
    uniforms: npt.NDArray[np.float64] | None = None,
    return_indices: bool = False,
    threads: int = 0,
    isa: str = "",
) -> Any: ...
def pool_backward(
    problem: PoolProblem,
    dy: _Array,
    x: _Array,
    indices: npt.NDArray[np.int64] | None = None,
    threads: int = 0,
    isa: str = "",
) -> _Array: ...
def unpool(
    problem: UnpoolProblem, x: _Array, indices: npt.NDArray[np.int64], threads: int = 0
) -> _Array: ...
def unpool_backward(
    problem: UnpoolProblem,
    dy: _Array,
    x: _Array,
    indices: npt.NDArray[np.int64],
    threads: int = 0,
) -> _Array: ...

# ---- training ----------------------------------------------------------------------------------

def matmul(
    a: _Array,
    b: _Array,
    transpose_a: bool,
    transpose_b: bool,
    bias: _Array | None,
    activation: str,
    slope: float,
    out: _Array | None,
) -> _Array: ...
def activation(
    x: _Array, activation: str, slope: float, residual: _Array | None, out: _Array | None
) -> _Array: ...
def activation_backward(
    dy: _Array,
    x: _Array | None,
    y: _Array | None,
    activation: str,
    slope: float,
    out: _Array | None,
) -> _Array: ...
def batch_norm(
    x: _Array,
    running_mean: _Array | None,
    running_var: _Array | None,
    weight: _Array | None,
    bias: _Array | None,
    training: bool,
    momentum: float,
    eps: float,
    activation: str,
    slope: float,
    residual: _Array | None,
    data_format: str,
    nd: int,
    return_stats: bool,
    out: _Array | None,
) -> Any: ...
def batch_norm_backward(
    dy: _Array,
    x: _Array,
    weight: _Array | None,
    mean: _Array,
    inv_std: _Array,
    y: _Array | None,
    bias: _Array | None,
    activation: str,
    slope: float,
    training: bool,
    residual_grad: bool,
    data_format: str,
    nd: int,
) -> tuple[_Array, ...]: ...
def softmax(x: _Array, axis: int, logarithm: bool, out: _Array | None) -> _Array: ...
def softmax_backward(
    dy: _Array, y: _Array, axis: int, logarithm: bool, out: _Array | None
) -> _Array: ...
def cross_entropy(
    logits: _Array,
    target: npt.NDArray[np.int64],
    weight: _Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    axis: int | None,
) -> _Array: ...
def cross_entropy_backward(
    dy: _Array,
    logits: _Array,
    target: npt.NDArray[np.int64],
    weight: _Array | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    axis: int | None,
    out: _Array | None,
) -> _Array: ...
def sgd_step(
    parameters: list[_Array],
    gradients: list[_Array],
    velocities: list[_Array] | list[None] | list[_Array | None],
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None: ...
def adam_step(
    parameters: list[_Array],
    gradients: list[_Array],
    means: list[_Array],
    squares: list[_Array],
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
) -> None: ...

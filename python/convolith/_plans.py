"""Plans, what is known of the algorithms, and measuring them."""

from __future__ import annotations

from typing import Any

import numpy as np

from convolith import _arguments, _autotune, _backends, _config, _core
from convolith._arguments import Activation, Array, Ints, Padding
from convolith._convolution import problem_options, rank_of_shape, transposed_sizes


class ConvPlan:
    """A convolution planned once, its weights packed; `plan_conv`, `plan_conv_transpose` make it.

    Immutable, so that several threads may call it at once.
    """

    def __init__(
        self,
        plan: _core.Plan,
        weight: Array,
        bias: Array | None,
        times: _autotune.Times | None = None,
    ) -> None:
        """Pack `weight` for `plan` and keep a copy of `bias`; `times` are what was measured."""
        # A transposed convolution is planned as the adjoint that it is, whose input is a gradient.
        self._names = None if plan.problem.direction == "forward" else ("x", "weight")
        self._plan = plan.pack(weight)
        self._bias = None if bias is None else _backends.copy_of(bias)
        self._times = dict(times or {})

    def __call__(
        self, x: Array, out: Array | None = None, *, residual: Array | None = None
    ) -> Array:
        """Convolve `x`, of the planned shape; `residual` where the plan has one."""
        return self._plan.execute(x, None, self._bias, residual, out, self._names)

    @property
    def algorithm(self) -> str:
        """The algorithm that was chosen."""
        return self._plan.algorithm

    @property
    def isa(self) -> str:
        """The ISA of its kernels."""
        return self._plan.isa

    @property
    def threads(self) -> int:
        """The number of threads that it runs on."""
        return self._plan.threads

    @property
    def problem(self) -> _core.ConvProblem:
        """The problem that it solves."""
        return self._plan.problem

    @property
    def flops(self) -> float:
        """Twice the multiply-adds of the direct method, padding counted."""
        return self._plan.flops

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one call, packed weights not counted."""
        return self._plan.workspace_bytes

    @property
    def packed_bytes(self) -> int:
        """Size of the packed weights."""
        return self._plan.packed_bytes

    def explain(self) -> str:
        """Which algorithms were considered or refused, why, and the predicted or measured cost."""
        text = self._plan.explain()
        for name, seconds in self._times.items():
            took = "too little memory" if seconds is None else f"{1e6 * seconds:.3g} us"
            text += f"\nmeasured {name}: {took}"
        return text

    def __repr__(self) -> str:
        return f"<ConvPlan {self.problem}: {self.algorithm}, {self.isa}, {self.threads} threads>"


def plan_conv(
    x_shape: Ints,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: bool = False,
    algorithm: str = "auto",
    numerics: str | None = None,
    threads: int | None = None,
    workspace_limit: int | None = None,
) -> ConvPlan:
    """Choose an algorithm once and pack the weights once, for many calls on one input shape.

    Args:
        x_shape: Shape of the inputs to come, in the data format.
        weight: (out_channels, in_channels / groups, *kernel); its rank tells the spatial axes.
        bias, stride, padding, dilation, groups, data_format, padding_mode, activation, algorithm,
            numerics: As in `conv2d`.
        residual: Whether calls will pass a residual.
        threads: Number of threads; None takes what `get_num_threads` says now.
        workspace_limit: Most bytes of workspace; algorithms that need more are refused.

    Returns:
        A ConvPlan: call it with x, and optionally out.
    """
    dtype = _backends.of(weight).common_dtype({"bias": bias}, weight=weight)
    nd = rank_of_shape(weight.shape, "weight")
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    options = _options(nd, window, bias is not None, residual, activation)
    problem = _core.make_convolution(
        "forward", nd, _arguments.shape(x_shape, "x_shape"), weight.shape, dtype, **options
    )
    return _planned(
        problem, problem.out_channels, weight, bias, algorithm, numerics, threads, workspace_limit
    )


def plan_conv_transpose(
    x_shape: Ints,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = 1,
    padding: Padding = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    output_size: Ints | None = None,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: bool = False,
    algorithm: str = "auto",
    numerics: str | None = None,
    threads: int | None = None,
    workspace_limit: int | None = None,
) -> ConvPlan:
    """Plan a transposed convolution as `plan_conv` plans a convolution.

    Args:
        x_shape: Shape of the inputs to come, in the data format.
        weight: (in_channels, out_channels / groups, *kernel); its rank tells the spatial axes.
        bias, stride, padding, output_padding, groups, dilation, output_size, data_format,
            padding_mode, activation, algorithm, numerics: As in `conv_transpose2d`.
        residual, threads, workspace_limit: As in `plan_conv`.

    Returns:
        A ConvPlan; its problem is that of the convolution whose adjoint this is.
    """
    dtype = _backends.of(weight).common_dtype({"bias": bias}, weight=weight)
    nd = rank_of_shape(weight.shape, "weight")
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    options = _options(nd, window, bias is not None, residual, activation)
    shape = _arguments.shape(x_shape, "x_shape")
    sizes = transposed_sizes(output_padding, output_size, nd, options)
    problem = _core.make_transposed("forward", nd, shape, weight.shape, dtype, *sizes, **options)
    return _planned(
        problem, problem.in_channels, weight, bias, algorithm, numerics, threads, workspace_limit
    )


def _options(
    nd: int,
    window: tuple[Ints, Padding, Ints, int, str, str],
    bias: bool,
    residual: bool,
    activation: Activation,
) -> dict[str, Any]:
    has_residual = _arguments.flag(residual, "residual")
    return problem_options(nd, *window, bias=bias, residual=has_residual, activation=activation)


def _planned(
    problem: _core.ConvProblem,
    produced: int,
    weight: Array,
    bias: Array | None,
    algorithm: str,
    numerics: str | None,
    threads: int | None,
    workspace_limit: int | None,
) -> ConvPlan:
    """The plan of a problem that has `produced` channels in its results."""
    if bias is not None and bias.shape != (produced,):
        raise ValueError(f"bias has shape {bias.shape}; it must be ({produced},)")
    backend = _backends.of(weight)
    count = _threads(threads)
    limit = _limit(workspace_limit)
    name = _arguments.choice(algorithm, "algorithm")
    mode = _config.resolve_numerics(numerics)
    times: _autotune.Times = {}
    if name == "fastest" and backend is _core:
        times = _autotune.known_times(problem, mode, count, prepacked=True, workspace_limit=limit)
        name = _autotune.winner(times)
    plan = backend.Plan(problem, name, mode, count, workspace_limit=limit)
    return ConvPlan(plan, weight, bias, times)


def _threads(threads: int | None) -> int:
    return _config.get_num_threads() if threads is None else _config.thread_count(threads)


def _limit(workspace_limit: int | None) -> int | None:
    if workspace_limit is None:
        return None
    limit = _arguments.integer(workspace_limit, "workspace_limit")
    if limit < 0:
        raise ValueError(f"workspace_limit is {limit}; it must be at least 0")
    return limit


def algorithms(
    x_shape: Ints,
    weight_shape: Ints,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    dtype: str = "float32",
    direction: str = "forward",
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    numerics: str | None = None,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """How every algorithm of the library stands to a convolution.

    Args:
        x_shape, weight_shape: Shapes of the convolution's input and weights.
        stride, padding, dilation, groups, data_format, padding_mode, numerics: As in `conv2d`.
        dtype: "float32" or "float64".
        direction: "forward", "backward_input" or "backward_weight".
        device: "cpu", or "cuda" for the algorithms of CUDA devices, which also have the dtypes
            "float16" and "bfloat16".

    Returns:
        One record per algorithm: name, summary, supported, reason (where not), workspace_bytes,
        packed_bytes, cost_seconds (predicted, one core) and tolerance, whose "componentwise" c
        and "uniform" u bound the error by c * conv(|x|, |weight|) + u * max |x| * sum |weight|,
        the sum over the weights of the output's channel; u is 0 but for transforms.
    """
    w_shape = _arguments.shape(weight_shape, "weight_shape")
    nd = rank_of_shape(w_shape, "weight_shape")
    options = problem_options(nd, stride, padding, dilation, groups, data_format, padding_mode)
    problem = _core.make_convolution(
        _arguments.choice(direction, "direction"),
        nd,
        _arguments.shape(x_shape, "x_shape"),
        w_shape,
        _arguments.choice(dtype, "dtype"),
        **options,
    )
    mode = _config.resolve_numerics(numerics)
    if _arguments.choice(device, "device") == "cuda":
        from convolith.cuda import _backend

        return _backend.algorithms(problem, mode)
    if device != "cpu":
        raise ValueError(f"device is {device!r}; it must be 'cpu' or 'cuda'")
    return _core.algorithms(problem, mode, _config.get_num_threads())


def autotune(
    x_shape: Ints,
    weight: Array | Ints,
    bias: object = None,
    stride: Ints = 1,
    padding: Padding = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    dtype: str | None = None,
    direction: str = "forward",
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Activation = None,
    residual: bool = False,
    numerics: str | None = None,
    threads: int | None = None,
    workspace_limit: int | None = None,
    prepacked: bool = True,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Measure every algorithm on a convolution, for algorithm="fastest" to take the fastest.

    The arguments of `plan_conv` do. The times are of random data, medians of interleaved rounds.
    They are kept on disk, for this CPU model, ISA, number of threads and version: in the folder
    that the environment variable CONVOLITH_CACHE names ("off": nowhere), else in the user's cache
    folder. "fastest" finds them there, or measures on its own; "auto" never looks at them.

    Args:
        x_shape: Shape of the convolution's input, in the data format.
        weight: The weights or their shape; of their values nothing is read.
        bias: Whether there is a bias: an array or True, None or False.
        stride, padding, dilation, groups, data_format, padding_mode, activation, numerics: As in
            `conv2d`.
        dtype: "float32" or "float64"; None takes that of the weights, "float32" for a shape.
        direction: "forward", "backward_input" or "backward_weight".
        residual, threads, workspace_limit: As in `plan_conv`.
        prepacked: Measure with the weights packed ahead, as in a plan, and not in every call, as
            the functions do; the two are remembered apart. Other directions than forward never
            pack ahead.
        seconds: How long to measure, besides three runs of each algorithm.

    Returns:
        A record: problem in text form, isa, threads, numerics, prepacked, algorithm (the fastest),
        and seconds, a dict of medians by name, None where memory did not suffice.
    """
    if isinstance(weight, np.ndarray) and weight.ndim >= 3:
        w_shape: tuple[int, ...] = weight.shape
        dtype = _core.common_dtype(weight=weight) if dtype is None else dtype
    else:
        w_shape = _arguments.shape(weight, "weight")
    nd = rank_of_shape(w_shape, "weight")
    window = (stride, padding, dilation, groups, data_format, padding_mode)
    has_bias = bias is not None and bias is not False
    options = _options(nd, window, has_bias, residual, activation)
    problem = _core.make_convolution(
        _arguments.choice(direction, "direction"),
        nd,
        _arguments.shape(x_shape, "x_shape"),
        w_shape,
        "float32" if dtype is None else _arguments.choice(dtype, "dtype"),
        **options,
    )
    mode = _config.resolve_numerics(numerics)
    count = _threads(threads)
    ahead = _arguments.flag(prepacked, "prepacked") and problem.direction == "forward"
    budget = _arguments.real(seconds, "seconds")
    if not 0 < budget < 1e6:
        raise ValueError(f"seconds is {budget}; it must be positive and finite")
    limit = _limit(workspace_limit)
    times = _autotune.measure(
        problem, mode, count, prepacked=ahead, workspace_limit=limit, budget=budget
    )
    return {
        "problem": str(problem),
        "isa": _core.config()["isa"],
        "threads": count,
        "numerics": mode,
        "prepacked": ahead,
        "algorithm": _autotune.winner(times),
        "seconds": times,
    }

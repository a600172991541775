"""PyTorch: functional calls in both memory formats, and oneDNN with the weights packed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from convolith._core import ConvProblem
from convolith.bench.arrays import Array
from convolith.bench.peers.adapter import Adapter, Run, Unsupported, is_transposed, output_padding
from convolith.bench.pools import PoolProblem, make_gradient
from convolith.bench.truth import Operands

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class PyTorch(Adapter):
    """`conv1d` to `conv_transpose3d`, and their gradients, in inference mode."""

    name = "torch"
    weight_gradients = True

    def __init__(self, threads: int) -> None:
        """Stay in inference mode for good."""
        super().__init__(threads)
        torch.set_num_threads(threads)
        self.mode = torch.inference_mode()
        self.mode.__enter__()

    def versions(self) -> dict[str, str]:
        """PyTorch's, and that of the oneDNN in it where it tells."""
        return {"torch": torch.__version__}

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        """Functional calls, and packed weights where there is an operation that takes them."""
        runs = {} if problem.direction == "forward" else gradient_runs(problem, operands)
        if problem.direction == "backward_weight":
            return runs
        x, w = torch.from_numpy(operands.first), torch.from_numpy(operands.second)
        runs["channels_first"] = functional_run(problem, x, w)
        packed = pack(problem, x, w)
        if packed is not None:
            runs["channels_first packed"] = packed(x)
        if problem.rank in CHANNELS_LAST:
            form = CHANNELS_LAST[problem.rank]
            x, w = x.to(memory_format=form), w.to(memory_format=form)
            runs["channels_last"] = functional_run(problem, x, w)
            if packed is not None:
                runs["channels_last packed"] = packed(x)
        return runs

    def prepare_pool(self, problem: PoolProblem, x: Array) -> dict[str, Run]:
        """Functional calls in both memory formats."""
        first = torch.from_numpy(x)
        run = pool_gradient_run if problem.backward else pool_run
        runs = {"channels_first": run(problem, first)}
        if form := CHANNELS_LAST.get(problem.window.rank):
            last = first.to(memory_format=form)
            runs["channels_last"] = run(problem, last)
        return runs


def pool_run(problem: PoolProblem, x: torch.Tensor) -> Run:
    """A call of a sliding or, where one window holds all, of an adaptive function."""
    kind = f"{problem.operation}_pool{problem.window.rank}d"
    function: Any
    if problem.is_global:
        function = getattr(functional, f"adaptive_{kind}")
        return lambda: function(x, 1)
    function = getattr(functional, kind)
    return lambda: function(x, *problem.arguments)


def pool_gradient_run(problem: PoolProblem, x: torch.Tensor) -> Run:
    """A call of the operation that autograd would make, after a forward like that of `pool_run`."""
    rank = problem.window.rank
    if rank == 1:
        raise Unsupported("gradient of 1-D pooling as one operation")
    form = CHANNELS_LAST[rank] if x.stride(1) == 1 else torch.contiguous_format
    dy = torch.from_numpy(make_gradient(problem)).to(memory_format=form)
    kernel, stride, padding = (list(values) for values in problem.arguments)
    operations = torch.ops.aten
    if problem.operation == "max":
        forward = getattr(operations, f"max_pool{rank}d_with_indices")
        backward = getattr(operations, f"max_pool{rank}d_with_indices_backward")
        _, indices = forward(x, kernel, stride, padding)
        return lambda: backward(dy, x, kernel, stride, padding, [1] * rank, False, indices)
    if problem.is_global:
        whole = getattr(operations, f"_adaptive_avg_pool{rank}d_backward")
        return lambda: whole(dy, x)
    backward = getattr(operations, f"avg_pool{rank}d_backward")
    return lambda: backward(dy, x, kernel, stride, padding, False, True, None)


def functional_run(problem: ConvProblem, x: torch.Tensor, w: torch.Tensor) -> Run:
    """A call of torch.nn.functional; uneven padding is a call of its own there."""
    stride, dilation, groups = problem.stride, problem.dilation, problem.groups
    padding: tuple[int, ...] = tuple(before for before, _ in problem.padding)
    function: Any
    if is_transposed(problem):
        if is_uneven(problem):
            raise Unsupported("uneven padding")
        function = getattr(functional, f"conv_transpose{problem.rank}d")
        extra = output_padding(problem)
        return lambda: function(x, w, None, stride, padding, extra, groups, dilation)
    function = getattr(functional, f"conv{problem.rank}d")
    if not is_uneven(problem):
        return lambda: function(x, w, None, stride, padding, dilation, groups)
    widths = [width for pair in reversed(problem.padding) for width in pair]
    return lambda: function(functional.pad(x, widths), w, None, stride, 0, dilation, groups)


def gradient_runs(problem: ConvProblem, operands: Operands) -> dict[str, Run]:
    """Calls of what autograd calls, in both memory formats."""
    if is_uneven(problem):
        raise Unsupported("uneven padding")
    padding = [before for before, _ in problem.padding]
    none = [0] * problem.rank
    call = torch.ops.aten.convolution_backward.default
    for_weight = problem.direction == "backward_weight"
    dy, second = torch.from_numpy(operands.first), torch.from_numpy(operands.second)
    x = second if for_weight else torch.empty(problem.x_shape)
    w = torch.empty(problem.weight_shape) if for_weight else second

    def run_in(form: torch.memory_format) -> Run:
        arrays = [array.contiguous(memory_format=form) for array in (dy, x, w)]
        window = (problem.stride, padding, problem.dilation, False, none, problem.groups)
        wanted = (not for_weight, for_weight, False)
        return lambda: call(*arrays, None, *window, wanted)[1 if for_weight else 0]

    runs = {"channels_first gradient": run_in(torch.contiguous_format)}
    if problem.rank in CHANNELS_LAST:
        runs["channels_last gradient"] = run_in(CHANNELS_LAST[problem.rank])
    return runs


def pack(problem: ConvProblem, x: torch.Tensor, w: torch.Tensor) -> Callable[..., Run] | None:
    """x -> a call with weights in oneDNN's own layout, as in a frozen, compiled model.

    None where PyTorch has no such operation.
    """
    if problem.rank == 1 or is_uneven(problem) or not torch.backends.mkldnn.is_available():
        return None
    padding = [before for before, _ in problem.padding]
    stride, dilation, groups = list(problem.stride), list(problem.dilation), problem.groups
    operations, shape = torch.ops.mkldnn, list(x.shape)
    tail = (stride, dilation, groups)
    if is_transposed(problem):
        extra = list(output_padding(problem))
        weight = operations._reorder_convolution_transpose_weight(w, padding, extra, *tail, shape)
        call = operations._convolution_transpose_pointwise.default
        return lambda x: lambda: call(x, weight, None, padding, extra, *tail, "none", [], "")
    weight = operations._reorder_convolution_weight(w, padding, *tail, shape)
    call = operations._convolution_pointwise.default
    return lambda x: lambda: call(x, weight, None, padding, *tail, "none", [], "")


def is_uneven(problem: ConvProblem) -> bool:
    """Whether an axis has more padding on one side than on the other."""
    return any(before != after for before, after in problem.padding)

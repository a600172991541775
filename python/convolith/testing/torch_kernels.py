"""torch.nn.functional behind the signatures of convolith, for `convolith check --torch`.

What torch does not have (uneven padding of transposed convolutions, "same" with a stride, channels
last, ...) raises NotImplementedError.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from convolith.testing.operations import family_of
from convolith.testing.problem import Problem, rank_of

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish")


def kernel_for(op: str, direction: str, device: str | None = None) -> Callable[..., Any]:
    """A callable for `check`; NotImplementedError where torch has no such operation."""
    name = family_of(Problem(op, direction)).function(Problem(op, direction))
    forward = _forward(op)

    def tensor(array: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of arrays that are not writable
            found = torch.from_numpy(array.copy())
        return found.to(device) if device else found

    def run(*args: Any, **options: Any) -> Any:
        given = [tensor(a) if hasattr(a, "dtype") else a for a in args]
        options = {k: tensor(v) if hasattr(v, "dtype") else v for k, v in options.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of copies that padding costs
            if direction == "forward":
                with torch.no_grad():
                    return forward(*given, **options)
            return _gradient(op, direction, forward, given, options)

    run.__qualname__ = f"torch.{name}"
    return run


def _gradient(
    op: str, direction: str, forward: Callable[..., Any], given: list[Any], options: dict[str, Any]
) -> Any:
    """By autograd; of convolutions the missing operand is any, for they are linear in it."""
    bias_grad = options.pop("bias_grad", False)
    if op.startswith("conv"):
        dy, other, shape = given
        leaf = torch.zeros(shape, dtype=dy.dtype, device=dy.device, requires_grad=True)
        pair = (leaf, other) if direction == "backward_input" else (other, leaf)
        if "transpose" in op:
            options["output_shape"] = dy.shape
        y = forward(*pair, **options)
        (result,) = torch.autograd.grad(y, leaf, dy)
        if bias_grad:
            return result, dy.sum(dim=(0, *range(2, dy.ndim)))
        return result
    if op in ("softmax", "log_softmax"):
        raise NotImplementedError("torch's function takes x, not y")
    dy, x, *rest = given
    leaf = x.detach().requires_grad_()
    (result,) = torch.autograd.grad(forward(leaf, *rest, **options), leaf, dy)
    return result


def _forward(op: str) -> Callable[..., Any]:
    rank = rank_of(op)
    if op.startswith("conv"):
        return lambda *a, **o: _convolution(op, rank, *a, **o)
    if "stochastic" in op or "batch_norm" in op:
        raise NotImplementedError(f"torch has no {op} of this signature")
    if "global" in op:
        kind = "avg" if "avg" in op else "max"
        return lambda x, **o: getattr(functional, f"adaptive_{kind}_pool{x.ndim - 2}d")(
            _plain(x, o), 1
        )
    if "pool" in op:
        return lambda *a, **o: _pooling(op, *a, **o)
    if op == "activation":
        return lambda x, name: getattr(functional, name)(x)
    if op == "matmul":
        return _matmul
    if op == "cross_entropy":
        return lambda *a, **o: functional.cross_entropy(*a, **o)
    return lambda x, axis=-1: getattr(functional, op)(x, dim=axis)


def _plain(x: Any, options: dict[str, Any]) -> Any:
    if options.pop("data_format", "channels_first") != "channels_first":
        raise NotImplementedError("torch takes channels first")
    if options:
        raise NotImplementedError(f"torch has no {next(iter(options))}")
    return x


def _convolution(
    op: str,
    rank: int,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    data_format: str = "channels_first",
    padding_mode: str = "zeros",
    activation: Any = None,
    residual: Any = None,
    output_padding: Any = 0,
    output_shape: Any = None,
) -> Any:
    if data_format != "channels_first":
        raise NotImplementedError("torch takes channels first")
    if "transpose" in op:
        if padding_mode != "zeros" or isinstance(padding, str) or _is_uneven(padding):
            raise NotImplementedError("torch has no such padding for transposed convolutions")
        function = getattr(functional, op)
        if output_shape is not None:
            plain = function(x, weight, None, stride, padding, 0, groups, dilation)
            extents = zip(output_shape[-rank:], plain.shape[-rank:], strict=True)
            output_padding = tuple(wanted - got for wanted, got in extents)
        y = function(x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        if isinstance(padding, str) and padding != "valid":
            if padding == "same_lower" or stride != 1:
                raise NotImplementedError(f"torch has no padding {padding!r} with a stride")
        elif padding_mode != "zeros" or _is_uneven(padding):
            if isinstance(padding, str):
                padding = 0
            pairs = [(p, p) if isinstance(p, int) else p for p in _sequence(padding, rank)]
            widths = [width for pair in reversed(pairs) for width in pair]
            mode = "constant" if padding_mode == "zeros" else padding_mode
            batch = x if x.ndim == rank + 2 else x[None]
            try:
                batch = functional.pad(batch, widths, mode=mode)
            except (RuntimeError, NotImplementedError) as error:
                raise NotImplementedError(f"torch cannot pad so: {error}") from None
            x, padding = (batch if x.ndim == rank + 2 else batch[0]), 0
        y = getattr(functional, op)(x, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        y = y + residual
    if activation is None:
        return y
    name, *slope = (activation,) if isinstance(activation, str) else activation
    return getattr(functional, name)(y, *slope)


def _sequence(value: Any, rank: int) -> tuple[Any, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _is_uneven(padding: Any) -> bool:
    return not isinstance(padding, (int, str)) and any(not isinstance(p, int) for p in padding)


def _pooling(op: str, x: Any, *args: Any, **options: Any) -> Any:
    if options.pop("data_format", "channels_first") != "channels_first":
        raise NotImplementedError("torch takes channels first")
    if "indices" in options:
        raise NotImplementedError("torch's gradient keeps its own indices")
    padding = options.get("padding", 0)
    if isinstance(padding, str) or _is_uneven(padding):
        raise NotImplementedError(f"torch's pooling has no padding {padding!r}")
    rank = rank_of(op)
    if "sum" in op:
        op, options["divisor_override"] = op.replace("sum", "avg"), 1
    if "avg" in op and rank == 1 and "divisor_override" in options:
        raise NotImplementedError("torch has no divisor_override for avg_pool1d")
    if "lp" in op and padding:
        raise NotImplementedError("torch's Lp pooling has no padding")
    if "unpool" in op and "padding" in options and x.numel() == 0:
        raise NotImplementedError("empty")
    if "lp" in op and rank == 1:
        power, (kernel,) = args
        args = (power, kernel)
        options = {k: v[0] if isinstance(v, tuple) else v for k, v in options.items()}
    try:
        return getattr(functional, op)(x, *args, **options)
    except RuntimeError as error:
        raise NotImplementedError(f"torch refuses: {error}") from None


def _matmul(
    a: Any,
    b: Any,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Any = None,
    activation: Any = None,
) -> Any:
    y = (a.mT if transpose_a else a) @ (b.mT if transpose_b else b)
    y = y if bias is None else y + bias
    return y if activation is None else getattr(functional, activation)(y)

"""The operations that can be checked, by name."""

from __future__ import annotations

from convolith.testing.convolutions import CONVOLUTION
from convolith.testing.family import Family
from convolith.testing.pooling import LpGradient, Pooling, StochasticPooling, Unpooling
from convolith.testing.problem import Problem
from convolith.testing.training import (
    Activation,
    BatchNorm,
    CrossEntropy,
    MatrixProduct,
    Softmax,
)

_PER_RANK: dict[str, Family] = {
    "conv": CONVOLUTION,
    "conv_transpose": CONVOLUTION,
    "max_pool": Pooling(),
    "avg_pool": Pooling(),
    "sum_pool": Pooling(),
    "lp_pool": LpGradient(),
    "stochastic_pool": StochasticPooling(),
    "adaptive_avg_pool": Pooling(),
    "adaptive_max_pool": Pooling(),
    "max_unpool": Unpooling(),
}

OPERATIONS: dict[str, Family] = {
    **{f"{kind}{rank}d": family for kind, family in _PER_RANK.items() for rank in (1, 2, 3)},
    "global_avg_pool": Pooling(),
    "global_max_pool": Pooling(),
    "matmul": MatrixProduct(),
    "softmax": Softmax(),
    "log_softmax": Softmax(),
    "cross_entropy": CrossEntropy(),
    "activation": Activation(),
    "batch_norm": BatchNorm(),
}


def resolve(op: str, direction: str = "forward") -> tuple[str, str]:
    """(operation, direction) of the names of a check; "max_pool2d_backward" is one name for both.

    ValueError lists what there is.
    """
    if op.endswith("_backward") and op[: -len("_backward")] in OPERATIONS:
        op, direction = op[: -len("_backward")], "backward"
    if op not in OPERATIONS:
        hint = "; of a gradient give the forward's op and a direction" if "backward" in op else ""
        raise ValueError(f"op is {op!r}; it must be one of {', '.join(OPERATIONS)}{hint}")
    known = OPERATIONS[op].directions
    if direction == "backward_input" and "backward" in known:
        direction = "backward"
    if direction not in known:
        raise ValueError(f"direction is {direction!r}; {op} has {', '.join(known)}")
    return op, direction


def family_of(problem: Problem) -> Family:
    """The family of a problem's operation."""
    return OPERATIONS[problem.op]

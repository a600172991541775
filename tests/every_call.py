"""One small call of every public kind, for tests of what may go wrong in any of them: memory that
cannot be had, threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import convolith as cl
from convolith import _core

Call = Callable[[], Any]

RNG = np.random.default_rng(3)


def integers(*shape: int) -> np.ndarray:
    return RNG.integers(-4, 5, shape).astype(np.float32)


X = integers(2, 4, 20, 19)
W = integers(6, 4, 3, 3)
DEPTHWISE = integers(4, 1, 3, 3)
GROUPED = integers(8, 2, 3, 3)
BIAS = integers(6)
Y = integers(2, 6, 20, 19)
SEQUENCE, VOLUME = integers(2, 3, 40), integers(1, 2, 6, 7, 8)
MAPS = integers(2, 3, 24, 20)
POOLED, INDICES = cl.max_pool2d(MAPS, 2, return_indices=True)
LOGITS, TARGET = integers(50, 30), RNG.integers(0, 30, 50)
NORMALIZED = 2.0 + np.abs(integers(4))


def plans() -> Iterator[tuple[str, Call]]:
    """Every algorithm in every direction, where one problem or another lets it."""
    problems = (
        "conv2d n2 c4 i20x19 k6 f3x3 p1 bias relu",
        "conv2d n1 c8 i17x20 k8 f5x5 p2 channels_last",
        "conv2d n2 c8 i16x17 k8 f3x3 s2 p1 g8",
        "conv2d n2 c8 i16x17 k16 f3x3 p1 g4 float64",
        "conv2d n1 c3 i40x40 k4 f15x15 p7",
    )
    seen = set()
    for text in problems:
        for direction in ("forward", "backward_input", "backward_weight"):
            words = text.replace(" bias relu", "") if direction == "backward_weight" else text
            problem = _core.ConvProblem.parse(f"{words} {direction}")
            for record in _core.algorithms(problem):
                if record["supported"] and (record["name"], direction) not in seen:
                    seen.add((record["name"], direction))
                    yield f"{record['name']} {direction}", planned(problem, record["name"])


def planned(problem: _core.ConvProblem, algorithm: str) -> Call:
    from problems import operands

    a = operands(problem, np.random.default_rng(1))
    dtype = np.dtype(problem.dtype)
    first, second, bias = (
        None if array is None else array.astype(dtype) for array in (a.first, a.second, a.bias)
    )

    def call() -> Any:
        plan = _core.Plan(problem, algorithm)
        result = plan.execute(first, second, bias)
        if problem.direction == "backward_weight":
            return result
        return result, plan.pack(second).execute(first, None, bias)

    return call


def functions() -> dict[str, Call]:
    return {
        "conv1d": lambda: cl.conv1d(SEQUENCE, W[:5, :3, 0]),
        "conv2d": lambda: cl.conv2d(X, W, BIAS, padding=1, activation=("leaky_relu", 0.5)),
        "conv2d, strided views": lambda: cl.conv2d(X[..., ::2], W.transpose(0, 1, 3, 2)),
        "conv2d into a view": lambda: cl.conv2d(
            X, W, padding=1, out=np.zeros((2, 6, 20, 38), np.float32)[..., ::2]
        ),
        "conv2d with a residual": lambda: cl.conv2d(X, W, padding="same", residual=Y),
        "conv2d, reflected": lambda: cl.conv2d(X, W, padding=1, padding_mode="reflect"),
        "conv2d, depthwise": lambda: cl.conv2d(X, DEPTHWISE, groups=4),
        "conv2d, grouped": lambda: cl.conv2d(X, GROUPED, groups=2),
        "conv3d": lambda: cl.conv3d(VOLUME, np.ones((2, 2, 3, 3, 3), np.float32)),
        "conv_transpose2d": lambda: cl.conv_transpose2d(Y, W, stride=2),
        "conv_backward_input": lambda: cl.conv_backward_input(Y, W, X.shape, padding=1),
        "conv_backward_weight": lambda: cl.conv_backward_weight(
            Y, X, W.shape, padding=1, bias_grad=True
        ),
        "conv_transpose_backward_input": lambda: cl.conv_transpose_backward_input(
            X, W, Y.shape, padding=1
        ),
        "conv_transpose_backward_weight": lambda: cl.conv_transpose_backward_weight(
            X, Y, W.shape, padding=1, bias_grad=True
        ),
        "plan_conv": lambda: cl.plan_conv(X.shape, W, BIAS, padding=1)(X),
        "plan_conv_transpose": lambda: cl.plan_conv_transpose(Y.shape, W, stride=2)(Y),
        "explain": lambda: cl.plan_conv(X.shape, W, padding=1).explain(),
        "algorithms": lambda: [str(r) for r in cl.algorithms(X.shape, W.shape, padding=1)],
        "parse": lambda: str(cl.ConvProblem.parse("conv2d c3 i9x8 k4 f3x3 s2 p1:2 relu")),
        "max_pool2d": lambda: cl.max_pool2d(MAPS, 3, 2, 1, return_indices=True),
        "max_pool2d_backward": lambda: cl.max_pool2d_backward(POOLED, MAPS, 2),
        "max_pool2d_backward, indices": lambda: cl.max_pool2d_backward(
            POOLED, MAPS, 2, indices=INDICES
        ),
        "max_unpool2d": lambda: cl.max_unpool2d(POOLED, INDICES, 2),
        "max_unpool2d_backward": lambda: cl.max_unpool2d_backward(MAPS, POOLED, INDICES, 2),
        "avg_pool2d": lambda: cl.avg_pool2d(MAPS, 3, 1, 1),
        "avg_pool2d_backward": lambda: cl.avg_pool2d_backward(POOLED, MAPS, 2),
        "sum_pool1d": lambda: cl.sum_pool1d(SEQUENCE, 3),
        "lp_pool2d": lambda: cl.lp_pool2d(MAPS, 3.0, 2),
        "lp_pool2d_backward": lambda: cl.lp_pool2d_backward(POOLED, MAPS, 3.0, 2),
        "adaptive_avg_pool2d": lambda: cl.adaptive_avg_pool2d(MAPS, 5),
        "adaptive_max_pool2d": lambda: cl.adaptive_max_pool2d(MAPS, (5, 3)),
        "global_avg_pool": lambda: cl.global_avg_pool(VOLUME),
        "global_max_pool": lambda: cl.global_max_pool(MAPS),
        "matmul": lambda: cl.matmul(LOGITS, LOGITS, transpose_b=True, activation="relu"),
        "matmul, batched": lambda: cl.matmul(X, X, transpose_a=True),
        "activation": lambda: cl.activation(MAPS, "tanh"),
        "activation_backward": lambda: cl.activation_backward(MAPS, MAPS, activation="silu"),
        "softmax": lambda: cl.softmax(LOGITS),
        "log_softmax": lambda: cl.log_softmax(LOGITS, 0),
        "softmax_backward": lambda: cl.softmax_backward(LOGITS, LOGITS),
        "cross_entropy": lambda: cl.cross_entropy(LOGITS, TARGET, label_smoothing=0.1),
        "cross_entropy_backward": lambda: cl.cross_entropy_backward(
            np.ones((), np.float32), LOGITS, TARGET
        ),
        "batch_norm": lambda: cl.batch_norm(
            X,
            np.zeros(4, np.float32),
            np.ones(4, np.float32),
            NORMALIZED,
            training=True,
            return_stats=True,
        ),
        "batch_norm_backward": lambda: cl.batch_norm_backward(
            X, X, NORMALIZED, BIAS[:4], NORMALIZED
        ),
        "sgd_step": lambda: step(cl.sgd_step, 1, lr=0.1, momentum=0.5),
        "adam_step": lambda: step(cl.adam_step, 2, step=1),
    }


def step(function: Any, states: int, **options: Any) -> list[np.ndarray]:
    """A step of an optimizer, which works in place, on copies."""
    arrays = [X.copy(), X * 0.5, *(np.abs(X) for _ in range(states))]
    function(*arrays, **options)
    return arrays


def every_call() -> dict[str, Call]:
    return {**functions(), **dict(plans())}


def bits(result: Any) -> tuple[Any, ...]:
    """Something that is equal for results of the same bits."""
    if isinstance(result, np.ndarray):
        return result.dtype.str, result.shape, result.tobytes()
    if isinstance(result, tuple | list):
        return tuple(bits(part) for part in result)
    return (result,)

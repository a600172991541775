"""What subnormal numbers cost: each operation on normal and on subnormal inputs, on one thread.

    python benchmarks/subnormal.py

Many processors take a hundred cycles more for an operation that meets a subnormal number. In
columns named subnormal x is (1e-39 in float32) and weights are about 1; in columns named underflow
both are normal and their products subnormal (1e-42). The ratios are medians of paired times.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import convolith as cl

ROUNDS = 25
SCALES = {
    # kind of numbers: scales of the first and the second operand
    "float32": {"normal": (1, 1), "subnormal": (1e-39, 1), "underflow": (1e-22, 1e-20)},
    "float64": {"normal": (1, 1), "subnormal": (1e-309, 1), "underflow": (1e-160, 1e-155)},
}
Operation = tuple[str, Callable[[Any, Any], object]]


def operations() -> Iterator[Operation]:
    """Names, and functions of x (2, 32, 28, 28) and weight (32, 32, 3, 3)."""
    shape, weight_shape = (2, 32, 28, 28), (32, 32, 3, 3)
    for record in cl.algorithms(shape, weight_shape, padding=1):
        if record["supported"]:
            name = record["name"]
            yield (
                f"conv2d, {name}",
                lambda x, w, a=name: cl.conv2d(x, w, padding=1, algorithm=a),
            )
    for direction in ("input", "weight"):
        options = {"padding": 1, "direction": f"backward_{direction}"}
        for record in cl.algorithms(shape, weight_shape, **options):
            if not record["supported"]:
                continue
            name = record["name"]
            if direction == "input":
                yield (
                    f"backward_input, {name}",
                    lambda x, w, a=name: cl.conv_backward_input(
                        x, w, shape, padding=1, algorithm=a
                    ),
                )
            else:
                yield (
                    f"backward_weight, {name}",
                    lambda x, w, a=name: cl.conv_backward_weight(
                        x, x * w[0, 0, 0, 0], weight_shape, padding=1, algorithm=a
                    ),
                )
    yield "conv2d, groups of 1", lambda x, w: cl.conv2d(x, w[:, :1], padding=1, groups=32)
    yield "conv2d, groups of 4", lambda x, w: cl.conv2d(x, w[:, :4], padding=1, groups=8)
    yield (
        "backward_weight, groups of 1",
        lambda x, w: cl.conv_backward_weight(x, x, (32, 1, 3, 3), padding=1, groups=32),
    )
    yield (
        "matmul",
        lambda x, w: cl.matmul(
            x[0].reshape(32, 784),
            w.reshape(32, 288)[:, :32].T @ x[0].reshape(32, 784),
            transpose_b=True,
        ),
    )
    yield "max_pool2d", lambda x, w: cl.max_pool2d(x, 3, 2, 1)
    yield "max_pool2d_backward", lambda x, w: cl.max_pool2d_backward(x[:, :, ::2, ::2], x, 3, 2, 1)
    yield "avg_pool2d", lambda x, w: cl.avg_pool2d(x, 3, 2, 1)
    yield "avg_pool2d_backward", lambda x, w: cl.avg_pool2d_backward(x[:, :, ::2, ::2], x, 3, 2, 1)
    yield "global_avg_pool", lambda x, w: cl.global_avg_pool(x)
    yield "lp_pool2d", lambda x, w: cl.lp_pool2d(x, 2.0, 2)
    yield (
        "batch_norm",
        lambda x, w: cl.batch_norm(x, None, None, training=True, activation="relu"),
    )
    yield (
        "batch_norm_backward",
        lambda x, w: cl.batch_norm_backward(
            x, x, None, np.mean(w, (0, 2, 3)), np.ones_like(w[0, :, 0, 0])
        ),
    )
    for name in ("relu", "leaky_relu", "tanh", "sigmoid", "silu", "hardswish"):
        yield f"activation, {name}", lambda x, w, a=name: cl.activation(x, a)
        yield (
            f"activation_backward, {name}",
            lambda x, w, a=name: cl.activation_backward(x, x, a),
        )
    yield "conv2d with tanh", lambda x, w: cl.conv2d(x, w, padding=1, activation="tanh")
    yield "conv2d with silu", lambda x, w: cl.conv2d(x, w, padding=1, activation="silu")
    yield "softmax", lambda x, w: cl.softmax(x)
    yield "softmax_backward", lambda x, w: cl.softmax_backward(x, x)
    yield "log_softmax", lambda x, w: cl.log_softmax(x)
    yield "log_softmax_backward", lambda x, w: cl.log_softmax_backward(x, x)
    target = np.arange(1792) % 28
    yield "cross_entropy", lambda x, w: cl.cross_entropy(x.reshape(1792, 28), target)
    one = {dtype: np.ones((), dtype) for dtype in SCALES}
    yield (
        "cross_entropy_backward",
        lambda x, w: cl.cross_entropy_backward(one[x.dtype.name], x.reshape(1792, 28), target),
    )
    yield "sgd_step", lambda x, w: cl.sgd_step(x.copy(), x, x.copy(), lr=0.1, momentum=0.9)
    yield (
        "adam_step",
        lambda x, w: cl.adam_step(x.copy(), x, x.copy(), np.abs(x), 1),
    )


def seconds(operation: Callable[[Any, Any], object], x: Any, w: Any) -> float:
    start = time.perf_counter()
    operation(x, w)
    return time.perf_counter() - start


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'':34}" + "".join(f"{d + ' ' + k:>20}" for d in SCALES for k in list(SCALES[d])[1:]))
    with cl.threads(1):
        for name, operation in operations():
            ratios = []
            for dtype, kinds in SCALES.items():
                inputs = {
                    kind: (
                        (rng.uniform(0.5, 1, (2, 32, 28, 28)) * scales[0]).astype(dtype),
                        (rng.uniform(0.5, 1, (32, 32, 3, 3)) * scales[1]).astype(dtype),
                    )
                    for kind, scales in kinds.items()
                }
                times: dict[str, list[float]] = {kind: [] for kind in kinds}
                for _ in range(ROUNDS):
                    for kind, (x, w) in inputs.items():
                        times[kind].append(seconds(operation, x, w))
                for kind in list(kinds)[1:]:
                    pairs = zip(times[kind], times["normal"], strict=True)
                    ratios.append(statistics.median(a / b for a, b in pairs))
            print(f"{name:34}" + "".join(f"{ratio:20.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()

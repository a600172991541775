"""What is neither convolution nor pooling: matrix products, norms, losses and activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from convolith.testing import bounds
from convolith.testing.data import Draw
from convolith.testing.family import (
    Call,
    Family,
    Settings,
    Truth,
    maps,
    run_reference,
    stays_exact,
    truth_of,
)
from convolith.testing.problem import Problem


class MatrixProduct(Family):
    """`matmul`: (rows, inner) @ (inner, columns), with leading axes `lead`."""

    directions = ("forward",)

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(a, b) and the options."""
        m, k, n = problem.rows, problem.inner, problem.columns
        lead = problem.lead or ()
        options: dict[str, Any] = {}
        a = draw((*lead, *((k, m) if problem.transpose_a else (m, k))), "first")
        b = draw((n, k) if problem.transpose_b else (k, n), "second")
        for name in ("transpose_a", "transpose_b", "activation"):
            if value := problem.get(name):
                options[name] = value
        if problem.bias:
            options["bias"] = draw((n,), "sum")
        return Call((a, b), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """A sum of `inner` products and a bias."""
        u = settings.u(problem)
        values = run_reference("matmul", call)
        linear = Call(call.args, {k: v for k, v in call.options.items() if k != "activation"})
        finite = linear.map_arrays(lambda a: np.abs(np.where(np.isfinite(a), a, 0)))
        (magnitude,) = run_reference("matmul", finite)
        limit = bounds.sums(problem, magnitude, problem.inner, u)
        limit = bounds.activated(problem, limit, values[0], u)
        exact = problem.activation in (None, "relu") and stays_exact(problem, magnitude, u)
        return truth_of(problem, values, (limit,), exact)


class Softmax(Family):
    """`softmax` and `log_softmax` along one axis of an array of any `shape`."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x,) or (dy, y), and the axis."""
        x = draw(problem.shape, "lone")
        options = {} if problem.axis is None else {"axis": problem.axis}
        if problem.direction == "forward":
            return Call((x,), options)
        (y,) = run_reference(problem.op, Call((x,), options))
        return Call((draw(problem.shape, "plain"), y.astype(x.dtype)), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """Relative in softmax: the error of exp(t) is t's, and t = x - max is rounded once."""
        u = settings.u(problem) + bounds.DOUBLE
        values = run_reference(self.function(problem), call)
        axis = -1 if problem.axis is None else problem.axis
        count = problem.shape[axis]
        floor = float(np.finfo(problem.dtype).tiny)
        if problem.direction == "forward":
            x = np.where(np.isfinite(call.args[0]), call.args[0], 0).astype(np.float64)
            below = x.max(axis=axis, keepdims=True) - x
            roundings = bounds.sum_error(count) + 2 * bounds.FEW + below
            size = np.where(np.isfinite(values[0]), np.abs(values[0]), 0)
            logarithm = problem.op == "log_softmax"
            limit = u * (roundings + size) if logarithm else u * roundings * size
        else:
            dy, y = (a.astype(np.float64) for a in call.args)
            probability = np.exp(y) if problem.op == "log_softmax" else y
            inner = np.abs(dy) if problem.op == "log_softmax" else np.abs(dy * y)
            total = inner.sum(axis=axis, keepdims=True)
            few = bounds.sum_error(count) + 2 * bounds.FEW + np.abs(np.where(y < 0, y, 0))
            outer = 1 if problem.op == "log_softmax" else probability
            limit = u * few * (np.abs(dy) * outer + probability * total)
        return truth_of(problem, values, (np.asarray(limit) + floor,), False)


class CrossEntropy(Family):
    """`cross_entropy` of logits (batch, classes, ...) of a `shape`."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(logits, target), with dy in front for a gradient."""
        logits = draw(problem.shape, "lone")
        classes = problem.shape[1]
        target = draw.rng.integers(0, classes, (problem.shape[0], *problem.shape[2:]))
        options: dict[str, Any] = {}
        if problem.ignore_index is not None:
            options["ignore_index"] = problem.ignore_index
        if problem.label_smoothing:
            options["label_smoothing"] = problem.label_smoothing
        if problem.weighted:
            options["weight"] = (draw.rng.random(classes) + 0.5).astype(logits.dtype)
        if problem.reduction:
            options["reduction"] = problem.reduction
        if problem.direction == "forward":
            return Call((logits, target), options)
        (loss,) = run_reference("cross_entropy", Call((logits, target), options))
        return Call((np.ones(loss.shape, logits.dtype), logits, target), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """Of -log p, its terms' magnitudes; of the gradient, of softmax and the share taken off."""
        u = settings.u(problem) + bounds.DOUBLE
        values = run_reference(self.function(problem), call)
        logits = call.args[-2].astype(np.float64)
        logits = np.where(np.isfinite(logits), logits, 0)
        reach = float(np.ptp(logits)) if logits.size else 0.0
        classes = problem.shape[1]
        few = bounds.sum_error(logits.size) + bounds.sum_error(classes) + 4 * bounds.FEW + reach
        if problem.direction == "forward":
            count = logits.size // classes if problem.reduction == "sum" else 1
            size = (reach + math.log(classes) + 1) * count * (1.5 if problem.weighted else 1.0)
            limit = np.full(values[0].shape, u * few * size * 2)
        else:
            each = 1.0 if problem.reduction in ("none", "sum") else classes / logits.size
            limit = np.full(values[0].shape, u * few * each * 3)
        return truth_of(problem, values, (limit + float(np.finfo(problem.dtype).tiny),), False)


class Activation(Family):
    """`activation` of any `shape`, and its derivative times dy."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x, name), with dy in front for a gradient."""
        x = draw(problem.shape, "lone")
        if problem.direction == "forward":
            return Call((x, problem.activation))
        return Call((draw(problem.shape, "plain"), x, problem.activation))

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """A few units in the last place, and of derivatives a few of the largest."""
        u = settings.u(problem) + bounds.DOUBLE
        (y,) = values = run_reference(self.function(problem), call)
        size = np.where(np.isfinite(y), np.abs(y), 0)
        if problem.direction == "backward":
            size = size + np.abs(call.args[0])
        exact = problem.activation in ("relu", "relu6") and problem.data != "normal"
        limit = 2 * bounds.FEW * u * size + float(np.finfo(problem.dtype).tiny)
        return truth_of(problem, values, (np.asarray(limit),), exact)


class BatchNorm(Family):
    """`batch_norm` with running statistics, or in `training` with the batch's."""

    def call(self, problem: Problem, draw: Draw) -> Call:
        """(x, running_mean, running_var, weight, bias), or (dy, x, weight, mean, inv_std)."""
        c = problem.in_channels
        shape = maps(problem, c, problem.input)
        x = draw(shape, "lone")
        dtype = x.dtype
        mean = draw.rng.standard_normal(c).astype(dtype)
        var = (draw.rng.random(c) + 0.5).astype(dtype)
        weight, bias = draw.rng.standard_normal((2, c)).astype(dtype)
        options: dict[str, Any] = {}
        if problem.data_format != "channels_first":
            options["data_format"] = problem.data_format
        if problem.direction == "forward":
            for name in ("training", "activation"):
                if value := problem.get(name):
                    options[name] = value
            if problem.residual:
                options["residual"] = draw(shape, "plain")
            if problem.training:
                return Call((x, None, None, weight, bias), options)
            return Call((x, mean, var, weight, bias), options)
        if not problem.training:
            options["training"] = False
        dy = draw(shape, "plain")
        return Call((dy, x, weight, mean, (1 / np.sqrt(var)).astype(dtype)), options)

    def truth(self, problem: Problem, call: Call, settings: Settings) -> Truth:
        """The roundings of mean and variance, sums over a channel, of |x| and of its square."""
        u = settings.u(problem) + bounds.DOUBLE
        values = run_reference(self.function(problem), call)
        count = problem.batch * math.prod(problem.input)
        few = bounds.sum_error(count) + 4 * bounds.FEW
        axis = -1 if problem.data_format == "channels_last" else 1
        x = np.moveaxis(call.args[0 if problem.direction == "forward" else 1], axis, -1)
        x = np.where(np.isfinite(x), x, 0).astype(np.float64)
        others = tuple(range(x.ndim - 1))
        if problem.direction == "forward":
            if problem.training:
                m, v = x.mean(axis=others), x.var(axis=others)
            else:
                m, v = (a.astype(np.float64) for a in call.args[1:3])
            w, b = (np.abs(a.astype(np.float64)) for a in call.args[3:5])
            scale = w / np.sqrt(v + 1e-5)
            most = np.abs(x).max(axis=others, initial=0) + np.abs(m)
            size = (np.abs(x) + np.abs(m)) * scale + b + (most * scale if problem.training else 0)
            size = np.moveaxis(size, -1, axis)
            if problem.residual:
                size = size + np.abs(call.options["residual"])
            limit = u * few * size
            return truth_of(
                problem, values, (bounds.activated(problem, limit, values[0], u),), False
            )
        dy = np.abs(np.moveaxis(call.args[0], axis, -1).astype(np.float64))
        weight, m, inv = (a.astype(np.float64) for a in call.args[2:5])
        normal = (np.abs(x) + np.abs(m)) * inv
        total, moment = dy.sum(axis=others), (dy * normal).sum(axis=others)
        dx = dy + ((total + normal * moment) / count if problem.training else 0)
        dx = np.moveaxis(dx * inv * np.abs(weight), -1, axis)
        return truth_of(problem, values, tuple(u * few * s for s in (dx, moment, total)), False)

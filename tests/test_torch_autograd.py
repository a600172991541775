"""Values, gradients and gradients of gradients against torch, for what torch has."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import convolith as cl
from convolith import nn, optim
from convolith.autograd import Tensor, grad
from convolith.autograd import functional as F

torch = pytest.importorskip("torch")
T = torch.nn.functional

Array = np.ndarray[Any, np.dtype[Any]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


LABELS = np.array([2, 0, -100, 1])
WEIGHTS = np.array([1.0, 2.0, 0.5])

# ours, torch's, the arrays with gradients
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], list[Array]]] = {
    "conv": (
        lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2, activation="tanh"),
        lambda x, w, b: torch.tanh(T.conv2d(x, w, b, 2, 1, 1, 2)),
        [normal(2, 4, 7, 6), normal(6, 2, 3, 3), normal(6)],
    ),
    "conv_transpose": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
        lambda x, w, b: T.conv_transpose2d(x, w, b, 2, 1, 1),
        [normal(2, 4, 4, 3), normal(4, 3, 3, 3), normal(3)],
    ),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: T.batch_norm(x, None, None, w, b, True),
        [normal(4, 3, 5), normal(3), normal(3, seed=1)],
    ),
    "group_norm": (
        lambda x, w, b: F.group_norm(x, 2, w, b),
        lambda x, w, b: T.group_norm(x, 2, w, b),
        [normal(2, 4, 5), normal(4), normal(4, seed=1)],
    ),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (3, 5), w, b),
        lambda x, w, b: T.layer_norm(x, (3, 5), w, b),
        [normal(2, 3, 5), normal(3, 5), normal(3, 5, seed=1)],
    ),
    "instance_norm": (
        lambda x, w: F.instance_norm(x, w),
        lambda x, w: T.instance_norm(x, weight=w),
        [normal(2, 3, 5), normal(3)],
    ),
    "local_response_norm": (
        lambda x: F.local_response_norm(x, 4, 0.3, 0.7, 1.5),
        lambda x: T.local_response_norm(x, 4, 0.3, 0.7, 1.5),
        [normal(2, 7, 3, 3)],
    ),
    "max_pool": (
        lambda x: F.max_pool2d(x, 3, 2, 1) ** 2,
        lambda x: T.max_pool2d(x, 3, 2, 1) ** 2,
        [normal(2, 2, 7, 7)],
    ),
    "avg_pool": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, True) ** 2,
        lambda x: T.avg_pool2d(x, 3, 2, 1, True) ** 2,
        [normal(2, 2, 6, 7)],
    ),
    "adaptive_avg_pool": (
        lambda x: F.adaptive_avg_pool2d(x, (3, None)) ** 2,
        lambda x: T.adaptive_avg_pool2d(x, (3, None)) ** 2,
        [normal(2, 2, 5, 4)],
    ),
    "gelu": (F.gelu, T.gelu, [normal(9)]),
    "gelu_tanh": (
        lambda x: F.gelu(x, "tanh"),
        lambda x: T.gelu(x, approximate="tanh"),
        [normal(9)],
    ),
    "silu": (F.silu, T.silu, [normal(9)]),
    "hardswish": (lambda x: F.hardswish(4 * x), lambda x: T.hardswish(4 * x), [normal(9)]),
    "relu6": (lambda x: F.relu6(8 * x) ** 2, lambda x: T.relu6(8 * x) ** 2, [normal(9)]),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.3), lambda x: T.leaky_relu(x, 0.3), [normal(9)]),
    "softmax": (lambda x: F.softmax(x, 1) ** 2, lambda x: T.softmax(x, 1) ** 2, [normal(3, 4)]),
    "logsumexp": (
        lambda x: F.logsumexp(x, (0, 2)),
        lambda x: torch.logsumexp(x, (0, 2)),
        [normal(2, 3, 4)],
    ),
    "var": (lambda x: F.var(x, 1, correction=1), lambda x: x.var(1), [normal(3, 4)]),
    "max": (lambda x: F.max(x, 1), lambda x: torch.amax(x, 1), [np.round(normal(3, 9))]),
    "maximum": (F.maximum, torch.maximum, [np.round(normal(3, 9)), np.round(normal(3, 9, seed=1))]),
    "clip": (lambda x: F.clip(x, -1, 1), lambda x: x.clamp(-1, 1), [np.round(normal(3, 9))]),
    "linear": (
        lambda x, w, b: F.linear(x, w, b),
        T.linear,
        [normal(2, 3, 5), normal(4, 5), normal(4)],
    ),
    "matmul": (lambda a, b: a @ b, torch.matmul, [normal(3, 1, 2, 4), normal(5, 4, 3)]),
    "mse": (F.mse_loss, T.mse_loss, [normal(3, 4), normal(3, 4, seed=1)]),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, LABELS, WEIGHTS, label_smoothing=0.1),
        lambda x: T.cross_entropy(
            x, torch.tensor(LABELS), torch.tensor(WEIGHTS), label_smoothing=0.1
        ),
        [normal(4, 3)],
    ),
    "cross_entropy_sum": (
        lambda x: F.cross_entropy(x, np.maximum(LABELS, 0), ignore_index=0, reduction="sum"),
        lambda x: T.cross_entropy(
            x, torch.tensor(np.maximum(LABELS, 0)), ignore_index=0, reduction="sum"
        ),
        [normal(4, 3)],
    ),
    "nll": (
        lambda x: F.nll_loss(x, LABELS, WEIGHTS),
        lambda x: T.nll_loss(x, torch.tensor(LABELS), torch.tensor(WEIGHTS)),
        [normal(4, 3)],
    ),
    "upsample_nearest": (
        lambda x: F.upsample(x, (5, 7)) ** 2,
        lambda x: T.interpolate(x, (5, 7)) ** 2,
        [normal(1, 2, 3, 4)],
    ),
    "upsample_bilinear": (
        lambda x: F.upsample(x, (5, 3), mode="bilinear") ** 2,
        lambda x: T.interpolate(x, (5, 3), mode="bilinear") ** 2,
        [normal(1, 2, 3, 4)],
    ),
    "upsample_corners": (
        lambda x: F.upsample(x, (5, 3), mode="bilinear", align_corners=True) ** 2,
        lambda x: T.interpolate(x, (5, 3), mode="bilinear", align_corners=True) ** 2,
        [normal(1, 2, 3, 4)],
    ),
    "pad_reflect": (
        lambda x: F.pad(x, [(0, 0), (0, 0), (2, 1), (1, 2)], "reflect") ** 2,
        lambda x: T.pad(x, (1, 2, 2, 1), "reflect") ** 2,
        [normal(1, 1, 3, 4)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    ours, theirs, arrays = CASES[name]
    close = {"rtol": 1e-8, "atol": 1e-10}
    xs = [Tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(y.data, expected.detach().numpy(), **close)
    seed = normal(*y.shape, seed=5)
    found = grad(y, xs, seed, create_graph=True)
    wanted = torch.autograd.grad(expected, ts, torch.tensor(seed), create_graph=True)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), **close)
    total = sum((a * a).sum() for a in found)
    torch_total = sum((b * b).sum() for b in wanted)
    wanted = [None] * len(ts)
    if torch_total.requires_grad:
        wanted = torch.autograd.grad(torch_total, ts, allow_unused=True)
    found = grad(total, xs, allow_unused=True) if total.requires_grad else [None] * len(xs)
    for a, b in zip(found, wanted, strict=True):
        if a is not None and b is not None:
            np.testing.assert_allclose(a.data, b.numpy(), rtol=1e-7, atol=1e-9)
        else:
            left = a.data if a is not None else b
            assert left is None or not np.asarray(left).any()


def test_running_statistics() -> None:
    x = normal(4, 3, 5)
    ours, theirs = nn.BatchNorm1d(3).to(np.float64), torch.nn.BatchNorm1d(3).double()
    for _ in range(3):
        ours(x)
        theirs(torch.tensor(x))
    np.testing.assert_allclose(ours.running_mean.data, theirs.running_mean.numpy())
    np.testing.assert_allclose(ours.running_var.data, theirs.running_var.numpy())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    y = theirs.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(x).data, y)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_training_run(layout: str) -> None:
    """LeNet of the same weights, images and steps as torch's."""
    m = torch.nn
    theirs = m.Sequential(
        m.Conv2d(1, 6, 5), m.ReLU(), m.MaxPool2d(2), m.Conv2d(6, 16, 5), m.ReLU(), m.MaxPool2d(2),
        m.Flatten(), m.Linear(400, 120), m.ReLU(), m.Linear(120, 100), m.ReLU(), m.Linear(100, 10),
    ).double()  # fmt: skip
    nn.manual_seed(0)
    ours = cl.zoo.lenet(data_format=layout).to(np.float64)
    with torch.no_grad():
        for p, t in zip(ours.parameters(), theirs.parameters(), strict=True):
            t.copy_(torch.tensor(p.data))
    x, labels = normal(8, 1, 32, 32), np.arange(8) % 10
    arranged = x if layout == "channels_first" else np.moveaxis(x, 1, -1)
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}
    a, b = (
        optim.SGD(ours.parameters(), **options),
        torch.optim.SGD(theirs.parameters(), **options),
    )
    schedule = optim.CosineAnnealingLR(a, 5)
    torch_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(b, 5)
    for _ in range(4):
        a.zero_grad()
        b.zero_grad()
        loss = F.cross_entropy(ours(arranged), labels)
        torch_loss = T.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
        assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-9)
        loss.backward()
        torch_loss.backward()
        a.step()
        b.step()
        schedule.step()
        torch_schedule.step()
        assert a.lr == pytest.approx(b.param_groups[0]["lr"])
    for p, t in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-8, atol=1e-10)


def test_dlpack() -> None:
    x = Tensor(normal(3, 4))
    shared = torch.from_dlpack(x)
    shared[0, 0] = 7
    assert x.data[0, 0] == 7
    assert Tensor(np.from_dlpack(torch.ones(2))).shape == (2,)


def test_default_weights_are_torch_s() -> None:
    """The same distribution: its end is 1 / sqrt(inputs)."""
    nn.manual_seed(0)
    for ours, theirs in (
        (nn.Conv2d(8, 64, 3), torch.nn.Conv2d(8, 64, 3)),
        (nn.Linear(200, 90), torch.nn.Linear(200, 90)),
        (nn.ConvTranspose2d(8, 32, 3), torch.nn.ConvTranspose2d(8, 32, 3)),
    ):
        for name in ("weight", "bias"):
            a = getattr(ours, name).data
            b = getattr(theirs, name).detach().numpy()
            assert a.shape == b.shape
            assert np.abs(a).max() == pytest.approx(np.abs(b).max(), rel=0.12)
            if name == "weight":
                assert a.std() == pytest.approx(b.std(), rel=0.05)
    assert math.isclose(np.abs(nn.Linear(100, 90).weight.data).max(), 0.1, rel_tol=0.01)

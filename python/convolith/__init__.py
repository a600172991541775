"""Fast convolution for NumPy arrays.

Function names and argument order follow torch.nn.functional; what that lacks is keyword-only.
`convolith.reference` is the same interface in float64 NumPy, written to be read.
"""

import importlib as _importlib
import sys as _sys
from pathlib import Path as _Path
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

try:
    from convolith import _core as _core
except ImportError as _error:
    # As a command, `convolith` or `python -m convolith`, tell a wrong variable in one line.
    _is_command = _Path(_sys.argv[0]).stem == "convolith" or (
        _sys.argv[0] == "-m" and "convolith" in _sys.orig_argv
    )
    if not _is_command or "environment variable CONVOLITH_" not in str(_error):
        raise
    print(f"convolith: error: {_error}", file=_sys.stderr)
    raise SystemExit(2) from None

from convolith import reference
from convolith._activations import activation, activation_backward
from convolith._config import (
    get_num_threads,
    numerics,
    release_memory,
    set_num_threads,
    show_config,
    threads,
)
from convolith._convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_backward_input,
    conv_backward_weight,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    conv_transpose_backward_input,
    conv_transpose_backward_weight,
)
from convolith._core import ConvProblem, UnsupportedError
from convolith._linear import matmul
from convolith._losses import (
    cross_entropy,
    cross_entropy_backward,
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)
from convolith._normalization import batch_norm, batch_norm_backward
from convolith._optimizers import adam_step, sgd_step
from convolith._plans import ConvPlan, algorithms, autotune, plan_conv, plan_conv_transpose
from convolith._pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool1d_backward,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool3d,
    adaptive_avg_pool3d_backward,
    adaptive_max_pool1d,
    adaptive_max_pool1d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
    adaptive_max_pool3d,
    adaptive_max_pool3d_backward,
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
    global_avg_pool,
    global_avg_pool_backward,
    global_max_pool,
    global_max_pool_backward,
    lp_pool1d,
    lp_pool1d_backward,
    lp_pool2d,
    lp_pool2d_backward,
    lp_pool3d,
    lp_pool3d_backward,
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
    max_unpool1d,
    max_unpool1d_backward,
    max_unpool2d,
    max_unpool2d_backward,
    max_unpool3d,
    max_unpool3d_backward,
    stochastic_pool1d,
    stochastic_pool1d_backward,
    stochastic_pool2d,
    stochastic_pool2d_backward,
    stochastic_pool3d,
    stochastic_pool3d_backward,
    sum_pool1d,
    sum_pool1d_backward,
    sum_pool2d,
    sum_pool2d_backward,
    sum_pool3d,
    sum_pool3d_backward,
)

if _TYPE_CHECKING:
    from convolith import autograd, cuda, nn, optim, zoo

_LAZY = ("autograd", "cuda", "nn", "optim", "testing", "viz", "zoo")


def __getattr__(name: str) -> _ModuleType:
    """Import the layers for networks, and the checks, when they are first used."""
    if name in _LAZY:
        return _importlib.import_module(f"convolith.{name}")
    raise AttributeError(f"module 'convolith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


__version__ = "0.1.0"

__all__ = [
    "ConvPlan",
    "ConvProblem",
    "UnsupportedError",
    "activation",
    "activation_backward",
    "adam_step",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
    "algorithms",
    "autograd",
    "autotune",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "batch_norm",
    "batch_norm_backward",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_backward_input",
    "conv_backward_weight",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_transpose_backward_input",
    "conv_transpose_backward_weight",
    "cross_entropy",
    "cross_entropy_backward",
    "cuda",
    "get_num_threads",
    "global_avg_pool",
    "global_avg_pool_backward",
    "global_max_pool",
    "global_max_pool_backward",
    "log_softmax",
    "log_softmax_backward",
    "lp_pool1d",
    "lp_pool1d_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "lp_pool3d",
    "lp_pool3d_backward",
    "matmul",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "max_unpool3d",
    "max_unpool3d_backward",
    "nn",
    "numerics",
    "optim",
    "plan_conv",
    "plan_conv_transpose",
    "reference",
    "release_memory",
    "set_num_threads",
    "sgd_step",
    "show_config",
    "softmax",
    "softmax_backward",
    "stochastic_pool1d",
    "stochastic_pool1d_backward",
    "stochastic_pool2d",
    "stochastic_pool2d_backward",
    "stochastic_pool3d",
    "stochastic_pool3d_backward",
    "sum_pool1d",
    "sum_pool1d_backward",
    "sum_pool2d",
    "sum_pool2d_backward",
    "sum_pool3d",
    "sum_pool3d_backward",
    "testing",
    "threads",
    "viz",
    "zoo",
]

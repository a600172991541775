"""Fast convolution for NumPy arrays.

Function names and argument order follow torch.nn.functional; what that lacks is keyword-only.
`convolith.reference` is the same interface in float64 NumPy, written to be read.
"""

from convolith._config import (
    get_num_threads,
    numerics,
    set_num_threads,
    show_config,
    threads,
)
from convolith._convolution import (
    ConvPlan,
    algorithms,
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
    plan_conv,
)
from convolith._core import ConvProblem, UnsupportedError

__version__ = "0.1.0"

__all__ = [
    "ConvPlan",
    "ConvProblem",
    "UnsupportedError",
    "algorithms",
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
    "get_num_threads",
    "numerics",
    "plan_conv",
    "set_num_threads",
    "show_config",
    "threads",
]

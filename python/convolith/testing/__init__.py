"""Check any convolution, pooling or training kernel against the float64 reference.

    report = convolith.testing.check(my_conv2d, "conv2d", supports=lambda p: p.groups == 1)
    print(report)

The command line does it without Python: `convolith check --lib ./mykernel.so --symbol conv2d_f32`.
"""

from convolith.testing.catalogue import problems
from convolith.testing.checking import check
from convolith.testing.kernels import Skip
from convolith.testing.problem import Problem
from convolith.testing.pytest_helper import conformance, pytest_problems
from convolith.testing.report import Failure, Report

__all__ = [
    "Failure",
    "Problem",
    "Report",
    "Skip",
    "check",
    "conformance",
    "problems",
    "pytest_problems",
]

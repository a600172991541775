"""OpenVINO: a compiled model of one operation, float32 arithmetic, for latency."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from convolith._core import ConvProblem
from convolith.bench.arrays import aligned_empty
from convolith.bench.peers.adapter import Adapter, Run, is_transposed, output_padding
from convolith.bench.truth import Operands, result_shape

# Its telemetry would fork this process and send a message; OpenVINO does without the module.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
openvino: Any = importlib.import_module("openvino")
ops: Any = importlib.import_module("openvino.opset13")


class OpenVino(Adapter):
    """Convolution, GroupConvolution and their BackpropData on the CPU device."""

    name = "openvino"

    def __init__(self, threads: int) -> None:
        """One core object for all models."""
        super().__init__(threads)
        self.core = openvino.Core()

    def versions(self) -> dict[str, str]:
        """The runtime's."""
        return {"openvino": openvino.__version__.partition("-")[0]}

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        """An inference request on tensors that share the arrays' memory."""
        # Without the hint, CPUs with bfloat16 instructions would compute in bfloat16.
        properties = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        compiled = self.core.compile_model(make_model(problem, operands), "CPU", properties)
        request = compiled.create_infer_request()
        out = aligned_empty(result_shape(problem), np.float32)
        request.set_input_tensor(openvino.Tensor(operands.first, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(out, shared_memory=True))

        def run() -> object:
            request.infer()
            return out

        return {"": run}


def make_model(problem: ConvProblem, operands: Operands) -> Any:
    """A model y = convolution(x, weight)."""
    x = ops.parameter(list(operands.first.shape), np.float32)
    window = (
        list(problem.stride),
        [before for before, _ in problem.padding],
        [after for _, after in problem.padding],
        list(problem.dilation),
    )
    w = operands.second
    groups = problem.groups
    grouped = w.reshape(groups, w.shape[0] // groups, *w.shape[1:]) if groups > 1 else w
    weight = ops.constant(grouped)
    if is_transposed(problem):
        backprop = (
            ops.group_convolution_backprop_data if groups > 1 else ops.convolution_backprop_data
        )
        strides, before, after, dilations = window
        y = backprop(
            x,
            weight,
            strides,
            pads_begin=before,
            pads_end=after,
            dilations=dilations,
            output_padding=list(output_padding(problem)),
        )
    elif groups > 1:
        y = ops.group_convolution(x, weight, *window)
    else:
        y = ops.convolution(x, weight, *window)
    return openvino.Model([y], [x])

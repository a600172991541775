"""ONNX Runtime: a model of one node, all graph optimizations, bound input and output."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from convolith._core import ConvProblem
from convolith.bench.arrays import aligned_empty
from convolith.bench.peers.adapter import Adapter, Run, is_transposed, output_padding
from convolith.bench.truth import Operands, result_shape

OPSET, IR_VERSION = 17, 8


class OnnxRuntime(Adapter):
    """Conv and ConvTranspose on the CPU provider."""

    name = "onnxruntime"

    def versions(self) -> dict[str, str]:
        """The runtime's."""
        return {"onnxruntime": onnxruntime.__version__}

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        """A session with the weights as a constant, which it packs as it likes."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        model = make_model(problem, operands).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        binding = session.io_binding()
        out = aligned_empty(result_shape(problem), np.float32)
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_input("x", value(operands.first))
        binding.bind_ortvalue_output("y", value(out))

        def run() -> object:
            session.run_with_iobinding(binding)
            return out

        return {"": run}


def make_model(problem: ConvProblem, operands: Operands) -> onnx.ModelProto:
    """A graph y = Conv(x, weight)."""
    attributes = {
        "strides": problem.stride,
        "dilations": problem.dilation,
        "pads": [p[0] for p in problem.padding] + [p[1] for p in problem.padding],
        "kernel_shape": problem.kernel,
        "group": problem.groups,
    }
    operation = "Conv"
    if is_transposed(problem):
        operation = "ConvTranspose"
        attributes["output_padding"] = output_padding(problem)
    node = helper.make_node(operation, ["x", "w"], ["y"], **attributes)
    tensor, float32 = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "convolution",
        [tensor("x", float32, operands.first.shape)],
        [tensor("y", float32, result_shape(problem))],
        [numpy_helper.from_array(operands.second, "w")],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)

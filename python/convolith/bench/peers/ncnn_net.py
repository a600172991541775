"""ncnn: a net of one layer, Winograd and packing on, float32 storage and arithmetic."""

from __future__ import annotations

import tempfile
from pathlib import Path

import ncnn
import numpy as np

from convolith._core import ConvProblem
from convolith.bench.peers.adapter import Adapter, Run, Unsupported, is_transposed, output_padding
from convolith.bench.truth import Operands

FLOAT32_TAG = b"\0\0\0\0"

# Numbers of a layer's parameters in ncnn's text form, for the axes w, h, d.
KERNEL, DILATION, STRIDE = (1, 11, 21), (2, 12, 22), (3, 13, 23)
BEFORE, AFTER, EXTRA = (4, 14, 24), (15, 16, 17), (18, 19, 20)


class Ncnn(Adapter):
    """The layers from Convolution to DeconvolutionDepthWise3D."""

    name = "ncnn"

    def versions(self) -> dict[str, str]:
        """The package's."""
        return {"ncnn": ncnn.__version__}

    def prepare(self, problem: ConvProblem, operands: Operands) -> dict[str, Run]:
        """A net with its weights transformed and packed as ncnn likes."""
        if problem.batch != 1:
            raise Unsupported("batch")
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        net.opt.use_vulkan_compute = False
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{name}", False)
        with tempfile.TemporaryDirectory() as folder:
            param, model = Path(folder, "net.param"), Path(folder, "net.bin")
            param.write_text(describe(problem))
            model.write_bytes(FLOAT32_TAG + stored_weight(problem, operands).tobytes())
            if net.load_param(str(param)) or net.load_model(str(model)):
                raise Unsupported("not loaded")
        source = ncnn.Mat(operands.first[0]).clone()

        def run() -> object:
            extractor = net.create_extractor()
            extractor.input("x", source)
            status, y = extractor.extract("y")
            if status:
                raise RuntimeError(f"ncnn: extract returned {status}")
            return y

        return {"": run}


def describe(problem: ConvProblem) -> str:
    """The net in ncnn's text form."""
    transposed = is_transposed(problem)
    kind = (
        ("Deconvolution" if transposed else "Convolution")
        + ("DepthWise" if problem.groups > 1 else "")
        + {1: "1D", 2: "", 3: "3D"}[problem.rank]
    )
    parameters = {
        0: problem.in_channels if transposed else problem.out_channels,
        5: 0,
        6: int(np.prod(problem.weight_shape)),
    }
    if problem.groups > 1:
        parameters[7] = problem.groups
    for place, axis in enumerate(reversed(range(problem.rank))):
        parameters[KERNEL[place]] = problem.kernel[axis]
        parameters[DILATION[place]] = problem.dilation[axis]
        parameters[STRIDE[place]] = problem.stride[axis]
        parameters[BEFORE[place]], parameters[AFTER[place]] = problem.padding[axis]
        if transposed:
            parameters[EXTRA[place]] = output_padding(problem)[axis]
    values = " ".join(f"{number}={value}" for number, value in parameters.items())
    return f"7767517\n2 2\nInput x 0 1 x\n{kind} y 1 1 x y {values}\n"


def stored_weight(problem: ConvProblem, operands: Operands) -> np.ndarray:
    """The weights in ncnn's order: a transposed convolution's outputs come before its inputs."""
    w = operands.second
    if not is_transposed(problem):
        return w
    grouped = w.reshape(problem.groups, -1, *w.shape[1:])
    return np.ascontiguousarray(np.swapaxes(grouped, 1, 2))

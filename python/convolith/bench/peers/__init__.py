"""The library beside others: a process and an adapter each, one protocol between them.

`process` and `worker` are the two ends of it, `comparison` measures, `report` and `plot` show.
"""

from __future__ import annotations

Address = tuple[str, str]
"""A module and the name of an adapter in it."""

OWN: Address = ("convolith.bench.peers.own", "Own")

PEERS: dict[str, Address] = {
    "torch": ("convolith.bench.peers.pytorch", "PyTorch"),
    "onnxruntime": ("convolith.bench.peers.onnx_runtime", "OnnxRuntime"),
    "openvino": ("convolith.bench.peers.openvino_runtime", "OpenVino"),
    "ncnn": ("convolith.bench.peers.ncnn_net", "Ncnn"),
}

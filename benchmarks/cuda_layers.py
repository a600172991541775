"""Layers of ResNet-50 and VGG16 on a CUDA device, beside cuDNN through PyTorch in the same run.

    python benchmarks/cuda_layers.py --batch 64 --json benchmarks/results/DEVICE.json

Every candidate runs on the same arrays, in channels_last; cuDNN chooses with its benchmark mode
on. Calls are captured in graphs, so that the time between launches is not measured. Rounds of all
candidates alternate; a time is the median of rounds, measured with events around a graph's replay.
The device's rates of matrix products and of copies are measured alike. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import convolith as cl
from convolith.cuda import _backend

PROBLEMS = Path(__file__).parent / "problems"
DIRECTIONS = ("forward", "backward_input", "backward_weight")


def layers(network: str, batch: int) -> list[str]:
    """The distinct layers of a network's list, in the text form."""
    lines = (PROBLEMS / f"{network}.txt").read_text().splitlines()
    texts = [line.partition(": ")[2].split("#")[0].strip() for line in lines]
    return list(dict.fromkeys(f"{t} n{batch} channels_last" for t in texts if t.startswith("conv")))


def seconds(call: Any) -> float:
    """Of one call, measured with events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def captured(call: Any, repeats: int) -> Any:
    """The replay of a graph of several calls."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return graph.replay


def interleaved(calls: dict[str, Any], rounds: int) -> dict[str, float]:
    """The median seconds of each call over alternating rounds."""
    repeats, replays = {}, {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        repeats[name] = max(1, min(50, int(5e-3 / max(seconds(call), 1e-6))))
        replays[name] = captured(call, repeats[name])
        replays[name]()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, replay in replays.items():
            times[name].append(seconds(replay) / repeats[name])
    return {name: statistics.median(measured) for name, measured in times.items()}


def torch_call(p: Any, x: Any, w: Any, dy: Any) -> Any:
    """What PyTorch runs for the problem; None where its padding cannot say it."""
    if any(before != after for before, after in p.padding):
        return None
    padding = tuple(before for before, _ in p.padding)
    convolution = getattr(torch.nn.functional, f"conv{p.rank}d")
    if p.direction == "forward":
        return lambda: convolution(x, w, None, p.stride, padding, p.dilation, p.groups)
    mask = (p.direction == "backward_input", p.direction == "backward_weight", False)
    zeros = (0,) * p.rank
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(
        dy, x, w, None, p.stride, padding, p.dilation, False, zeros, p.groups, mask
    )


def measure(text: str, dtype: str, direction: str, rounds: int, tf32: bool) -> dict[str, Any]:
    """Every algorithm that serves the problem and may compete, and cuDNN."""
    p = cl.ConvProblem.parse(text).replace(dtype=dtype, direction=direction)
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Any:
        values = torch.randn(shape, generator=generator, device="cuda")
        return values.to(getattr(torch, dtype))

    x, dy, w = draw(p.x_shape), draw(p.y_shape), draw(p.weight_shape)
    first, second = {
        "forward": (x, w),
        "backward_input": (dy, w),
        "backward_weight": (dy, x),
    }[direction]
    calls: dict[str, Any] = {}
    for record in _backend.algorithms(p):
        if not record["supported"] or record["name"] == "direct":
            continue
        if dtype == "float32" and ("tf32" in record["name"]) != tf32:
            continue
        plan = _backend.DevicePlan(p, record["name"])
        if direction != "backward_weight":
            plan = plan.pack(w)
        held = None if direction != "backward_weight" else second
        calls[record["name"]] = lambda plan=plan, held=held: plan.execute(first, held)
    torch.backends.cudnn.allow_tf32 = tf32
    back = (0, p.rank + 1, *range(1, p.rank + 1))
    channels_last = {"memory_format": torch.channels_last} if p.rank == 2 else {}
    theirs = torch_call(p, x.permute(back), w.to(**channels_last), dy.permute(back))
    if theirs is not None:
        calls["cudnn"] = theirs
    times = interleaved(calls, rounds)
    own = {name: t for name, t in times.items() if name != "cudnn"}
    best = min(own, key=own.get) if own else None
    return {
        "problem": str(p),
        "tf32": tf32,
        "seconds": times,
        "best": best,
        "chosen": _backend.DevicePlan(p).algorithm,
        "tflops": p.flops / own[best] / 1e12 if best else None,
        "ratio": times["cudnn"] / own[best] if best and "cudnn" in times else None,
    }


def ceilings(rounds: int) -> dict[str, float]:
    """Measured rates: matrix products of 8192 squared, and a copy of 1 GiB, read and written."""
    found: dict[str, float] = {}
    for dtype, tf32 in (
        ("float16", False),
        ("bfloat16", False),
        ("float32", False),
        ("float32", True),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(8192, 8192, device="cuda").to(getattr(torch, dtype)) for _ in range(2))
        time = interleaved({"product": lambda a=a, b=b: a @ b}, rounds)["product"]
        found["tf32" if tf32 else dtype] = 2 * 8192**3 / time / 1e12
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    time = interleaved({"copy": lambda: target.copy_(source)}, rounds)["copy"]
    found["copy_gb_per_second"] = 2 * source.numel() / time / 1e9
    return found


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", nargs="+", default=["resnet50", "vgg16"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dtype", nargs="+", default=["float16", "bfloat16", "tf32", "float32"])
    parser.add_argument("--direction", nargs="+", default=["forward"], choices=DIRECTIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "convolith": cl.__version__,
        "batch": arguments.batch,
        "ceilings": ceilings(arguments.rounds),
        "layers": [],
    }
    print(json.dumps(report["ceilings"]))
    for dtype in arguments.dtype:
        tf32 = dtype == "tf32"
        for direction in arguments.direction:
            ratios = []
            for network in arguments.net:
                for text in layers(network, arguments.batch):
                    held = "float32" if tf32 else dtype
                    row = measure(text, held, direction, arguments.rounds, tf32)
                    report["layers"].append(row)
                    if row["ratio"]:
                        ratios.append(row["ratio"])
                        print(
                            f"{dtype:<9}{row['ratio']:6.2f}  {row['tflops']:7.1f} TFLOP/s  "
                            f"{row['best']:<18}{row['problem']}",
                            flush=True,
                        )
            if ratios:
                mean = statistics.geometric_mean(ratios)
                report.setdefault("geometric_means", {})[f"{dtype} {direction}"] = mean
                print(f"{dtype} {direction}: {mean:.3f} of cuDNN, {len(ratios)} layers", flush=True)
            if arguments.json:
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

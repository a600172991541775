"""PyTorch's training step, in its channels_last memory format.

The networks are written out here, with torchvision's names, because torchvision need not be there.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from convolith.bench.training import Task
from convolith.bench.training.trainer import LEARNING_RATE, MOMENTUM, BaseTrainer, Step, make_net


class LeNet(nn.Module):
    """As `convolith.zoo.lenet`."""

    def __init__(self, task: Task) -> None:
        """Make the layers."""
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(task.channels, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2 = nn.Linear(400, 120), nn.Linear(120, 100)
        self.fc3 = nn.Linear(100, task.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))


class Vgg(nn.Module):
    """VGG16, in place where torchvision is, without dropout."""

    def __init__(self, task: Task) -> None:
        """Make the layers."""
        super().__init__()
        layers: list[nn.Module] = []
        before = task.channels
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
                before = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(25088, 4096),
            nn.ReLU(inplace=True),
            nn.Identity(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Identity(),
            nn.Linear(4096, task.classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.classifier(self.features(x).flatten(1))


class Block(nn.Module):
    """A residual block: convolutions (kernel, stride), each with its norm."""

    def __init__(
        self, before: int, width: int, expansion: int, stride: int, kernels: tuple[int, ...]
    ) -> None:
        """Make the layers."""
        super().__init__()
        after, channels = width * expansion, before
        strided = 1 if len(kernels) == 3 else 0
        for i, kernel in enumerate(kernels):
            wide = after if i == len(kernels) - 1 else width
            step = stride if i == strided else 1
            conv = nn.Conv2d(channels, wide, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(wide))
            channels = wide
        self.count = len(kernels)
        self.downsample = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if stride != 1 or before != after
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            if i < self.count:
                y = functional.relu(y, inplace=True)
        y += x if self.downsample is None else self.downsample(x)
        return functional.relu(y, inplace=True)


class ResNet(nn.Module):
    """ResNet-18 or -50, in place where torchvision is."""

    def __init__(self, task: Task) -> None:
        """Make the layers."""
        super().__init__()
        expansion, kernels, counts = {
            "resnet18": (1, (3, 3), (2, 2, 2, 2)),
            "resnet50": (4, (1, 3, 1), (3, 4, 6, 3)),
        }[task.net]
        self.conv1 = nn.Conv2d(task.channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, count in enumerate(counts):
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(Block(before, 64 << stage, expansion, stride, kernels))
                before = (64 << stage) * expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, task.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


NETS: dict[str, Any] = {"lenet": LeNet, "vgg16": Vgg, "resnet18": ResNet, "resnet50": ResNet}


class Trainer(BaseTrainer):
    """A network of PyTorch, with this library's initial weights."""

    def __init__(self, task: Task, threads: int) -> None:
        """Make the network."""
        super().__init__(task, threads)
        torch.set_num_threads(threads)
        net = NETS[task.net](task)
        state = make_net(task).state_dict()
        net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.net.parameters(), LEARNING_RATE, MOMENTUM)
        self.input = torch.from_numpy(self.images).permute(0, 3, 1, 2)
        self.classes = torch.from_numpy(self.targets)

    def versions(self) -> dict[str, str]:
        """PyTorch's."""
        return {"torch": torch.__version__}

    def step(self) -> Step:
        """One step of training."""
        begin = time.perf_counter()
        loss = functional.cross_entropy(self.net(self.input), self.classes)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return Step(forward - begin, backward - forward, end - backward, float(loss.detach()))

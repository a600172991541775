"""This library's training step, through its autograd layer."""

from __future__ import annotations

import time

import convolith
from convolith import optim
from convolith.autograd import Tensor, functional
from convolith.bench.training import Task
from convolith.bench.training.trainer import LEARNING_RATE, MOMENTUM, BaseTrainer, Step, make_net


class Trainer(BaseTrainer):
    """A network of `convolith.zoo`."""

    def __init__(self, task: Task, threads: int) -> None:
        """Make the network."""
        super().__init__(task, threads)
        convolith.set_num_threads(threads)
        self.net = make_net(task)
        self.optimizer = optim.SGD(self.net.parameters(), LEARNING_RATE, MOMENTUM)
        self.input = Tensor(self.images)

    def versions(self) -> dict[str, str]:
        """This library's."""
        return {"convolith": convolith.__version__}

    def step(self) -> Step:
        """One step of training."""
        begin = time.perf_counter()
        loss = functional.cross_entropy(self.net(self.input), self.targets)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return Step(forward - begin, backward - forward, end - backward, float(loss.numpy()))

"""The near end of a library's process: requests go out, answers come back or time out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

WORKER = "convolith.bench.peers.worker"


class PeerError(Exception):
    """The process ended, or gave no answer in time; it is gone."""


class PeerProcess:
    """A library in a process of its own, in a session of its own: Ctrl-C reaches only its owner."""

    def __init__(self, adapter: tuple[str, ...], threads: int, worker: str = WORKER) -> None:
        """Start it: `adapter` is a module and what `worker` wants to know besides."""
        command = [sys.executable, "-m", worker, *adapter, str(threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        assert self.process.stdin
        self.stdin = self.process.stdin
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Pass lines on; an empty one is the end."""
        assert self.process.stdout
        with self.process.stdout as stream:
            for line in stream:
                self.lines.put(line)
        self.lines.put("")

    def send(self, request: dict[str, Any]) -> None:
        """Ask; a process that is gone says so when its answer is received."""
        with contextlib.suppress(OSError):
            print(json.dumps(request), file=self.stdin, flush=True)

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next answer; PeerError, with the process ended, where there is none."""
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise PeerError(f"no answer within {timeout:g} s") from None
        if not line:
            self.close()
            raise PeerError(f"its process ended with status {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing, and those that it started."""
        if self.process.returncode is not None:
            return
        if hasattr(os, "killpg"):
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        with contextlib.suppress(OSError):  # the rest of a request that nobody reads
            self.stdin.close()

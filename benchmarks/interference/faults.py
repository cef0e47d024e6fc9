"""Faults to be injected while a latency is measured; each disturbs in its own way.

An injector has processes of its own, with CUDA contexts of their own, started once. They work while
an event is set and wait otherwise: at most one step of work is left queued.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import torch

BURST_PERIOD_S, BURST_DUTY = 0.5, 0.2
IDLE_POLL_S = 0.003

Step = Callable[[], Any]


def repeated(device: str, work: Step) -> Step:
    """One step: the work four times, then wait for it."""

    def step() -> None:
        for _ in range(4):
            work()
        if device != "cpu":
            torch.cuda.synchronize()

    return step


def matmul(device: str, size: int, dtype: torch.dtype = torch.float32) -> Step:
    """Products of square matrices."""
    size = size if device != "cpu" else 256
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return repeated(device, lambda: torch.mm(a, b))


def bursts(device: str) -> Step:
    """FP32 products during the first fifth of every half second."""
    work = matmul(device, 2048)
    on_s = BURST_PERIOD_S * BURST_DUTY
    return lambda: work() if time.monotonic() % BURST_PERIOD_S < on_s else time.sleep(0.001)


def copies(device: str) -> Step:
    """Copies of 1 GiB to elsewhere in the GPU's memory."""
    source = torch.ones(2**28 if device != "cpu" else 2**20, device=device)
    target = torch.empty_like(source)
    return repeated(device, lambda: target.copy_(source))


KINDS: dict[str, Callable[[str], Step]] = {
    "gpu_full": lambda device: matmul(device, 4096),
    "gpu_bursts": bursts,
    "gpu_copies": copies,
    "gpu_power": lambda device: matmul(device, 8192, torch.bfloat16),
    "spin": lambda _: lambda: sum(range(20_000)),  # keeps a core busy
}


def serve(kind: str, on: Any, ready: Any, device: str, core: int | None) -> None:
    """Work while `on` is set, until the process that started us is gone."""
    torch.set_num_threads(1)
    if core is not None:
        os.sched_setaffinity(0, {core})
    parent, step = os.getppid(), KINDS[kind](device)
    step()  # load the kernels now, not during a measurement
    ready.release()
    while os.getppid() == parent:
        if on.is_set():
            step()
        else:
            time.sleep(IDLE_POLL_S)


class Injector:
    """Processes of one kind, asleep until `on`; `cores` pins one to each, None pins none."""

    def __init__(self, kind: str, device: str = "cpu", cores: tuple[int | None, ...] = (None,)):
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._on, self._ready = context.Event(), context.Semaphore(0)
        shared = kind, self._on, self._ready, device
        self._processes = [
            context.Process(target=serve, args=(*shared, core), daemon=True) for core in cores
        ]
        for process in self._processes:
            process.start()

    def wait_ready(self, limit_s: float) -> bool:
        """Wait until all processes are ready; False where one is not by then, or has died."""
        end = time.monotonic() + limit_s
        for _ in self._processes:
            while not self._ready.acquire(timeout=0.05):
                if not self.alive or time.monotonic() > end:
                    return False
        return True

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def on(self) -> None:
        self._on.set()
        time.sleep(0.1)

    def off(self) -> None:
        self._on.clear()
        time.sleep(0.05)

    def close(self) -> None:
        self.off()
        for process in self._processes:
            process.kill()
            process.join()


class SharedCore(Injector):
    """A busy process on one core, and the measuring thread pinned to the same one."""

    def __init__(self):
        self._cores = os.sched_getaffinity(0)
        self._core = max(self._cores)
        super().__init__("spin", cores=(self._core,))

    def on(self) -> None:
        os.sched_setaffinity(0, {self._core})
        super().on()

    def off(self) -> None:
        super().off()
        os.sched_setaffinity(0, self._cores)


def all_faults(device: str) -> dict[str, Injector]:
    """Start every injector; they begin asleep."""
    gpu = {kind: Injector(kind, device) for kind in KINDS if kind != "spin"}
    cores = tuple(sorted(os.sched_getaffinity(0)))
    return gpu | {"cpu_all_cores": Injector("spin", cores=cores), "cpu_same_core": SharedCore()}

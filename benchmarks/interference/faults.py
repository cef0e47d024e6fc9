"""Faults to be injected while a latency is measured; each disturbs in its own way.

An injector is a process of its own, with its own CUDA context, started once. It works while a flag
file exists and sleeps otherwise: no signal is needed, and at most one step of work is left queued.
Run by `Injector` as `python -m benchmarks.interference.faults KIND FLAG [DEVICE] [CORE]`.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

BURST_PERIOD_S, BURST_DUTY = 0.5, 0.2
IDLE_POLL_S = 0.003


def matmul(device: str, size: int, dtype: str = "float32") -> Callable[[], None]:
    """One step: a few products of square matrices, then wait for them."""
    import torch

    size = size if device != "cpu" else 256
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))

    def step() -> None:
        for _ in range(4):
            torch.mm(a, b)
        _wait(device)

    step()  # load the kernels now, not during a measurement
    return step


def bursts(device: str) -> Callable[[], None]:
    """FP32 products during the first fifth of every half second."""
    work = matmul(device, 2048)

    def step() -> None:
        if time.monotonic() % BURST_PERIOD_S < BURST_PERIOD_S * BURST_DUTY:
            work()
        else:
            time.sleep(0.001)

    return step


def copies(device: str) -> Callable[[], None]:
    """One step: copy 1 GiB to elsewhere in the GPU's memory, four times."""
    import torch

    source = torch.ones(2**28 if device != "cpu" else 2**20, device=device)
    target = torch.empty_like(source)

    def step() -> None:
        for _ in range(4):
            target.copy_(source)
        _wait(device)

    step()
    return step


def spin(device: str) -> Callable[[], None]:
    """One step: keep a core busy for a moment."""

    def step() -> None:
        for _ in range(20_000):
            pass

    return step


def _wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


KINDS: dict[str, Callable[[str], Callable[[], None]]] = {
    "gpu_full": lambda device: matmul(device, 4096),
    "gpu_bursts": bursts,
    "gpu_copies": copies,
    "gpu_power": lambda device: matmul(device, 8192, "bfloat16"),
    "spin": spin,
}


def serve(kind: str, flag: Path, device: str = "cpu", core: str = "") -> None:
    """Work while `flag` exists, until the process that started us is gone."""
    if core:
        os.sched_setaffinity(0, {int(core)})
    parent, step = os.getppid(), KINDS[kind](device)
    print("ready", flush=True)
    while os.getppid() == parent:
        if flag.exists():
            step()
        else:
            time.sleep(IDLE_POLL_S)


class Injector:
    """Processes of one kind that share a flag; `cores` pins one to each, "" pins none."""

    def __init__(
        self, kind: str, folder: Path, device: str = "cpu", cores: tuple[str, ...] = ("",)
    ):
        name = "-".join(filter(None, (kind, str(len(cores)), cores[0])))
        self._flag, self._log = folder / f"{name}.flag", folder / f"{name}.log"
        self._flag.unlink(missing_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with self._log.open("w") as log:
            self._processes = [
                subprocess.Popen(
                    [*_COMMAND, kind, str(self._flag), device, core],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                )
                for core in cores
            ]

    def wait_ready(self, limit_s: float) -> str:
        """Wait until all processes are ready; "" or what went wrong."""
        end = time.monotonic() + limit_s
        while self._log.read_text().count("ready") < len(self._processes):
            if any(process.poll() is not None for process in self._processes):
                return f"died: {self._log.read_text().strip()[-300:]}"
            if time.monotonic() > end:
                return f"not ready after {limit_s:.0f} s"
            time.sleep(0.05)
        return ""

    @property
    def alive(self) -> bool:
        return all(process.poll() is None for process in self._processes)

    def on(self) -> None:
        self._flag.touch()
        time.sleep(0.1)

    def off(self) -> None:
        self._flag.unlink(missing_ok=True)
        time.sleep(0.05)

    def close(self) -> None:
        self.off()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


class SharedCore:
    """A busy process on one core, and the measuring thread pinned to the same one."""

    def __init__(self, folder: Path):
        self._cores = os.sched_getaffinity(0)
        self._core = max(self._cores)
        self._hog = Injector("spin", folder, cores=(str(self._core),))
        self.wait_ready, self.close = self._hog.wait_ready, self._hog.close

    @property
    def alive(self) -> bool:
        return self._hog.alive

    def on(self) -> None:
        os.sched_setaffinity(0, {self._core})
        self._hog.on()

    def off(self) -> None:
        self._hog.off()
        os.sched_setaffinity(0, self._cores)


def all_faults(folder: Path, device: str) -> dict[str, Injector | SharedCore]:
    """Start every injector; they begin asleep."""
    gpu = {kind: Injector(kind, folder, device) for kind in KINDS if kind != "spin"}
    cores = tuple(str(core) for core in sorted(os.sched_getaffinity(0)))
    return gpu | {
        "cpu_all_cores": Injector("spin", folder, cores=cores),
        "cpu_same_core": SharedCore(folder),
    }


_COMMAND = (sys.executable, "-m", "benchmarks.interference.faults")

if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])

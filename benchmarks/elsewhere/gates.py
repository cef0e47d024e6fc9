"""Does the gate launched through `cuda.core` read what the one compiled by torch read?

    python -m benchmarks.elsewhere.gates FOLDER

Both gates measure the same ResNet-18 in turn, in one process; torch's needs a CUDA toolkit.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import machine_facts, random_batches, save
from helpers.clocks import GpuClock
from helpers.clocks.conditions import measuring_conditions
from helpers.clocks.kernels import SOURCE
from helpers.models import build_model

ROUNDS, SAMPLES = 10, 200


class TorchGate(GpuClock):
    """The clock with the gate as it was compiled before: by a private function of torch's."""

    def __init__(self, device):
        super().__init__(device)
        gate = torch.cuda._compile_kernel(SOURCE, "gate")
        opened, timed_out = self._opened, self._timed_out
        self._gate = lambda _, __, timeout: gate(args=[opened, timed_out, int(timeout)])


def main(folder: Path) -> None:
    """Write gates.json and environment.json into `folder`, and print the ratio of both."""
    device = torch.device("cuda")
    model = build_model("resnet18", 0).to(device)
    inputs = [batch.to(device) for batch in random_batches()]
    clocks = {"torch": TorchGate(device), "cuda.core": GpuClock(device)}
    samples = {name: [] for name in clocks}
    with measuring_conditions(model):
        for clock in clocks.values():
            clock.measure(model, inputs, SAMPLES)
        for _ in range(ROUNDS):
            for name, clock in clocks.items():
                samples[name].append(clock.measure(model, inputs, SAMPLES).samples_ms)
    p95 = {name: [float(np.quantile(s, 0.95)) for s in taken] for name, taken in samples.items()}
    medians = {name: float(np.median(values)) for name, values in p95.items()}
    record = {"p95_ms": p95, "median_p95_ms": medians}
    record["ratio"] = medians["cuda.core"] / medians["torch"]
    save(folder / "gates.json", record)
    save(folder / "environment.json", machine_facts())
    np.savez_compressed(folder / "gates.npz", **{n: np.stack(s) for n, s in samples.items()})
    print(record["ratio"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Does the gate launched through `cuda.core` read what the one compiled by torch read?

    python -m benchmarks.elsewhere.gates FOLDER

Both gates measure the same ResNet-18 in turn, in one process; torch's needs a CUDA toolkit.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torchvision.models import resnet18

from helpers import environment
from helpers.clocks import GpuClock
from helpers.clocks.conditions import measuring_conditions
from helpers.clocks.kernels import SOURCE

ROUNDS, SAMPLES = 10, 200


class TorchGate(GpuClock):
    """The clock with the gate as it was compiled before: by a private function of torch's."""

    def __init__(self, device):
        super().__init__(device)
        gate = torch.cuda._compile_kernel(SOURCE, "gate")
        opened, timed_out = self._opened, self._timed_out
        self._gate = lambda _, __, timeout: gate(args=[opened, timed_out, int(timeout)])


def main(folder: Path) -> None:
    """Write gates.json and environment.json into `folder`, and print a line per gate."""
    choice = environment.look("cuda")
    device = choice.device
    model = resnet18(num_classes=10).to(device)
    inputs = [torch.randn(1, 3, 32, 32, device=device) for _ in range(8)]
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
    record = {"rounds": ROUNDS, "samples": SAMPLES, "p95_ms": p95, "median_p95_ms": medians}
    record["ratio"] = medians["cuda.core"] / medians["torch"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gates.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "gates.npz", **{n: np.stack(s) for n, s in samples.items()})
    record_of_machine = json.dumps(choice.facts, indent=1) + "\n"
    (folder / "environment.json").write_text(record_of_machine, encoding="utf-8")
    print(medians, "ratio", record["ratio"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

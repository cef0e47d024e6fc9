"""Complete sessions written as the notebook writes them, around given latencies."""

import numpy as np
from fakes import make_result

from helpers.parameters import Parameters
from helpers.results import open_session
from helpers.results.rows import run_row, run_samples

MACHINE = {
    "gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"},
    "software": {"torch": "2.11.0+cu130"},
    "cuda": {"torch_cuda": "13.0", "driver": "580"},
    "cpu": {"model": "A CPU"},
}
ONE_LEVEL = {"fp32": (1.3, 2.3)}


def series(level, seed, sd=0.002):
    return level * np.exp(sd * np.random.default_rng(seed).standard_normal(60))


def runs_of(levels, runs=3, gpu=True, **changes):
    """{variant: results} around (GPU, host) levels in ms."""
    return {
        variant: [
            make_result(series(host, run, 0.02), series(gpu_ms, run) if gpu else None, **changes)
            for run in range(runs)
        ]
        for variant, (gpu_ms, host) in levels.items()
    }


def session(folder, name, measured=None, machine=MACHINE, complete=True, model=None, **parameters):
    """Write a session and return its folder."""
    recording = open_session(folder, name)
    recording.save_environment(machine)
    for variant, results in (measured or runs_of(ONE_LEVEL)).items():
        for run, result in enumerate(results, start=1):
            row = run_row(
                result,
                run=run,
                parameters=Parameters(**parameters),
                environment=machine,
                dataset="synthetic",
                accuracy=0.1,
                eval_images=100,
                session=name,
                variant=variant,
            )
            recording.add_run(row, run_samples(result))
    recording.save_json("verdict", {"sentences": ["ACCEPTÉ"], "accepted": True})
    if model:
        recording.save_json("parameters", {"model": model})
    if complete:
        recording.complete()
    return recording.folder

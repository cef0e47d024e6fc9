"""A notebook that takes a moment instead of a minute, and leaves a session like the real one's."""

import os
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tests.disk_session import MACHINE, row_of, write_session

FAILING_SEED = 13
ON_A_CPU = MACHINE | {"gpu": None, "cuda": {"driver": None, "cudnn": None, "torch_cuda": None}}


def session(results_dir, name: str, levels=(1.31, 1.32), machine=ON_A_CPU, **changes) -> Path:
    """A complete session, one run per level (ms) of its samples."""
    samples = [[level * (1 + 0.001 * place) for place in range(30)] for level in levels]
    runs = [(row_of(s, run=n, **changes), {"host_ms": s}) for n, s in enumerate(samples, 1)]
    return write_session(results_dir, name, runs, machine)


def measure(results_dir: str, name: str, seed: int) -> None:
    """What the stand-in's cell does: fail for one seed, else take a moment.

    `torch_threads` carries OMP_NUM_THREADS as the kernel sees it, 0 where it is not set.
    """
    if seed == FAILING_SEED:
        raise RuntimeError(f"no GPU likes seed {seed}")
    time.sleep(float(os.environ.get("STAND_IN_S", "0")))
    pinned, threads = (os.environ.get(n) for n in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"))
    machine = {"cpu": {"model": "a processor", "torch_threads": int(threads or 0)}}
    machine["gpu"] = {"name": "GPU", "uuid": pinned} if pinned else None
    session(results_dir, name, machine=ON_A_CPU | machine)


def write_notebook(path: Path) -> Path:
    parameters = new_code_cell('session = ""\nresults_dir = ""\nseed = 0')
    parameters.metadata["tags"] = ["parameters"]
    code = "from tests.campaign.stand_in import measure\nmeasure(results_dir, session, seed)"
    notebook = new_notebook(cells=[parameters, new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, path)
    return path

"""What the scripts share: inputs, fresh processes, the machine's record, files kept whole."""

import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from helpers import environment

HEAVY = ["benchmarks.common", "helpers.models", "helpers.validation"]  # none touches CUDA


def random_batches(count: int = 8) -> list[torch.Tensor]:
    """Batches (1, 3, 32, 32) on the CPU, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, 32, 32, generator=generator) for _ in range(count)]


def machine_facts() -> dict:
    """The record of the machine and the software."""
    return environment.look().facts


def forked(function: Callable, *arguments: Any) -> Any:
    """Call `function` in a process of its own with a CUDA context of its own.

    Forked from a server that has imported torch but never touched CUDA, which saves the imports
    (seconds); spawned where a system cannot fork.
    """
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    if can_fork:
        context.set_forkserver_preload(HEAVY)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def save(file: Path, record: Any) -> None:
    """Write JSON whole or not at all: a call that is cut leaves the file before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
    temporary.write_text(text + "\n", encoding="utf8")
    os.replace(temporary, file)


def load(file: Path) -> Any:
    """What `save` wrote."""
    return json.loads(file.read_text(encoding="utf8"))


def share(hits: int, tried: int, of: str = "of") -> str:
    """« 5 of 8 (24–91 %) », with the 95 % interval of Clopper and Pearson."""
    low, high = binomtest(hits, tried).proportion_ci(0.95, "exact") if tried else (0, 1)
    return f"{hits} {of} {tried} ({100 * low:.0f}–{100 * high:.0f} %)"

"""Whether torch.compile really works: its presence says nothing of a C++ compiler or Triton."""

import logging
import os
import random
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from helpers.environment.facts import attempt, first_line


@lru_cache
def compile_problem(device: torch.device | str) -> str:
    """Why torch.compile does not work, "" if it does; tried once, all compiled is forgotten."""
    scale = random.SystemRandom().uniform(1, 2)  # new source: the compiler runs, not its cache

    def probe(x: torch.Tensor) -> tuple[torch.Tensor, bool]:
        return torch.relu(x * scale - 0.5).sum(dim=1), torch.compiler.is_compiling()

    try:
        with quiet(), torch.inference_mode():
            x = torch.linspace(-1, 1, 8 * 64, device=device).reshape(8, 64)
            # One compilation thread: no pool of workers stays behind beside the measurement.
            result, compiled = torch.compile(probe, options={"compile_threads": 1})(x)
            torch.testing.assert_close(result, probe(x)[0], rtol=1e-4, atol=1e-4)
        return "" if compiled else "it ran uncompiled: disabled?"
    except Exception as error:  # a missing compiler, Triton, an unsupported Python …: all mean no
        # Triton's compiler writes to the terminal: only its command is in the error.
        headers = Path(sysconfig.get_path("include"), "Python.h").exists()
        hint = "" if headers else " (Python.h is missing: install Python's development headers)"
        return first_line(error) + hint
    finally:
        attempt(torch.compiler.reset)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's Python and C++ from writing to stderr, which a stored notebook would keep."""
    disabled, kept = logging.root.manager.disable, os.dup(2)
    logging.disable(logging.CRITICAL)
    try:
        with open(os.devnull, "wb") as nowhere, warnings.catch_warnings(action="ignore"):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(disabled)

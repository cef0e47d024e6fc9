"""Whether torch.compile really works: its presence says nothing of a C++ compiler or Triton."""

import logging
import random
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from helpers.environment.facts import attempt, first_line

NOT_COMPILED = "torch.compile ran the function uncompiled: it is disabled, or hides its errors"


@dataclass(frozen=True)
class CompileCheck:
    """Whether torch.compile works on a device, and if not, why."""

    usable: bool
    reason: str


@lru_cache
def check_compile_once(device: torch.device) -> CompileCheck:
    """`check_compile` on its first call for a device; later calls leave what is compiled alone."""
    return check_compile(device)


def check_compile(device: torch.device | str) -> CompileCheck:
    """Compile a small function for `device`, run it, and compare it with eager.

    The first call on a machine takes longest: Inductor tries out the CPU's vector instructions and
    remembers the answer on disk. torch's compiled functions are forgotten on the way out, so call
    this before compiling anything that shall live.
    """
    # A new constant makes new source, so that the compiler runs and no cache answers in its place.
    scale = random.SystemRandom().uniform(1, 2)

    def probe(x: torch.Tensor) -> tuple[torch.Tensor, bool]:
        return torch.relu(x * scale - 0.5).sum(dim=1), torch.compiler.is_compiling()

    try:
        with quiet(), torch.inference_mode():
            # One compilation thread: no pool of workers stays behind beside the measurement.
            compiled = torch.compile(probe, options={"compile_threads": 1})
            x = torch.linspace(-1, 1, 8 * 64, device=device).reshape(8, 64)
            result, was_compiled = compiled(x)
            expected, _ = probe(x)
            if not was_compiled:
                return CompileCheck(False, NOT_COMPILED)
            if not torch.allclose(result, expected, rtol=1e-4, atol=1e-4):
                worst = (result - expected).abs().max().item()
                return CompileCheck(False, f"compiled and eager results differ by {worst:.3g}")
    except Exception as error:  # a missing compiler, Triton, an unsupported Python …: all mean no
        return CompileCheck(False, _reason(error))
    finally:
        attempt(torch.compiler.reset)
    return CompileCheck(True, "")


def _reason(error: Exception) -> str:
    """The compiler's own line with "error:" where there is one, else what torch says first."""
    lines = str(error).splitlines()
    said = next((line.strip() for line in lines if "error:" in line), None)
    if said:
        return f"{type(error).__name__}: {said}"[:200]
    missing = not Path(sysconfig.get_path("include"), "Python.h").exists()
    # Triton's compiler writes to the terminal, so that only its command is in the error.
    hint = " (Python.h is missing: install Python's development headers)" if missing else ""
    return first_line(error) + (hint if "Command" in str(error) else "")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch's compiler from writing to stderr, which a stored notebook would keep."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

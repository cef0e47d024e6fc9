"""Random numbers of one's own: torch's generators seeded, and given back as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_state() -> Iterator[None]:
    """Give the CPU's generator, and those of GPUs in use, back as they are now."""
    with torch.random.fork_rng(_gpus()):
        yield


def seed_generators(seed: int) -> None:
    """Seed the generators that `own_random_state` gives back, and no others.

    torch.manual_seed would also seed GPUs that are not in use yet, once they are.
    """
    torch.default_generator.manual_seed(seed)
    if _gpus():
        torch.cuda.manual_seed_all(seed)


def _gpus() -> range:
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)

"""The injectors of faults start, stop and clean up after themselves."""

import os

from benchmarks.interference.faults import Injector, SharedCore


def test_an_injector_that_dies_is_not_ready():
    injector = Injector("no-such-kind")
    assert not injector.wait_ready(60)
    injector.close()


def test_sharing_a_core_is_undone_and_the_injector_ends():
    cores = os.sched_getaffinity(0)
    fault = SharedCore()
    try:
        assert fault.wait_ready(60)
        fault.on()
        assert fault.alive
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        fault.off()
        fault.close()
    assert not fault.alive
    assert os.sched_getaffinity(0) == cores

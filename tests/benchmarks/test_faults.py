"""The injectors of faults start, stop and clean up after themselves."""

import os

from benchmarks.interference.faults import Injector, SharedCore


def test_an_injector_works_while_it_is_on_and_ends_when_closed():
    injector = Injector("spin")
    try:
        assert injector.wait_ready(60)
        injector.on()
        assert injector.alive
        injector.off()
    finally:
        injector.close()
    assert not injector.alive


def test_an_injector_that_dies_says_so():
    injector = Injector("no-such-kind")
    assert not injector.wait_ready(60)
    injector.close()


def test_sharing_a_core_is_undone():
    cores = os.sched_getaffinity(0)
    fault = SharedCore()
    try:
        assert fault.wait_ready(60)
        fault.on()
        assert len(os.sched_getaffinity(0)) == 1
        fault.off()
    finally:
        fault.close()
    assert os.sched_getaffinity(0) == cores

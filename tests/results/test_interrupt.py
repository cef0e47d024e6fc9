"""Interrupting the kernel, at any moment, leaves every global switch and the model as they were."""

import gc
import math
import random
import signal
import time

import pytest
import torch
from fakes import TinyNet
from sessions import ROOT

from helpers.bench_latency import benchmark_latency
from helpers.clocks.conditions import tf32_in_force
from helpers.parameters import validate
from helpers.validation import measure_runs

INPUTS = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.fixture(autouse=True)
def interruptible():
    """A command run in the background starts with SIGINT ignored: the kernel's never does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def switches(model) -> dict:
    """Everything a measurement changes, and what it must not."""
    backends = torch.backends
    return {
        "modes": [m.training for m in model.modules()],
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "gc": gc.isenabled(),
        "tf32": tf32_in_force(),
        "legacy": (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32),
        "cudnn": (
            backends.cudnn.enabled,
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
        ),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def interrupts_at(forward: int) -> TinyNet:
    """A model in training, partly frozen, in whose nth forward the user interrupts."""
    model, calls = TinyNet().train(), []

    def count(*_):
        calls.append(1)
        if len(calls) == forward:
            signal.raise_signal(signal.SIGINT)

    model.norm.eval()
    model.register_forward_hook(count)
    return model


@pytest.mark.parametrize("forward", [1, 2, 12, 60, 150, 249])
def test_interrupted_in_a_forward(forward):
    model = interrupts_at(forward)
    before = switches(model)
    with pytest.raises(KeyboardInterrupt):
        benchmark_latency(model, INPUTS, 5, 300)
    assert switches(model) == before


def test_interrupted_between_and_within_runs():
    model = interrupts_at(300)
    before, done = switches(model), []
    asked = validate(isolation="none", warmup_iters=5, measure_iters=150)
    with pytest.raises(KeyboardInterrupt):
        done.extend(measure_runs(model, INPUTS, asked, torch.device("cpu")))
    assert switches(model) == before


def at_any_moment(count: int, seed: int) -> int:
    """Interrupt by a timer at `count` random moments, not only where Python calls a hook."""
    chance, caught = random.Random(seed), 0
    model = TinyNet().train()
    before, lasts_s = switches(model), math.inf
    for _ in range(3):  # the first one also loads what is loaded lazily
        begun = time.monotonic()
        benchmark_latency(model, INPUTS, 5, 200)
        lasts_s = min(lasts_s, time.monotonic() - begun)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()  # Python discards what is raised in one, and hypothesis has one
    try:
        for _ in range(count):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-4, lasts_s))
                benchmark_latency(model, INPUTS, 5, 200)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
            assert switches(model) == before
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        gc.callbacks.extend(callbacks)
    assert caught  # the others came too late, or where Python cannot raise
    return caught


def test_interrupted_at_any_moment():
    at_any_moment(15, seed=0)


PREPARE = """
import gc, sys, torch
sys.path.insert(0, "tests")
from fakes import TinyNet
from helpers.bench_latency import benchmark_latency
from helpers.clocks.conditions import tf32_in_force
model = TinyNet().train()
def switches():
    return (model.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled(),
            gc.isenabled(), tf32_in_force(), torch.get_num_threads())
before = switches()
"""
MEASURE = """
print("measuring", flush=True)
benchmark_latency(model, [torch.rand(1, 3, 8, 8)], 5, 10**8)
"""


def test_a_kernel_interrupted_as_jupyterlab_does_it():
    jupyter = pytest.importorskip("jupyter_client.manager")
    manager, client = jupyter.start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        assert client.execute_interactive(PREPARE, timeout=60)["content"]["status"] == "ok"

        def on_output(message):
            if message["content"].get("text", "").startswith("measuring"):
                manager.interrupt_kernel()

        reply = client.execute_interactive(MEASURE, timeout=60, output_hook=on_output)
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        answer = client.execute_interactive("assert switches() == before", timeout=60)
        assert answer["content"]["status"] == "ok"
        again = "benchmark_latency(model, [torch.rand(1, 3, 8, 8)], 5, 20).host.n"
        assert client.execute_interactive(again, timeout=60)["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.gpu
@pytest.mark.parametrize("forward", [5, 40, 130, 180, 290])
def test_interrupted_on_a_gpu_leaves_no_stream_held(forward):
    model = interrupts_at(forward).cuda()
    before = switches(model)
    with pytest.raises(KeyboardInterrupt):
        benchmark_latency(model, INPUTS, 5, 300)
    assert switches(model) == before
    torch.cuda.synchronize()  # returns: the gate is open
    assert benchmark_latency(model, INPUTS, 5, 50).gpu.n == 50

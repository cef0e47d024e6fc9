"""Interrupting the kernel, at any moment, leaves every global switch and the model as they were."""

import gc
import random
import signal
import threading
import time
from multiprocessing import resource_tracker

import psutil
import pytest
import torch
from fakes import TinyNet

from helpers.bench_latency import benchmark_latency
from helpers.clocks.conditions import tf32_in_force
from helpers.parameters import validate
from helpers.validation import measure_runs
from helpers.validation.processes import in_fresh_process

INPUTS = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


@pytest.fixture(autouse=True)
def interruptible():
    """A command run in the background starts with SIGINT ignored: the kernel's never does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def switches(model) -> dict:
    """Everything a measurement changes, and what it must not."""
    cudnn = torch.backends.cudnn
    return {
        "modes": [m.training for m in model.modules()],
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), gc.isenabled()),
        "tf32": (tf32_in_force(), cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "threads": (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
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


@pytest.mark.parametrize("forward", [1, 12, 60, 150, 400])
def test_interrupted_in_a_forward(forward):
    """Within a run, and between runs."""
    model = interrupts_at(forward)
    before = switches(model)
    asked = validate(isolation="none", warmup_iters=5, measure_iters=150)
    with pytest.raises(KeyboardInterrupt):
        list(measure_runs(model, INPUTS, asked, torch.device("cpu")))
    assert switches(model) == before


def test_interrupted_at_any_moment():
    """By a timer at random moments, not only where Python calls a hook."""
    chance, caught, model = random.Random(0), 0, TinyNet().train()
    before, begun = switches(model), time.monotonic()
    benchmark_latency(model, INPUTS, 5, 200)
    lasts_s = time.monotonic() - begun
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()  # Python discards what is raised in one, and hypothesis has one
    try:
        for _ in range(15):
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


def test_interrupted_while_a_process_starts_leaves_none_behind(capfd):
    """By Ctrl-C, which all processes hear; what is handed over is more than a pipe holds."""
    resource_tracker.ensure_running()  # stays, whatever comes
    here = psutil.Process()
    before = here.children()

    def interrupt_all():
        for process in (*here.children(), here):
            process.send_signal(signal.SIGINT)

    threading.Timer(1.0, interrupt_all).start()
    with pytest.raises(KeyboardInterrupt):
        in_fresh_process(len, bytes(2**22))  # importing torch alone takes longer
    assert here.children() == before
    assert capfd.readouterr().err == ""


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

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_run, series
from looks_fake import CLEAN_GPU, PROCESS, look
from nvml_fake import ME, OTHER
from torchvision.models import resnet18

from benchmarks.elsewhere.models import Joined, OwnStream
from helpers.bench_latency import benchmark_latency
from helpers.clocks.checks import check_clock
from helpers.clocks.profiling import ForwardProfile, try_profile
from helpers.clocks.warmup import Warmup
from helpers.parameters import validate
from helpers.stats import spread
from helpers.validation import (
    ACCEPTED,
    CONTRADICTED,
    RESERVED,
    UNPROVEN,
    deciding_clock,
    judge,
    measure_runs,
)

CPU = torch.device("cpu")
BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def runs_of(model=None, done=0, device=CPU, **given):
    parameters = validate(**{"isolation": "none", "warmup_iters": 5, "measure_iters": 30} | given)
    return measure_runs(model or TinyNet(), BATCHES, parameters, device, done)


def test_the_warm_up_is_as_long_as_asked_and_what_was_measured_before_is_not_again():
    (run,) = runs_of(runs=3, done=2, warmup_iters=301)  # it never lasts 301 by itself
    assert len(run.warmup.samples_ms) >= 301
    assert list(runs_of(runs=3, done=3)) == []


TOUCHED = False  # what a fresh process cannot have seen


class Traveller(TinyNet):
    """Refuses to run in a process that knows this one's past."""

    def forward(self, x):
        if TOUCHED:
            raise RuntimeError("this process is a copy of another, not a fresh one")
        return super().forward(x)


def test_each_run_in_a_fresh_process_of_its_own(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "TOUCHED", True)
    model = Traveller().train()
    first, second = runs_of(model, runs=2, isolation="process")
    assert first.process.pid != second.process.pid
    assert first.conditions.required_for("fp32")
    assert model.training


def test_a_model_that_no_other_process_can_have_is_measured_in_this_one():
    class Local(TinyNet):  # no pickle finds this class
        pass

    first, second = runs_of(Local(), runs=2, isolation="process")
    assert first.process.pid == second.process.pid
    assert judge([first, second]).clocks["host"].further is None


@pytest.mark.gpu
def test_a_fresh_process_measures_on_the_gpu_and_the_model_stays_where_it_was():
    model, device = TinyNet().to("cuda"), torch.device("cuda")
    run = next(runs_of(model, device=device, isolation="process"))
    assert run.device.startswith("cuda")
    assert run.gpu.n == 30
    assert run.graph.samples_ms is not None, run.graph.why
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}


def test_the_criterion_is_max_minus_min_over_mean_of_p95():
    host = judge([make_run(np.full(100, level)) for level in (1.0, 1.05, 1.1)]).clocks["host"]
    assert [host.p95_spread, host.mean_spread] == pytest.approx([0.1 / 1.05] * 2)
    assert host.met
    for few in ([], [make_run(series(1.0))]):
        with pytest.raises(ValueError, match=f"{len(few)} runs"):
            judge(few)
    runs, limit = [make_run(np.full(100, ms)) for ms in (1.0, 1.1)], spread([1.0, 1.1])
    for allowed, met in ((limit, False), (np.nextafter(limit, 1), True)):
        assert judge(runs, max_p95_spread=allowed).clocks["host"].met == met


def test_the_gpu_clock_decides_where_it_exists_and_the_host_stays_visible():
    runs = [make_run(series(h), series(1.3, sd=0.001)) for h in (2.0, 2.8, 2.2)]
    verdict = judge(runs)
    assert (verdict.deciding, verdict.accepted) == ("gpu", True)
    assert not verdict.clocks["host"].met
    assert not judge(runs, clock="host").accepted


def test_no_clock_stands_in_for_another_unseen():
    runs = [make_run(series(2.0), no_gpu_clock_why="waits inside") for _ in range(3)]
    assert deciding_clock("auto", runs) == "host"
    with pytest.raises(RuntimeError, match="waits inside"):
        judge(runs, clock="gpu")
    check_clock("gpu", torch.device("cuda:0"))
    check_clock("auto", CPU)


def profile_of(kernel_ms):
    return ForwardProfile(10, 68.0, kernel_ms, 0, 0, ("sgemm",))


@pytest.mark.parametrize(
    ("gpu_ms", "profile", "doubt", "deciding"),
    [
        (0.003, profile_of(1.234), CONTRADICTED, "host"),  # works on a stream of its own
        (0.70, profile_of(1.234), "", "gpu"),  # forks and joins: its kernels overlap
        (1.30, profile_of(1.234), "", "gpu"),
        (0.003, None, UNPROVEN, "gpu"),
        (0.5, None, "", "gpu"),  # launch-bound: the host's clock reads four times as much
    ],
    ids=["own stream", "two streams", "one stream", "no profile", "no profile, launch-bound"],
)
def test_kernels_may_contradict_the_gpu_clock(gpu_ms, profile, doubt, deciding):
    runs = [make_run(series(2.0, i), series(gpu_ms, i)) for i in range(3)]
    verdict = judge(runs, profile=profile)
    assert (verdict.doubt, verdict.deciding) == (doubt, deciding)
    assert list(verdict.clocks) == ["gpu", "host"]  # its figures stay visible
    if doubt == CONTRADICTED:
        with pytest.raises(RuntimeError, match="kernels"):
            judge(runs, clock="gpu", profile=profile)


@pytest.mark.parametrize(
    ("pids", "known"), [((1, 2, 3), True), ((1, 2), False), ((1, 1, 1), False)]
)
def test_only_runs_of_three_processes_say_where_a_further_session_would_land(pids, known):
    processes = [replace(PROCESS, pid=pid) for pid in pids]
    runs = [make_run(series(1 + i / 100), process=p) for i, p in enumerate(processes)]
    host = judge(runs).clocks["host"]
    assert (host.further is not None) == known
    if known:
        low, high = host.further
        assert low < min(host.p95_ms) < max(host.p95_ms) < high


PREEMPTED = {"preemptions": 9, "thread_s": 0.5}
FOREIGN = replace(CLEAN_GPU, processes=frozenset({ME, OTHER}), shares=((ME, 60), (OTHER, 30)))
RESERVES = {
    "nothing": ({}, None, ()),
    "the host alone was disturbed": ({"looks": (look(0.0), look(1.0, **PREEMPTED))}, None, ()),
    "the GPU was": ({"looks": (look(0.0), look(1.0, FOREIGN))}, None, ("foreign_gpu_process",)),
    "uncalibrated": ({}, SimpleNamespace(flags=("uncalibrated",)), ("uncalibrated",)),
    "warm-up": ({"warmup": Warmup(np.ones(200), False)}, None, ("unsteady_warmup",)),
}


@pytest.mark.parametrize("case", RESERVES)
def test_a_criterion_met_by_disturbed_runs_is_met_with_reserve(case):
    changes, receipt, expected = RESERVES[case]
    runs = [make_run(series(2.0, i, 100), series(1.3, i, 100), **changes) for i in range(3)]
    verdict = judge(runs, receipt=receipt)
    assert verdict.reserves == expected
    assert verdict.outcome == (RESERVED if expected else ACCEPTED)


def test_means_that_move_while_the_p95_does_not_are_a_reserve():
    """p95 84, 88 and 84 ms were accepted with medians of 60, 0.5 and 49 ms."""
    runs = [make_run(np.where(np.arange(100) < 90, low, 84.0)) for low in (60.0, 0.5, 49.0)]
    verdict = judge(runs)
    assert (verdict.outcome, verdict.reserves) == (RESERVED, ("mean_spread",))


@pytest.mark.gpu
def test_a_stream_of_its_own_is_contradicted_and_a_fork_that_joins_is_not():
    own, joined = (wrap(resnet18(num_classes=10)).cuda() for wrap in (OwnStream, Joined))
    cuda = torch.device("cuda")
    inputs = [x.to(cuda) for x in BATCHES]
    for model, doubt in ((own, CONTRADICTED), (joined, "")):
        runs = [benchmark_latency(model, inputs, 10, 60) for _ in range(2)]
        verdict = judge(runs, profile=try_profile(model, inputs, cuda)[0])
        assert verdict.doubt == doubt
        assert verdict.deciding == ("host" if doubt else "gpu")

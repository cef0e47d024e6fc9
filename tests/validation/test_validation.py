import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result
from torchvision.models import resnet18

from benchmarks.elsewhere.models import Joined, OwnStream
from helpers import validation
from helpers.bench_latency import Bench, ModelError, benchmark_latency, prepared
from helpers.clocks import HOST_TOO_SLOW, GpuSamples, NotQueueableError
from helpers.clocks.profiling import ForwardProfile, profile_forwards
from helpers.validation import (
    CONTRADICTED,
    UNPROVEN,
    check_clock,
    deciding_clock,
    judge,
    validation_runs,
)
from helpers.validation.interference import Watch

CPU = torch.device("cpu")
BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def series(level, seed=0, n=500, sd=0.01):
    return level * (1 + sd * np.random.default_rng(seed).standard_normal(n))


def runs(**settings):
    pairs = validation_runs(TinyNet(), BATCHES, device=CPU, warmup_iters=5, **settings)
    return [result for result, _ in pairs]


def test_every_run_has_all_its_samples():
    results = runs(runs=3, measure_iters=120)
    assert [r.host.n for r in results] == [120, 120, 120]


def test_by_default_three_runs_as_long_as_the_protocols():
    pairs = list(validation_runs(TinyNet(), BATCHES, device=CPU))
    assert [result.host.n for result, _ in pairs] == [500, 500, 500]


def test_the_warm_up_is_as_long_as_asked():
    """Longer than the warm-up ever lasts by itself, which is 200 forwards."""
    pairs = validation_runs(
        TinyNet(),
        BATCHES,
        runs=2,
        warmup_iters=301,
        measure_iters=20,
        device=CPU,
    )
    assert all(result.warmup_used >= 301 for result, _ in pairs)


def test_results_come_one_by_one():
    generator = validation_runs(TinyNet(), BATCHES, device=CPU, warmup_iters=5, measure_iters=20)
    first, seen = next(generator)
    assert first.host.n == 20
    assert len(seen) == 1
    generator.close()


def test_every_block_of_every_run_is_watched():
    pairs = validation_runs(TinyNet(), BATCHES, runs=2, measure_iters=250, device=CPU)
    assert [len(seen) for _, seen in pairs] == [3, 3]


TOUCHED = False  # what a fresh process cannot have seen


class Traveller(TinyNet):
    """Refuses to run in a process that knows this one's past, and to be moved to no device."""

    def forward(self, x):
        if TOUCHED:
            raise RuntimeError("this process is a copy of another, not a fresh one")
        return super().forward(x)

    def to(self, device):
        if device is None:
            raise TypeError("no device is given")
        return super().to(device)


FRESH = {"runs": 1, "warmup_iters": 5, "measure_iters": 30, "isolation": "process"}


def test_a_run_in_a_fresh_process(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "TOUCHED", True)
    model = Traveller().train()
    ((result, seen),) = validation_runs(model, BATCHES, device=CPU, **FRESH)
    assert result.host.n == 30
    assert len(seen) == 1
    assert result.conditions.required_for("fp32")
    assert model.training


@pytest.mark.gpu
def test_a_fresh_process_measures_on_the_gpu_and_the_model_comes_back():
    model, device = TinyNet().to("cuda"), torch.device("cuda")
    ((result, _),) = validation_runs(model, BATCHES, device=device, **FRESH)
    assert result.device.startswith("cuda")
    assert result.gpu.n == 30
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}


def test_a_fresh_process_that_ends_too_early_is_explained(monkeypatch):
    def broken(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(validation, "ProcessPoolExecutor", broken)
    with pytest.raises(RuntimeError) as caught:
        list(validation_runs(TinyNet(), BATCHES, device=CPU, **FRESH))
    assert str(caught.value) == (
        "isolation='process': the fresh process ended before its run was complete; it was killed, "
        "ran out of memory, or could not import the model's class (move a class defined in a "
        "notebook to a module). isolation='none' measures without it"
    )


def test_a_gpu_that_one_process_may_use_is_named(monkeypatch):
    def busy(*_, **__):
        raise torch.AcceleratorError(
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable"
        )

    monkeypatch.setattr(validation, "ProcessPoolExecutor", busy)
    with pytest.raises(RuntimeError, match=r"exclusive compute mode.*isolation='none'"):
        list(validation_runs(TinyNet(), BATCHES, device=CPU, **FRESH))


def test_a_model_that_no_fresh_process_can_take_is_named():
    reason = r"cannot hand this model \(function\) to a fresh process: it is no nn\.Module\. Use"
    with pytest.raises(ValueError, match=reason):
        list(validation_runs(lambda x: x, BATCHES, device=CPU, **FRESH))


def test_an_unknown_isolation_is_named():
    with pytest.raises(ValueError, match="isolation='container': use 'none' or 'process'"):
        runs(isolation="container")


def test_the_criterion_is_max_minus_min_over_mean_of_p95():
    results = [make_result(np.full(100, level)) for level in (1.0, 1.05, 1.1)]
    host = judge(results).clocks["host"]
    assert host.p95_spread == pytest.approx(0.1 / 1.05)
    assert host.mean_spread == pytest.approx(0.1 / 1.05)
    assert host.met
    assert host.causes == ()


def test_exactly_the_limit_is_not_below_it():
    results = [make_result(np.full(100, level)) for level in (0.95, 1.0, 1.05)]
    assert judge(results, max_p95_spread=0.11).accepted
    assert not judge(results, max_p95_spread=0.099).accepted


def test_the_gpu_clock_decides_where_it_exists_and_the_host_stays_visible():
    results = [make_result(series(h), series(1.3, sd=0.001)) for h in (2.0, 2.8, 2.2)]
    validation = judge(results)
    assert validation.deciding == "gpu"
    assert validation.accepted
    assert list(validation.clocks) == ["gpu", "host"]
    assert not validation.clocks["host"].met
    assert judge(results, clock="host").accepted is False


def test_no_clock_stands_in_for_another_unseen():
    results = [make_result(series(2.0), gpu_unavailable_why="waits inside") for _ in range(3)]
    assert deciding_clock("auto", results) == "host"
    with pytest.raises(RuntimeError, match="waits inside"):
        judge(results, clock="gpu")


def test_a_gpu_clock_without_a_gpu_is_refused_before_anything_is_measured():
    with pytest.raises(RuntimeError, match="'cpu': use clock='auto' or 'host'"):
        check_clock("gpu", CPU)
    check_clock("gpu", torch.device("cuda:0"))
    check_clock("auto", CPU)


def test_no_run_left_is_no_run():
    watch = Watch(CPU)
    settings = {"runs": 0, "watch": watch, "device": CPU}
    assert list(validation_runs(TinyNet(), BATCHES, **settings)) == []


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
    results = [make_result(series(2.0, i), series(gpu_ms, i)) for i in range(3)]
    validation = judge(results, profile=profile)
    assert (validation.doubt, validation.deciding) == (doubt, deciding)
    assert list(validation.clocks) == ["gpu", "host"]  # its figures stay visible
    if doubt == CONTRADICTED:
        with pytest.raises(RuntimeError, match="kernels"):
            judge(results, clock="gpu", profile=profile)


def test_a_run_that_could_not_be_queued_half_way_goes_on_with_the_host_alone(monkeypatch):
    class Stalls:
        """A GPU clock that takes one block and then finds the host too slow."""

        batch, blocks = 8, 0

        def measure(self, call, inputs, iterations):
            self.blocks += 1
            if self.blocks > 1:
                raise NotQueueableError(HOST_TOO_SLOW, "3 batches late", np.full(7, 9.0))
            return GpuSamples(np.full(iterations, 1.0), np.full(2, 5.0), 1, np.full(2, 0.5))

    with prepared(TinyNet(), BATCHES, 5) as bench:
        bench.gpu_clock, bench.gpu_unavailable = Stalls(), ("", "")
        run = bench.new_run(300)
        while not run.complete:
            run.measure_block()
        result = run.result()
    assert result.host.n == 300
    assert result.gpu is None
    assert (result.gpu_unavailable, result.gpu_unavailable_why) == (HOST_TOO_SLOW, "3 batches late")
    assert len(result.rejected_gpu_ms) == 100 + 2 + 7  # nothing that was read is lost
    assert result.retried_batches == 1


def test_the_host_clock_alone_is_read_when_it_alone_is_asked_for(monkeypatch):
    def never(*_):
        raise AssertionError("the GPU clock was started")

    monkeypatch.setattr("helpers.bench_latency.GpuClock", never)
    bench = Bench(TinyNet(), BATCHES, CPU, "fp32", None, "host")
    bench.device = torch.device("cuda")  # as far as the choice of clocks is concerned
    assert not bench._wants_gpu_clock
    result = benchmark_latency(TinyNet(), BATCHES, 5, 20, clock="host")
    assert result.gpu is None


def test_a_model_that_answers_at_random_is_not_measured():
    """Case 8: F.dropout(x, 0.5) drops in eval mode too, unless told `training=self.training`."""

    class Drops(TinyNet):
        def forward(self, x):
            return torch.nn.functional.dropout(super().forward(x), 0.5)

    with pytest.raises(ValueError, match="dropout"):
        benchmark_latency(Drops(), BATCHES, 5, 20)


def test_a_model_that_leaves_python_is_an_error():
    """Case 5: sys.exit(0) in a forward would end the notebook as if all were well."""

    class Leaves(TinyNet):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 20:
                raise SystemExit(0)
            return super().forward(x)

    with pytest.raises(ModelError, match="SystemExit"):
        benchmark_latency(Leaves(), BATCHES, 10, 50)


@pytest.mark.parametrize("words", ["uncorrectable ECC error", "GPU is lost", "device unavailable"])
def test_a_gpu_that_fails_is_not_the_models_fault(words):
    class Fails(TinyNet):
        def forward(self, x):
            raise RuntimeError(f"CUDA error: {words} encountered")

    with pytest.raises(ModelError, match="the GPU, not the model"):
        benchmark_latency(Fails(), BATCHES, 5, 20)


def test_one_run_is_no_validation():
    with pytest.raises(ValueError, match="two"):
        judge([make_result(series(1.0))])


def test_an_interrupted_run_leaves_nothing_for_the_next():
    class Interrupted(TinyNet):
        left = 30

        def forward(self, x):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            return super().forward(x)

    model, watch = Interrupted(), Watch(CPU)
    settings = {"runs": 1, "warmup_iters": 5, "measure_iters": 50, "device": CPU, "watch": watch}
    with pytest.raises(KeyboardInterrupt):
        list(validation_runs(model, BATCHES, **settings))
    ((result, seen),) = validation_runs(model, BATCHES, **settings)
    assert result.host.n == 50
    assert len(seen) == 1


@pytest.mark.gpu
def test_a_stream_of_its_own_is_contradicted_and_a_fork_that_joins_is_not():
    own, joined = (wrap(resnet18(num_classes=10)).cuda() for wrap in (OwnStream, Joined))
    cuda = torch.device("cuda")
    inputs = [x.to(cuda) for x in BATCHES]
    for model, doubt in ((own, CONTRADICTED), (joined, "")):
        runs = [benchmark_latency(model, inputs, 10, 60) for _ in range(2)]
        validation = judge(runs, profile=profile_forwards(model, inputs, cuda))
        assert validation.doubt == doubt
        assert validation.deciding == ("host" if doubt else "gpu")

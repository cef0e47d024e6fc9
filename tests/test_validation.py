import sys
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result

from helpers import validation
from helpers.validation import check_clock, deciding_clock, judge, validation_runs
from helpers.validation.interference import Watch

CPU = torch.device("cpu")
BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def series(level, seed=0, n=500, sd=0.01):
    return level * (1 + sd * np.random.default_rng(seed).standard_normal(n))


def runs(**settings):
    pairs = validation_runs(TinyNet(), BATCHES, device=CPU, warmup_iters=5, **settings)
    return [result for result, _ in pairs]


@pytest.mark.parametrize("schedule", ["consecutive", "interleaved"])
def test_every_run_has_all_its_samples(schedule):
    results = runs(runs=3, measure_iters=120, schedule=schedule)
    assert [r.host.n for r in results] == [120, 120, 120]


def test_by_default_three_runs_as_long_as_the_protocols():
    pairs = list(validation_runs(TinyNet(), BATCHES, device=CPU))
    assert [result.host.n for result, _ in pairs] == [500, 500, 500]


@pytest.mark.parametrize("schedule", ["consecutive", "interleaved"])
def test_the_warm_up_is_as_long_as_asked(schedule):
    """Longer than the warm-up ever lasts by itself, which is 200 forwards."""
    pairs = validation_runs(
        TinyNet(),
        BATCHES,
        runs=2,
        warmup_iters=301,
        measure_iters=20,
        device=CPU,
        schedule=schedule,
    )
    assert all(result.warmup_used >= 301 for result, _ in pairs)


def test_results_come_one_by_one():
    generator = validation_runs(TinyNet(), BATCHES, device=CPU, warmup_iters=5, measure_iters=20)
    first, seen = next(generator)
    assert first.host.n == 20
    assert len(seen) == 1
    generator.close()


@pytest.mark.parametrize("schedule", ["consecutive", "interleaved"])
def test_every_block_of_every_run_is_watched(schedule):
    pairs = validation_runs(
        TinyNet(), BATCHES, runs=2, measure_iters=250, device=CPU, schedule=schedule
    )
    assert [len(seen) for _, seen in pairs] == [3, 3]


def test_interleaved_runs_take_turns():
    pairs = validation_runs(
        TinyNet(), BATCHES, runs=2, measure_iters=200, device=CPU, schedule="interleaved"
    )
    (_, one), (_, two) = pairs
    assert one[0].end_s <= two[0].start_s <= one[1].start_s <= two[1].start_s


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
    assert result.conditions.as_required
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


def test_a_model_that_no_fresh_process_can_take_is_named():
    reason = r"cannot hand this model \(function\) to a fresh process: it is no nn\.Module\. Use"
    with pytest.raises(ValueError, match=reason):
        list(validation_runs(lambda x: x, BATCHES, device=CPU, **FRESH))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "random"}, "schedule='random', .* 'none' or 'process'$"),
        ({"isolation": "container"}, "isolation='container': use 'consecutive' or 'interleaved',"),
        (
            {"schedule": "interleaved", "isolation": "process"},
            "^schedule='interleaved' needs all runs in one process: use isolation='none'$",
        ),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        runs(**settings)


def test_the_criterion_is_max_minus_min_over_mean_of_p95():
    results = [make_result(np.full(100, level)) for level in (1.0, 1.05, 1.1)]
    host = judge(results).clocks["host"]
    assert host.p95_spread == pytest.approx(0.1 / 1.05)
    assert host.mean_spread == pytest.approx(0.1 / 1.05)
    assert host.met
    assert host.causes == ()


def test_exactly_the_limit_is_not_below_it():
    results = [make_result(np.full(100, level)) for level in (0.95, 1.0, 1.05)]
    assert judge(results, max_p95_spread=0.11).met
    assert not judge(results, max_p95_spread=0.099).met


def test_the_gpu_clock_decides_where_it_exists_and_the_host_stays_visible():
    results = [make_result(series(h), series(1.3, sd=0.001)) for h in (2.0, 2.8, 2.2)]
    validation = judge(results)
    assert validation.deciding == "gpu"
    assert validation.accepted
    assert list(validation.clocks) == ["gpu", "host"]
    assert not validation.clocks["host"].met
    assert judge(results, clock="host").met is False
    assert judge(results, clock="host").accepted is False


def test_no_clock_stands_in_for_another_unseen():
    results = [make_result(series(2.0), gpu_unavailable="waits inside") for _ in range(3)]
    assert deciding_clock("auto", results) == "host"
    with pytest.raises(RuntimeError, match="waits inside"):
        judge(results, clock="gpu")


def test_a_gpu_clock_without_a_gpu_is_refused_before_anything_is_measured():
    with pytest.raises(RuntimeError, match="'cpu': use clock='auto' or 'host'"):
        check_clock("gpu", CPU)
    check_clock("gpu", torch.device("cuda:0"))
    check_clock("auto", CPU)


@pytest.mark.parametrize("schedule", ["consecutive", "interleaved"])
def test_no_run_left_is_no_run(schedule):
    watch = Watch(CPU)
    settings = {"runs": 0, "schedule": schedule, "watch": watch, "device": CPU}
    assert list(validation_runs(TinyNet(), BATCHES, **settings)) == []


def test_interleaved_runs_never_stand_for_the_acceptance():
    results = [make_result(series(2.0, seed)) for seed in range(3)]
    validation = judge(results, schedule="interleaved")
    assert validation.met
    assert not validation.accepted


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

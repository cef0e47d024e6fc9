"""Single forwards after a pause: what is timed, in which order, and what is said of it."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.annex import display, pauses
from helpers.annex.comparison import Contribution
from helpers.annex.entries import Candidates
from helpers.annex.pauses import Forward, Paused
from helpers.annex.plots import plot_pauses
from helpers.parameters import ParameterError, validate
from helpers.results import Session
from helpers.validation.processes import FreshProcessError, pack_model

BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class Drowsy(TinyNet):
    """Takes 3 ms longer where nobody has called it for 4 ms."""

    last = 0.0

    def forward(self, x):
        if time.perf_counter() - self.last > 0.004:
            time.sleep(0.003)
        y, self.last = super().forward(x), time.perf_counter()
        return y


def measure(*after_ms, model=None, names=("fp32",), number=1, device="cpu", **options):
    """What one process gives, in this process."""
    packed, parameters = pack_model((model or TinyNet()).eval()), validate(warmup_iters=2)
    given = packed, BATCHES, names, torch.device(device), parameters, number, after_ms
    return Paused(1, [pauses.measure_process(*given, **options)], pauses_ms=after_ms)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(pauses, "MOST", 10)
    monkeypatch.setattr(pauses, "SECONDS", 0.3)


@pytest.mark.parametrize("given", ["-1", "1;2", "ten", "10000", "1.", ",", "1,,2", "0 1", "inf"])
def test_wrong_pauses_are_refused_before_anything_is_measured(given):
    with pytest.raises(ParameterError, match="'pauses_ms'"):
        validate(pauses_ms=given)
    assert validate(pauses_ms="0.5, 9999").pauses_ms == "0.5, 9999"


def test_what_is_idle_is_slower_and_what_did_not_wait_is_not():
    asleep = measure(0, 8, model=Drowsy())
    awake = measure(0, 8, model=Drowsy(), wait=lambda seconds: None)
    assert np.median(asleep.of("fp32", 8, "idle_ms")) >= 7.9
    assert np.median(awake.of("fp32", 8, "idle_ms")) < 4
    for paused, apart in ((asleep, True), (awake, False)):
        none, eight = (paused.level("fp32", pause, "host", 0.5)[0] for pause in (0, 8))
        assert (eight - none > 2) == apart
        assert np.median(paused.of("fp32", 8, "before_ms")) < 2  # it was at work until the pause


def test_pauses_come_in_a_random_order_of_their_process_as_often_as_there_is_time():
    found = []
    for number in (1, 1, 2):
        (run,) = measure(0, 1, 500, number=number, wait=lambda seconds: None).runs("fp32")
        found.append([forward.pause_ms for forward in run])
    assert found[0] == found[1] != found[2] != sorted(found[2])
    assert [found[0].count(pause) for pause in (0, 1, 500)] == [10, 10, pauses.FEWEST]


def test_the_gpus_state_is_read_in_the_pause_or_where_that_is_too_short_afterwards(monkeypatch):
    told = []
    monkeypatch.setattr(pauses, "sm_clock_mhz", lambda _: time.sleep(0.003) or 1980)
    monkeypatch.setattr(pauses, "performance_state", lambda _: told.append("read") or 0)
    for options in ({}, {"read_before": False}):
        paused = measure(1, 20, wait=lambda seconds: told.append(round(1e3 * seconds)), **options)
        short, long = (np.median(paused.of("fp32", p, "idle_ms")) for p in (1, 20))
        assert short < 2
        assert (long > 3) == (not options)
        assert set(paused.of("fp32", 1, "sm_mhz")[0]) == {1980}
    assert 20 in told  # not shortened where the reading comes after
    assert 1 in told
    assert any(10 < waited < 18 for waited in told if waited != "read")


def test_a_variant_that_fails_is_named_and_nothing_is_measured_unless_asked(monkeypatch):
    assert list(measure(0, names=("fp32", "cudagraph")).processes[0].failed) == ["cudagraph"]
    candidates = Candidates(validate(), TinyNet(), BATCHES, torch.device("cpu"), {}, {})
    assert pauses.measure_pauses(candidates) is None

    def dies(function, *given):
        raise FreshProcessError("it was killed")

    monkeypatch.setattr(pauses, "in_fresh_process", dies)
    asked = Candidates(validate(pauses_ms="1,0"), *list(vars(candidates).values())[1:])
    paused = pauses.measure_pauses(asked)
    assert (paused.pauses_ms, paused.processes) == ([0, 1], [])
    assert "killed" in paused.stopped
    assert display.pause_table(paused) == plot_pauses(paused, "cifar10") == display.UNMEASURED


def test_fresh_processes_measure_and_every_forward_is_kept(tmp_path):
    parameters = validate(pauses_ms="0,2", runs=2, warmup_iters=2, results_dir=str(tmp_path))
    given = TinyNet().eval(), BATCHES, torch.device("cpu"), {}, {}
    paused = pauses.measure_pauses(Candidates(parameters, *given))
    session = Session(parameters, SimpleNamespace(facts={}))
    session.keep("pauses", paused)
    kept = json.loads((session.folder / "pauses.json").read_text())
    runs = [process["runs"]["fp32"] for process in kept["processes"]]
    assert [len(run) for run in runs] == [len(run) for run in paused.runs("fp32")]
    assert runs[0][0].keys() == Forward.__dataclass_fields__.keys()


def made(processes, counts=(200, 5), gpu=True):
    """Pauses of 0 and 1,000 ms: as often, with levels that differ by process."""
    random, given = np.random.default_rng(0), []
    for process in range(processes):
        run = [
            Forward(p, p, 2, *(level * random.lognormal(0, 0.01, 2)), 1980, 0)
            for p, count in zip((0, 1000), counts, strict=True)
            for level in [np.array([2 + p / 1000, 1.5]) * (1 + process / 100)] * count
        ]
        run = run if gpu else [Forward(*(*vars(f).values(),)[:4], None, None, None) for f in run]
        given.append(Contribution({"fp32": run}))
    return Paused(processes, given, pauses_ms=[0, 1000])


def test_intervals_are_over_processes_and_a_p95_needs_enough_samples():
    paused = made(3)
    table = display.pause_table(paused)
    figure = plot_pauses(paused, "synthetic")
    drawn = {tuple(line.get_ydata()) for axis in figure.axes for line in axis.lines}
    for clock in ("host", "gpu"):
        p50, p95 = (paused.level("fp32", 0, clock, q) for q in (0.50, 0.95))
        assert max(p50) > min(p50) * 1.015
        assert {tuple(p50), display.process_interval(p50)} <= drawn
        assert {tuple(p95), display.process_interval(p95)} <= drawn
        assert paused.level("fp32", 1000, clock, 0.95) == []
    assert table.loc[("fp32", "1000"), "p95 hôte (ms)"] == display.NOT_ESTIMABLE
    assert table.loc[("fp32", "0"), ["SM (MHz)", "État", "n"]].tolist() == [
        "1980",
        "P0",
        "200 · 200 · 200",
    ]
    assert "hôte fp32 × 1,5" in figure.get_suptitle()


def test_two_processes_on_a_cpu_give_a_level_without_interval():
    table = display.pause_table(made(2, gpu=False))
    assert display.NOT_ESTIMABLE in table.loc[("fp32", "0"), "p50 hôte (ms)"]
    assert not any("GPU" in column for column in table.columns)
    assert [
        axis.get_title(loc="left") for axis in plot_pauses(made(2, gpu=False), "cifar10").axes
    ] == ["Horloge hôte"]


@pytest.mark.gpu
def test_both_clocks_and_the_state_after_each_pause_on_a_gpu():
    paused = measure(0, 5, names=("fp32", "cudagraph"), device="cuda:0")
    for name in ("fp32", "cudagraph"):
        for (host,), (gpu,) in (
            (paused.of(name, p, f"{c}_ms") for c in ("host", "gpu")) for p in (0, 5)
        ):
            assert (np.array(gpu) > 0).all()
            assert (np.array(host) > gpu).all()
        assert paused.of(name, 5, "sm_mhz")
        assert paused.of(name, 5, "p_state")

"""Single forwards after a pause: what is timed, in which order, and what is said of it."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import TinyNet

from helpers.annex import display, pauses, plots
from helpers.annex.comparison import Contribution
from helpers.annex.entries import Candidates
from helpers.parameters import validate
from helpers.results import ResultsError, Session
from helpers.validation.processes import FreshProcessError, pack_model

BATCHES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class Drowsy(TinyNet):
    """Takes 3 ms longer where nobody has called it for 4 ms."""

    last = 0.0

    def forward(self, x):
        time.sleep(0.003 * (time.perf_counter() - self.last > 0.004))
        y, self.last = super().forward(x), time.perf_counter()
        return y


@pytest.fixture
def measure(monkeypatch):
    """What one process gives, in this process; it would wait, but goes on at once."""
    monkeypatch.setattr(pauses, "MOST", 10)
    monkeypatch.setattr(pauses, "SECONDS", 0.3)

    def measured(*after_ms, names=("fp32",), number=1, device="cpu", wait=lambda s: None, **how):
        given = pack_model(Drowsy().eval()), BATCHES, names, torch.device(device)
        given += validate(warmup_iters=2), number, after_ms, wait
        found = [pauses.measure_process(*given, **how)]
        return pauses.Paused(found, names=names, pauses_ms=after_ms)

    return measured


@pytest.mark.parametrize("asleep", [True, False])
def test_what_was_idle_is_slower_and_what_did_not_wait_is_not(measure, asleep):
    paused = measure(0, 8, **{"wait": time.sleep} if asleep else {})
    none, eight = (paused.level("fp32", pause, "host", 0.5)[0] for pause in (0, 8))
    assert (np.median(paused.of("fp32", 8, "idle_ms")) > 7.9) == (eight - none > 2) == asleep
    assert np.median(paused.of("fp32", 8, "before_ms")) < 2  # it was at work until the pause


def test_pauses_come_in_a_random_order_of_their_process_as_often_as_there_is_time(measure):
    runs = [measure(0, 1, 500, number=number).runs("fp32")[0] for number in (1, 1, 2)]
    first, again, other = ([forward.pause_ms for forward in run] for run in runs)
    assert first == again != other != sorted(other)
    assert [first.count(pause) for pause in (0, 1, 500)] == [10, 10, pauses.FEWEST]


@pytest.mark.parametrize("before", [True, False])
def test_the_gpus_state_is_read_in_the_pause_if_there_is_room(measure, monkeypatch, before):
    waits = []
    monkeypatch.setattr(pauses, "sm_clock_mhz", lambda _: time.sleep(0.003) or 1980)
    paused = measure(1, 20, wait=lambda s: waits.append(1e3 * s), read_before=before)
    short, long = (np.median(paused.of("fp32", pause, "idle_ms")) for pause in (1, 20))
    assert (short < 2, long > 3, max(waits) < 17.1) == (True, before, before)
    assert set(paused.of("fp32", 1, "sm_mhz")[0]) == {1980}


def test_what_processes_gave_is_kept_and_what_failed_is_named(measure, monkeypatch, tmp_path):
    def answer(function, *given):
        if given[5] == 3:
            raise FreshProcessError("it was killed")
        return function(*given)

    monkeypatch.setattr(pauses, "in_fresh_process", answer)
    parameters = validate(warmup_iters=2, pauses_ms="1,0", results_dir=str(tmp_path))
    given = TinyNet().eval(), BATCHES, torch.device("cpu"), {"fp32": None, "cudagraph": None}, {}
    session = Session(parameters, SimpleNamespace(facts={}))
    assert pauses.measure_pauses(Candidates(validate(), *given), session) is None
    paused = pauses.measure_pauses(Candidates(parameters, *given), session)
    assert [[*process.runs] for process in paused.processes] == [["fp32"], ["fp32"]]
    assert ("cudagraph" in paused.processes[1].failed, "killed" in paused.stopped) == (True, True)
    session.keep("pauses", paused)
    kept = json.loads((session.folder / "pauses.json").read_text())["processes"][1]["runs"]["fp32"]
    assert [pauses.Forward(**forward) for forward in kept] == paused.runs("fp32")[1]
    session._state["finished"] = "now"
    with pytest.raises(ResultsError, match="complete"):
        pauses.measure_pauses(Candidates(parameters, *given), session)
    paused.processes.clear()
    assert plots.plot_pauses(paused, "cifar10") == display.UNMEASURED


def test_intervals_are_over_processes_and_a_p95_needs_enough_samples():
    random, paused = np.random.default_rng(0), pauses.Paused(names=("fp32",), pauses_ms=(0, 1000))
    for level in (2.0, 2.02, 2.04):
        samples = level * random.lognormal(0, 0.01, 200)
        run = [pauses.Forward(0, 0, 2, sample, 1.5, 1980, 0) for sample in samples]
        run += [pauses.Forward(1000, 1000, 2, 1.5 * level, 1.5, 345, 8)] * 5
        paused.processes.append(Contribution({"fp32": run}))
    table, figure = display.pause_table(paused), plots.plot_pauses(paused, "synthetic")
    drawn = {tuple(line.get_ydata()) for line in figure.axes[1].lines}
    for q in (0.50, 0.95):
        levels = paused.level("fp32", 0, "host", q)
        assert max(levels) > 1.015 * min(levels)
        assert {tuple(levels), display.process_interval(levels)} <= drawn
    told = table.loc[("fp32", "1000"), ["p95 hôte (ms)", "SM (MHz)", "État", "n"]]
    assert told.tolist() == [display.NOT_ESTIMABLE, "345,0", "P8", "5 · 5 · 5"]
    assert "fp32 × 1,5" in figure.get_suptitle()
    shorter = plots.plot_pauses(replace(paused, pauses_ms=(1000,)), "synthetic")
    legends = [{t.get_text() for t in f.legends[0].get_texts()} for f in (figure, shorter)]
    assert legends[0] - legends[1] == {"p95"}
    del paused.processes[2]
    assert display.NOT_ESTIMABLE in display.pause_table(paused).loc[("fp32", "0"), "p50 hôte (ms)"]


@pytest.mark.gpu
def test_both_clocks_and_the_state_after_each_pause_on_a_gpu(measure):
    paused = measure(0, 5, names=("fp32", "cudagraph"), device="cuda:0")
    for run in (paused.runs(name)[0] for name in ("fp32", "cudagraph")):
        assert all(0 < forward.gpu_ms < forward.host_ms for forward in run)
        assert all(forward.sm_mhz and forward.p_state is not None for forward in run)

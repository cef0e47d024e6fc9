"""The script that shows false alarms and power on a GPU, with clocks that are drawn."""

import json
import math
import time

import numpy as np

from tests.gpu import comparison
from tests.gpu.comparison import BLOCK, JOINED, ROUNDS, markdown, measure_all, summarise, write


def fakes(calls=None):
    """Clocks that read log-normal latencies, entry 1 later by what each kind injects."""
    random = np.random.default_rng(0)

    def clock(sd, shift):
        def measure(entry):
            if calls is not None:
                calls.append(entry)
            return (1 + shift * entry) * np.exp(sd * random.standard_normal(BLOCK))

        return measure

    return {
        "aa_host": clock(0.02, 0),
        "aa_gpu": clock(0.002, 0),
        "shift_gpu": clock(0.002, 0.01),
        "shift_host": clock(0.02, 0.03),
    }


def measured(monkeypatch, pairs=60, **settings):
    monkeypatch.setattr(comparison, "PAIRS", dict.fromkeys(comparison.PAIRS, pairs))
    settings = {"deadline": math.inf, "keep": lambda found: None} | settings
    return measure_all(fakes(), **settings)


def test_both_entries_are_measured_once_per_round_in_random_order(monkeypatch):
    monkeypatch.setattr(comparison, "PAIRS", {"aa_host": 5})
    calls = []
    found = measure_all({"aa_host": fakes(calls)["aa_host"]}, math.inf, lambda found: None)
    assert found["aa_host"].shape == (5, ROUNDS, 2, BLOCK)
    rounds = np.array(calls).reshape(-1, 2)
    assert (rounds.sum(axis=1) == 1).all()
    assert 25 < rounds[:, 0].sum() < 75


def test_what_was_measured_and_what_was_computed_is_said(monkeypatch):
    rows = summarise(measured(monkeypatch))
    told = {(r["clock"], r["what"], r["rounds"]): r for r in rows}
    assert len(told) == len(rows) == 12
    for clock in ("gpu", "host"):
        alarms = told[clock, "A/A", ROUNDS]
        assert alarms["comparisons"] == 60
        assert alarms["low"] <= 0.05 <= alarms["high"]
        assert told[clock, "A/A", JOINED * ROUNDS]["comparisons"] == 60 // JOINED
        for what in ("retard injecté", "retard calculé"):
            row = told[clock, what, JOINED * ROUNDS]
            assert row["found"] == row["comparisons"]
            assert row["median_ratio"] > 1.005
    assert "× 1,01" in told["gpu", "retard calculé", ROUNDS]["origin"]
    assert markdown(rows).count("\n") == len(rows) + 2


def test_no_pair_begins_after_the_deadline(monkeypatch):
    assert measured(monkeypatch, deadline=time.perf_counter()) == {}
    assert markdown([]) == ""


def test_samples_are_kept_after_each_kind_and_the_tables_written(monkeypatch, tmp_path):
    kept = []
    found = measured(monkeypatch, pairs=3, keep=lambda found: kept.append(list(found)))
    assert kept == [list(found)[:n] for n in (1, 2, 3, 4)]
    write(tmp_path, summarise(found), {"session": ["A/A : rien."], "level_ms": {"gpu": 1.3}})
    record = json.loads((tmp_path / "comparison.json").read_text("utf8"))
    assert record["level_ms"] == {"gpu": 1.3}
    assert len(record["rows"]) == 12
    told = (tmp_path / "comparison.md").read_text("utf8")
    assert "- A/A : rien." in told
    assert told.count("\n| ") == 7  # three pairs make no comparison end to end


def test_a_busy_wait_delays_by_no_less():
    start = time.perf_counter_ns()
    assert comparison.waiting(lambda x: x + 1, 2.0)(1) == 2
    assert time.perf_counter_ns() - start >= 2_000_000

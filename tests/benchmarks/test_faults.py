"""The fault injection's own parts that need no GPU: injectors that start and stop, the table."""

import gc
import json
import os
import time

import numpy as np
import pytest

from tests.interference.fault_table import EXPECTED, FRENCH, markdown
from tests.interference.faults import KINDS, GcStorm, Injector, SharedCore


def test_an_injector_works_while_it_is_on_and_ends_when_closed(tmp_path):
    injector = Injector("spin", tmp_path)
    try:
        assert injector.wait_ready(60) == ""
        injector.on()
        assert injector.alive
        injector.off()
    finally:
        injector.close()
    assert not injector.alive


def test_an_injector_that_dies_says_why(tmp_path):
    injector = Injector("no-such-kind", tmp_path)
    assert "KeyError: 'no-such-kind'" in injector.wait_ready(60)
    injector.close()


def test_sharing_a_core_is_undone(tmp_path):
    cores = os.sched_getaffinity(0)
    fault = SharedCore(tmp_path)
    try:
        assert fault.wait_ready(60) == ""
        fault.on()
        assert len(os.sched_getaffinity(0)) == 1
        fault.off()
    finally:
        fault.close()
    assert os.sched_getaffinity(0) == cores


def test_a_gc_storm_collects_and_ends():
    before, storm = gc.get_stats()[2]["collections"], GcStorm()
    storm.on()
    while gc.get_stats()[2]["collections"] == before:
        time.sleep(0.001)
    storm.off()
    assert not storm._thread.is_alive()


def run(kind, factor, tags=(), error="", seed=0):
    level = factor * (1 + 0.001 * np.random.default_rng(seed).random())
    clocks = {c: {"p95": level, "mean": level, "p50": level} for c in ("host", "gpu")}
    seen = {"look_ms": 5.0, "unseen": ["fréquence du cœur"], "sm_mhz": 1980, "values": {"gc": 0.0}}
    base = {"kind": kind, "tags": list(tags), "error": error, "first_ms": level}
    return base | {"observations": [seen]} | ({} if error else clocks)


@pytest.fixture
def report():
    clean = [run("clean", 1.0, seed=i) for i in range(50)]
    clean += [run("clean_process", 4.0, seed=i) for i in range(10)]
    clean[3]["tags"] = ["steal"]
    faults = [run(k, 2.0, EXPECTED[k], seed=i) for k in EXPECTED for i in range(10)]
    faults[0]["tags"] = ["gc"]  # another fault's tag does not count as a detection
    faults.append(run("gc_storm", 2.0, error="NotQueueableError: too busy"))
    noise = np.random.default_rng(1).normal(0, 1e-4, 20)
    pairs = [
        {
            "with": {"gpu": dict.fromkeys(("p50", "mean", "p95"), 1.3013 * (1 + e))},
            "without": {"gpu": dict.fromkeys(("p50", "mean", "p95"), 1.3)},
        }
        for e in noise
    ]
    facts = {"device": "cuda", "torch": "2", "wall_s": 1.0, "options": {"iterations": 100}}
    made = facts | {"runs": clean + faults, "pairs": pairs, "missing": {"gpu_full": "died"}}
    return json.loads(json.dumps(made))


def test_the_table_counts_detections_false_alarms_effects_and_refusals(report):
    table = markdown(report)
    row = next(line for line in table.splitlines() if FRENCH["gpu_full"] in line)
    assert "9/10" in row
    assert "55–100 %" in row
    assert row.count("p95 ×2,00") == 2
    assert "Fausses alarmes : 1 sur 60 runs propres (0–9 %)" in table
    cold = next(line for line in table.splitlines() if FRENCH["cold_start"] in line)
    assert cold.count("p95 ×0,5") == 2  # compared with runs in fresh processes, as it was
    storm = next(line for line in table.splitlines() if FRENCH["gc_storm"] in line)
    assert storm.rstrip().endswith("| 1 |")
    assert "gpu_full n'a pas pu être injectée : died" in table


def test_equivalence_is_shown_where_it_holds_and_not_where_it_does_not(report):
    assert "équivalent à ±0,5 %" in markdown(report)
    for pair in report["pairs"]:
        pair["with"]["gpu"] = {name: 1.1 * ms for name, ms in pair["with"]["gpu"].items()}
    assert "équivalence non montrée" in markdown(report)


def test_every_kind_of_injector_has_an_expectation():
    assert EXPECTED.keys() == FRENCH.keys()
    assert {kind for kind in KINDS if kind != "spin"} <= EXPECTED.keys()

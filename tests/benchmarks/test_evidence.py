"""The scripts of the evidence run on a CPU, and what they make of made-up processes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.comparison import agree
from benchmarks.host_clock import factorial
from benchmarks.quoted import ROOT
from benchmarks.repeatability import coverage

TWO = "--names fp32 channels_last --sittings 1 --processes 3"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "file", "key", "count"),
    [
        ("host_clock.factorial", "--samples 40 --limit 2", "processes", "processes", 2),
        ("repeatability.sessions", "--sessions 1 --iterations 20", "sessions_of_3", "sessions", 1),
        ("comparison.sittings", f"{TWO} --iterations 20", "sitting_1", "processes", 3),
        ("pauses.measure", "--names fp32 --processes 1 --iterations 20", "pauses", "processes", 1),
        ("interference.inject", "--rounds 1 --iterations 20", "interference", "runs", 12),
    ],
)
def test_every_script_runs_on_a_cpu(tmp_path, module, arguments, file, key, count):
    command = [sys.executable, "-m", f"benchmarks.{module}", str(tmp_path), "--device", "cpu"]
    subprocess.run([*command, *arguments.split()], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / f"{file}.json").read_text(encoding="utf8"))
    assert len(found[key]) == count
    assert found["environment"]["device"]
    assert not any(one.get("error") for one in found[key])


def test_sessions_that_agree_are_covered_and_one_far_away_is_not():
    near = [[1.30, 1.31, 1.32], [1.31, 1.32, 1.30], [1.32, 1.31, 1.30]]
    assert coverage.covered(near) == (6, 6)
    assert coverage.covered([*near, [1.9, 1.9001, 1.9002]]) == (6, 12)


def sitting(random, ratio: float, count: int = 6) -> list[dict]:
    """Processes that differ by 1 %, each with rounds that differ by 0.1 %."""
    levels = {"a": ratio * np.exp(0.01 * random.normal(size=count)), agree.CONTROL: [1.0] * count}
    rounds = {n: [v * np.exp(0.001 * random.normal(size=25)) for v in levels[n]] for n in levels}
    return [{"rounds": {"gpu": {name: rounds[name][i] for name in levels}}} for i in range(count)]


def test_intervals_over_processes_hold_what_those_of_one_process_miss():
    random = np.random.default_rng(0)
    same = agree.judge([sitting(random, 0.4) for _ in range(20)], "gpu")
    held, alone, _ = (np.mean(answers) for answers in same.values())
    assert held > 0.85
    assert alone < 0.4
    moved = agree.judge([sitting(random, ratio) for ratio in (0.4, 0.5)], "gpu")
    assert not any(next(iter(moved.values())))


def test_triples_of_the_factorial_stay_within_their_cell():
    cell, other = factorial.CELLS[:2]
    found = [{"cell": cell, "p95_ms": [1.0, level]} for level in (1.0, 1.05, 1.5, 1.51)]
    found += [{"cell": other, "p95_ms": [2.0, 2.0]}] * 3 + [{"cell": other, "error": "no"}]
    lines = factorial.table(found).splitlines()
    assert "| 4 | 1.275 | 38.1% | 42.3% | 0 of 2" in lines[3]
    assert "1 of 1" in lines[4]
    assert "| 7 |" in next(line for line in lines if line.startswith("| all | all | all | 2000"))

"""Against an earlier session: named mismatches, honest intervals, and a regression that fails."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from helpers.after.baseline import (
    BaselineError,
    baseline_sentences,
    changes_of,
    check_baseline,
    compare_baseline,
    enforce_baseline,
)
from tests.disk_session import MACHINE, row_of, write_session

BY_PROCESS = {"isolation": "process", "compare_processes": 6}
ONE_LEVEL = {"fp32": (1.3, 2.3)}
TWO_THREADS = {"machine": MACHINE | {"cpu": {"model": "A CPU", "torch_threads": 2}}}
OTHER_GPU = MACHINE | {"gpu": MACHINE["gpu"] | {"uuid": "GPU-2"}}


def series(level, rng):
    """60 samples of a process whose level is 0.5 % off (standard deviation)."""
    return level * np.exp(0.005 * rng.standard_normal() + 0.001 * rng.standard_normal(60))


def session(folder, name, levels=ONE_LEVEL, processes=3, machine=MACHINE, seed=0, **changes):
    """A session of {variant: (GPU, host) level in ms}; `changes` are of parameters or of rows."""
    rng = np.random.default_rng([seed, *name.encode()])
    parameters = BY_PROCESS | {k: changes.pop(k) for k in ("isolation", "model") if k in changes}
    changes = {"torch_version": machine["software"]["torch"], **changes}
    runs = [
        (row_of(host, gpu, run, variant=variant, **changes), {"host_ms": host, "gpu_ms": gpu})
        for variant, (gpu_level, host_level) in levels.items()
        for run in range(1, processes + 1)
        for host, gpu in [(series(host_level, rng), series(gpu_level, rng))]
    ]
    return write_session(folder, name, runs, machine, parameters)


def compare(tmp_path, now=ONE_LEVEL, before=ONE_LEVEL, ours=None, **theirs):
    stored = session(tmp_path, "before", before, **theirs)
    return compare_baseline(session(tmp_path, "now", now, **(ours or {})), stored)


def verdicts(comparison, to_reference=False):
    changes = [c for c in comparison.changes if c.to_reference == to_reference]
    return {(c.variant, c.clock): c.verdict for c in changes}


def test_levels_and_ratios_to_fp32_of_every_variant(tmp_path):
    """All of the second session is 10 % slower, and its fp16 as much faster beside it."""
    before = {"fp32": (1.3, 2.3), "tf32": (0.5, 2.3), "fp16": (0.4, 2.0), "fp32 (A/A)": (1, 2)}
    now = {"fp32": (1.43, 2.53), "tf32": (0.55, 2.53), "fp16": (0.4, 2.0), "fp32 (A/A)": (2, 4)}
    both = {"schedule": "randomised"}
    comparison = compare(tmp_path, now, before, both | {"processes": 6}, **both)
    assert comparison.same_gpu
    assert comparison.mismatches == ()
    for clock in ("gpu", "host"):
        level, ratio = verdicts(comparison), verdicts(comparison, to_reference=True)
        found = [level[name, clock] for name in ("fp32", "tf32", "fp16")]
        assert found == ["slower", "slower", "same"]
        assert {name: ratio.get((name, clock)) for name in before} == {
            **{"fp32": None, "tf32": "same", "fp16": "faster", "fp32 (A/A)": None}
        }
    (change,) = (c for c in comparison.changes if (c.variant, c.clock) == ("fp32", "gpu"))
    assert change.low < 1.1 < change.high
    assert change.processes == (6, 3)


def test_another_gpu_of_the_same_kind_widens_levels_but_no_ratio(tmp_path):
    levels, both = {"fp32": (1.3, 2.3), "fp16": (0.5, 2.3)}, {"schedule": "randomised"}
    same = compare(tmp_path / "same", levels, levels, both, **both).changes
    moved = compare(tmp_path / "moved", levels, levels, both, machine=OTHER_GPU, **both)
    for one, other in zip(same, moved.changes, strict=True):
        assert (other.high > 1.05 * one.high) == (not one.to_reference)
    first, *_, last = baseline_sentences(moved, 0.05)
    assert "ralentissement de plus de 5,0\N{NO-BREAK SPACE}% ni établi ni exclu" in first
    assert "pas de différence détectée" in baseline_sentences(moved, 1.0)[0]
    assert "Autre machine" in last


def test_equal_sessions_seldom_seem_to_differ():
    """At most 5 % of the pairs of equal sessions hold a false alarm, in any of their figures."""
    rng, pairs, alarms = np.random.default_rng(0), 1500, 0
    for _ in range(pairs):
        levels = np.exp(0.01 * rng.standard_normal((2, 8, 6)))
        two = ({(f"v{n}", "", "gpu", False): own for n, own in enumerate(one)} for one in levels)
        alarms += any(change.verdict != "same" for change in changes_of(*two, same_gpu=True))
    assert stats.binom.isf(0.99, pairs, 0.03) <= alarms <= stats.binom.isf(0.01, pairs, 0.05)


MISMATCHES = [
    ({"gpu_name": "NVIDIA A100"}, "gpu_name = NVIDIA H100 80GB HBM3 ici, NVIDIA A100 là-bas"),
    ({"cuda_version": ""}, "cuda_version = 13.0 ici, aucun là-bas"),
    ({"precision": "tf32"}, "fp32 (runs consécutifs) : precision = fp32 ici, tf32 là-bas"),
    ({"batch_size": 8}, "batch_size = 1 ici, 8 là-bas"),
    ({"device": "cpu"}, "device_type = cuda ici, cpu là-bas"),
    (TWO_THREADS | {"device": "cpu", "ours": {"device": "cpu"}}, "cpu = A CPU (1 fils) ici"),
    ({"before": {"fp16": (1, 2)}}, "fp32 (runs consécutifs) : processus (il en faut deux) = 3"),
    ({"isolation": "none"}, "processus (il en faut deux) = 3 ici, 1 là-bas"),
    ({"model": "resnet18", "ours": {"model": "vgg11"}}, "model = vgg11 ici, resnet18 là-bas"),
]


@pytest.mark.parametrize(("settings", "named"), MISMATCHES)
def test_a_mismatch_is_named_and_nothing_compared(tmp_path, settings, named):
    comparison = compare(tmp_path, **settings)
    assert comparison.changes == ()
    assert named in " ".join(baseline_sentences(comparison, 0.05))
    enforce_baseline(comparison, 0.05, strict=False)
    with pytest.raises(BaselineError, match="nothing here compares with before"):
        enforce_baseline(comparison, 0.05)


@pytest.mark.parametrize(("pids", "compared"), [((7, 7, 7), 0), ((7, 7, 8), 0), ((7, 8, 9), 2)])
def test_runs_that_share_a_process_despite_the_parameter_are_told_apart(tmp_path, pids, compared):
    """A model that no other process can build is measured in one: runs.json says so."""
    stored = session(tmp_path, "before")
    (stored / "runs.json").write_text(json.dumps([{"process": {"pid": pid}} for pid in pids]))
    assert len(compare_baseline(session(tmp_path, "now"), stored).changes) == compared


def test_only_a_regression_beyond_the_limit_fails_and_only_if_strict(tmp_path):
    now = {"fp32": (1.43, 1.8), "fp16": (0.5, 2.3)}  # the one that has no match stops no other
    comparison = compare(tmp_path, now, ours={"model": "resnet18"})
    gpu, host, other = baseline_sentences(comparison, 0.05)
    assert "Non comparable : fp16" in other
    pattern = r"fp32 \(runs consécutifs\), horloge GPU : plus lent que `before`, × 1,1\d+ \(.* 3\.$"
    assert re.match(pattern, gpu)
    assert "plus rapide que `before`" in host
    enforce_baseline(comparison, 0.15)
    enforce_baseline(comparison, 0.05, strict=False)
    with pytest.raises(BaselineError, match=r"max_regression=0.05: fp32 \(consecutive, gpu\)"):
        enforce_baseline(comparison, 0.05)


def rewritten(change):
    return lambda path: np.savez_compressed(path, **change(dict(np.load(path))))


DAMAGE = {  # the file, what is done to it, what is told
    "A4 missing": ("run_2.npz", Path.unlink, r"run_2\.npz"),
    "A4 truncated": ("run_2.npz", lambda path: os.truncate(path, 100), r"run_2\.npz"),
    "A9 another": ("run_2.npz", rewritten(lambda s: {n: s[n] * 1.01 for n in s}), r"run_2\.npz"),
    "processes": ("runs.json", lambda path: path.write_text("[3]"), ""),
    "not complete": ("session.json", lambda path: path.write_text('{"state": ""}'), "to the end"),
    "not there": ("session.json", lambda path: shutil.rmtree(path.parent), r"session\.json"),
}


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGE.values(), ids=DAMAGE)
def test_a_baseline_is_checked_whole_before_anything_is_measured(tmp_path, name, damage, told):
    """Attacks A4 and A9: every sample file is read, and must give the figures of its row."""
    stored = session(tmp_path, "before")
    check_baseline(stored)
    damage(stored / name)
    with pytest.raises(BaselineError, match=rf"^baseline='.*{told}"):
        check_baseline(stored)

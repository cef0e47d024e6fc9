"""Against an earlier session: named mismatches, honest intervals, and a regression that fails."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from fakes import make_result

from helpers.after.baseline import (
    BaselineError,
    baseline_sentences,
    check_baseline,
    compare_baseline,
    enforce_baseline,
)
from helpers.annex.comparison.stats import FASTER, SAME, SLOWER
from helpers.parameters import Parameters
from helpers.results import open_session
from helpers.results.rows import run_row, run_samples

REFERENCE = Path(__file__).parents[1] / "results" / "reference_h100"
MACHINE = {
    "gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"},
    "software": {"torch": "2.11.0+cu130"},
    "cuda": {"torch_cuda": "13.0"},
}
ONE_LEVEL = {"fp32": (1.3, 2.3)}
CLOCKS = ("host_consecutive", "gpu")


def series(level, seed, sd=0.002):
    return level * np.exp(sd * np.random.default_rng(seed).standard_normal(60))


def runs_of(levels, runs=3, gpu=True, **changes):
    """{variant: results} around (GPU, host) levels in ms."""
    return {
        variant: [
            make_result(series(host, run, 0.02), series(gpu_ms, run) if gpu else None, **changes)
            for run in range(runs)
        ]
        for variant, (gpu_ms, host) in levels.items()
    }


def session(folder, name, measured=None, machine=MACHINE, complete=True, model=None, **parameters):
    """Write a session and return its folder."""
    recording = open_session(folder, name)
    recording.save_environment(machine)
    for variant, results in (measured or runs_of(ONE_LEVEL)).items():
        for run, result in enumerate(results, start=1):
            row = run_row(
                result,
                run=run,
                parameters=Parameters(**parameters),
                environment=machine,
                dataset="synthetic",
                accuracy=0.1,
                eval_images=100,
                session=name,
                variant=variant,
            )
            recording.add_run(row, run_samples(result))
    recording.save_json("verdict", {"sentences": ["ACCEPTÉ"]})
    if model:
        recording.save_json("parameters", {"model": model})
    if complete:
        recording.complete()
    return recording.folder


def compare(tmp_path, now, before=None, **settings):
    stored = session(tmp_path, "before", before, **settings)
    return compare_baseline(session(tmp_path, "now", now, complete=False), stored)


def verdicts(comparison):
    return {(c.variant, c.clock): c.verdict for c in comparison.changes}


def test_both_clocks_of_every_variant_on_the_same_gpu(tmp_path):
    before = runs_of({"fp32": (1.3, 2.3), "fp16": (0.5, 2.3), "compile": (0.2, 0.3)})
    now = runs_of({"fp32": (1.302, 2.4), "fp16": (0.4, 2.3), "compile": (0.25, 0.6)})
    comparison = compare(tmp_path, now, before)
    assert comparison.same_gpu
    assert comparison.mismatches == ()
    assert verdicts(comparison) == {
        ("fp32", "gpu"): SAME,
        ("fp32", "host"): SAME,  # 4 %: sessions differ by more on this clock
        ("fp16", "gpu"): FASTER,
        ("fp16", "host"): SAME,
        ("compile", "gpu"): SLOWER,
        ("compile", "host"): SLOWER,
    }
    (change,) = (c for c in comparison.changes if (c.variant, c.clock) == ("compile", "gpu"))
    assert change.ratio == pytest.approx(1.25, rel=0.001)
    assert change.low < 1.25 < change.high
    assert change.runs == (3, 3)


def test_a_comparisons_controls_are_no_variants(tmp_path):
    levels = {"fp32": (1.3, 2.3), "fp32 (A/A)": (1.3, 2.3), "fp32 (copie 1)": (1.5, 2.9)}
    comparison = compare(tmp_path, runs_of(levels), runs_of({"fp32": (1.3, 2.3)}))
    assert set(verdicts(comparison)) == {("fp32", "gpu"), ("fp32", "host")}
    assert comparison.mismatches == ()


def test_another_gpu_of_the_same_kind_widens_the_interval(tmp_path):
    other = MACHINE | {"gpu": MACHINE["gpu"] | {"uuid": "GPU-2"}}
    same = compare(tmp_path / "same", runs_of({"fp32": (1.36, 2.3)}))
    moved = compare(tmp_path / "moved", runs_of({"fp32": (1.36, 2.3)}), machine=other)
    assert verdicts(same)["fp32", "gpu"] == SLOWER
    assert verdicts(moved)["fp32", "gpu"] == SAME
    assert "un autre GPU" in baseline_sentences(moved)[-1]


def test_variants_share_the_chance_of_a_false_alarm(tmp_path):
    many = runs_of({f"v{i}": (1.3, 2.3) for i in range(9)})
    alone = compare(tmp_path / "1", runs_of(ONE_LEVEL)).changes[0]
    among = compare(tmp_path / "9", many, many).changes[0]
    assert among.high - among.low > 1.2 * (alone.high - alone.low)


def test_runs_that_disagree_widen_the_interval(tmp_path):
    def scattered(levels):
        return {"fp32": [make_result(series(2.3, i), series(g, i)) for i, g in enumerate(levels)]}

    steady = compare(tmp_path / "a", scattered([1.4, 1.4, 1.4]), scattered([1.3, 1.3, 1.3]))
    loose = compare(tmp_path / "b", scattered([1.2, 1.4, 1.6]), scattered([1.3, 1.3, 1.3]))
    assert (verdicts(steady)["fp32", "gpu"], verdicts(loose)["fp32", "gpu"]) == (SLOWER, SAME)


def test_processes_of_one_sitting_are_not_told_apart_on_their_gpu(tmp_path):
    """Committed H100 samples: the model's place in memory differs, the work does not."""
    folders = []
    with np.load(REFERENCE / "sitting_2" / "samples.npz") as stored:
        for process in range(8):
            runs = [
                make_result(*(stored[f"repeat/{process}/{clock}_{run}"] for clock in CLOCKS))
                for run in range(3)
            ]
            folders.append(session(tmp_path, f"p{process}", {"fp32": runs}))
    found = [
        c.verdict for pair in combinations(folders, 2) for c in compare_baseline(*pair).changes
    ]
    assert len(found) == 56
    assert sum(verdict != SAME for verdict in found) <= 0.1 * len(found)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"machine": MACHINE | {"gpu": {"name": "NVIDIA A100", "uuid": "x"}}},
            "gpu_name = NVIDIA H100 80GB HBM3 ici, NVIDIA A100 dans la référence",
        ),
        ({"machine": MACHINE | {"software": {"torch": "2.9.0"}}}, "torch_version = 2.11.0+cu130"),
        ({"machine": MACHINE | {"cuda": {"torch_cuda": None}}}, "aucun dans la référence"),
        (
            {"before": runs_of(ONE_LEVEL, precision="tf32")},
            "fp32 (runs consécutifs) : precision = fp32 ici, tf32 dans la référence",
        ),
        ({"before": runs_of(ONE_LEVEL, batch_size=8)}, "batch_size = 1 ici, 8 dans"),
        ({"before": runs_of(ONE_LEVEL, input_shape=(1, 3, 64, 64))}, "1x3x64x64 dans"),
        ({"before": runs_of(ONE_LEVEL, device="cpu")}, "device_type = cuda ici, cpu dans"),
        ({"before": runs_of({"fp16": (1, 2)})}, "fp32 (runs consécutifs) : absent de la session"),
        ({"schedule": "interleaved"}, "fp32 (runs consécutifs) : absent de la session"),
        ({"before": runs_of(ONE_LEVEL, runs=1)}, "fp32 (runs consécutifs) : moins de deux runs"),
    ],
)
def test_a_mismatch_is_named_and_nothing_compared(tmp_path, settings, named):
    comparison = compare(tmp_path, None, **settings)
    assert comparison.changes == ()
    assert named in " ; ".join(comparison.mismatches)
    assert all(told.startswith("Non comparable : ") for told in baseline_sentences(comparison))
    with pytest.raises(BaselineError, match="can be compared with before"):
        enforce_baseline(comparison, 0.05)


def test_variants_that_match_are_compared_beside_one_that_does_not(tmp_path):
    now = runs_of(ONE_LEVEL) | runs_of({"fp16": (0.5, 2.3)})
    comparison = compare(tmp_path, now, runs_of(ONE_LEVEL))
    assert set(verdicts(comparison)) == {("fp32", "gpu"), ("fp32", "host")}
    assert comparison.mismatches == ("fp16 (runs consécutifs) : absent de la session de référence",)


def test_another_model_is_named_where_both_sessions_say_which(tmp_path):
    stored = session(tmp_path, "before", model="resnet18_cifar")
    unnamed = compare_baseline(session(tmp_path, "old"), stored)
    named = compare_baseline(session(tmp_path, "now", model="resnet18"), stored)
    assert len(unnamed.changes) == 2
    assert named.mismatches == ("model = resnet18 ici, resnet18_cifar dans la référence",)


def test_a_session_without_gpu_clock_is_compared_on_the_hosts(tmp_path):
    cpu = MACHINE | {"gpu": None}
    measured = runs_of(ONE_LEVEL, gpu=False)
    stored = session(tmp_path, "before", measured, cpu)
    comparison = compare_baseline(session(tmp_path, "now", measured, cpu), stored)
    assert verdicts(comparison) == {("fp32", "host"): SAME}
    assert not comparison.same_gpu


def test_sentences_say_ratio_runs_and_what_runs_cannot_tell(tmp_path):
    comparison = compare(tmp_path, runs_of({"fp32": (1.5, 2.3)}))
    gpu, host, limits = (
        told.replace("\N{NO-BREAK SPACE}", " ") for told in baseline_sentences(comparison)
    )
    assert gpu.startswith(
        "fp32 (runs consécutifs), horloge GPU : plus lent que `before`, rapport 1,15"
    )
    assert "pas de différence détectée avec `before`" in host
    assert gpu.endswith("3 runs contre 3.")
    assert "0,60 % (horloge GPU) et 11 % (horloge hôte)" in limits


def test_a_regression_beyond_the_limit_fails_only_if_strict(tmp_path):
    comparison = compare(tmp_path, runs_of({"fp32": (1.43, 2.3)}))
    enforce_baseline(comparison, 0.15)
    enforce_baseline(comparison, 0.05, strict=False)
    with pytest.raises(
        BaselineError, match=r"max_regression=0.05: fp32 \(consecutive, gpu clock\) "
    ):
        enforce_baseline(comparison, 0.05)


def test_what_is_faster_or_not_detected_never_fails(tmp_path):
    enforce_baseline(compare(tmp_path, runs_of({"fp32": (1.0, 2.6)})), 0)


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_limit_that_means_nothing_is_refused(tmp_path, limit):
    comparison = compare(tmp_path, None)
    with pytest.raises(ValueError, match="max_regression"):
        enforce_baseline(comparison, limit)


def test_an_unfinished_baseline_is_refused_before_anything_is_measured(tmp_path):
    folder = session(tmp_path, "before", complete=False)
    with pytest.raises(BaselineError, match=r"'running', not complete.*give the folder"):
        check_baseline(folder)
    check_baseline(session(tmp_path, "whole"))


def test_a_name_that_lies_in_results_is_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session(tmp_path / "results", "before")
    with pytest.raises(BaselineError, match="no such folder, did you mean 'results/before'"):
        check_baseline("before")


def test_what_is_no_session_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(BaselineError, match="give the folder of a complete session"):
            check_baseline(folder)
    stored = session(tmp_path, "before")
    with pytest.raises(BaselineError, match="holds no session's results"):
        compare_baseline(tmp_path / "empty", stored)


def test_damaged_files_are_named(tmp_path):
    stored, now = session(tmp_path, "before"), session(tmp_path, "now")
    (stored / "run_2.npz").write_bytes(b"no archive")
    with pytest.raises(BaselineError, match=r"before lacks samples: .*run_2\.npz"):
        compare_baseline(now, stored)
    (now / "environment.json").write_text("{", encoding="utf8")
    with pytest.raises(BaselineError, match="now holds no session's results"):
        compare_baseline(now, session(tmp_path, "other"))


def test_the_committed_reference_compares_with_itself():
    folder = REFERENCE / "session"
    comparison = compare_baseline(folder, folder)
    assert set(verdicts(comparison).values()) == {SAME}
    machine = json.loads((folder / "environment.json").read_text(encoding="utf8"))
    assert comparison.same_gpu == bool(machine["gpu"]["uuid"])

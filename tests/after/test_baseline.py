"""Against an earlier session: named mismatches, honest intervals, and a regression that fails."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import make_result
from stored_session import MACHINE, ONE_LEVEL, runs_of, series, session

from helpers.after.baseline import (
    BaselineError,
    baseline_problem,
    baseline_sentences,
    check_baseline,
    compare_baseline,
    enforce_baseline,
)
from helpers.annex.comparison.stats import FASTER, SAME, SLOWER
from helpers.results import load_samples

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference_h100"


def compare(tmp_path, now, before=None, **settings):
    stored = session(tmp_path, "before", before, **settings)
    return compare_baseline(session(tmp_path, "now", now), stored)


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


def test_a_name_that_lies_in_results_is_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session(tmp_path / "results", "before")
    with pytest.raises(BaselineError, match="no such folder, did you mean 'results/before'"):
        check_baseline("before")


def test_the_committed_reference_compares_with_itself():
    folder = REFERENCE
    comparison = compare_baseline(folder, folder)
    assert set(verdicts(comparison).values()) == {SAME}
    machine = json.loads((folder / "environment.json").read_text(encoding="utf8"))
    assert comparison.same_gpu == bool(machine["gpu"]["uuid"])


def _missing(path):
    path.unlink()


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _with_samples(**changes):
    def change(path):
        arrays = load_samples(path)
        for name, made in changes.items():
            arrays[name] = made(arrays[name].copy())
        np.savez_compressed(path, **{n: v for n, v in arrays.items() if v is not None})

    return change


def _first(value):
    def change(samples):
        samples[0] = value
        return samples

    return change


DAMAGE = {
    "A4 missing": (_missing, "run_2.npz"),
    "A4 truncated": (_truncated, "holds no samples"),
    "A4 zero": (_with_samples(host_ms=_first(0.0)), "host_ms: a sample is 0"),
    "A4 NaN": (_with_samples(gpu_ms=_first(np.nan)), "gpu_ms: a sample is 0, negative or not fin"),
    "A9 without host_ms": (_with_samples(host_ms=lambda _: None), "host_ms: .* missing"),
    "A9 one sample": (_with_samples(gpu_ms=lambda s: s[:1]), "gpu_ms: .* shape is .1,."),
    "A9 contradiction": (_with_samples(host_ms=lambda s: s * 1.01), "mean is .* ms, their row"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_baseline_is_checked_whole_before_anything_is_measured(tmp_path, damage, named):
    """Attacks A4 and A9: every sample file is read, and must give the figures of its row."""
    stored = session(tmp_path, "before")
    assert baseline_problem(stored) is None
    damage(stored / "run_2.npz")
    assert re.search(rf"run_2\.npz.*{named}|{named}", baseline_problem(stored))
    with pytest.raises(BaselineError, match=r"^baseline='.*run_2\.npz"):
        check_baseline(stored)
    with pytest.raises(BaselineError, match=r"run_2\.npz"):
        compare_baseline(session(tmp_path, "now"), stored)


def test_a_baseline_that_is_not_complete_or_not_there_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "not complete" in baseline_problem(session(tmp_path, "running", complete=False))
    assert "session.json" in baseline_problem(tmp_path / "empty")
    assert "no such folder" in baseline_problem(tmp_path / "missing")


def test_the_notebook_publishes_before_it_compares():
    """Attack A4: what is measured is published, whatever the comparison finds."""
    cells = json.loads((ROOT / "J1_benchmark.ipynb").read_text(encoding="utf8"))["cells"]
    order = [cell["id"] for cell in cells]
    assert order.index("session") < order.index("publish") < order.index("baseline")
    assert order.index("baseline") < order.index("strict")

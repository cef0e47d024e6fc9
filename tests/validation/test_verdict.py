import re
from dataclasses import replace

import numpy as np
import pytest
from fakes import AS_REQUIRED, make_result

from helpers import bench_latency, clocks
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.display.verdict import (
    NO_GPU_CLOCK,
    AcceptanceError,
    enforce,
    headline,
    verdict_markdown,
    verdict_sentences,
)
from helpers.validation import judge

RECEIPT = CalibrationReceipt((), None, "")
CLEAN = ForwardProfile(10, 68.0, 1.19, 0, 0, ("sgemm",))
FORM = r"(ACCEPTÉ|NON ACCEPTÉ) — horloge (GPU|hôte) : écart du p95 .+ [<≥] .+ \d+ runs"


def samples(level, seed=0):
    return level * (1 + 0.01 * np.random.default_rng(seed).standard_normal(500))


def validation(levels=(2.0, 2.8, 2.2), **settings):
    return judge([make_result(samples(level), samples(1.3)) for level in levels], **settings)


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({}, "ACCEPTÉ — horloge GPU"),
        ({"clock": "host"}, "NON ACCEPTÉ — horloge hôte"),
    ],
)
def test_one_form_whatever_the_outcome(settings, begins):
    line = headline(validation(**settings))
    assert line.startswith(begins)
    assert re.fullmatch(FORM, line)


def test_both_clocks_are_shown_and_the_unmet_one_has_causes():
    text = "\n".join(verdict_sentences(validation(), RECEIPT, CLEAN))
    assert "Horloge GPU (décide)" in text
    assert "Horloge hôte : p95" in text
    assert "critère non tenu :\n  - l'horloge hôte mesure surtout Python" in text
    assert "aucune (10 passages profilés)" in text


def test_copies_in_the_loop_are_shouted():
    copying = ForwardProfile(10, 68.0, 1.19, 20, 10, ("sgemm",))
    text = "\n".join(verdict_sentences(validation(), RECEIPT, copying))
    assert "ATTENTION" in text
    assert "20 vers le GPU, 10 vers l'hôte" in text


def test_a_missing_gpu_clock_and_calibration_are_said():
    results = [make_result(samples(2.0, i), gpu_unavailable=clocks.WAITS_INSIDE) for i in range(2)]
    receipt = CalibrationReceipt((), None, "no compiler")
    text = "\n".join(verdict_sentences(judge(results), receipt, None))
    assert "Pas d'horloge GPU : le modèle attend le GPU pendant" in text
    assert "pas d'étalonnage possible" in text
    assert "no compiler" in text


def test_every_reason_for_no_gpu_clock_has_its_french():
    reasons = (bench_latency.NO_GPU, bench_latency.NOT_ASKED, bench_latency.NO_KERNELS)
    reasons += (clocks.LAUNCHES_BLOCK, clocks.QUEUE_TOO_SHORT)
    assert NO_GPU_CLOCK.keys() == {*reasons, clocks.WAITS_INSIDE, clocks.HOST_TOO_SLOW}


def test_an_error_of_the_gate_is_quoted():
    why = "OSError: CUDA_HOME environment variable is not set"
    broken = {"gpu_unavailable": bench_latency.NO_KERNELS, "gpu_unavailable_why": why}
    results = [make_result(samples(2.0, i), **broken) for i in range(2)]
    assert why in "\n".join(verdict_sentences(judge(results), RECEIPT, None))


def test_a_contradicted_gpu_clock_is_said_with_both_figures():
    results = [make_result(samples(2.0, i), samples(0.003, i)) for i in range(3)]
    found = judge(results, profile=CLEAN)
    text = "\n".join(verdict_sentences(found, RECEIPT, CLEAN))
    assert "horloge hôte" in headline(found)
    assert "CONTREDITE" in text
    assert "1,190 ms" in text


def test_copies_that_could_not_be_seen_are_not_called_none():
    text = "\n".join(verdict_sentences(validation(), RECEIPT, None, unseen="RuntimeError: CUPTI"))
    assert "non observables (profileur : RuntimeError: CUPTI)" in text


def test_the_verdict_is_a_title_and_a_list():
    sentences = verdict_sentences(validation(), RECEIPT, CLEAN)
    lines = verdict_markdown(sentences).splitlines()
    assert lines[0] == f"### {sentences[0]}"
    assert all(line.startswith(("- ", "  - ")) for line in lines[2:])


def test_strict_makes_a_missed_criterion_an_error():
    enforce(validation(), strict=True)
    enforce(validation(clock="host"), strict=False)
    with pytest.raises(AcceptanceError, match=r"NON ACCEPTÉ.*strict"):
        enforce(validation(clock="host"), strict=True)


def test_tf32_forced_from_outside_is_said(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    forced = replace(AS_REQUIRED, tf32_matmul=True)
    results = [make_result(samples(2.0, i), samples(1.3, i), conditions=forced) for i in range(3)]
    text = "\n".join(verdict_sentences(judge(results), RECEIPT, CLEAN))
    assert "produits matriciels" in text
    assert "NVIDIA_TF32_OVERRIDE=1" in text
    assert "conditions" not in "\n".join(verdict_sentences(validation(), RECEIPT, CLEAN))

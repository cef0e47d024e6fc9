import re
from dataclasses import replace

import numpy as np
import pytest
from displayed import CPU_LOAD, PROFILE, RECEIPT, THROTTLE, run, tagged
from fakes import AS_REQUIRED

from helpers import clocks
from helpers.bench_latency import NO_KERNELS
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.graph import GraphReading
from helpers.clocks.profiling import ForwardProfile
from helpers.display.verdict import (
    HEADLINE,
    bound_sentence,
    disturbances,
    launch_cost,
    verdict_sentences,
    verdict_text,
)
from helpers.validation import judge

RUNS = [run(seed, host) for seed, host in enumerate((2.0, 2.8, 2.2))]


def text_of(runs, receipt=RECEIPT, profile=PROFILE, unseen="", **settings):
    return "\n".join(verdict_sentences(judge(runs, **settings), receipt, profile, unseen))


@pytest.mark.parametrize(
    ("runs", "settings", "outcome", "says"),
    [
        (RUNS, {}, "ACCEPTÉ — horloge GPU", " < 10"),
        (RUNS, {"clock": "host"}, "NON ACCEPTÉ — horloge hôte", " ≥ 10"),
        ([run(seed, gpu=None) for seed in range(3)], {}, "ACCEPTÉ — horloge hôte", "refaite"),
        (
            [run(0), run(1, warmup=replace(RUNS[0].warmup, steady=False)), run(2)],
            {},
            "ACCEPTÉ SOUS RÉSERVE — horloge GPU",
            "mesures perturbées : échauffement non stabilisé",
        ),
    ],
)
def test_one_form_whatever_the_outcome(runs, settings, outcome, says):
    line = verdict_sentences(judge(runs, **settings), RECEIPT, PROFILE)[0]
    assert line.startswith(outcome)
    assert says in line
    assert HEADLINE.fullmatch(line)


def test_where_a_further_session_would_land_stands_in_the_headline():
    verdict = judge(RUNS)
    low, high = (f"{ms:.3f}".replace(".", ",") for ms in verdict.clocks["gpu"].further)
    headline = verdict_sentences(verdict, RECEIPT, PROFILE)[0]
    assert f"refaite, la session donnerait {low} – {high} ms" in headline


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        (RUNS[:2], "Moins de trois runs"),
        ([replace(one, process=RUNS[0].process) for one in RUNS], "ignorent les autres processus"),
    ],
)
def test_an_interval_that_knows_no_other_process_says_so(runs, why):
    text = text_of(runs)
    assert "refaite, la session" not in text
    assert why in text


def test_both_clocks_are_shown_and_the_unmet_one_has_causes():
    text = text_of(RUNS)
    assert "Horloge GPU (décide) : p95" in text
    assert re.search(r"Horloge hôte : .*critère non tenu.* :\n  - l'horloge hôte mesure", text)


def test_a_cause_of_several_runs_is_said_once_with_its_runs():
    walk = 1.3 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.001
    slow = [replace(run(n), gpu=replace(RUNS[0].gpu, samples_ms=walk)) for n in range(3)]
    found = [line for line in text_of(slow).splitlines() if "trop peu d'échantillons" in line]
    assert found == [
        "  - run 1, 2, 3 : trop peu d'échantillons indépendants pour un intervalle du p95"
    ]


@pytest.mark.parametrize(
    ("profile", "unseen", "told"),
    [
        (PROFILE, "", "aucune (10 passages profilés)"),
        (ForwardProfile(10, 68.0, 1.19, 20, 10, ()), "", "ATTENTION, copies hôte↔GPU"),
        (None, "RuntimeError: CUPTI", "non observables (profileur : RuntimeError: CUPTI)"),
        (None, "", "sans objet"),
    ],
)
def test_copies_are_shouted_and_what_was_not_seen_is_not_called_none(profile, unseen, told):
    assert told in text_of(RUNS, profile=profile, unseen=unseen)


def test_a_missing_gpu_clock_and_calibration_are_said():
    why = {"no_gpu_clock": clocks.WAITS_INSIDE}
    runs = [run(0, gpu=None, **why), run(1, gpu=None, **why)]
    text = text_of(runs, CalibrationReceipt((), None, "no compiler"), None)
    assert text.count("Pas d'horloge GPU : le modèle attend le GPU pendant") == 1
    assert "pas d'étalonnage possible sur cette plateforme (no compiler)" in text


def test_an_error_of_the_gate_is_quoted():
    why = "OSError: CUDA_HOME {is} not set"
    broken = {"no_gpu_clock": NO_KERNELS, "no_gpu_clock_why": why}
    assert why in text_of([run(seed, gpu=None, **broken) for seed in range(2)])


def test_a_contradicted_gpu_clock_is_said_with_both_figures():
    text = text_of([run(seed, gpu=0.003) for seed in range(3)], profile=PROFILE)
    assert "horloge hôte" not in text_of(RUNS).splitlines()[0]
    assert "CONTREDITE" not in text_of(RUNS)
    found = judge([run(seed, gpu=0.003) for seed in range(3)], profile=PROFILE)
    text = "\n".join(verdict_sentences(found, RECEIPT, PROFILE))
    assert "horloge hôte" in text.splitlines()[0]
    assert "CONTREDITE" in text
    assert "1,190 ms" in text


def test_conditions_that_the_precision_does_not_allow_are_said(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    forced = replace(AS_REQUIRED, tf32_matmul=True)
    text = text_of([run(seed, conditions=forced) for seed in range(3)])
    assert "TF32 dans les produits matriciels : oui" in text
    assert "NVIDIA_TF32_OVERRIDE=1" in text
    assert "conditions de précision" not in text_of(RUNS)


def test_the_worst_of_each_disturbance_is_said_with_its_blocks():
    worse = replace(CPU_LOAD, value=0.9, values={"share": 0.9, "cpus": 16})
    seen = [
        tagged(steady_power_cap=True),
        tagged((CPU_LOAD,), (), (worse, THROTTLE), idle_foreigners=2),
        tagged(*[(THROTTLE,)] * 5),
    ]
    told = disturbances(seen, "les runs").replace("\N{NO-BREAK SPACE}", " ")
    assert "90 % des 16 cœurs logiques (run 2, bloc 1, 3 sur 5)" in told
    assert told.count("bridée") == 2
    assert "sans calcul : 2 (run 2)" in told
    assert told.count("limite de puissance du GPU atteinte en permanence") == 1
    assert disturbances([tagged()], "les runs").endswith("aucune constatée")


def test_what_could_not_be_seen_is_not_called_clean():
    hidden = replace(judge(RUNS), seen=(tagged(unseen=("throttle",)),) * 3)
    assert "Non observable ici : GPU bridé." in verdict_sentences(hidden, RECEIPT, PROFILE)


def test_the_cost_of_a_launch_over_the_processes():
    graphs = [GraphReading(np.full(100, run.gpu.p50 - gap), 50.0) for run, gap in
              zip(RUNS, (0.10, 0.11, 0.12), strict=True)]  # fmt: skip
    runs = [replace(one, graph=graph) for one, graph in zip(RUNS, graphs, strict=True)]
    assert "2,000 à 2,400 µs" in launch_cost(runs)
    assert launch_cost(runs) in text_of(runs)
    none = [replace(one, graph=GraphReading(None, None, "cannot capture")) for one in RUNS]
    assert "(cannot capture)" in launch_cost(none)
    assert launch_cost(RUNS) == ""


def test_what_bounds_a_forward():
    assert bound_sentence(RUNS, PROFILE).startswith("Limitée par les lancements")
    assert "68 noyaux" in bound_sentence([run(host=1.3)], PROFILE)
    assert bound_sentence([run(gpu=None)], None).startswith("Pas d'horloge GPU")


def test_the_verdict_is_a_title_and_a_list():
    sentences = verdict_sentences(judge(RUNS), RECEIPT, PROFILE)
    lines = verdict_text(sentences).splitlines()
    assert lines[0] == f"### {sentences[0]}"
    assert all(line.startswith(("- ", "  - ")) for line in lines[2:])

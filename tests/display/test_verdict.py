from dataclasses import replace

import numpy as np
import pytest
from displayed import CPU_LOAD, PROFILE, RECEIPT, THROTTLE, run, tagged
from fakes import AS_REQUIRED

from helpers import clocks
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.graph import GraphReading
from helpers.clocks.profiling import ForwardProfile
from helpers.display import verdict as told
from helpers.validation import judge

RUNS = [run(seed, host) for seed, host in enumerate((2.0, 2.8, 2.2))]
UNSTEADY = replace(RUNS[0].warmup, steady=False)
ONE_PROCESS = [replace(one, process=RUNS[0].process) for one in RUNS]
WALK = 1.3 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.001


def text_of(runs, receipt=RECEIPT, profile=PROFILE, unseen="", **settings):
    verdict = judge(runs, profile=profile, **settings)
    return "\n".join(told.verdict_sentences(verdict, receipt, profile, unseen))


@pytest.mark.parametrize(
    ("runs", "settings", "outcome", "says"),
    [
        (RUNS, {}, "ACCEPTÉ — horloge GPU", " < 10"),
        (RUNS, {"clock": "host"}, "NON ACCEPTÉ — horloge hôte", " ≥ 10"),
        ([run(n, gpu=None) for n in range(2)], {}, "ACCEPTÉ — horloge hôte", "sur 2 runs"),
        ([*RUNS, run(warmup=UNSTEADY)], {}, "ACCEPTÉ SOUS RÉSERVE —", ": échauffement non stab"),
    ],
)
def test_one_form_whatever_the_outcome(runs, settings, outcome, says):
    line = text_of(runs, **settings).splitlines()[0]
    assert told.HEADLINE.fullmatch(line)
    assert line.startswith(outcome)
    assert says in line


def test_where_a_further_session_would_land_or_why_nobody_knows():
    low, high = (f"{ms:.3f}".replace(".", ",") for ms in judge(RUNS).clocks["gpu"].further)
    assert f"refaite, la session donnerait {low} – {high} ms" in text_of(RUNS).splitlines()[0]
    for runs, why in ((RUNS[:2], "Moins de trois runs"), (ONE_PROCESS, "Un seul processus")):
        assert "refaite, la session" not in text_of(runs)
        assert why in text_of(runs)


def test_the_unmet_clock_has_its_causes_and_those_of_several_runs_are_said_once():
    runs = [replace(one, gpu=replace(one.gpu, samples_ms=WALK)) for one in RUNS]
    _, gpu, host, *_ = told.verdict_sentences(judge(runs), RECEIPT, PROFILE)
    assert gpu.startswith("Horloge GPU (décide) : p95")
    assert gpu.count("run 1, 2, 3 : trop peu d'échantillons indépendants") == 1
    assert "critère non tenu :\n  - l'horloge hôte mesure surtout Python" in host


@pytest.mark.parametrize(
    ("profile", "unseen", "says"),
    [
        (PROFILE, "", "aucune (10 passages profilés)"),
        (ForwardProfile(10, 68.0, 1.19, 20, 10, ()), "", "ATTENTION, copies hôte↔GPU"),
        (None, "RuntimeError: CUPTI", "non observables (profileur : RuntimeError: CUPTI)"),
        (None, "", "sans objet"),
    ],
)
def test_copies_are_shouted_and_what_was_not_seen_is_not_called_none(profile, unseen, says):
    assert says in text_of(RUNS, profile=profile, unseen=unseen)


def test_what_is_wrong_with_clocks_and_conditions_is_said():
    runs = [run(n, gpu=None, no_gpu_clock=clocks.WAITS_INSIDE) for n in range(2)]
    text = text_of(runs, CalibrationReceipt((), None, "no {compiler}"), None)
    assert text.count("Pas d'horloge GPU : le modèle attend le GPU pendant") == 1
    assert "pas d'étalonnage possible sur cette plateforme (no {compiler})" in text
    forced = replace(AS_REQUIRED, tf32_matmul=True)
    text = text_of([run(seed, gpu=0.003, conditions=forced) for seed in range(3)])
    assert "CONTREDITE par les noyaux : elle lit 0,003" in text
    assert "TF32 dans les produits matriciels : oui" in text
    assert "conditions de précision" not in text_of(RUNS)


def test_the_worst_of_each_disturbance_is_said_with_its_blocks_and_what_is_hidden():
    worse = replace(CPU_LOAD, value=0.9, values={"share": 0.9, "cpus": 16})
    second = tagged((CPU_LOAD,), (), (worse, THROTTLE), idle_foreigners=2, unseen=("steal",))
    seen = (tagged(steady_power_cap=True), second, tagged())
    text = "\n".join(told.verdict_sentences(replace(judge(RUNS), seen=seen), RECEIPT, PROFILE))
    assert "90\N{NO-BREAK SPACE}% des 16 cœurs logiques (run 2, 2 blocs sur 5)" in text
    assert "sans calcul : 2 (run 2)" in text
    assert text.count("limite de puissance du GPU") == 1
    assert "Non observable ici : CPU volé." in text
    assert told.disturbances([tagged()], "les runs").endswith("aucune constatée")


def test_the_cost_of_a_launch_over_the_processes_and_what_bounds_a_forward():
    saved = [GraphReading(np.full(9, one.gpu.p50 - 0.1), 50, "") for one in RUNS]
    for graphs, says in (
        (saved, "2,000 à 2,000 µs"),
        ([GraphReading(None, 50, "why")] * 3, "(why)"),
    ):
        runs = [replace(one, graph=graph) for one, graph in zip(RUNS, graphs, strict=True)]
        assert says in text_of(runs)
    assert told.launch_cost(RUNS) == ""
    assert told.bound_sentence(RUNS, PROFILE).startswith("Limitée par les lancements")
    assert "68 noyaux" in told.bound_sentence([run(host=1.3)], PROFILE)


def test_the_verdict_is_a_title_and_a_list_in_which_a_quoted_error_is_whole():
    text = told.verdict_text(["ACCEPTÉ", "<urlopen error>", "x :\n  - y"])
    assert text == "### ACCEPTÉ\n\n- &lt;urlopen error&gt;\n- x :\n  - y"

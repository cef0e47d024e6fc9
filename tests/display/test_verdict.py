from dataclasses import replace

import numpy as np
import pytest
from displayed import CPU_LOAD, PROFILE, RECEIPT, RUNS, THROTTLE, run, tagged
from fakes import AS_REQUIRED, make_run

from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.graph import GraphReading
from helpers.clocks.timing import WAITS_INSIDE
from helpers.display import verdict as told
from helpers.validation import judge
from helpers.validation.causes import Cause

UNEVEN = [run(seed, host) for seed, host in enumerate((2.0, 2.8, 2.2))]
UNSTEADY = [*RUNS, run(warmup=replace(RUNS[0].warmup, steady=False))]
ONE_PROCESS = [replace(one, process=RUNS[0].process) for one in RUNS]
CPU_ONLY = [run(seed, gpu=None, no_gpu_clock=WAITS_INSIDE) for seed in range(2)]
TF32 = [replace(one, conditions=replace(AS_REQUIRED, tf32_matmul=True)) for one in RUNS]
OWN_STREAM = [run(seed, gpu=0.003) for seed in range(3)]
GRAPHS = [replace(r, graph=GraphReading(np.full(9, r.gpu.p50 - 0.1), 50, "")) for r in RUNS]
NO_GRAPHS = [replace(one, graph=GraphReading(None, 50, "<why>")) for one in RUNS]
NOT_CALIBRATED = CalibrationReceipt((), "no {compiler}")


def text_of(runs, receipt=RECEIPT, profile=PROFILE, unseen="", **settings):
    verdict = judge(runs, profile=profile, **settings)
    text = "\n".join(told.verdict_sentences(verdict, receipt, profile, unseen))
    assert told.HEADLINE.fullmatch(text.splitlines()[0])
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("runs", "settings", "says"),
    [
        (UNEVEN, {}, "ACCEPTÉ — horloge GPU : écart du p95 0,0023 % < 10 % sur 3 runs ; refaite"),
        (UNEVEN, {"clock": "host"}, "NON ACCEPTÉ — horloge hôte"),
        (UNEVEN, {"clock": "host"}, "juger par l'horloge GPU ; la variante"),
        (UNEVEN, {}, "critère non tenu :\n  - l'horloge hôte lit surtout les lancements"),
        (UNSTEADY, {}, "ACCEPTÉ SOUS RÉSERVE — horloge GPU"),
        (UNSTEADY, {}, "perturbées : échauffement non stabilisé\nÀ faire : ajouter `-p warm"),
        (RUNS[:2], {}, "Moins de trois runs"),
        (ONE_PROCESS, {}, "Un seul processus"),
        (RUNS, {}, "aucune (10 passages profilés)"),
        (RUNS, {"profile": replace(PROFILE, host_to_device=20)}, "ATTENTION, copies hôte↔GPU : 20"),
        (RUNS, {"profile": None, "unseen": "{CUPTI}"}, "non observables (profileur : « {CUPTI} »)"),
        (CPU_ONLY, {"profile": None}, "sans objet"),
        (CPU_ONLY, {}, "\nPas d'horloge GPU : le modèle attend le GPU pendant"),
        (RUNS, {"receipt": NOT_CALIBRATED}, "possible sur cette plateforme (« no {compiler} »)"),
        (OWN_STREAM, {}, "CONTREDITE par les noyaux CUDA : 0,003"),
        (TF32, {}, "ATTENTION, conditions de précision non tenues (fp32) : Modules"),
        (GRAPHS, {}, "2,000 à 2,000 µs"),
        (NO_GRAPHS, {}, "profileur : « <why> »)"),
    ],
)
def test_what_is_said_is_said_once_and_only_then(runs, settings, says):
    assert text_of(runs, **settings).count(says) == 1
    assert says not in text_of(
        [run(seed, n=400) for seed in range(4)], clock="host", profile=None, unseen="x"
    )


def test_a_cause_of_several_runs_is_said_once():
    walk = 1.3 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.001
    text = text_of([replace(one, gpu=replace(one.gpu, samples_ms=walk)) for one in RUNS])
    assert text.count("runs 1, 2, 3 : trop peu d'échantillons indépendants") == 1
    steps = [make_run(np.repeat([low, 3.0], 250)) for low in (1.0, 2.0)]
    assert text_of(steps).count("run 2 : la latence passe de 2,000 à 3,000 ms") == 1


def test_the_worst_of_each_disturbance_is_said_with_its_blocks_and_what_is_hidden():
    worse = replace(CPU_LOAD, value=0.9, values={"share": 0.9, "cpus": 16})
    second = tagged((CPU_LOAD,), (), (worse, THROTTLE), idle_foreigners=2, unseen=("steal",))
    verdict = replace(judge(RUNS), seen=(tagged(steady_power_cap=True), second, tagged()))
    text = "\n".join(told.verdict_sentences(verdict, RECEIPT, PROFILE))
    assert "90\N{NO-BREAK SPACE}% des 16 cœurs logiques (run 2 ; 2 blocs sur 15" in text
    for says in ("sans calcul : 2 (run 2)", "limite de puissance du GPU", "en partie : CPU volé."):
        assert text.count(says) == 1
    assert told.disturbances([tagged()], "les runs").endswith("aucune constatée")
    assert "(run" not in told.disturbances(verdict.seen, "", ("processus", "processus"))


def test_remedies_are_numbered_and_what_is_for_the_next_try_comes_last():
    clock = judge(UNEVEN, "host").clocks["host"]
    causes = [Cause(code, (), {}) for code in ("launch_bound", "mean_spread", "chance")]
    clocks = {"host": replace(clock, causes=(*causes,))}
    text = told.to_do(replace(judge(UNEVEN, "host"), clocks=clocks))
    at = [text.index(words) for words in ("1) ajouter", "2) juger", "relancer après", "si cela")]
    assert at == sorted(at)


def test_each_remedy_has_a_cause_that_is_named_and_stands_before_the_fold():
    for runs, named in ((UNSTEADY, False), (UNEVEN, True)):
        clock = judge(runs, "host").clocks["host"]
        clock = replace(clock, causes=(Cause("chance", (), {"chance": 0.3}),))
        verdict = replace(judge(runs, "host"), clocks={"host": clock})
        remedy = told.to_do(verdict).rstrip(".")
        assert ("measure_iters" in remedy) is named
        assert ("échouerait" in told.clock_sentence(clock, verdict)) is named
        text = told.verdict_text(told.verdict_sentences(verdict, RECEIPT, PROFILE))
        assert remedy in text.split("<details>")[0]


def test_what_bounds_a_forward():
    assert told.bound_sentence(RUNS, PROFILE).startswith("Latence limitée par les lancements")
    assert "68 noyaux" in told.bound_sentence([run(host=1.3)], PROFILE)
    for runs, profile in ((CPU_ONLY, PROFILE), (RUNS, None)):
        assert told.bound_sentence(runs, profile).startswith("Pas d'horloge GPU ici")


def test_what_decides_is_a_list_and_its_causes_fold_away_a_quoted_error_is_whole():
    text = told.verdict_text(["ACCEPTÉ", "Horloge hôte : p95 :\n  - y", "<e>"])
    shown, folded = text.split("<details>")
    assert shown == "### ACCEPTÉ\n\n- Horloge hôte : p95\n\n"
    assert "\n\n- Horloge hôte : p95 :\n  - y\n- &lt;e&gt;\n\n</details>" in folded
    doubted = told.verdict_sentences(judge(OWN_STREAM, profile=PROFILE), RECEIPT, PROFILE)
    assert "CONTREDITE" in told.verdict_text(doubted).split("<details>")[0]

"""What the reader sees of a comparison: controls first, both clocks, and a table to paste."""

from types import SimpleNamespace

import pytest
from comparison_fakes import ACCURACIES, COPIES, COPY, LEVELS, REFERENCE, make_interleaved

from helpers.annex.comparison import compare, control_of
from helpers.annex.comparison.tables import (
    by_speed,
    comparison_sentences,
    comparison_table,
    fastest,
    markdown_table,
    report_table,
    verdict_of,
)
from helpers.display import tables
from helpers.validation.interference.evidence import Tag

MEASURED = make_interleaved()
COMPARISON = compare(MEASURED)
CONTROL = control_of(REFERENCE)


def sentences(measured):
    told = "\n".join(comparison_sentences(measured, compare(measured)))
    return told.replace("\N{NO-BREAK SPACE}", " ")


def test_the_fastest_comes_first_and_the_reference_in_its_place():
    assert by_speed(COMPARISON, "gpu")[:2] == ["compile", "fp16"]
    assert by_speed(COMPARISON, "host")[0] == "compile"
    assert by_speed(COMPARISON, "host")[-1] == "fp16"
    assert set(by_speed(COMPARISON, "gpu")) == set(LEVELS)


def test_one_clock_with_interval_and_verdict():
    table = comparison_table(MEASURED, COMPARISON, "gpu", ACCURACIES)
    assert table.index[0] == "compile"
    assert table.loc["fp16", "Verdict"] == "plus rapide"
    assert table.loc[CONTROL, "Verdict"] == "pas de différence détectée (témoin)"
    assert table.loc[REFERENCE, "Verdict"] == "référence"
    assert table.loc["fused", "Verdict"] == "plus lent (dans l'écart entre copies)"
    assert table.loc["compile", "Rapport à fp32"].startswith("0,115")
    low, high = table.loc["compile", "Intervalle à 95 %"].split(" – ")
    assert low <= table.loc["compile", "Rapport à fp32"] <= high
    assert table.loc["compile", "p50 (ms)"].startswith("0,150")


def test_a_copys_own_verdict_is_not_excused_by_itself():
    assert verdict_of(COMPARISON, "gpu", COPY) == "plus lent (témoin)"


def test_accuracy_is_that_of_what_was_timed():
    table = comparison_table(MEASURED, COMPARISON, "gpu", ACCURACIES)
    assert table.loc[CONTROL, "Exactitude"] == table.loc[REFERENCE, "Exactitude"]
    assert table.loc["fp16", "Exactitude"] == "94,40\N{NO-BREAK SPACE}%"
    reported = report_table(MEASURED, COMPARISON, ACCURACIES).loc["fp16", "Exactitude"]
    assert reported.startswith("94,40\N{NO-BREAK SPACE}% (")
    assert table.loc[COPY, "Exactitude"] == "–"
    assert "Exactitude" not in comparison_table(MEASURED, COMPARISON, "gpu").columns


def test_a_clock_that_compares_nothing_is_refused():
    measured = make_interleaved(gpu=False)
    with pytest.raises(ValueError, match=r"clock 'gpu' \(no CUDA GPU\): ask for one of host"):
        comparison_table(measured, compare(measured), "gpu")


def test_the_report_has_one_row_per_entry_and_both_clocks():
    table = report_table(MEASURED, COMPARISON, ACCURACIES)
    assert len(table) == len(LEVELS)
    assert {"p95 (ms), GPU", "p95 (ms), hôte", "Rapport, GPU", "Verdict, hôte"} <= set(table)
    assert table.loc[REFERENCE, "Rapport, GPU"] == "–"
    html = tables.show(table, "Variantes").data
    assert "compile" in html
    assert "Variantes" in html


def test_an_entry_without_gpu_clock_has_dashes_there():
    from fakes import make_result

    measured = make_interleaved()
    measured.runs["fp16"] = tuple(make_result(r.host.samples_ms) for r in measured.runs["fp16"])
    table = report_table(measured, compare(measured))
    assert table.index[-1] == "fp16"
    assert table.loc["fp16", ["p50 (ms), GPU", "Rapport, GPU"]].tolist() == ["–", "–"]
    assert table.loc["fp16", "Verdict, GPU"] == "non mesuré"
    assert table.loc["fp16", "Verdict, hôte"] == "plus lent"
    only = comparison_table(measured, compare(measured), "gpu")
    assert only.loc["fp16", "Verdict"] == "non mesuré"


def test_markdown_has_one_line_per_entry_and_escapes_bars():
    table = report_table(MEASURED, COMPARISON)
    lines = markdown_table(table.rename(index={"fp16": "fp16|x"})).splitlines()
    assert len(lines) == len(LEVELS) + 2
    assert {line.replace("\\|", "").count("|") for line in lines} == {table.shape[1] + 2}
    assert any("fp16\\|x" in line for line in lines)


def test_controls_come_first_then_what_could_be_detected_and_the_fastest():
    told = comparison_sentences(MEASURED, COMPARISON)
    assert told[0].startswith("A/A, fp32 contre lui-même (horloge GPU) : pas de différence")
    said = "\n".join(told).replace("\N{NO-BREAK SPACE}", " ")
    assert "limite à 95 % d'après 3 copies) : les différences de fused n'en dépassent pas" in said
    assert "corrigée pour 7 comparaisons" in said
    assert "La plus rapide (horloge hôte) : compile, 11,5 fois plus vite que fp32" in said


def test_a_control_that_differs_is_an_alarm():
    said = sentences(make_interleaved(LEVELS | {CONTROL: (1.35, 2.30)}))
    assert "ATTENTION, A/A, fp32 contre lui-même (horloge GPU) : plus lent" in said


def test_without_a_copy_the_place_in_memory_is_warned_of():
    said = sentences(make_interleaved({k: v for k, v in LEVELS.items() if k not in COPIES}))
    assert "Aucune copie du modèle mesurée (horloge GPU)" in said


def test_nothing_faster_and_what_was_not_measured_are_said():
    levels = {REFERENCE: (1.3, 2.3), CONTROL: (1.3, 2.3), "slow": (1.5, 2.5)}
    said = sentences(make_interleaved(levels, gpu=False, failed={"int8": "no kernel"}))
    assert "Aucune variante plus rapide que fp32 décelée (horloge hôte)." in said
    assert "Pas de comparaison sur l'horloge GPU : aucun GPU CUDA." in said
    assert "Non mesurée : int8 (no kernel)." in said


def test_the_fastest_is_no_control_and_no_difference_that_copies_may_show():
    levels = {**LEVELS, COPIES[0]: (0.98 * 1.3, 0.98 * 2.3)}
    compared = compare(make_interleaved(levels))
    assert fastest(compared, "host") == fastest(COMPARISON, "host") == "compile"
    only_controls = {n: LEVELS[n] for n in (REFERENCE, CONTROL)}
    only_controls[COPIES[0]] = (0.9 * 1.3, 0.9 * 2.3)
    compared = compare(make_interleaved(only_controls))
    assert fastest(compared, "gpu") is None


def test_what_disturbed_the_comparison_is_said():
    assert "Perturbations pendant la comparaison :\n  - aucune constatée" in sentences(MEASURED)
    tag = Tag("throttle", 1.0, 1.0, "GPU bridé")
    blocks = tuple(
        SimpleNamespace(block=k, tags=(tag,) if k == 6 else (), idle_foreigners=0)
        for k in range(50)
    )
    said = sentences(make_interleaved(observed=((), blocks, ())))
    assert "pendant la comparaison :\n  - GPU bridé pendant le run 2 (bloc 7 sur 50)" in said


def test_too_few_rounds_are_said():
    said = sentences(make_interleaved(runs=1, samples=50, orders=(tuple(LEVELS),) * 5))
    assert "Pas de comparaison sur l'horloge hôte : moins de 20 tours" in said

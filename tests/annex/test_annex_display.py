"""What the reader sees of a comparison: controls first, both clocks, and tables to paste."""

import pytest
from comparison_fakes import ACCURACIES, COPIES, COPY, LEVELS, REFERENCE, make_interleaved
from fakes import make_result

from helpers.annex.comparison import compare, control_of
from helpers.annex.display import (
    by_speed,
    comparison_markdown,
    comparison_sentences,
    comparison_table,
    fastest,
    verdict_of,
)

MEASURED = make_interleaved()
COMPARISON = compare(MEASURED)
CONTROL = control_of(REFERENCE)


def sentences(measured):
    told = "\n".join(comparison_sentences(measured, compare(measured)))
    return told.replace("\N{NO-BREAK SPACE}", " ")


def test_the_fastest_comes_first_and_the_reference_in_its_place():
    assert by_speed(COMPARISON, "gpu")[:2] == ["compile", "fp16"]
    assert by_speed(COMPARISON, "host")[-1] == "fp16"
    assert set(by_speed(COMPARISON, "gpu")) == set(LEVELS)


def test_one_clock_with_interval_verdict_and_the_accuracy_of_what_was_timed():
    table = comparison_table(MEASURED, COMPARISON, "gpu", ACCURACIES)
    assert table.index[0] == "compile"
    assert table.loc["fp16", "Verdict"] == "plus rapide"
    assert table.loc[CONTROL, "Verdict"] == "pas de différence détectée (témoin)"
    assert table.loc["fused", "Verdict"] == "plus lent (dans l'écart entre copies)"
    low, high = table.loc["compile", "Intervalle à 95 %"].split(" – ")
    assert low <= table.loc["compile", "Rapport à fp32"] <= high
    assert table.loc["compile", "p50 (ms)"].startswith("0,150")
    assert table.loc["fp16", "Exactitude"] == "94,40\N{NO-BREAK SPACE}%"
    assert table.loc[COPY, "Exactitude"] == "–"


def test_a_copys_own_verdict_is_not_excused_by_itself():
    assert verdict_of(COMPARISON, "gpu", COPY) == "plus lent (témoin)"


def test_an_entry_without_gpu_clock_has_dashes_there():
    measured = make_interleaved()
    measured.runs["fp16"] = tuple(make_result(r.host.samples_ms) for r in measured.runs["fp16"])
    table = comparison_table(measured, compare(measured), "gpu")
    assert table.index[-1] == "fp16"
    assert table.loc["fp16", ["p50 (ms)", "Verdict"]].tolist() == ["–", "non mesuré"]


@pytest.mark.parametrize(
    "evil", ["a|b", "<script>alert(1)</script>", "x\n\n# y", "[x](javascript:1)", "`"]
)
def test_foreign_text_does_not_break_out_of_the_markdown(evil):
    """Attack A3: a model's own message is a reason, and no markup."""
    measured = make_interleaved(failed={"mine": f"ValueError: {evil}"})
    pasted = comparison_markdown(measured, compare(measured), {}, {"tf32": evil})
    rows = [line for line in pasted.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (len(LEVELS) + 2)  # two clocks, each with head and rule
    for text in (pasted, sentences(measured)):
        assert "<script" not in text
        assert "\n# y" not in text
        assert "[x](" not in text.replace("\\[x\\](", "")
    assert "tf32" in pasted
    assert "mine" in pasted


def test_controls_come_first_then_what_could_be_detected_and_the_fastest():
    told = comparison_sentences(MEASURED, COMPARISON)
    assert told[0].startswith("A/A")
    said = sentences(MEASURED)
    assert "les différences de fused" in said
    assert "corrigée pour 7 comparaisons" in said
    assert "compile, 11,5 fois plus vite que fp32" in said


def test_a_control_that_differs_is_an_alarm():
    assert "ATTENTION" in sentences(make_interleaved(LEVELS | {CONTROL: (1.35, 2.30)}))
    assert "ATTENTION" not in sentences(MEASURED)


def test_nothing_faster_and_what_was_not_measured_are_said():
    levels = {REFERENCE: (1.3, 2.3), CONTROL: (1.3, 2.3), "slow": (1.5, 2.5)}
    said = sentences(make_interleaved(levels, gpu=False, failed={"int8": "no kernel"}))
    assert "Aucune variante plus rapide que fp32" in said
    assert "Aucune copie" in said
    assert "aucun GPU CUDA" in said
    assert "int8 (no kernel)" in said
    assert "moins de 20 tours" in sentences(
        make_interleaved(runs=1, samples=50, orders=(tuple(LEVELS),) * 5)
    )


def test_the_fastest_is_no_control_and_no_difference_that_copies_may_show():
    levels = {**LEVELS, COPIES[0]: (0.98 * 1.3, 0.98 * 2.3)}
    assert fastest(compare(make_interleaved(levels)), "host") == "compile"
    controls = {n: LEVELS[n] for n in (REFERENCE, CONTROL)} | {COPIES[0]: (1.17, 2.07)}
    assert fastest(compare(make_interleaved(controls)), "gpu") is None

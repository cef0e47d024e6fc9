"""What the reader sees of a comparison: control first, both clocks, and tables to paste."""

import pytest
from comparison_fakes import ACCURACIES, LEVELS, make_measured, without_gpu_clock

from helpers.annex import display
from helpers.annex.comparison import CONTROL, REFERENCE, compare
from helpers.annex.entries import Candidates
from helpers.annex.variants import PARTS, Refusal

MEASURED = make_measured()
COMPARISON = compare(MEASURED)


def sentences(measured):
    told = "\n".join(display.sentences(measured, compare(measured)))
    return told.replace("\N{NO-BREAK SPACE}", " ")


def test_the_fastest_comes_first_and_the_reference_in_its_place():
    assert display.by_speed(COMPARISON, "gpu")[:2] == ["compile", "fp16"]
    assert display.by_speed(COMPARISON, "host")[-1] == "fp16"
    assert set(display.by_speed(COMPARISON, "gpu")) == set(LEVELS)


def test_one_clock_with_interval_verdict_and_the_accuracy_of_what_was_timed():
    table = display.ratio_table(MEASURED, COMPARISON, "gpu", ACCURACIES)
    assert table.index[0] == "compile"
    assert table.loc["fp16", "Verdict"] == "plus rapide"
    assert table.loc[CONTROL, "Verdict"] == "pas de différence détectée (témoin)"
    low, high = table.loc["compile", "Intervalle à 95 %"].split(" – ")
    assert low <= table.loc["compile", "Rapport à fp32"] <= high
    assert table.loc["compile", "p50 (ms)"].startswith("0,1")
    assert table.loc["fp16", "Exactitude"] == "94,40\N{NO-BREAK SPACE}%"
    assert table.loc[CONTROL, "Exactitude"] == "–"


def test_an_entry_without_gpu_clock_has_dashes_there():
    measured = without_gpu_clock(make_measured(), "fp16")
    table = display.ratio_table(measured, compare(measured), "gpu", {})
    assert table.index[-1] == "fp16"
    assert table.loc["fp16", ["p50 (ms)", "Verdict"]].tolist() == ["–", "non mesuré"]


@pytest.mark.parametrize(
    "evil", ["a|b", "<script>alert(1)</script>", "x\n\n# y", "[x](javascript:1)", "`"]
)
def test_foreign_text_does_not_break_out_of_the_markdown(evil):
    """A model's own message is a reason, and no markup."""
    measured = make_measured(stopped=evil)
    measured.processes[1].failed["mine"] = f"ValueError: {evil}"
    refused = {"tf32": Refusal("not_built", {"error": evil})}
    candidates = Candidates(None, None, [], None, {}, refused)
    pasted = display.markdown(candidates, measured, compare(measured), {})
    rows = [line for line in pasted.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (len(LEVELS) + 2)  # two clocks, each with head and rule
    for text in (pasted, sentences(measured)):
        assert "<script" not in text
        assert "\n# y" not in text
        assert "[x](" not in text.replace("\\[x\\](", "")
        assert "mine : aucun chiffre du processus 2" in text
    assert "tf32" in pasted


def test_the_control_comes_first_then_the_fastest_and_an_alarm_is_said():
    told = display.sentences(MEASURED, COMPARISON)
    assert told[0].startswith("A/A")
    assert "compile" in told[1]
    assert "ATTENTION" not in sentences(MEASURED)
    assert "ATTENTION" in sentences(make_measured(LEVELS | {CONTROL: (1.35, 2.30)}))


def test_a_variant_whose_algorithms_are_chosen_by_trial_is_said_to_vary():
    levels = LEVELS | {"cudagraph_tuned": (0.12, 0.14)}
    sds = {"cudagraph_tuned": 0.05}
    assert "choisis par essai" in sentences(make_measured(levels, sds=sds, processes=12))
    assert "varie de" not in sentences(make_measured(levels, processes=12))


def test_nothing_faster_and_what_was_not_measured_are_said():
    levels = {REFERENCE: (1.3, 2.3), CONTROL: (1.3, 2.3), "slow": (1.5, 2.5)}
    said = sentences(make_measured(levels, gpu=False, stopped="it was killed", asked=8))
    assert "Aucune variante plus rapide que fp32" in said
    assert "aucun GPU CUDA" in said
    assert "6 processus sur 8" in said
    assert "trois processus" in sentences(make_measured(processes=2))
    assert sentences(make_measured(processes=0, stopped="killed"))


def test_every_part_and_every_precision_has_its_words():
    refusal = Refusal("lower_precision", {"products": {"bf16": 3}, "announced": "fp32"})
    assert "3 en BF16" in display.refusal_sentence(refusal)
    assert set(PARTS) == set(display.PARTS)

"""What the reader sees of a comparison: tables, sentences and figures, the control among them."""

import math

import pytest
import torch
from comparison_fakes import ACCURACIES, LEVELS, make_measured, without_gpu_clock

from helpers.annex import display
from helpers.annex.accuracy import compare_accuracy
from helpers.annex.comparison import CONTROL, REFERENCE, compare
from helpers.annex.entries import Candidates
from helpers.annex.plots import plot_accuracy, plot_ratios
from helpers.bench_latency import NO_GPU
from helpers.models.accuracy import score

MEASURED = make_measured()
COMPARISON = compare(MEASURED)


def sentences(measured):
    return display.sentences(measured, compare(measured))


def test_one_clock_the_fastest_first_with_interval_verdict_and_accuracy():
    table = display.ratio_table(MEASURED, COMPARISON, "gpu", ACCURACIES)
    assert list(table.index[:2]) == ["compile", "fp16"]
    assert set(table.index) == set(LEVELS)
    assert table.loc["fp16", "Verdict"] == "plus rapide"
    assert "(témoin)" in table.loc[CONTROL, "Verdict"]
    low, high = table.loc["compile", "Intervalle à 95 %"].split(" – ")
    assert low <= table.loc["compile", "Rapport moyen des p50"] <= high
    assert table["Exactitude"][["fp16", CONTROL]].tolist() == ["94,40\N{NO-BREAK SPACE}%", "–"]


@pytest.mark.parametrize(
    "evil", ["a|b", "<script>alert(1)</script>", "x\n\n# y", "[x](javascript:1)"]
)
def test_foreign_text_does_not_break_out_of_the_markdown(evil):
    """A model's own message is a reason, and no markup."""
    measured = make_measured(stopped=evil)
    measured.processes[1].failed["mine"] = f"ValueError: {evil}"
    refused = {"tf32": ("not_built", {"error": evil})}
    candidates = Candidates(None, None, [], None, {}, refused)
    pasted = display.markdown(candidates, measured, compare(measured), {})
    rows = [line for line in pasted.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * (len(LEVELS) + 2)  # two clocks, each with head and rule
    for text in (pasted, sentences(measured)):
        assert "mine : sans chiffre de 1 processus sur 6" in text
        assert not any(markup in text for markup in ("<script", "\n# y", "[x]("))


def test_an_alarm_of_the_control_is_said():
    assert "ATTENTION" not in sentences(MEASURED)
    assert "ATTENTION" in sentences(make_measured(LEVELS | {CONTROL: (1.35, 2.30)}))


def test_what_varies_over_the_processes_more_than_twice_as_the_others_is_said():
    assert "varie" not in sentences(MEASURED)
    levels = LEVELS | {"cudagraph_tuned": (0.20, 0.30)}
    for name, by_trial in (("cudagraph_tuned", True), ("compile", False)):
        told = sentences(make_measured(levels, processes=12, sds={name: 0.02}))
        assert told.count(f"- {name} varie de ") == 2  # on both clocks
        assert ("choisis par essai" in told) is by_trial


def test_a_clock_that_is_not_compared_has_its_reason():
    """Not how many processes there are, where the clock is what most of them lack."""
    measured = without_gpu_clock(make_measured(), REFERENCE, but=2)
    found = compare(measured)
    assert list(found.ratios) == ["host"]
    assert found.refused == {"gpu": (NO_GPU, {"processes": 6, "lacking": 4, "why": "no CUDA GPU"})}
    assert "trois processus" not in sentences(measured)
    assert "4 processus sur 6" in sentences(measured)


def test_what_was_not_measured_is_said():
    stopped = make_measured(stopped="it was killed")
    assert "processus 7 a échoué (« it was killed »)" in sentences(stopped)
    for processes in (0, 2):
        few = make_measured(processes=processes)
        assert "trois processus" in sentences(few)
        assert plot_ratios(compare(few), "cifar10") == display.NOT_COMPARED


def test_a_changed_accuracy_counts_what_only_one_of_them_gets_right():
    labels, number = torch.arange(100) % 10, torch.arange(100)

    def scored(right):
        answers = torch.where(right, labels, (labels + 1) % 10)
        return score(torch.nn.functional.one_hot(answers, 10).float(), labels, 1)

    first, second = scored(number < 90), scored((number < 80) | (number == 99))
    exact = 2 * sum(math.comb(11, k) for k in (0, 1)) / 2**11
    assert compare_accuracy(first, second) == (10, 1, pytest.approx(exact))
    assert compare_accuracy(first, first) == (0, 0, 1)


def test_accuracy_is_drawn_over_the_ratios_where_something_was_learnt():
    answers = torch.nn.functional.one_hot(labels := torch.arange(100) % 10).float()
    learnt = dict.fromkeys(["compile", "fp16", REFERENCE], score(answers, labels, 1))
    axis = plot_accuracy(COMPARISON, learnt | {"fused": None}, "cifar10").axes[0]
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines}
    ratios = COMPARISON.ratios["gpu"]
    assert drawn == {(at, 100) for at in (1, ratios["compile"].mean, ratios["fp16"].mean)}
    guessed = dict.fromkeys(learnt, score(answers[:, :1] + 0 * answers, labels, 1))
    for scores in ({}, guessed):
        assert plot_accuracy(COMPARISON, scores, "cifar10") == display.NOTHING_LEARNT


def test_ratios_are_sorted_by_speed_with_their_processes_and_intervals():
    figure = plot_ratios(COMPARISON, "cifar10")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["compile", "fp16", CONTROL, "fused"]
    for axis, clock in zip(figure.axes, ("gpu", "host"), strict=True):
        ratios = COMPARISON.ratios[clock]
        means = [line for line in axis.lines if line.get_marker() in ("o", "s")]
        drawn = {names[line.get_ydata()[0]]: line.get_xdata()[0] for line in means}
        assert drawn == {name: ratio.mean for name, ratio in ratios.items()}
        lines = {tuple(line.get_xdata()) for line in axis.lines}
        assert {(ratio.low, ratio.high) for ratio in ratios.values()} <= lines
        assert {ratio.values for ratio in ratios.values()} <= lines

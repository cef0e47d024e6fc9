"""Figures of a comparison: every entry on every clock, the control apart, labels whole."""

import io

import numpy as np
from comparison_fakes import ACCURACIES, LEVELS, make_measured, without_gpu_clock

from helpers.annex.comparison import CONTROL, REFERENCE, compare
from helpers.annex.plots import MARKERS, plot_accuracy_latency, plot_ratios, trained
from helpers.annex.variants.select import ALL
from helpers.display.plots.style import COLOURS, GREY

MEASURED = make_measured()
COMPARISON = compare(MEASURED)
MANY = LEVELS | {name: (0.2 * 1.05**i, 0.3 * 1.01**i) for i, name in enumerate(ALL[1:])}


def points(axis, markers):
    return [
        (*line.get_xdata(), *line.get_ydata(), line.get_color())
        for line in axis.lines
        if line.get_marker() in markers and len(line.get_xdata()) == 1
    ]


def inside(figure):
    """Draw it; does every text lie within, and does none of an axis lie on another?"""
    figure.savefig(io.BytesIO(), format="png")
    width, height = figure.canvas.get_width_height()
    for axis in figure.axes:
        boxes = [t.get_window_extent() for t in (*axis.texts, *axis.get_yticklabels())]
        boxes = [box for box in boxes if box.width]
        assert all(box.x0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
        numbers = [text.get_window_extent() for text in axis.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(numbers) for b in numbers[:i])


def test_ratios_are_sorted_by_speed_with_their_processes_and_intervals():
    figure = plot_ratios(COMPARISON, "cifar10")
    gpu, host = figure.axes
    names = [label.get_text() for label in gpu.get_yticklabels()]
    assert names[:2] == ["compile", "fp16"]
    assert REFERENCE not in names
    assert gpu.get_ylim()[0] > gpu.get_ylim()[1]  # the fastest on top
    for axis, clock in ((gpu, "gpu"), (host, "host")):
        ratios = COMPARISON.ratios[clock]
        drawn = {names[int(y)]: x for x, y, _ in points(axis, "os")}
        assert drawn == {name: ratio.mean for name, ratio in ratios.items()}
        lines = {tuple(line.get_xdata()) for line in axis.lines}
        for ratio in ratios.values():
            assert {(ratio.low, ratio.high), ratio.values} <= lines
        assert [colour for *_, colour in points(axis, "s")] == [GREY]
        assert {colour for *_, colour in points(axis, "o")} == {COLOURS[clock]}
    assert "pour compile" in figure.get_suptitle()
    assert "fp32 (A/A) (hôte) : pas de différence" in figure.get_label()


def test_a_variant_that_is_not_shown_to_be_faster_is_no_headline():
    levels = dict.fromkeys((REFERENCE, CONTROL, "fused"), LEVELS[REFERENCE])
    figure = plot_ratios(compare(make_measured(levels)), "cifar10")
    assert "aucune variante" in figure.get_suptitle()


def test_synthetic_data_is_named_and_one_clock_is_enough():
    measured = make_measured(gpu=False)
    comparison = compare(measured)
    for figure in (
        plot_ratios(comparison, "synthetic"),
        plot_accuracy_latency(measured, comparison, ACCURACIES, "synthetic"),
    ):
        assert len(figure.axes) == 1
        assert figure.get_suptitle().endswith("données synthétiques")
        inside(figure)


def test_accuracy_against_p95_with_both_intervals():
    figure = plot_accuracy_latency(MEASURED, COMPARISON, ACCURACIES, "cifar10")
    for axis, clock in zip(figure.axes, ("gpu", "host"), strict=True):
        wanted = [
            (np.median([getattr(r, clock).p95 for r in MEASURED.runs(n)]), 100 * a.fraction)
            for n, a in ACCURACIES.items()
        ]
        drawn = [(x, y) for x, y, _ in points(axis, MARKERS + "o")]
        np.testing.assert_allclose(sorted(drawn), sorted(wanted))
        bars = [line.get_ydata() for line in axis.lines if line.get_marker() == "_"]
        bounds = sorted((100 * a.low, 100 * a.high) for a in ACCURACIES.values())
        np.testing.assert_allclose(sorted(map(tuple, bars)), bounds)
    assert "94,46" in figure.get_label()


def test_with_many_variants_names_are_whole_and_no_text_lies_on_another():
    measured = make_measured(MANY)
    comparison = compare(measured)
    ratios = plot_ratios(comparison, "cifar10")
    inside(ratios)
    shown = {t.get_text().replace("\n", "") for t in ratios.axes[0].get_yticklabels()}
    assert shown == set(MANY) - {REFERENCE}
    scored = dict.fromkeys(ALL, ACCURACIES["fp32"])
    figure = plot_accuracy_latency(measured, comparison, scored, "cifar10")
    inside(figure)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(named) == len(MARKERS) + 1
    assert REFERENCE in named


def test_an_entry_without_gpu_clock_is_marked_so():
    measured = without_gpu_clock(make_measured(), "fp16")
    comparison = compare(measured)
    scatter = plot_accuracy_latency(measured, comparison, ACCURACIES, "cifar10")
    assert len(points(scatter.axes[0], MARKERS + "o")) == 3
    axis = plot_ratios(comparison, "cifar10").axes[0]
    assert axis.get_yticklabels()[-1].get_text() == "fp16"
    assert axis.texts[-1].get_text() == "non mesuré"


def test_accuracies_of_random_weights_mean_nothing():
    guessing = type("Scored", (), {"fraction": 0.11})
    assert trained(ACCURACIES)
    assert not trained({REFERENCE: guessing})
    assert not trained({})

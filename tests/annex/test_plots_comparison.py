"""Figures of a comparison: every entry on every clock, controls apart, labels whole."""

import numpy as np
import pytest
from comparison_fakes import ACCURACIES, COPIES, LEVELS, REFERENCE, make_interleaved
from fakes import make_result
from test_plots import png_of, texts_of

from helpers.annex.comparison import compare, control_of
from helpers.annex.plots import NUMBERED, plot_accuracy_latency, plot_ratios, trained
from helpers.annex.variants.select import ALL
from helpers.display.plots.style import COLOURS, GREY

MEASURED = make_interleaved()
COMPARISON = compare(MEASURED)
MANY = LEVELS | {name: (0.2 * 1.05**i, 0.3 * 1.01**i) for i, name in enumerate(ALL[1:])}


def points(axis, marker):
    return [
        (*line.get_xdata(), *line.get_ydata(), line.get_color())
        for line in axis.lines
        if line.get_marker() == marker and len(line.get_xdata()) == 1
    ]


def inside(figure):
    """Draw it; does every text lie within, and does none of an axis lie on another?"""
    png_of(figure)
    width, height = figure.canvas.get_width_height()
    for axis in figure.axes:
        boxes = [t.get_window_extent() for t in (*axis.texts, *axis.get_yticklabels())]
        boxes = [box for box in boxes if box.width]
        assert all(box.x0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)
        numbers = [text.get_window_extent() for text in axis.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(numbers) for b in numbers[:i])


def test_ratios_are_sorted_by_speed_with_their_intervals():
    figure = plot_ratios(COMPARISON, "cifar10")
    gpu, host = figure.axes
    names = [label.get_text() for label in gpu.get_yticklabels()]
    assert names[:2] == ["compile", "fp16"]
    assert REFERENCE not in names
    assert gpu.get_ylim()[0] > gpu.get_ylim()[1]  # the fastest on top
    for axis, clock in ((gpu, "gpu"), (host, "host")):
        drawn = {names[int(y)]: x for x, y, _ in points(axis, "o") + points(axis, "s")}
        ratios = COMPARISON.ratios[clock]
        assert drawn == {name: ratio.ratio for name, ratio in ratios.items()}
        spans = [tuple(line.get_xdata()) for line in axis.lines if line.get_marker() == "|"]
        assert set(spans) == {(r.low, r.high) for r in ratios.values()}
    assert {colour for *_, colour in points(gpu, "s")} == {GREY}
    assert len(points(gpu, "s")) == 1 + len(COPIES)
    assert {colour for *_, colour in points(host, "o")} == {COLOURS["host"]}
    assert "0,115 pour compile" in figure.get_suptitle()
    assert "dans l'écart entre copies" in figure.get_label()


def test_a_variant_that_is_not_shown_to_be_faster_is_no_headline():
    levels = {name: LEVELS[name] for name in (REFERENCE, control_of(REFERENCE), *COPIES)}
    measured = make_interleaved(levels | {"fused": LEVELS[REFERENCE]})
    assert "aucune variante" in plot_ratios(compare(measured), "cifar10").get_suptitle()


def test_synthetic_data_is_named_and_one_clock_is_enough():
    levels = {name: level for name, level in LEVELS.items() if name not in COPIES}
    measured = make_interleaved(levels, gpu=False)
    comparison = compare(measured)
    for figure in (
        plot_ratios(comparison, "synthetic"),
        plot_accuracy_latency(measured, comparison, ACCURACIES, "synthetic"),
    ):
        assert len(figure.axes) == 1
        assert figure.get_suptitle().endswith("données synthétiques")
        assert "entre copies" not in texts_of(figure)
        inside(figure)


def test_accuracy_against_p95_with_both_intervals():
    figure = plot_accuracy_latency(MEASURED, COMPARISON, ACCURACIES, "cifar10")
    for axis, clock in zip(figure.axes, ("gpu", "host"), strict=True):
        p95 = {
            name: np.median([getattr(r, clock).p95 for r in MEASURED.runs[name]])
            for name in ACCURACIES
        }
        drawn = sorted((x, y) for x, y, _ in points(axis, "o"))
        np.testing.assert_allclose(
            drawn, sorted((p95[n], 100 * a.fraction) for n, a in ACCURACIES.items())
        )
        bars = [line.get_ydata() for line in axis.lines if line.get_marker() == "_"]
        bounds = sorted((100 * a.low, 100 * a.high) for a in ACCURACIES.values())
        np.testing.assert_allclose(sorted(map(tuple, bars)), bounds)
    assert "94,46" in figure.get_label()


def test_with_many_variants_names_are_whole_and_no_text_lies_on_another():
    measured = make_interleaved(MANY)
    comparison = compare(measured)
    ratios = plot_ratios(comparison, "cifar10")
    inside(ratios)
    shown = {t.get_text().replace("\n", "") for t in ratios.axes[0].get_yticklabels()}
    assert shown == set(MANY) - {REFERENCE}
    figure = plot_accuracy_latency(
        measured, comparison, dict.fromkeys(ALL, ACCURACIES["fp32"]), "cifar10"
    )
    inside(figure)
    named = [text.get_text().split("  ")[1] for text in figure.legends[0].get_texts()]
    assert len(named) == NUMBERED + 1
    assert REFERENCE in named


def test_an_entry_without_gpu_clock_is_marked_so():
    measured = make_interleaved()
    measured.runs["fp16"] = tuple(make_result(r.host.samples_ms) for r in measured.runs["fp16"])
    comparison = compare(measured)
    assert (
        len(points(plot_accuracy_latency(measured, comparison, ACCURACIES, "cifar10").axes[0], "o"))
        == 3
    )
    figure = plot_ratios(comparison, "cifar10")
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "fp16"
    assert figure.axes[0].texts[-1].get_text() == "non mesuré"


def test_accuracies_of_random_weights_mean_nothing():
    guessing = type("Scored", (), {"fraction": 0.11})
    assert trained(ACCURACIES)
    assert not trained({REFERENCE: guessing})
    assert not trained({})


def test_nothing_to_draw_is_said():
    measured = make_interleaved(runs=1, samples=50, orders=(tuple(LEVELS),) * 5)
    with pytest.raises(ValueError, match="nothing was compared"):
        plot_ratios(compare(measured), "cifar10")
    with pytest.raises(ValueError, match="no accuracy for fp32"):
        plot_accuracy_latency(MEASURED, COMPARISON, {}, "cifar10")

"""Figures of a comparison: every entry on every clock, controls apart, the finding in the title."""

import numpy as np
import pytest
from comparison_fakes import ACCURACIES, COPIES, LEVELS, REFERENCE, make_interleaved
from test_plots import png_of, texts_of

from helpers.annex.comparison import compare, control_of
from helpers.annex.plots import plot_accuracy_latency, plot_ratios
from helpers.display.plots.style import COLOURS, GREY

MEASURED = make_interleaved()
COMPARISON = compare(MEASURED)


def points(axis, marker):
    return [
        (*line.get_xdata(), *line.get_ydata(), line.get_color())
        for line in axis.lines
        if line.get_marker() == marker and len(line.get_xdata()) == 1
    ]


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
    png_of(figure)


def test_a_variant_that_is_not_shown_to_be_faster_is_no_headline():
    levels = {name: LEVELS[name] for name in (REFERENCE, control_of(REFERENCE), *COPIES)}
    measured = make_interleaved(levels | {"fused": LEVELS[REFERENCE]})
    title = plot_ratios(compare(measured), "cifar10").get_suptitle()
    assert title == "Latence rapportée à fp32 : aucune variante plus rapide décelée"


def test_controls_are_grey_squares_and_the_title_names_the_fastest():
    figure = plot_ratios(COMPARISON, "cifar10")
    squares = points(figure.axes[0], "s")
    assert len(squares) == 1 + len(COPIES)
    assert {colour for *_, colour in squares} == {GREY}
    assert {colour for *_, colour in points(figure.axes[1], "o")} == {COLOURS["host"]}
    assert figure.get_suptitle() == "Latence rapportée à fp32 : 0,115 pour compile"
    alt = figure.get_label()
    assert "fused 1,00" in alt
    assert "plus lent (dans l'écart entre copies)" in alt
    assert f"{control_of(REFERENCE)} 1," in alt
    assert "écart possible entre copies du même modèle" in texts_of(figure)


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
        assert figure.get_label().endswith("données synthétiques")
        assert "entre copies" not in texts_of(figure)
        png_of(figure)


def test_accuracy_against_latency_with_both_intervals():
    figure = plot_accuracy_latency(MEASURED, COMPARISON, ACCURACIES, "cifar10")
    gpu, host = figure.axes
    for axis, clock in ((gpu, "gpu"), (host, "host")):
        medians = {
            name: np.median([getattr(r, clock).p50 for r in MEASURED.runs[name]])
            for name in ACCURACIES
        }
        drawn = sorted((x, y) for x, y, _ in points(axis, "o"))
        expected = sorted((medians[n], 100 * a.fraction) for n, a in ACCURACIES.items())
        np.testing.assert_allclose(drawn, expected)
        bars = [line.get_ydata() for line in axis.lines if line.get_marker() == "_"]
        bounds = sorted((100 * a.low, 100 * a.high) for a in ACCURACIES.values())
        np.testing.assert_allclose(sorted(map(tuple, bars)), bounds)
        assert axis.get_xscale() == "log"
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[0] == "1  compile"
    assert len(named) == len(ACCURACIES)  # the controls are left out
    assert "exactitude 94,46" in figure.get_label()
    png_of(figure)


def test_many_variants_are_drawn_without_a_warning():
    levels = LEVELS | {f"fp16+channels_last+{i}": (0.2 * 1.1**i, 0.3 * 1.1**i) for i in range(20)}
    accuracies = dict.fromkeys(levels, ACCURACIES["fp32"])
    measured = make_interleaved(levels)
    comparison = compare(measured)
    png_of(plot_ratios(comparison, "cifar10"))
    png_of(plot_accuracy_latency(measured, comparison, accuracies, "cifar10"))


def test_an_entry_without_gpu_clock_is_marked_so():
    from fakes import make_result

    measured = make_interleaved()
    runs = tuple(make_result(r.host.samples_ms) for r in measured.runs["fp16"])
    measured = make_interleaved(runs=3)
    measured.runs["fp16"] = runs
    comparison = compare(measured)
    png_of(plot_accuracy_latency(measured, comparison, ACCURACIES, "cifar10"))
    figure = plot_ratios(comparison, "cifar10")
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "fp16"
    assert [text.get_text() for text in figure.axes[0].texts][-1] == "non mesuré"
    png_of(figure)


def test_nothing_to_draw_is_said():
    measured = make_interleaved(runs=1, samples=50, orders=(tuple(LEVELS),) * 5)
    comparison = compare(measured)
    with pytest.raises(ValueError, match="nothing was compared"):
        plot_ratios(comparison, "cifar10")
    with pytest.raises(ValueError, match="no accuracy for fp32"):
        plot_accuracy_latency(MEASURED, COMPARISON, {}, "cifar10")


def test_a_long_name_is_broken_after_its_parts():
    long = "fp16+cropped+stem+epilogue+overlap+channels_last+cudagraph_tuned"
    figure = plot_ratios(compare(make_interleaved(LEVELS | {long: (0.14, 0.19)})), "cifar10")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "fp16+cropped+stem+epilogue+overlap+\nchannels_last+cudagraph_tuned"


def test_numbers_of_close_points_do_not_lie_on_each_other():
    levels = {REFERENCE: (1.3, 2.3), control_of(REFERENCE): (1.3, 2.3)}
    levels |= {f"v{k}": (1.2 + 0.01 * k, 2.0) for k in range(6)} | {"fast": (0.14, 0.2)}
    measured = make_interleaved(levels)
    accuracies = dict.fromkeys(levels, ACCURACIES["fp32"])
    figure = plot_accuracy_latency(measured, compare(measured), accuracies, "cifar10")
    png_of(figure)  # places the texts
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert len(boxes) == 8
        overlaps = [a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]]
        assert not any(overlaps)

"""Figures: they are drawn for every kind of result, hide nothing, and say what they show."""

import ast
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from PIL import Image

from helpers import results
from helpers.display import plots
from helpers.stats import summarise

CLASSES = tuple(f"classe {number}" for number in range(10))


def result(n=500, gpu=True, host_base=1.9, outliers=(), seed=0):
    """A stand-in for LatencyResult with what the figures read."""
    generator = np.random.default_rng(seed)
    host = host_base * (1 + 0.01 * generator.gamma(2, 1, n))
    host[list(range(len(outliers)))] = outliers
    return SimpleNamespace(
        host=summarise(host),
        gpu=summarise(1.3 * (1 + 0.002 * generator.random(n))) if gpu else None,
        warmup_ms=np.concatenate(([900.0, 12.0], np.full(48, 2.0))),
        warmup_used=50,
    )


def png_of(figure):
    """The PNG's bytes; drawing must not warn."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(png, format="png")
    return png.getvalue()


def texts_of(figure):
    """Every text on the figure, in one string."""
    found = [figure.get_suptitle()]
    for axis in figure.axes:
        found += [axis.get_title(loc) for loc in ("left", "center", "right")]
        found += [axis.get_xlabel(), axis.get_ylabel(), *(text.get_text() for text in axis.texts)]
        found += [text.get_text() for text in (axis.get_legend() or figure).findobj(_is_text)]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return "\n".join(found).replace("\N{NO-BREAK SPACE}", " ")


def _is_text(artist):
    return hasattr(artist, "get_text")


def draw_all(dataset, runs=3, **options):
    measured = [result(seed=seed, **options) for seed in range(runs)]
    clocks = [clock for clock in ("gpu", "host") if getattr(measured[0], clock) is not None]
    p95 = {clock: [getattr(run, clock).p95 for run in measured] for clock in clocks}
    images = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    return {
        "images": plots.plot_images(images, range(10), CLASSES, dataset),
        "time": plots.plot_latency_over_time(measured, dataset),
        "distribution": plots.plot_distribution(measured, dataset),
        "p95": plots.plot_p95_runs(p95, dataset),
    }


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("runs", [2, 8])
def test_every_figure_is_drawn_without_a_warning(runs, gpu):
    for figure in draw_all("cifar10", runs, gpu=gpu).values():
        png = png_of(figure)
        width, height = Image.open(io.BytesIO(png)).size
        assert width == pytest.approx(plots.WIDTH * 110, abs=2)
        assert height < 150 * (runs + 4)
        assert len(png) < 500_000


def test_synthetic_data_is_said_in_title_and_alt_text():
    for dataset, said in (("synthetic", True), ("cifar10", False)):
        for figure in draw_all(dataset).values():
            assert ("données synthétiques" in figure.get_suptitle()) is said
            assert ("données synthétiques" in figure.get_label()) is said


def test_unknown_dataset_is_refused():
    with pytest.raises(KeyError, match="mnist"):
        draw_all("mnist")


def test_axes_have_units_and_each_clock_its_colour():
    figures = draw_all("cifar10")
    assert "Latence (ms)" in texts_of(figures["time"])
    assert "Latence (ms)" in texts_of(figures["distribution"])
    assert "p95 (ms)" in texts_of(figures["p95"])
    gpu, host = figures["distribution"].axes
    assert "GPU" in gpu.get_title("left")
    assert to_hex(gpu.lines[0].get_color()).upper() == plots.COLOURS["gpu"]
    assert to_hex(host.lines[0].get_color()).upper() == plots.COLOURS["host"]
    colours = {line.get_color() for line in figures["time"].axes[1].lines}
    assert colours == set(plots.COLOURS.values())


def test_numbers_have_a_decimal_comma():
    figures = draw_all("cifar10")
    png_of(figures["p95"])
    ticks = [tick.get_text() for tick in figures["p95"].axes[0].get_yticklabels()]
    assert any("," in tick for tick in ticks)
    assert not any("." in tick for tick in ticks)
    p95 = summarise(result(seed=0).host.samples_ms).p95
    assert f"p95 hôte : {p95:.3f} ms".replace(".", ",") in texts_of(figures["time"])


def test_outlier_does_not_flatten_the_curve_but_is_marked_and_counted():
    calm = plots.plot_latency_over_time([result()], "cifar10").axes[1]
    figure = plots.plot_latency_over_time([result(outliers=(30.2, 12.0))], "cifar10")
    axis = figure.axes[1]
    assert axis.get_ylim()[1] < 1.5 * calm.get_ylim()[1]
    assert "2 hors cadre, max 30,20 ms" in texts_of(figure)
    assert "valeurs hors cadre : 2, plus 2 pendant l'échauffement" in figure.get_label()
    (marks,) = [line for line in axis.lines if line.get_marker() == "^"]
    np.testing.assert_array_equal(marks.get_xdata(), [1, 2])
    distribution = plots.plot_distribution([result(outliers=(30.2,))], "cifar10")
    assert "1 hors cadre, max 30,20 ms" in texts_of(distribution)
    assert distribution.axes[1].get_xlim()[1] < 5


def test_fast_outlier_is_marked_below():
    figure = plots.plot_latency_over_time([result(gpu=False, outliers=(0.1,))], "cifar10")
    assert "1 hors cadre, min 0,1000 ms" in texts_of(figure)
    assert [line for line in figure.axes[1].lines if line.get_marker() == "v"]


def test_curve_without_outliers_is_whole():
    samples = np.linspace(1.0, 2.0, 100)
    run = SimpleNamespace(host=summarise(samples), gpu=None, warmup_ms=samples, warmup_used=100)
    figure = plots.plot_latency_over_time([run], "cifar10")
    assert "hors cadre" not in texts_of(figure)
    low, high = figure.axes[1].get_ylim()
    assert low < 1.0
    assert high > 2.0


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_constant_latencies_are_drawn(value):
    same = summarise(np.full(20, value))
    run = SimpleNamespace(host=same, gpu=same, warmup_ms=np.full(5, value), warmup_used=5)
    png_of(plots.plot_latency_over_time([run, run], "cifar10"))
    png_of(plots.plot_distribution([run, run], "cifar10"))


def test_mean_pulled_out_of_the_frame_is_marked_at_its_edge():
    figure = plots.plot_distribution([result(gpu=False, outliers=(30_000.0,))], "cifar10")
    axis = figure.axes[0]
    (mark,) = [line for line in axis.lines if line.get_marker() == ">"]
    assert mark.get_xdata()[0] == axis.get_xlim()[1]


def test_warmup_is_drawn_apart():
    figure = plots.plot_latency_over_time([result()], "cifar10")
    before, measured = figure.axes
    assert max(len(line.get_xdata()) for line in before.lines) == 50
    assert max(len(line.get_xdata()) for line in measured.lines) == 500
    assert "Échauffement" in before.get_xlabel()
    assert "max 900,0 ms" in before.get_title("right")


def test_a_million_iterations_are_thinned_keep_their_extremes_and_say_so():
    run = result(n=1_000_000, outliers=(30.2,))
    over_time = plots.plot_latency_over_time([run], "cifar10")
    drawn = [line for line in over_time.axes[1].lines if len(line.get_xdata()) > 50]
    assert [len(line.get_xdata()) for line in drawn] == [plots.MOST_POINTS] * 2
    for line, summary in zip(drawn, (run.gpu, run.host), strict=True):
        assert line.get_ydata().min() == summary.min
        assert line.get_ydata().max() == summary.max
    assert "tracée par min et max de 500 itérations" in texts_of(over_time)
    distribution = plots.plot_distribution([run], "cifar10")
    for axis in distribution.axes:
        assert max(len(line.get_xdata()) for line in axis.lines) <= plots.MOST_POINTS + 1
    assert len(png_of(over_time)) + len(png_of(distribution)) < 300_000


def test_thinned_curve_loses_no_last_value():
    run = result(n=4001, gpu=False)
    figure = plots.plot_latency_over_time([run], "cifar10")
    line = max(figure.axes[1].lines, key=lambda drawn: len(drawn.get_xdata()))
    assert {line.get_ydata()[-1], line.get_ydata()[-2]} >= {run.host.samples_ms[-1]}
    assert len(line.get_xdata()) <= plots.MOST_POINTS + 2


def test_distribution_is_the_empirical_one():
    run = result(n=10, gpu=False)
    axis = plots.plot_distribution([run], "cifar10").axes[0]
    x, y = axis.lines[0].get_data()
    np.testing.assert_array_equal(x[1:], np.sort(run.host.samples_ms))
    np.testing.assert_allclose(y, np.arange(11) * 10)
    assert axis.lines[0].get_drawstyle() == "steps-post"


@pytest.mark.parametrize(
    ("p95", "inside", "finding"),
    [
        ([1.0, 1.0, 1.08], True, "écart 7,8 % < 10 %"),
        ([1.0, 1.06, 1.09], True, "écart 8,6 % < 10 %"),
        ([1.0, 1.0, 1.12], False, "écart 12 % ≥ 10 %"),
    ],
)
def test_runs_lie_inside_the_band_exactly_when_the_criterion_is_met(p95, inside, finding):
    figure = plots.plot_p95_runs({"host": p95}, "cifar10")
    band = figure.axes[0].patches[0]
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert all(low <= value <= high for value in p95) is inside
    assert finding in texts_of(figure)
    assert finding in figure.get_label().replace("\N{NO-BREAK SPACE}", " ")


def test_intervals_are_drawn_where_they_exist():
    intervals = {"gpu": [(1.2, 1.4), None, (1.25, 1.35)], "host": [None] * 3}
    p95 = {"gpu": [1.3, 1.31, 1.3], "host": [2.0, 2.1, 2.0]}
    figure = plots.plot_p95_runs(p95, "cifar10", intervals=intervals)
    bars = [line for line in figure.axes[0].lines if line.get_marker() == "_"]
    assert [list(bar.get_ydata()) for bar in bars] == [[1.2, 1.4], [1.25, 1.35]]
    assert not [line for line in figure.axes[1].lines if line.get_marker() == "_"]
    assert "intervalle de confiance" in texts_of(figure)
    assert "intervalle" not in texts_of(plots.plot_p95_runs(p95, "cifar10"))
    png_of(figure)


def test_limit_given_is_the_limit_shown():
    figure = plots.plot_p95_runs({"host": [1.0, 1.08]}, "cifar10", limit=0.05)
    assert "≥ 5,0 %" in texts_of(figure)


def test_images_show_their_class():
    images = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)
    labels = [index % 10 for index in range(13)]
    figure = plots.plot_images(images, labels, CLASSES, "cifar10")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title("center") for axis in shown] == [CLASSES[label] for label in labels]
    np.testing.assert_array_equal(shown[12].images[0].get_array(), images[12])
    png_of(figure)
    with pytest.raises(ValueError, match="13 images but 12 labels"):
        plots.plot_images(images, labels[:12], CLASSES, "cifar10")


def test_no_results_is_an_error_with_a_remedy():
    for plot in (plots.plot_latency_over_time, plots.plot_distribution):
        with pytest.raises(ValueError, match="no results to plot: measure at least one run"):
            plot([], "cifar10")


def test_shown_image_carries_its_alt_text_and_no_size_that_varies():
    figure = draw_all("cifar10")["p95"]
    shown = plots.show(figure)
    data, metadata = shown._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == figure.get_label() != ""
    assert list(data) == ["image/png"]
    assert repr(shown) == "<IPython.core.display.Image object>"


def test_saved_figure_keeps_its_alt_text(tmp_path):
    figure = draw_all("synthetic")["time"]
    path = results.open_session(tmp_path, "s").save_figure(figure, "latence")
    assert Image.open(path).text["Description"] == figure.get_label()


def test_style_stays_inside_the_figures():
    before = dict(rcParams)
    draw_all("cifar10")
    assert dict(rcParams) == before


def test_only_plots_imports_matplotlib():
    helpers = Path(plots.__file__).parents[1]
    for module in helpers.rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in [getattr(node, "module", None) or node.names[0].name]
        }
        assert ("matplotlib" in imported) is (module.parent.name == "plots"), module

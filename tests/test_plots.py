"""Figures: they are drawn for every kind of result, hide nothing, and say what they show."""

import io
import time
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_hex
from PIL import Image

from helpers import results
from helpers.display import plots
from helpers.display.plots.style import COLOURS, MARKED, MOST_CURVES, WIDTH
from helpers.validation.interference import Observation
from helpers.validation.interference.evidence import Tag
from helpers.validation.interference.rules import HOST_ONLY, TAG_LABELS
from tests.fakes import make_result

CLASSES = tuple(f"classe {number}" for number in range(10))


def result(n=500, gpu=True, host_base=1.9, outliers=(), seed=0):
    generator = np.random.default_rng(seed)
    host = host_base * (1 + 0.01 * generator.gamma(2, 1, n))
    host[list(range(len(outliers)))] = outliers
    return make_result(
        host,
        1.3 * (1 + 0.002 * generator.random(n)) if gpu else None,
        warmup_ms=np.concatenate(([900.0, 12.0], np.full(48, 2.0))),
    )


def seen(block, *tags):
    """What was observed around one block."""
    told = tuple(Tag(code, 0.2, 0.05, "…") for code in tags)
    nothing = (None, None, None, None, None, (), 0, 1.0, {})
    return Observation(block, float(block), block + 0.9, *nothing, told, ())


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
    intervals = {clock: [(0.99 * v, 1.01 * v) for v in values] for clock, values in p95.items()}
    images = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    observed = [[seen(block) for block in range(10)] for _ in measured]
    return {
        "images": plots.plot_images(images, range(10), CLASSES, dataset),
        "time": plots.plot_latency_over_time(measured, dataset, observed),
        "distribution": plots.plot_distribution(measured, dataset),
        "p95": plots.plot_p95_runs(p95, dataset, intervals=intervals),
    }


def sized(figure):
    png = png_of(figure)
    assert len(png) < 300_000
    width, height = Image.open(io.BytesIO(png)).size
    assert width == pytest.approx(WIDTH * 110, abs=2)
    assert height < 700


@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize("runs", [2, 8, 13])
def test_every_figure_is_drawn_without_a_warning(runs, gpu):
    for figure in draw_all("cifar10", runs, gpu=gpu).values():
        sized(figure)


def test_a_session_of_many_runs_is_drawn_in_linear_time():
    """attack A18: 150 runs took a first figure without end"""
    start = time.process_time()
    figures = draw_all("cifar10", 150).values()
    for figure in figures:
        sized(figure)
        artists = [a for axis in figure.axes for a in (*axis.lines, *axis.collections)]
        assert len(artists) < 20  # quantiles, not a curve per run
        assert max(len(tick) for tick in [axis.get_xticks() for axis in figure.axes]) <= 13
    assert time.process_time() - start < 20


def test_many_runs_are_shown_by_their_quantiles():
    """attack A18"""
    measured = [result(seed=seed) for seed in range(MOST_CURVES + 1)]
    gpu, _ = plots.plot_latency_over_time(measured, "cifar10").axes
    middle, p95 = (line.get_ydata() for line in gpu.lines)
    np.testing.assert_allclose(middle, [run.gpu.p50 for run in measured])
    np.testing.assert_allclose(p95, [run.gpu.p95 for run in measured])
    assert "p5 à p95" in gpu.get_title("right")
    distribution = plots.plot_distribution(measured, "cifar10")
    assert f"étendue des {len(measured)} runs" in texts_of(distribution)


def test_the_users_matplotlibrc_changes_no_figure(monkeypatch):
    """case 23: text.usetex and savefig.dpi of the user, while drawing and while saving"""
    expected = [png_of(figure) for figure in draw_all("cifar10").values()]
    before = dict(rcParams)
    users = {"text.usetex": True, "savefig.dpi": 600, "axes.facecolor": "red", "font.size": 30}
    with matplotlib.rc_context(users | {"savefig.bbox": "tight", "lines.marker": "o"}):
        assert [png_of(figure) for figure in draw_all("cifar10").values()] == expected
        assert plots.show(draw_all("cifar10")["p95"]).data == expected[-1]
    assert dict(rcParams) == before


def test_synthetic_data_is_said_in_title_and_alt_text():
    for dataset, said in (("synthetic", True), ("cifar10", False)):
        for figure in draw_all(dataset).values():
            assert ("données synthétiques" in figure.get_suptitle()) is said
            assert ("données synthétiques" in figure.get_label()) is said
    with pytest.raises(KeyError, match="mnist"):
        draw_all("mnist")


def test_axes_have_units_decimal_commas_and_each_clock_its_row_and_colour():
    figures = draw_all("cifar10")
    assert "p95 (ms)" in texts_of(figures["p95"])
    for name in ("time", "distribution"):
        assert "Latence (ms)" in texts_of(figures[name])
        for axis, clock in zip(figures[name].axes, ("gpu", "host"), strict=True):
            assert {"gpu": "GPU", "host": "hôte"}[clock] in axis.get_title("left")
            assert to_hex(axis.lines[0].get_color()).upper() == COLOURS[clock]
    png_of(figures["p95"])
    ticks = [tick.get_text() for tick in figures["p95"].axes[0].get_yticklabels()]
    assert any("," in tick for tick in ticks)
    assert not any("." in tick for tick in ticks)
    assert f"p95 {result().host.p95:.3f}".replace(".", ",") in texts_of(figures["time"])


def test_outliers_of_one_clock_leave_the_other_readable_and_are_marked_and_counted():
    calm = plots.plot_latency_over_time([result()], "cifar10").axes
    figure = plots.plot_latency_over_time([result(outliers=(30.2, 12.0))], "cifar10")
    gpu, host = figure.axes
    assert gpu.get_ylim() == calm[0].get_ylim()
    assert host.get_ylim()[1] < 1.5 * calm[1].get_ylim()[1]
    for said in (texts_of(figure), figure.get_label()):
        assert "2 hors cadre, max 30,20 ms ; échauffement : " in said.replace(
            "\N{NO-BREAK SPACE}", " "
        )
        assert "max 900,0 ms" in said
    marks = [line for line in host.lines if line.get_marker() == "^"]
    assert sorted(len(line.get_xdata()) for line in marks)[-1] >= 2
    distribution = plots.plot_distribution([result(outliers=(30.2,))], "cifar10")
    assert "1 hors cadre, max 30,20 ms" in texts_of(distribution)
    assert distribution.axes[1].get_xlim()[1] < 5


def test_fast_outlier_is_marked_below():
    figure = plots.plot_latency_over_time([result(gpu=False, outliers=(0.1,))], "cifar10")
    assert "1 hors cadre, min 0,1000 ms" in texts_of(figure)
    assert [line for line in figure.axes[0].lines if line.get_marker() == "v"]


@pytest.mark.parametrize("samples", [np.linspace(1.0, 2.0, 100), np.full(20, 1.5), np.zeros(20)])
def test_a_curve_without_outliers_is_whole(samples):
    run = make_result(samples, samples, warmup_ms=samples)
    figure = plots.plot_latency_over_time([run, run], "cifar10")
    png_of(figure)
    png_of(plots.plot_distribution([run, run], "cifar10"))
    assert "hors cadre" not in texts_of(figure)
    for axis in figure.axes:
        low, high = axis.get_ylim()
        assert low < samples.min() <= samples.max() < high
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), samples)


def test_a_run_without_gpu_clock_leaves_the_others_theirs():
    measured = [result(), result(gpu=False), result()]
    for figure in (
        plots.plot_latency_over_time(measured, "cifar10"),
        plots.plot_distribution(measured, "cifar10"),
    ):
        png_of(figure)
        assert [axis.get_title("left") for axis in figure.axes] == ["Horloge GPU", "Horloge hôte"]


def test_mean_pulled_out_of_the_frame_is_marked_at_its_edge():
    figure = plots.plot_distribution([result(gpu=False, outliers=(30_000.0,))], "cifar10")
    axis = figure.axes[0]
    (mark,) = [line for line in axis.lines if line.get_marker() == ">"]
    assert mark.get_xdata()[0] == axis.get_xlim()[1]


def test_distribution_is_the_empirical_one():
    run = result(n=10, gpu=False)
    line = plots.plot_distribution([run], "cifar10").axes[0].lines[0]
    x, y = line.get_data()
    np.testing.assert_array_equal(x[1:], np.sort(run.host.samples_ms))
    np.testing.assert_allclose(y, np.arange(11) * 10)
    assert line.get_drawstyle() == "steps-post"


def test_tagged_blocks_stand_under_their_samples_and_nothing_where_nothing_moved():
    measured = [result(), result()]
    quiet = [[seen(block) for block in range(10)] for _ in measured]
    assert len(plots.plot_latency_over_time(measured, "cifar10", quiet).axes) == 2
    host_only = next(iter(HOST_ONLY))
    quiet[1][4], quiet[1][9] = seen(4, "throttle", host_only), seen(9, "throttle")
    figure = plots.plot_latency_over_time(measured, "cifar10", quiet)
    gpu, _, lanes = figure.axes
    png_of(figure)
    curve = [line.get_xdata() for line in gpu.lines if len(line.get_xdata()) == 500][1]
    found = [
        (to_hex(c.get_facecolor()[0]).upper(), p.vertices[:, 0].min(), p.vertices[:, 0].max())
        for c in lanes.collections
        for p in c.get_paths()
    ]
    assert [colour for colour, *_ in found] == [MARKED.upper()] * 2 + [COLOURS["host"]]
    np.testing.assert_allclose(found[0][1:], (curve[199], curve[249]))
    np.testing.assert_allclose(found[1][1:], (curve[449], curve[499]))
    labels = [TAG_LABELS["throttle"], TAG_LABELS[host_only]]
    assert [label.get_text() for label in lanes.get_yticklabels()] == labels
    assert all(label in figure.get_label() for label in labels)
    with pytest.raises(ValueError, match="2 runs observed but 1 measured"):
        plots.plot_latency_over_time(measured[:1], "cifar10", quiet)


@pytest.mark.parametrize(
    ("p95", "limit", "inside", "finding"),
    [
        ([1.0, 1.0, 1.08], 0.10, True, "écart 7,8 % < 10 %"),
        ([1.0, 1.06, 1.09], 0.10, True, "écart 8,6 % < 10 %"),
        ([1.0, 1.0, 1.12], 0.10, False, "écart 12 % ≥ 10 %"),
        ([1.0, 1.08], 0.05, False, "≥ 5,0 %"),
    ],
)
def test_runs_lie_inside_the_window_exactly_when_the_criterion_is_met(p95, limit, inside, finding):
    figure = plots.plot_p95_runs({"host": p95}, "cifar10", limit)
    window = figure.axes[0].patches[0]
    low, high = window.get_y(), window.get_y() + window.get_height()
    assert all(low <= value <= high for value in p95) is inside
    assert finding in texts_of(figure)
    assert finding in figure.get_label().replace("\N{NO-BREAK SPACE}", " ")
    assert "fenêtre permise" in texts_of(figure)


def test_intervals_are_drawn_where_they_exist_and_their_absence_is_written():
    intervals = {"gpu": [(1.2, 1.4), None, (1.25, 1.35)], "host": [None] * 3}
    p95 = {"gpu": [1.3, 1.31, 1.3], "host": [2.0, 2.1, 2.0]}
    figure = plots.plot_p95_runs(p95, "cifar10", intervals=intervals)
    gpu, host = figure.axes
    (bars,) = gpu.collections
    spans = [sorted(path.vertices[:, 1]) for path in bars.get_paths()]
    np.testing.assert_allclose(spans, [(1.2, 1.4), (1.25, 1.35)])
    for axis, missing in ((gpu, 1), (host, 3)):
        assert sum("non estimable" in text.get_text() for text in axis.texts) == missing
    assert "intervalle" not in texts_of(plots.plot_p95_runs(p95, "cifar10"))
    png_of(figure)


def test_images_show_their_class():
    images = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)
    labels = [index % 10 for index in range(13)]
    figure = plots.plot_images(images, labels, CLASSES, "cifar10")
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title("center") for axis in shown] == [CLASSES[label] for label in labels]
    np.testing.assert_array_equal(shown[12].images[0].get_array(), images[12])
    with pytest.raises(ValueError, match="13 images but 12 labels"):
        plots.plot_images(images, labels[:12], CLASSES, "cifar10")


def test_no_results_is_an_error_with_a_remedy():
    for plot in (plots.plot_latency_over_time, plots.plot_distribution):
        with pytest.raises(ValueError, match="no results to plot: measure at least one run"):
            plot([], "cifar10")


def test_figures_shown_and_saved_carry_their_alt_text(tmp_path):
    figure = draw_all("cifar10")["p95"]
    data, metadata = plots.show(figure)._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == figure.get_label() != ""
    assert list(data) == ["image/png"]
    path = results.open_session(tmp_path, "s").save_figure(figure, "p95_runs")
    assert Image.open(path).text["Description"] == figure.get_label()

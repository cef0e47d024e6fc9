import io
import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from displayed import CPU_LOAD, THROTTLE, run, tagged
from fakes import make_run
from numpy.testing import assert_allclose, assert_equal
from PIL import Image

from helpers.clocks.warmup import Warmup
from helpers.display import plots
from helpers.display.plots.style import WIDTH
from helpers.validation import judge

EARLY = Warmup(np.concatenate(([900.0, 12.0], np.full(48, 2.0))), True)
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 32, 32, 3), dtype=np.uint8)


def draw_all(dataset="cifar10", gpus=(1.3, 1.3, 1.3)):
    """The figures of runs whose GPU clock reads `gpus` (ms), None where a run has none."""
    runs = [run(seed, gpu=gpu, warmup=EARLY) for seed, gpu in enumerate(gpus)]
    data = {"name": dataset, "class_names": [*"abcdefghij"], "test_labels": np.arange(13) % 10}
    yield plots.plot_images(SimpleNamespace(**data, test_images=PIXELS))
    yield plots.plot_over_time(runs, dataset, [tagged()] * len(runs))
    yield plots.plot_distribution(runs, dataset)
    yield plots.plot_p95_runs(judge(runs), dataset)


def png_of(figure):
    """The PNG's bytes; drawing must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(png := io.BytesIO(), format="png")
    return png.getvalue()


def texts_of(figure):
    """Every text on the figure and its alternative text, in one string."""
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    return " ".join([*found, figure.get_label()]).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("gpus", [(None,) * 2, (1.3, None, 1.3), (1.3,) * 150])
def test_every_figure_is_drawn_without_a_warning_whatever_the_runs(gpus):
    """attack A18: 150 runs took a first figure without end"""
    for figure in draw_all(gpus=gpus):
        width, height = Image.open(io.BytesIO(png_of(figure))).size
        assert (width // 10, height < 700) == (11 * WIDTH, True)
        assert max(len(axis.get_xticks()) for axis in figure.axes) <= 14


def test_the_users_matplotlibrc_changes_no_figure():
    """case 23: text.usetex and savefig.dpi of the user, while drawing and while saving"""
    expected = [png_of(figure) for figure in draw_all()]
    users = {"text.usetex": True, "savefig.dpi": 600, "axes.facecolor": "red", "font.size": 30}
    with matplotlib.rc_context(users | {"savefig.bbox": "tight", "lines.marker": "o"}):
        assert [png_of(figure) for figure in draw_all()] == expected


def test_text_has_units_and_the_kind_of_data():
    images, *figures = draw_all("synthetic")
    for figure in (images, *figures):
        assert texts_of(figure).count("données synthétiques") == 2  # alternative text as well
    for axis in (axis for figure in figures for axis in figure.axes):
        assert "(ms)" in axis.get_xlabel() + axis.get_ylabel()


def test_outliers_of_one_clock_leave_the_other_readable_and_are_counted():
    calm = plots.plot_over_time([run()], "cifar10").axes
    outliers = [run(outliers=(30.2, 12.0, 0.1), warmup=EARLY)]
    figure = plots.plot_over_time(outliers, "cifar10")
    assert figure.axes[0].get_ylim() == calm[0].get_ylim()
    assert figure.axes[1].get_ylim()[1] < 1.5 * calm[1].get_ylim()[1]
    said = "2 hors cadre, max 30,20 ms · 1 hors cadre, min 0,1000 ms"
    assert texts_of(figure).count(said) == 2  # and in the alternative text
    assert said in texts_of(plots.plot_distribution(outliers, "cifar10"))


def test_images_have_their_class_and_tagged_blocks_are_shaded_on_the_clocks_they_touch():
    images, *_ = draw_all()
    assert [axis.get_title() for axis in images.axes] == [*"abcdefghijabc"]
    figure = plots.plot_over_time([run()], "cifar10", [tagged((CPU_LOAD,), (THROTTLE,))])
    for axis, ends in zip(figure.axes, ((0.202, 0.4), (0.002, 0.4)), strict=True):  # GPU, host
        (path,) = axis.collections[0].get_paths()
        assert_allclose([path.vertices[:, 0].min(), path.vertices[:, 0].max()], ends)


@pytest.mark.parametrize("samples", [np.linspace(1.0, 2.0, 100), np.full(20, 1.5), np.zeros(20)])
def test_a_curve_without_outliers_is_whole(samples):
    measured = [make_run(samples, samples, warmup=Warmup(samples, True))] * 2
    for axis in plots.plot_over_time(measured, "cifar10").axes:
        assert axis.get_title("right") == ""
        assert_equal(axis.lines[0].get_ydata(), samples)
    x, y = plots.plot_distribution(measured, "cifar10").axes[0].lines[0].get_data()
    assert_equal(x[1:], np.sort(samples))
    assert_allclose(y, np.linspace(0, 100, samples.size + 1))


@pytest.mark.parametrize(("last", "finding"), [(1.09, "8,6 % < 10 %"), (1.12, "11 % ≥ 10 %")])
def test_runs_lie_in_the_window_exactly_when_the_criterion_is_met(last, finding):
    verdict = judge([make_run(np.full(50, level)) for level in (1.0, 1.06, last)], "host")
    figure = plots.plot_p95_runs(verdict, "cifar10")
    window = figure.axes[0].patches[0]
    low, high = window.get_y(), window.get_y() + window.get_height()
    assert bool(low <= 1 < last <= high) is verdict.clocks["host"].met
    assert texts_of(figure).count(finding) == 2

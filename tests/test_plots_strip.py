"""The strip under a run: what was seen stands over the samples it was seen with."""

from itertools import pairwise

import numpy as np
import pytest

from helpers.display.plots import COLOURS, plot_latency_over_time
from helpers.display.plots.strip import make_strips
from helpers.display.plots.style import MARKED
from helpers.validation.interference import Observation
from helpers.validation.interference.evidence import Tag
from helpers.validation.interference.rules import GPU_RULES, HOST_RULES, TAG_LABELS
from tests.fakes import make_result
from tests.test_plots import png_of, texts_of


def seen(block, sm_mhz=1980, temperature_c=36, tags=()):
    """What was observed around one block."""
    return Observation(
        block=block,
        start_s=float(block),
        end_s=block + 0.9,
        sm_mhz=sm_mhz,
        memory_mhz=None if sm_mhz is None else 2619,
        temperature_c=temperature_c,
        power_w=None,
        foreign_sm=None,
        foreign_pids=(),
        idle_foreigners=0,
        look_ms=1.0,
        values={},
        tags=tuple(Tag(code, 0.2, 0.05, "…") for code in tags),
        unseen=(),
    )


def run(n=500, gpu=True):
    samples = np.random.default_rng(0).uniform(1.5, 1.6, n)
    return make_result(samples, samples if gpu else None)


def on_cpu(*tags):
    return tuple(seen(block, None, None, of_block) for block, of_block in enumerate(tags))


def bars(axis):
    """Drawn spans of a strip, {colour: [(start, end), …]}."""
    found = {}
    for collection in axis.collections:
        for path in collection.get_paths():
            x = path.vertices[:, 0]
            colour = tuple(collection.get_facecolor()[0])
            found.setdefault(colour, []).append((x.min(), x.max()))
    return list(found.values())


def test_clock_and_temperature_are_steps_over_the_blocks_of_the_run():
    clocks = (1980, 1740, 1980, 1980, 1965)
    observed = tuple(seen(b, mhz, 36 + b) for b, mhz in enumerate(clocks))
    figure = plot_latency_over_time([run()], "cifar10", [observed])
    strip = figure.axes[3]
    clock, temperature = strip.patches
    np.testing.assert_allclose(clock.get_data().edges, np.arange(6) * 100 + 0.5)
    # upwards is faster, on an axis whose first lane is on top
    heights = -clock.get_data().values
    assert heights[0] == heights[2] > heights[4] > heights[1]
    assert (np.diff(-temperature.get_data().values) > 0).all()
    assert "SM 1 740 à 1 980 MHz" in texts_of(figure)
    assert "GPU 36 à 40 °C" in texts_of(figure)
    assert strip.get_xlim() == figure.axes[1].get_xlim()
    png_of(figure)


def test_small_step_of_the_clock_is_drawn_small():
    (strip,) = make_strips([run(200)], [(seen(0, 1980), seen(1, 1965))])
    clock, temperature = strip.gauges
    assert (clock.values[0] - clock.values[1]) / (clock.high - clock.low) < 0.1
    assert temperature.high - temperature.low >= 10


def test_scales_are_the_same_for_all_runs():
    strips = make_strips([run(100), run(100)], [(seen(0, 1980),), (seen(0, 1200),)])
    (one, _), (other, _) = (strip.gauges for strip in strips)
    assert (one.low, one.high) == (other.low, other.high) == (1200, 1980)


def test_neighbouring_tagged_blocks_are_one_span_that_ends_with_the_run():
    observed = on_cpu((), ("steal",), ("steal",), (), ("steal",))
    figure = plot_latency_over_time([run(450, gpu=False)], "cifar10", [observed])
    (spans,) = bars(figure.axes[3])
    np.testing.assert_allclose(spans, [(100.5, 300.5), (400.5, 450.5)])
    assert "CPU volé" in texts_of(figure)
    assert "CPU volé (blocs 2 à 3, bloc 5)" in figure.get_label()
    png_of(figure)


def test_many_spans_are_all_drawn_and_counted_in_the_alt_text():
    observed = on_cpu(*[("steal",), ()] * 5000)
    figure = plot_latency_over_time([run(1_000_000, gpu=False)], "cifar10", [observed])
    (spans,) = bars(figure.axes[3])
    assert len(spans) == 5000
    assert "CPU volé (5000 blocs sur 10000)" in figure.get_label()
    assert len(png_of(figure)) < 300_000


def test_colour_says_which_clock_a_tag_concerns():
    observed = (seen(0, tags=("foreign_gpu_process", "cpu_load")),)
    (strip,) = make_strips([run(100)], [observed])
    legend = strip.legend()
    assert legend["bloc marqué"].get_color() == MARKED
    assert legend["bloc marqué, horloge hôte seule"].get_color() == COLOURS["host"]
    figure = plot_latency_over_time([run(100)], "cifar10", [observed])
    assert "bloc marqué, horloge hôte seule" in texts_of(figure)


def test_strip_is_left_out_where_there_is_nothing_to_show():
    results = [run(200, gpu=False)] * 3
    without = plot_latency_over_time(results, "cifar10")
    assert len(without.axes) == 6
    observed = [on_cpu((), ()), on_cpu((), ("cpu_load",)), ()]
    figure = plot_latency_over_time(results, "cifar10", observed)
    assert len(figure.axes) == 8
    assert "MHz" not in texts_of(figure)
    assert "Observé, run 2 : CPU occupé (bloc 2)." in figure.get_label()
    assert "Observé" not in without.get_label()
    quiet = plot_latency_over_time(results, "cifar10", [on_cpu((), ())] * 3)
    assert quiet.get_label() == without.get_label()
    assert len(quiet.axes) == 6


def test_missing_readings_leave_a_gap():
    observed = (seen(0), seen(1, None, None), seen(2, 1965, None))
    (strip,) = make_strips([run(300)], [observed])
    np.testing.assert_array_equal(strip.gauges[0].values, [1980, np.nan, 1965])
    assert strip.gauges[1].label == "GPU 36 °C"
    png_of(plot_latency_over_time([run(300)], "cifar10", [observed]))


def test_strips_do_not_change_the_panels():
    observed = [tuple(seen(block) for block in range(5))] * 2
    plain = plot_latency_over_time([run(), run()], "cifar10").axes
    with_strips = plot_latency_over_time([run(), run()], "cifar10", observed).axes
    for panel, same in ((0, 0), (1, 1), (2, 4), (3, 5)):
        assert plain[panel].get_ylim() == with_strips[same].get_ylim()
        for line, other in zip(plain[panel].lines, with_strips[same].lines, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), other.get_ydata())


def test_every_tag_at_once_is_readable():
    codes = tuple(GPU_RULES | HOST_RULES)
    observed = tuple(seen(block, tags=codes[block::2]) for block in range(2))
    figure = plot_latency_over_time([run(200)] * 8, "cifar10", [observed] * 8)
    png_of(figure)
    names, _ = figure.axes[2:4]
    boxes = [text.get_window_extent() for text in names.texts]
    assert len(boxes) == len(codes) + 2
    assert all(above.y0 > below.y0 + 0.7 * below.height for above, below in pairwise(boxes))
    assert min(box.x0 for box in boxes) > 0


def test_every_rule_has_a_french_label_and_an_unknown_code_is_its_own():
    assert TAG_LABELS.keys() == (GPU_RULES | HOST_RULES).keys()
    (strip,) = make_strips([run(100)], [on_cpu(("new_rule",))])
    assert strip.description == "new_rule (bloc 1)"


def test_observations_of_other_runs_are_refused():
    with pytest.raises(ValueError, match="1 runs observed but 2 measured"):
        plot_latency_over_time([run(), run()], "cifar10", [(seen(0),)])
    with pytest.raises(ValueError, match=r"run 1 has 500 samples .* but 1 observations"):
        plot_latency_over_time([run()], "cifar10", [(seen(0),)])

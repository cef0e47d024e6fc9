"""The reference figures show every process of every sitting, and say what they found."""

import json

import numpy as np
import pytest
from PIL import Image

from helpers.french import percent
from helpers.stats import spread
from tests.gpu.figures import main, read_sittings
from tests.gpu.plots import METHODS, REPEATED, plot_repeatability, plot_side_by_side
from tests.gpu.summary import METHODS as MEASURED
from tests.gpu.summary import spread_row
from tests.test_plots import png_of, texts_of

GPU, CONSECUTIVE, INTERLEAVED = REPEATED


def values(level, relative, processes, seed=0):
    """(processes, 3) p95 in ms with about this relative scatter."""
    random = np.random.default_rng(seed)
    return level * (1 + relative * random.uniform(-1, 1, (processes, 3)))


def figures(processes=6, level=1.3):
    """A summary as `tests.gpu.reference` writes it, through JSON."""
    scatter = {GPU: 0.0005, CONSECUTIVE: 0.2, INTERLEAVED: 0.04}
    repeated = [
        spread_row(name, values(level if name == GPU else 2.2, s, processes))
        for name, s in scatter.items()
    ]
    methods = [
        spread_row(name, values(level, 0.001 * 3**index, processes, index))
        for index, (name, *_) in enumerate(reversed(MEASURED))
    ]
    return json.loads(json.dumps({"repeatability": repeated, "side_by_side": methods}))


def dots(axis, marker="o"):
    """Abscissas of the processes' dots, one array per row."""
    return [line.get_xdata() for line in axis.lines if line.get_marker() == marker]


def test_repeatability_shows_the_spread_and_the_median_of_every_process():
    summary = figures()
    figure = plot_repeatability(summary)
    spreads, medians, gpu = figure.axes
    for row, drawn, middle in zip(
        summary["repeatability"], dots(spreads), dots(medians), strict=True
    ):
        np.testing.assert_allclose(drawn, [spread(v) for v in row["values_ms"]])
        np.testing.assert_allclose(middle, np.median(row["values_ms"], axis=1))
    assert spreads.get_xscale() == "log"
    (enlarged,) = (line.get_ydata() for line in gpu.lines)
    np.testing.assert_allclose(enlarged, dots(medians)[0])  # in the order of measurement
    said = texts_of(figure)
    assert "limite : 10 %" in said
    assert "visé : 0,3 %" in said
    assert "6 processus neufs" in figure.get_suptitle()
    png_of(figure)


def test_title_and_alt_text_state_the_worst_and_how_many_met():
    summary = figures(processes=4)
    summary["repeatability"][0]["values_ms"][2] = [1.0, 1.0, 1.2]
    figure = plot_repeatability(summary)
    alt = figure.get_label().replace("\N{NO-BREAK SPACE}", " ")
    assert "horloge GPU : 3 sur 4 sous 10 %, 3 sur 4 sous 0,3 %, au pire 19 %" in alt
    assert "au pire de 19" in figure.get_suptitle()


def test_several_sittings_have_their_marker_and_their_shift():
    sittings = [("séance 1", figures()), ("séance 2", figures(level=1.313))]
    figure = plot_repeatability(sittings)
    spreads, _, gpu = figure.axes
    assert len(dots(spreads, "o")) == len(dots(spreads, "s")) == 3
    np.testing.assert_array_equal(gpu.lines[1].get_xdata(), np.arange(7, 13))
    assert "décalage entre séances 1,0 %" in texts_of(figure)
    assert "12 processus neufs" in figure.get_suptitle()
    assert {"séance 1", "séance 2"} <= {t.get_text() for t in figure.legends[0].get_texts()}
    png_of(figure)
    png_of(plot_side_by_side(sittings))


def test_methods_are_sorted_and_their_worst_is_written():
    summary = figures()
    figure = plot_side_by_side(summary)
    (axis,) = figure.axes
    drawn = dots(axis)
    assert [np.median(row) for row in drawn] == sorted(np.median(row) for row in drawn)
    by_median = sorted(summary["side_by_side"], key=lambda row: row["spread_median"])
    for row, shown, label in zip(by_median, drawn, axis.get_yticklabels(), strict=True):
        assert max(shown) == pytest.approx(row["spread_worst"])
        assert METHODS[row["name"]][0] in label.get_text()
        assert f"{row['met']} sur 6" in label.get_text()
    written = [text.get_text() for text in axis.texts if "au pire" in text.get_text()]
    assert written == [f"au pire {percent(row['spread_worst'])}" for row in by_median]
    png_of(figure)


def test_every_measured_method_has_a_french_name_and_an_unknown_one_its_own():
    assert METHODS.keys() == {name for name, *_ in MEASURED}
    summary = figures()
    summary["side_by_side"][0]["name"] = "p95, a new method"
    (axis,) = plot_side_by_side(summary).axes
    assert any("p95, a new method" in label.get_text() for label in axis.get_yticklabels())


def test_spread_too_small_for_the_axis_is_marked_at_its_edge():
    summary = figures()
    assert "au bord" not in texts_of(plot_side_by_side(summary))
    summary["side_by_side"][0]["values_ms"][0] = [1.3, 1.3, 1.3]
    figure = plot_side_by_side(summary)
    (axis,) = figure.axes
    (mark,) = dots(axis, "<")
    assert mark == [axis.get_xlim()[0]]
    assert "au bord : 0,01 % au plus" in texts_of(figure)
    png_of(figure)


def test_one_process_is_enough():
    summary = figures(processes=1)
    png_of(plot_repeatability(summary))
    png_of(plot_side_by_side(summary))


def test_sitting_without_a_table_is_not_in_its_legend_and_none_at_all_is_an_error():
    partial = {"repeatability": figures()["repeatability"], "side_by_side": []}
    figure = plot_side_by_side([("séance 1", partial), ("séance 2", figures())])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["médiane", "séance 2"]
    with pytest.raises(ValueError, match=r"none of 1 sitting.*'side_by_side'.*tests.gpu.reference"):
        plot_side_by_side(partial)


def test_command_writes_both_figures_into_the_first_folder(tmp_path, capsys):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        record = {"environment": {"gpu": {"name": "NVIDIA H100"}}, "figures": figures()}
        (folder / "reference.json").write_text(json.dumps(record), encoding="utf8")
    main([str(folder) for folder in folders])
    printed = capsys.readouterr().out
    for name in ("repeatability", "side_by_side"):
        alt = Image.open(folders[0] / f"{name}.png").text["Description"]
        assert f"{name}.png: {alt}" in printed
        assert not (folders[1] / f"{name}.png").exists()
    assert [label for label, _ in read_sittings(folders)] == [
        "séance 1 (NVIDIA H100)",
        "séance 2 (NVIDIA H100)",
    ]

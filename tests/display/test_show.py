"""`show` displays anything of the day, and what it displays is its table, figure or sentence."""

from types import SimpleNamespace

import pytest
import torch
from bs4 import BeautifulSoup
from displayed import RUNS
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers import display
from helpers.environment import Check
from helpers.models.accuracy import score
from helpers.validation import judge

SCORE, UNREAD = score(torch.eye(10), torch.arange(10), 10), display.CalibrationReceipt((), "a*")


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(display, "display", (found := []).append)
    return found


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        ("**gras**", ["**gras**"]),
        (RUNS[0], ["horloge GPU"]),
        (tuple(RUNS), ["horloge GPU"]),
        (judge(RUNS), ["horloge GPU (décide)"]),
        (SCORE, ["100,0\N{NO-BREAK SPACE}% sur 10 images"]),
        (UNREAD, ["plateforme.** « a&#42; »", "sur des durées connues</caption>"]),
    ],
)
def test_each_kind_is_displayed(shown, thing, says):
    display.show(thing)
    assert [text in one.data for one, text in zip(shown, says, strict=True)] == [True] * len(says)
    assert "horloge GPU" in RUNS[0]._repr_html_()  # as the last value of a cell


def test_data_are_their_source_and_their_checks(shown, monkeypatch):
    monkeypatch.setattr(display.cifar10, "check", lambda data: [Check("assertions", True)])
    source = Check("fallback", True, {"seed": 3, "why": "<urlopen error>"})
    display.show.dispatch(display.cifar10.Cifar10)(SimpleNamespace(name="cifar10", source=source))
    assert "graine 3), faute de CIFAR-10 : « &lt;urlopen error&gt; »" in shown[0].data
    assert "Assertions" in shown[1].data


def test_a_figures_alternative_text_survives_nbconvert(shown):
    display.show(figure := display.plot_p95_runs(judge(RUNS), "cifar10"))
    cell = new_code_cell(outputs=[new_output("display_data", {"text/html": shown[0].data})])
    page, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[cell]))
    assert BeautifulSoup(page, "html.parser").main.img["alt"] == figure.get_label() != ""


def test_the_banner_takes_the_verdicts_headline(monkeypatch):
    place = SimpleNamespace(update=(found := []).append)
    monkeypatch.setattr(display, "display", lambda *_, **__: place)
    display.Banner().update(["ACCEPTÉ <b>"])
    assert found[0].data.startswith("**ACCEPTÉ &lt;b&gt;**")

"""`show` displays anything of the day, and what it displays is its table, figure or sentence."""

import numpy as np
import pytest
import torch
from displayed import RECEIPT, run

from helpers import display
from helpers.cifar10 import Cifar10
from helpers.environment import Check
from helpers.models.accuracy import score
from helpers.validation import judge

RUNS = [run(seed) for seed in range(3)]


@pytest.fixture
def shown(monkeypatch):
    """What `show` has handed to IPython: (MIME type, text, metadata) of each."""
    found = []

    def keep(thing):
        bundle = thing._repr_mimebundle_() if hasattr(thing, "alt") else None
        found.append(bundle or getattr(thing, "data", thing))

    monkeypatch.setattr(display, "display", keep)
    return found


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        ("**gras**", "**gras**"),
        (RUNS[0], "horloge GPU"),
        (RUNS, "horloge GPU"),
        (tuple(RUNS), "horloge GPU"),
        (judge(RUNS), "horloge GPU (décide)"),
        (score(torch.eye(10), torch.arange(10), 10), "100,0\N{NO-BREAK SPACE}% sur 10 images"),
        (7, 7),
    ],
)
def test_each_kind_is_displayed_once(shown, thing, says):
    display.show(thing)
    assert len(shown) == 1
    assert says == shown[0] or says in shown[0]


def test_a_caption_stands_above_the_table(shown):
    display.show(RUNS, "Trois runs")
    assert "Trois runs</caption>" in shown[0]


def test_a_receipt_is_its_sentence_and_its_table(shown):
    display.show(RECEIPT)
    assert "dans leurs tolérances" in shown[0]
    assert "Ce que lit chaque horloge" in shown[1]


def test_data_are_their_source_and_their_checks(shown, monkeypatch):
    monkeypatch.setattr(display.cifar10, "check", lambda data: [Check("sizes", True, sizes)])
    sizes, none = {"train": 50_000, "test": 10_000}, np.zeros(0)
    source = Check("drawn", True, {"seed": 3})
    display.show(Cifar10(none, none, none, none, "synthetic", source, {}))
    assert "graine 3" in shown[0]
    assert "tailles" in shown[1]


def test_a_figure_has_its_alternative_text(shown):
    figure = display.plot_p95_runs(judge(RUNS), "cifar10")
    display.show(figure)
    data, metadata = shown[0]
    assert metadata["image/png"]["alt"] == figure.get_label() != ""
    assert list(data) == ["image/png"]

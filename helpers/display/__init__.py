"""What the notebook's reader sees, in French: `show` anything; tables, figures, sentences."""

import io
from collections.abc import Sequence
from functools import singledispatch

import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from helpers import cifar10
from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.display.french import fill, percent
from helpers.display.machine import (
    cost_sentence,
    environment_table,
    fixed_conditions,
    reason,
)
from helpers.display.plots import plot_distribution, plot_images, plot_over_time, plot_p95_runs
from helpers.display.tables import (
    calibration_table,
    checks_table,
    conditions_table,
    latency_table,
    markdown_table,
    markdown_text,
    spread_table,
    styled,
    untagged_table,
)
from helpers.display.verdict import HEADLINE, bound_sentence, verdict_sentences, verdict_text
from helpers.display.words import RECEIPTS, SOURCES
from helpers.environment import Machine
from helpers.models.accuracy import Accuracy
from helpers.validation import Verdict

__all__ = [
    "HEADLINE",
    "Banner",
    "accuracy_sentence",
    "bound_sentence",
    "checks_table",
    "conditions_table",
    "cost_sentence",
    "fixed_conditions",
    "markdown_table",
    "plot_distribution",
    "plot_images",
    "plot_over_time",
    "plot_p95_runs",
    "show",
    "untagged_table",
    "verdict_sentences",
    "verdict_text",
]


@singledispatch
def show(thing, caption: str = "") -> None:
    """Display anything of the day in the notebook; `caption` stands above a table."""
    display(thing)


@show.register
def _(text: str, caption: str = "") -> None:
    display(Markdown(text))


@show.register
def _(frame: pd.DataFrame, caption: str = "") -> None:
    display(styled(frame, caption))


@show.register
def _(figure: Figure, caption: str = "") -> None:
    """As PNG, its label as alternative text."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    display(Image(png.getvalue(), alt=figure.get_label()))


@show.register
def _(data: cifar10.Cifar10, caption: str = "") -> None:
    source = fill(SOURCES[data.source.code], data.source.values)
    show(f"Jeu **{data.name}** ({markdown_text(source)}).")
    show(checks_table(cifar10.check(data)), caption)


@show.register
def _(receipt: CalibrationReceipt, caption: str = "") -> None:
    show(f"**{RECEIPTS[receipt.status]}** {markdown_text(receipt.reason)}")
    show(calibration_table(receipt), caption or "Ce que lit chaque horloge")


def accuracy_sentence(found: Accuracy) -> str:
    """The share of right answers and how sure it is."""
    bounds = f"intervalle à 95 % : {percent(found.low, 3)} à {percent(found.high, 3)}"
    return f"Exactitude {percent(found.fraction, 4)} sur {found.images} images, {bounds}."


@show.register
def _(machine: Machine, caption: str = "") -> None:
    show(f"**Appareil : `{machine.device}`.** {markdown_text(reason(machine))}")
    show(environment_table(machine), caption)


class Banner:
    """A place in an output above, filled in once the verdict is known."""

    def __init__(self):
        self._place = display(Markdown("*Verdict : voir le § 6.*"), display_id=True)

    def update(self, sentences: Sequence[str]) -> None:
        """Put the verdict's headline there."""
        if self._place is not None:  # None outside a notebook
            self._place.update(Markdown(f"**{markdown_text(sentences[0])}** (détails au § 6)"))


_FORMS = {
    Accuracy: accuracy_sentence,
    Verdict: spread_table,
    Run: lambda run: latency_table([run]),
    tuple: latency_table,
    list: latency_table,
}
for _kind, _form in _FORMS.items():
    show.register(_kind, lambda thing, caption="", form=_form: show(form(thing), caption))

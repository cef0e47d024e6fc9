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
from helpers.display import tables
from helpers.display.french import fill, percent
from helpers.display.machine import cost_sentence, environment_table, fixed_conditions, reason
from helpers.display.plots import plot_distribution, plot_images, plot_over_time, plot_p95_runs
from helpers.display.tables import checks_table, conditions_table, markdown_text, untagged_table
from helpers.display.verdict import HEADLINE, bound_sentence, verdict_sentences, verdict_text
from helpers.display.words import NO_ACCURACY as NO_ACCURACY
from helpers.display.words import RECEIPTS, SOURCES
from helpers.environment import Machine
from helpers.models.accuracy import Accuracy
from helpers.validation import Verdict

__all__ = ["HEADLINE", "Banner", "bound_sentence", "cost_sentence", "show"]
__all__ += ["checks_table", "conditions_table", "fixed_conditions", "untagged_table"]
__all__ += ["plot_distribution", "plot_images", "plot_over_time", "plot_p95_runs"]
__all__ += ["verdict_sentences", "verdict_text"]


@singledispatch
def show(thing, caption: str = "") -> None:
    """Display anything of the day in the notebook; `caption` stands above a table."""
    display(thing)


@show.register
def _(frame: pd.DataFrame, caption: str = "") -> None:
    display(tables.styled(frame, caption))


@show.register
def _(data: cifar10.Cifar10, caption: str = "") -> None:
    source = fill(SOURCES[data.source.code], data.source.values)
    show(f"Jeu **{data.name}** ({markdown_text(source)}).")
    show(checks_table(cifar10.check(data)), caption)


@show.register
def _(receipt: CalibrationReceipt, caption: str = "") -> None:
    show(f"**{RECEIPTS[receipt.status]}** {markdown_text(receipt.reason)}")
    show(tables.calibration_table(receipt), caption or "Ce que lit chaque horloge")


@show.register
def _(machine: Machine, caption: str = "") -> None:
    show(f"**Appareil : `{machine.device}`.** {markdown_text(reason(machine))}")
    show(environment_table(machine), caption)


def _image(figure: Figure) -> Image:
    """As PNG, its label as alternative text."""
    figure.savefig(png := io.BytesIO(), format="png")
    return Image(png.getvalue(), alt=figure.get_label())


def _accuracy(found: Accuracy) -> str:
    bounds = f"intervalle à 95 % : {percent(found.low, 3)} à {percent(found.high, 3)}"
    return f"Exactitude {percent(found.fraction, 4)} sur {found.images} images, {bounds}."


_FORMS = {str: Markdown, Figure: _image, Accuracy: _accuracy, Verdict: tables.spread_table}
_FORMS |= {Run: lambda run: tables.latency_table([run])}
_FORMS |= dict.fromkeys((tuple, list), tables.latency_table)
for _kind, _form in _FORMS.items():
    show.register(_kind, lambda thing, caption="", form=_form: show(form(thing), caption))


class Banner:
    """A place in an output above, filled in once the verdict is known."""

    def __init__(self):
        self._place = display(Markdown("*Verdict : voir le § 6.*"), display_id=True)

    def update(self, sentences: Sequence[str]) -> None:
        """Put the verdict's headline there."""
        if self._place is not None:  # None outside a notebook
            self._place.update(Markdown(f"**{markdown_text(sentences[0])}** (détails au § 6)"))

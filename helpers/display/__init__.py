"""What the notebook's reader sees, in French: `show` anything; tables, figures, sentences."""

# ruff: noqa: F401 — the notebook takes all of display from here
import base64
import html
import io
from collections.abc import Sequence
from functools import singledispatch

import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from helpers import cifar10
from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.display import tables
from helpers.display.french import fill
from helpers.display.machine import cost_sentence, environment_table, fixed_conditions, reason
from helpers.display.plots import plot_distribution, plot_images, plot_over_time, plot_p95_runs
from helpers.display.tables import checks_table, conditions_table, markdown_text, untagged_table
from helpers.display.verdict import HEADLINE, bound_sentence, verdict_sentences, verdict_text
from helpers.display.words import ACCURACY, CHANGED, NO_ACCURACY, RECEIPTS, SOURCES
from helpers.environment import Machine
from helpers.models.accuracy import Accuracy
from helpers.validation import Verdict


@singledispatch
def show(thing, caption: str = "") -> None:
    """Display anything of the day in the notebook; `caption` stands above a table."""
    display(thing)


@show.register
def _(data: cifar10.Cifar10, caption: str = "") -> None:
    source = fill(SOURCES[data.source.code], data.source.values)
    show(f"Jeu **{data.name}** ({markdown_text(source)}).")
    show(checks_table(cifar10.check(data)), caption)


@show.register
def _(receipt: CalibrationReceipt, caption: str = "") -> None:
    why = f" « {markdown_text(receipt.reason)} »" * bool(receipt.reason)
    show(f"**Étalonnage : {RECEIPTS[receipt.status]}.**{why}")
    show(tables.calibration_table(receipt), caption or "Chaque horloge sur des durées connues")


@show.register
def _(machine: Machine, caption: str = "") -> None:
    show(f"**Appareil : `{machine.device}`.** {markdown_text(reason(machine))}")
    show(environment_table(machine), caption)
    show(checks_table(machine.checks))


def _image(figure: Figure) -> HTML:
    """An HTML image: nbconvert's page leaves out the alternative text of an image/png."""
    figure.savefig(png := io.BytesIO(), format="png")
    source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return HTML(f'<img alt="{html.escape(figure.get_label())}" src="{source}">')


_FORMS = {str: Markdown, Figure: _image, Verdict: tables.spread_table}
_FORMS |= {Accuracy: lambda found: fill(ACCURACY, vars(found))}
_FORMS |= {Run: lambda run: tables.latency_table([run])}
_FORMS |= dict.fromkeys((tuple, list), tables.latency_table)
for _kind, _form in _FORMS.items():
    show.register(_kind, lambda thing, caption="", form=_form: show(form(thing), caption))
show.register(pd.DataFrame, lambda frame, caption="": display(tables.styled(frame, caption)))
# A run that is the last value of a cell is its table too; bench_latency knows no display.
Run._repr_html_ = lambda run: tables.styled(tables.latency_table([run])).data


class Banner:
    """A place in an output above, filled in once the verdict is known."""

    def __init__(self):
        self._place = display(Markdown("*Verdict : voir le § 6.*"), display_id=True)

    def update(self, sentences: Sequence[str]) -> None:
        """Put the verdict's headline there."""
        if self._place is not None:  # None outside a notebook
            self._place.update(Markdown(f"**{markdown_text(sentences[0])}** (détails au § 6)"))

"""The figure of a campaign: every session's p95, device by device, under each protocol."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.after.campaign.comparison import Device, comparison_table, verdict
from helpers.display.french import number
from helpers.display.plots.style import COLOURS, GREY, NAMES, NOTE_SIZE, STYLE, DecimalComma, finish
from helpers.display.plots.style import new_figure as figure_of_height

MOST_PANELS = 12  # a campaign may have many more; the first ones are drawn, and the title says so
ROW, PANEL = 0.38, 0.75  # inches of a device's row, and of a panel's title and axis


@rc_context(STYLE)
def plot_campaign(devices: Sequence[Device]) -> Figure:
    """One panel per protocol: a dot per session (its runs' median p95, ms), a tick at their median.

    Raises
    ------
    ValueError
        There is no device.
    """
    if not devices:
        raise ValueError("no sessions to plot: run the campaign until one is finished")
    protocols = {}
    for device in devices:
        protocols.setdefault(device.protocol, []).append(device)
    drawn = list(protocols.values())[:MOST_PANELS]
    heights = [ROW * len(panel) + PANEL for panel in drawn]
    figure = figure_of_height(sum(heights) + 0.5)
    axes = figure.subplots(len(drawn), squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, drawn, strict=True):
        _draw_panel(axis, panel)
    axes[-1].set_xlabel("p95 de chaque session (ms) ; trait : médiane")
    sessions = sum(device.p95_ms.size for device in devices)
    title = f"{len({d.name for d in devices})} appareils, {sessions} sessions"
    if len(drawn) < len(protocols):
        title += f" ; {len(drawn)} protocoles dessinés sur {len(protocols)}"
    table = comparison_table([device for panel in drawn for device in panel])
    told = "; ".join(
        f"{' '.join(filter(None, index))} : {row['p95 médian (ms)']} ms, {row['Verdict']}"
        for index, row in table.iterrows()
    )
    return finish(figure, title, f"{title}. {told}.")


def _draw_panel(axis: Axes, panel: list[Device]) -> None:
    colour = COLOURS[panel[0].clock]
    for position, device in enumerate(panel):
        # Sessions in their order, from the row's upper edge to its lower one.
        places = position + np.linspace(-0.22, 0.22, device.p95_ms.size)
        axis.plot(device.p95_ms, places, "o", color=colour, markersize=4.5, alpha=0.7, mew=0)
        median = float(np.median(device.p95_ms))
        axis.plot([median] * 2, [position - 0.35, position + 0.35], color=colour, linewidth=2)
        axis.annotate(
            f"{number(median)} ms, {verdict(device, panel)}",
            (1, position),
            **{"xycoords": axis.get_yaxis_transform(), "xytext": (4, 0), "va": "center"},
            **{"textcoords": "offset points", "fontsize": NOTE_SIZE, "color": GREY},
        )
    names = [f"{_plain(device.name)}\nn = {device.p95_ms.size}" for device in panel]
    axis.set_yticks(range(len(panel)), names)
    axis.set_ylim(len(panel) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.08)
    axis.xaxis.set_major_formatter(DecimalComma(useOffset=False))
    settings = _plain(panel[0].settings) or "mêmes réglages partout"
    axis.set_title(f"{settings} (horloge {NAMES[panel[0].clock]})", fontweight="bold")


def _plain(text: str) -> str:
    """A name that is not ours: a dollar sign would begin a formula of matplotlib's."""
    return text[:50].replace("$", r"\$")

"""Do the devices of a campaign differ? Sessions are compared, not samples.

A session counts once, by the median of its runs' p95, and two devices by Welch's interval of the
ratio of those: what one process reads, the next one does not.
"""

import json
import math

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import stats
from helpers.display.french import number, percent
from helpers.display.words import CLOCK_NAMES

MIN_SESSIONS = 3  # per device: with two, the interval is too wide to say anything
CONFIDENCE = 0.95  # of all comparisons of a protocol together (Bonferroni)
# What must be the same to compare two devices; host latencies depend on torch's threads too.
PROTOCOL = (
    *("set", "clock", "variant", "precision", "batch_size", "input_shape", "warmup_iters"),
    *("measure_iters", "schedule", "dataset", "torch_version", "cuda_version", "threads"),
)
MOST_ROWS = 40  # of the figure; a campaign may have many more, and the title says so


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """All devices of a campaign's merged rows, protocol by protocol; one row per device.

    The first device of a protocol, by name, is the reference: a choice that does not depend on what
    was measured. Columns: `protocol` (from 1), `place` in it (0: the reference),
    `p95_ms` (one per session), and `ratio`, `low` and `high` to the reference, NaN where there are
    too few sessions; then, in French, those that are shown.
    """
    sets = pd.DataFrame(map(json.loads, rows["parameters"]), index=rows.index)
    sets = sets.drop(columns="variants", errors="ignore")  # what was asked for; the row has one
    sets = sets.assign(variant=rows["variant"], schedule=rows["schedule"]).astype(str)
    varying = sets.loc[:, (sets != sets.iloc[0]).any()].to_dict("records")
    table = rows.assign(
        threads=rows["torch_threads"].where(rows["clock"] == "host", 0),
        settings=[", ".join(f"{name} = {value}" for name, value in v.items()) for v in varying],
        name=[_device_name(row) for row in rows.to_dict("records")],
    )
    found = []
    for protocol, (_, group) in enumerate(table.groupby(list(PROTOCOL), dropna=False), start=1):
        devices = group.groupby("name")
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(devices) - 1)
        for place, (name, device) in enumerate(devices):
            sessions, first = device.groupby("session"), device.iloc[0]
            p95_ms, interval = sessions["lat_p95"].median().to_numpy(), (math.nan,) * 3
            reference = found[-place]["p95_ms"] if place else p95_ms
            if place and min(len(p95_ms), len(reference)) >= MIN_SESSIONS:
                interval = stats.welch_interval(reference, p95_ms, confidence)
            numbers = {"protocol": protocol, "place": place, "p95_ms": p95_ms}
            numbers |= zip(("ratio", "low", "high"), interval, strict=True)
            shown = {
                "Réglages": first["settings"] or "les mêmes partout",
                "Appareil": name,
                "Horloge": CLOCK_NAMES[first["clock"]],
                "Sessions": str(len(p95_ms)),
                "dont à hôte partagé": str(sessions["host_shared"].first().sum()),
                "p95 médian (ms)": number(np.median(p95_ms)),
                "p95, étendue (ms)": f"{number(min(p95_ms))} – {number(max(p95_ms))}",
                "Verdict": _verdict(place, *interval),
            }
            found.append(numbers | shown)
    return pd.DataFrame(found)


def _device_name(row: dict) -> str:
    """A GPU by its UUID's first part, a processor by its host."""
    return f"{row['gpu_name'] or row['cpu'] or 'CPU'} ({row['gpu_uuid'][:12] or row['host']})"


def _verdict(place: int, ratio: float, low: float, high: float) -> str:
    if math.isnan(ratio):
        return f"moins de {MIN_SESSIONS} sessions de chaque" if place else "référence"
    told = "pas de différence montrée"
    if not low <= 1 <= high:
        told = f"{percent(abs(ratio - 1))} plus {'lent' if ratio > 1 else 'rapide'}"
    return f"{told} : × {number(ratio)} ({number(low)} – {number(high)})"


@matplotlib.style.context("default")  # whatever the user's own settings are
def plot_campaign(devices: pd.DataFrame) -> Figure:
    """A row per device: a dot per session, its p95 over the median of the protocol's reference."""
    drawn, names = devices.head(MOST_ROWS), []
    figure = Figure(figsize=(9, 0.6 * len(drawn) + 1.2), layout="constrained")
    axis = figure.subplots()
    for row, device in drawn.iterrows():
        ratios = device["p95_ms"] / np.median(devices["p95_ms"][row - device["place"]])
        axis.plot(ratios, [row] * len(ratios), "o", alpha=0.6, color=f"C{device['protocol'] % 10}")
        names.append(f"{device['Réglages'][:50]}\n{device['Appareil'][:50]}, n = {len(ratios)}")
        note = f"{device['p95 médian (ms)']} ms, {device['Verdict']}"
        axis.text(1.01, row, note, transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel("p95 de chaque session, rapporté à la médiane de la référence")
    axis.set_title(f"{len(drawn)} lignes sur {len(devices)}", fontsize=10)
    return figure

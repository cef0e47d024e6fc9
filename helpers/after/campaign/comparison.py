"""Do the GPUs of a campaign differ? Sessions are compared, not samples.

Three runs of one process share the model's place in memory, which moves the latency by 2 % between
processes: their samples say nothing of another session. So a session counts once, by the median of
its runs' p95, and two devices are compared by Welch's t-test on the logarithms of those
(Welch 1947, Biometrika 34:28), whose difference is the logarithm of a ratio of latencies.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.display.french import number, percent

MIN_SESSIONS = 3  # per device: with two, the interval is too wide to say anything
CONFIDENCE = 0.95
# What must be the same to compare two devices; host latencies depend on torch's threads too.
PROTOCOL = (
    *("set", "clock", "variant", "precision", "batch_size", "input_shape", "warmup_iters"),
    *("measure_iters", "schedule", "dataset", "torch_version", "cuda_version", "threads"),
)
CLOCKS = {"gpu": "horloge GPU", "host": "horloge hôte"}


@dataclass(frozen=True)
class Device:
    """One GPU (or processor) under one protocol, and how it compares to the protocol's first."""

    protocol: int  # from 1; devices of the same one are compared
    settings: str  # the parameters that are not the same everywhere in the campaign
    clock: str
    name: str
    p95_ms: np.ndarray  # (sessions,) in the order of measurement
    shared: int  # sessions during which another one ran on the same host
    ratio: float | None = None  # to the first device's p95; None: the first, or too few sessions
    low: float | None = None
    high: float | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the interval of the ratio leaves 1 out; None where there is no interval."""
        return None if self.ratio is None else not self.low <= 1 <= self.high


def compare(rows: list[dict[str, Any]]) -> list[Device]:
    """All devices of a campaign's merged rows, protocol by protocol.

    The first device of a protocol, by name, is the reference of the others: a choice that does not
    depend on what was measured. Their intervals hold all at once (Bonferroni).
    """
    if not rows:
        return []
    table = pd.DataFrame(rows)
    table["threads"] = table["torch_threads"].where(table["clock"] == "host", 0)
    table["settings"] = _settings(table)
    table["name"] = [_device_name(row) for row in rows]
    groups = enumerate(table.groupby(list(PROTOCOL), dropna=False), start=1)
    return [device for protocol, (_, group) in groups for device in _compared(protocol, group)]


def _compared(protocol: int, group: pd.DataFrame) -> Iterator[Device]:
    devices = []
    for name, own in group.groupby("name"):
        sessions = own.sort_values("started_s").groupby("session", sort=False)
        p95_ms = sessions["lat_p95"].median().to_numpy()
        shared = int(sessions["host_shared"].first().sum())
        settings, clock = own.iloc[0][["settings", "clock"]]
        devices.append(Device(protocol, settings, clock, name, p95_ms, shared))
    reference, *others = devices
    yield reference
    for device in others:
        yield _against(reference, device, 1 - (1 - CONFIDENCE) / len(others))


def _against(reference: Device, device: Device, confidence: float) -> Device:
    if min(reference.p95_ms.size, device.p95_ms.size) < MIN_SESSIONS:
        return device
    one, two = np.log(device.p95_ms), np.log(reference.p95_ms)
    logs = [one.mean() - two.mean()] * 3
    if np.ptp(one) or np.ptp(two):  # without any spread the t-test would divide by zero
        bounds = stats.ttest_ind(one, two, equal_var=False).confidence_interval(confidence)
        logs[1:] = bounds.low, bounds.high
    ratio, low, high = map(float, np.exp(logs))
    return replace(device, ratio=ratio, low=low, high=high)


def comparison_table(devices: list[Device]) -> pd.DataFrame:
    """The comparison in French, one row per device."""
    rows = [
        {
            "Réglages": device.settings or "les mêmes partout",
            "Appareil": device.name,
            "Horloge": CLOCKS[device.clock],
            "Sessions": str(device.p95_ms.size),
            "dont à hôte partagé": str(device.shared),
            "p95 médian (ms)": number(float(np.median(device.p95_ms))),
            "p95, étendue (ms)": f"{number(device.p95_ms.min())} – {number(device.p95_ms.max())}",
            "Rapport à la référence": "–"
            if device.ratio is None
            else f"{number(device.ratio)} ({number(device.low)} – {number(device.high)})",
            "Verdict": verdict(device, devices),
        }
        for device in devices
    ]
    columns = None if rows else ["Réglages", "Appareil"]
    return pd.DataFrame(rows, columns=columns).set_index(["Réglages", "Appareil"])


def verdict(device: Device, devices: list[Device]) -> str:
    """What the comparison says of a device, in French."""
    same = [one for one in devices if one.protocol == device.protocol]
    if len(same) == 1:
        return "seul appareil de ce protocole : rien à comparer"
    if device is same[0]:
        return "référence"
    if device.ratio is None:
        return f"trop peu de sessions (il en faut {MIN_SESSIONS} par appareil)"
    if not device.differs:
        most = max(device.high - 1, 1 - device.low)
        return f"pas de différence montrée ; au plus {percent(most)}"
    change = device.ratio - 1
    return f"{percent(abs(change))} {'plus lent' if change > 0 else 'plus rapide'}"


def _settings(table: pd.DataFrame) -> list[str]:
    """Of each row's variant, schedule and parameters, those that differ within the campaign."""
    sets = pd.DataFrame([json.loads(text) for text in table["parameters"]])
    sets = sets.drop(columns="variants", errors="ignore")  # what was asked for; the row has one
    sets = sets.assign(variant=table["variant"].array, schedule=table["schedule"].array)
    varying = [name for name in sets if len(set(sets[name].astype(str))) > 1]
    return [", ".join(f"{name} = {row[name]}" for name in varying) for _, row in sets.iterrows()]


def _device_name(row: dict[str, Any]) -> str:
    """A GPU by its UUID's first part, a processor by its host."""
    if row["gpu_uuid"]:
        return f"{row['gpu_name']} ({row['gpu_uuid'][:12]})"
    return f"{row['gpu_name'] or row['cpu'] or 'CPU'} ({row['host']})"

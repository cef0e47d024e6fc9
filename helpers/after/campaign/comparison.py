"""Do the devices of a campaign differ? Sessions are compared, not samples.

A session counts once, by the median of its runs' p95, and two devices by Welch's interval of the
ratio of those: what one process reads, the next one does not.
"""

import json

import pandas as pd

from helpers import stats

MIN_SESSIONS = 3  # per device: with two, the interval is too wide to say anything
CONFIDENCE = 0.95  # of all comparisons of a protocol together (Bonferroni)
# What must be the same to compare two devices; host latencies depend on torch's threads too.
PROTOCOL = ["set", "clock", "variant", "precision", "schedule", "dataset", "torch_version"]
PROTOCOL += ["cuda_version", "threads"]
COLUMNS = ["protocol", "settings", "clock", "device", "sessions", "p95_ms", "p95_min", "p95_max"]
COLUMNS += ["ratio", "low", "high"]


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """All devices of a campaign's merged rows, protocol by protocol; one row per device.

    `settings`: the parameters that vary. `p95_ms`: the sessions' median. `ratio`, `low` and `high`:
    to the protocol's first device by name, a choice that does not depend on what was measured; NaN
    for itself, and where there are too few sessions.
    """
    sets = pd.DataFrame(map(json.loads, rows["parameters"]), index=rows.index)
    sets = sets.drop(columns="variants", errors="ignore")  # what was asked for; the row has one
    sets = sets.assign(variant=rows["variant"], schedule=rows["schedule"]).astype(str)
    varying = sets.loc[:, (sets != sets.iloc[0]).any()].to_dict("records")
    table = rows.assign(
        threads=rows["torch_threads"].where(rows["clock"] == "host", 0),
        settings=[", ".join(f"{name} = {value}" for name, value in v.items()) for v in varying],
        device=[_device_name(row) for row in rows.to_dict("records")],
    )
    found = []
    for number, (_, group) in enumerate(table.groupby(PROTOCOL, dropna=False), start=1):
        same, devices = group.iloc[0], dict(iter(group.groupby("device")))
        levels = [own.groupby("session")["lat_p95"].median() for own in devices.values()]
        confidence = 1 - (1 - CONFIDENCE) / max(1, len(devices) - 1)
        for device, p95_ms in zip(devices, levels, strict=True):
            told = [number, same["settings"], same["clock"], device, len(p95_ms)]
            told += [p95_ms.median(), p95_ms.min(), p95_ms.max()]
            if p95_ms is not levels[0] and min(len(p95_ms), len(levels[0])) >= MIN_SESSIONS:
                told += stats.welch_interval(levels[0], p95_ms, confidence)
            found.append(dict(zip(COLUMNS, told, strict=False)))
    return pd.DataFrame(found, columns=COLUMNS)


def _device_name(row: dict) -> str:
    """A GPU by its UUID's first part, a processor by its host."""
    return f"{row['gpu_name'] or row['cpu'] or 'CPU'} ({row['gpu_uuid'][:12] or row['host']})"

"""Tables and files made from what `tests.gpu.reference` measured."""

import json
from pathlib import Path

import numpy as np

from helpers.clocks.calibration import limit_ms
from helpers.stats import percentile, spread

# (name in the table, prefix of the samples' names, the statistic that is repeated)
METHODS = (
    ("p95, plain protocol", "plain protocol", 0.95),
    ("p95, Triton do_bench", "triton do_bench", 0.95),
    ("median, torch Timer (block means)", "torch Timer", 0.50),
    ("p95, J1 host clock", "host_consecutive", 0.95),
    ("p95, J1 GPU clock", "gpu", 0.95),
    ("p95, J1 GPU clock, L2 flushed", "GPU clock, L2 flushed", 0.95),
)


def repeated(processes: list, prefix: str, q: float) -> np.ndarray:
    """(processes, repeats) q-quantiles in ms of the samples called `prefix`_0, _1, …"""
    rows = [
        [percentile(samples[name], q) for name in sorted(samples) if name[:-2] == prefix]
        for _, samples in processes
    ]
    return np.array([row for row in rows if row])


def spread_row(name: str, values: np.ndarray, limit: float = 0.10) -> dict:
    """One row of a spread table; `values` is (processes, repeats) in ms."""
    spreads = np.array([spread(row) for row in values])
    medians = np.median(values, axis=1)
    return {
        "name": name,
        "processes": len(values),
        "median_ms": float(np.median(medians)),
        "spread_median": float(np.median(spreads)),
        "spread_worst": float(spreads.max()),
        "met": int((spreads < limit).sum()),
        "range_of_medians": float((medians.max() - medians.min()) / medians.mean()),
        "values_ms": values.tolist(),
    }


def cross_process_calibration(processes: list) -> list[dict]:
    """Fit in the first process, judged on the held-out durations of the last."""
    if len(processes) < 2:
        return []
    fit, judged = (settings["clocks"]["gpu"] for settings, _ in (processes[0], processes[-1]))
    rows = []
    for true, measured, used in judged["points"]:
        if not used:
            error = (measured - fit["intercept_ms"]) / fit["slope"] - true
            rows.append(
                {"true_ms": true, "error_ms": error, "limit_ms": float(limit_ms(true, "gpu"))}
            )
    return rows


def summarise(found: dict) -> dict:
    """All figures, from the raw samples."""
    repeat, summary = found["repeat"], {}
    if repeat:
        summary["repeatability"] = [
            spread_row("p95, GPU clock", repeated(repeat, "gpu", 0.95)),
            spread_row("p95, host clock, consecutive", repeated(repeat, "host_consecutive", 0.95)),
            spread_row("p95, host clock, interleaved", repeated(repeat, "host_interleaved", 0.95)),
        ]
        summary["cost"] = {
            clock: float(max(settings["cost"][clock] for settings, _ in repeat))
            for clock in ("host", "gpu")
        }
        compared = [process for process in repeat if process[0]["compared"]]
        tables = [(name, repeated(compared, prefix, q)) for name, prefix, q in METHODS]
        summary["side_by_side"] = [spread_row(n, values) for n, values in tables if len(values)]
        summary["retried_batches"] = sum(sum(settings["retried"]) for settings, _ in repeat)
        summary["process_s"] = [settings["process_s"] for settings, _ in repeat]
    for settings, samples in found["default"]:
        summary["pytorch_default"] = {
            clock: [percentile(samples[f"{clock}_{run}"], 0.95) for run in range(3)]
            for clock in ("host", "gpu")
        } | settings
    for _, samples in found["layout"]:
        summary["layout"] = {
            name: [percentile(samples[f"{name}_{i}"], 0.95) for i in range(len(samples) // 2)]
            for name in ("moved", "same")
        }
    summary["calibration"] = cross_process_calibration(found["calibrate"])
    summary["receipts"] = [settings for settings, _ in found["calibrate"]]
    return summary


def write(folder: Path, found: dict) -> None:
    """Write reference.json, samples.npz and reference.md."""
    summary = summarise(found)
    record = found["environment"][0][0] if found["environment"] else None
    (folder / "reference.json").write_text(
        json.dumps({"environment": record, "figures": summary}, indent=1), encoding="utf8"
    )
    samples = {
        f"{worker}/{index}/{name}": values
        for worker, processes in found.items()
        for index, (_, arrays) in enumerate(processes)
        for name, values in arrays.items()
    }
    np.savez_compressed(folder / "samples.npz", **samples)
    (folder / "reference.md").write_text(markdown(summary), encoding="utf8")


def markdown(summary: dict) -> str:
    """The tables, as Markdown."""
    lines = []
    for title in ("repeatability", "side_by_side"):
        if rows := summary.get(title):
            lines += [
                f"\n### {title}\n",
                "| what is repeated three times | median (ms) | spread, median | worst "
                "| < 10 % | range of the medians |",
                "|---|---|---|---|---|---|",
            ]
            lines += [
                f"| {r['name']} | {r['median_ms']:.4f} | {r['spread_median']:.2%} "
                f"| {r['spread_worst']:.2%} | {r['met']} of {r['processes']} "
                f"| {r['range_of_medians']:.2%} |"
                for r in rows
            ]
    if summary["calibration"]:
        lines += [
            "\n### known durations, fit in another process\n",
            "| true (ms) | error (µs) | limit (µs) |",
            "|---|---|---|",
        ]
        lines += [
            f"| {r['true_ms']:.4f} | {1e3 * r['error_ms']:+.3f} | {1e3 * r['limit_ms']:.1f} |"
            for r in summary["calibration"]
        ]
    default = summary.get("pytorch_default", {})
    shown = {
        "cost": summary.get("cost"),
        "retried batches": summary.get("retried_batches"),
        "PyTorch's default switches, p95 (ms)": {k: default.get(k) for k in ("host", "gpu")},
        "p95 after moving the model (ms)": summary.get("layout"),
    }
    lines += [f"\n{name}: {json.dumps(value)}" for name, value in shown.items()]
    ratios = [r["gpu_timer_ratio"] for r in summary["receipts"]]
    return "\n".join([*lines, f"\nGPU timer / host clock: {ratios}\n"])

"""Every variant on this machine: built, guarded, timed by both clocks, its kernels listed.

    python -m tests.gpu.variants FOLDER --model resnet18 --variants all

FOLDER gets variants.json (written anew after each variant, so that what is lost is one variant) and
samples.npz (every raw sample). Variants that no longer fit into --budget seconds are named, not
timed.
"""

import argparse
import gc
import json
import traceback
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch.autograd import DeviceType

from helpers.annex.variants.dram import copy_bandwidth, weight_bytes
from helpers.annex.variants.guard import VariantFailed, admit, no_recompilation
from helpers.annex.variants.select import select
from helpers.bench_latency import benchmark_latency
from helpers.clocks.conditions import measuring_conditions
from helpers.clocks.profiling import detached_profile
from helpers.environment import choose_device
from helpers.models import build_model
from helpers.stats import summarise

RUNS, SAMPLES, IMAGES, PROFILED = 3, 500, 8, 20


def main() -> None:
    """Measure, write after each variant, print the table last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--variants", default="all")
    parser.add_argument("--budget", type=float, default=140.0)
    args = parser.parse_args()
    start = perf_counter()
    device, cpu = choose_device("auto").device, torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 3, 32, 32, generator=cpu).to(device) for _ in range(IMAGES)]
    model = build_model(args.model, 0).to(device).eval()
    chosen, skipped = select(args.variants, device, model)
    found = {"device": str(device), "torch": torch.__version__, "model": args.model}
    found |= {"skipped": skipped, "variants": {}}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "bandwidth": copy_bandwidth(device)}
        found["bytes"] = {p: weight_bytes(model, p) for p in ("fp32", "fp16")}
    samples: dict[str, np.ndarray] = {}
    for variant in chosen:
        if perf_counter() - start > args.budget:
            found["skipped"][variant.name] = "budget"
            continue
        record = measure(variant, model, inputs, device, samples)
        found["variants"][variant.name] = record
        found["total_s"] = perf_counter() - start
        write(args.folder, found, samples)
        print(f"{found['total_s']:6.1f} s  {line(variant.name, record)}", flush=True)
    write(args.folder, found, samples)
    print("\n".join(["", *(line(n, r) for n, r in found["variants"].items())]), flush=True)
    for name, reason in found["skipped"].items():
        print(f"{name}: {reason}")
    if "bandwidth" in found:
        ms = {p: 1e3 * b / found["bandwidth"] for p, b in found["bytes"].items()}
        print(f"weights / {found['bandwidth'] / 1e12:.2f} TB/s: {ms}")
    print(f"total {perf_counter() - start:.0f} s", flush=True)


def measure(variant, model, inputs, device, samples: dict) -> dict:
    """All that is known of one variant; an error is a record too."""
    begin, memory = perf_counter(), _memory(device)
    try:
        admitted = admit(variant, model, inputs, device)
        record = {"build_s": admitted.build_s, "report": asdict(admitted.report)}
        record["ready_s"] = perf_counter() - begin
        _time(variant, admitted.call, inputs, device, record, samples)
        if device.type == "cuda":
            record["kernel_ms"] = kernel_ms(admitted.call, variant, inputs, device)
        admitted = None
        gc.collect()
    except VariantFailed as failed:
        return {"failed": failed.reason, "total_s": perf_counter() - begin}
    except Exception:
        return {"failed": traceback.format_exc(), "total_s": perf_counter() - begin}
    record |= {"total_s": perf_counter() - begin, "memory_kept": _memory(device) - memory}
    return record


def _time(variant, call, inputs, device, record: dict, samples: dict) -> None:
    clocks: dict[str, list] = {"gpu": [], "host": []}
    with no_recompilation() as seen:
        for run in range(RUNS):
            result = benchmark_latency(
                call, inputs, 50, SAMPLES, device=device, precision=variant.conditions
            )
            for clock, values in clocks.items():
                if (summary := getattr(result, clock)) is not None:
                    values.append(summary)
                    samples[f"{variant.name}/{clock}_{run}"] = summary.samples_ms
    record["recompilations"] = seen.problem
    record |= {"gpu_unavailable": result.gpu_unavailable, "queued": result.queued_forwards}
    record["modules"] = [result.conditions.modules, result.conditions.modules_in_eval]
    for clock, values in clocks.items():
        if values:
            all_runs = summarise(np.concatenate([v.samples_ms for v in values]))
            record[clock] = {k: getattr(all_runs, k) for k in ("mean", "p50", "p95", "min")}
            record[f"{clock}_p95"] = [v.p95 for v in values]


def kernel_ms(call, variant, inputs, device) -> list[list]:
    """[name, times per forward, mean ms] in the order of the first occurrence."""
    with measuring_conditions(call, variant.conditions), detached_profile(device) as prof:
        for i in range(PROFILED):
            call(inputs[i % len(inputs)])
    durations: dict[str, list] = {}
    for event in prof.events():
        if event.device_type == DeviceType.CUDA:
            durations.setdefault(event.name, []).append(event.device_time / 1e3)
    return [[n, len(d) / PROFILED, float(np.mean(d))] for n, d in durations.items()]


def _memory(device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def line(name: str, record: dict) -> str:
    """One line of the table: p50 / p95 (ms) on each clock."""
    if "failed" in record:
        return f"{name:52} FAILED {record['failed'].strip().splitlines()[-1][:200]}"
    report, shown = record["report"], []
    for clock in ("gpu", "host"):
        if clock in record:
            c = record[clock]
            shown.append(f"{clock} {c['mean']:.3f} {c['p50']:.3f} {c['p95']:.3f}")
    kernels = f"{report['kernels']:.0f} kernels" if report["kernels"] else ""
    return (
        f"{name:52} {' | '.join(shown)} | drift {report['drift']:.1e} | {kernels} "
        f"{report['precision_proven']} | build {record['build_s']:.1f} s, all "
        f"{record['total_s']:.1f} s {record['recompilations']}"
    )


def write(folder: Path, found: dict, samples: dict) -> None:
    """Both files, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (folder / "variants.json").write_text(text, encoding="utf8")
    np.savez_compressed(folder / "samples.npz", **samples)


if __name__ == "__main__":
    main()

"""Two GPUs measure at once what each measures alone, in little more than half the time.

    python -m benchmarks.campaign.two_gpus FOLDER    # two GPUs, Dask installed

One plan of N sessions, three times: on the first GPU alone (all N), on the second alone (half of
them, for its own figures), on both at once. FOLDER gets the campaigns and campaign.json.
"""

import argparse
import itertools
import os
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from benchmarks.common import save
from helpers.after.campaign.runner import run_campaign
from helpers.after.campaign.session import visible_gpus

PARAMETERS = {"dataset": "synthetic", "eval_images": 50}  # they cost time and touch no latency


def campaign(folder: Path, name: str, gpus: list[str], sessions: int) -> tuple[pd.DataFrame, float]:
    """Run a campaign on these GPUs of this machine; returns its rows and its wall time (s)."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    plan = {"parameters": {**PARAMETERS, "device": "cuda"}, "repetitions": sessions}
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump(plan), encoding="utf8")
    start = time.perf_counter()
    outcome = run_campaign(file, results_dir=folder / name)
    wall_s = time.perf_counter() - start
    if outcome.failures:
        sys.exit(f"error: {name}: {outcome.failures}")
    print(f"{name}: {outcome.rows['session'].nunique()} sessions, {wall_s:.1f} s", flush=True)
    return outcome.rows, wall_s


def session_p95(rows: pd.DataFrame, uuid: str) -> list[float]:
    """GPU-clock p95 (ms) of each session on a GPU, the median of its runs."""
    return rows[rows["gpu_uuid"] == uuid].groupby("session")["gpu_p95"].median().tolist()


def overlap(rows: pd.DataFrame) -> float:
    """Share of the time from the first session's start to the last one's end with both GPUs."""
    spans = rows.groupby("session")[["gpu_uuid", "started_s", "finished_s"]].first()
    moments = sorted({*spans["started_s"], *spans["finished_s"]})
    both = 0.0
    for start, end in itertools.pairwise(moments):
        during = spans[(spans["started_s"] <= start) & (spans["finished_s"] >= end)]
        both += (end - start) * (during["gpu_uuid"].nunique() == 2)
    return both / (moments[-1] - moments[0])


def summarise(first, second, both) -> dict:
    """Figures of the three campaigns, each of them its rows and its wall time."""
    gpus = []
    for rows, _ in (first, second):
        (uuid,) = set(rows["gpu_uuid"])
        figures = {"alone_ms": session_p95(rows, uuid), "both_ms": session_p95(both[0], uuid)}
        gpus.append({"uuid": uuid, **figures})
    return {"gpus": gpus, "overlap": overlap(both[0]), "wall_s": [both[1], first[1]]}


def main() -> None:
    """Run it on the first two GPUs of this machine and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=2, help="an even number")
    args = parser.parse_args()
    first, second, *_ = visible_gpus()
    args.folder.mkdir(parents=True, exist_ok=True)
    # A machine that has just started reads Python's libraries from its disk for seconds.
    campaign(args.folder, "warm", [first, second], 2)
    found = summarise(
        campaign(args.folder, "first_alone", [first], args.sessions),
        campaign(args.folder, "second_alone", [second], args.sessions // 2),
        campaign(args.folder, "both", [first, second], args.sessions),
    )
    save(args.folder / "campaign.json", found)
    print(found)


if __name__ == "__main__":
    main()

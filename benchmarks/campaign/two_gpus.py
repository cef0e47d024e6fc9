"""Two GPUs measure at once what each measures alone, in little more than half the time.

    python -m benchmarks.campaign.two_gpus FOLDER    # two GPUs, Dask installed

One plan of N sessions, three times: on the first GPU alone (all N), on the second alone (half of
them, for its own figures), on both at once. FOLDER gets the campaigns and campaign.json; exit code
1 says that a criterion is not met.
"""

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from helpers.after.campaign.runner import run_campaign
from helpers.after.campaign.session import visible_gpus

PARAMETERS = {"dataset": "synthetic", "eval_images": 50}  # they cost time and touch no latency
P95_LIMIT, WALL_LIMIT, OVERLAP_LIMIT = 0.01, 0.6, 0.5


def campaign(folder: Path, name: str, gpus: list[str], sessions: int, plan: dict) -> dict:
    """Run a campaign on these GPUs of this machine; returns its rows and its wall time."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump({**plan, "repetitions": sessions}), encoding="utf8")
    start = time.perf_counter()
    outcome = run_campaign(file, results_dir=folder / name)
    wall_s = time.perf_counter() - start
    if outcome.failures:
        sys.exit(f"error: {name}: {outcome.failures}")
    print(f"{name}: {outcome.finished} sessions, {wall_s:.1f} s", flush=True)
    return {"rows": outcome.rows, "wall_s": wall_s}


def session_p95(rows: pd.DataFrame) -> pd.Series:
    """GPU-clock p95 (ms) of each session, the median of its runs."""
    return rows.groupby("session")["gpu_p95"].median()


def overlap(rows: pd.DataFrame) -> float:
    """Share of the time from the first session's start to the last one's end with both GPUs."""
    spans = rows.groupby("session")[["gpu_uuid", "started_s", "finished_s"]].first()
    moments = sorted({*spans["started_s"], *spans["finished_s"]})
    both = 0.0
    for start, end in itertools.pairwise(moments):
        during = spans[(spans["started_s"] <= start) & (spans["finished_s"] >= end)]
        both += (end - start) * (during["gpu_uuid"].nunique() == 2)
    return both / (moments[-1] - moments[0])


def summarise(first: dict, second: dict, both: dict) -> list[dict]:
    """Each criterion, what was found, and whether it is met."""
    found = []
    for alone in (first["rows"], second["rows"]):
        (uuid,) = set(alone["gpu_uuid"])
        one, two = session_p95(alone), session_p95(both["rows"].query("gpu_uuid == @uuid"))
        moved = two.median() / one.median() - 1
        found.append(
            {
                "criterion": f"GPU-clock p95 of {uuid[:12]}, both at once against alone",
                "found": f"{moved:+.2%} ({two.median():.4f} against {one.median():.4f} ms, "
                f"{len(two)} and {len(one)} sessions)",
                "limit": f"within {P95_LIMIT:.0%}",
                "met": bool(abs(moved) <= P95_LIMIT),
                "alone_ms": one.tolist(),
                "both_ms": two.tolist(),
            }
        )
    share, ratio = overlap(both["rows"]), both["wall_s"] / first["wall_s"]
    walls = f"{both['wall_s']:.1f} s against {first['wall_s']:.1f} s"
    for criterion, text, limit, met in (
        (
            "both GPUs in a session at once",
            f"{share:.0%} of the time",
            f"at least {OVERLAP_LIMIT:.0%}",
            share >= OVERLAP_LIMIT,
        ),
        (
            "wall time of both against one doing all",
            f"{ratio:.2f} ({walls})",
            f"at most {WALL_LIMIT}",
            ratio <= WALL_LIMIT,
        ),
    ):
        found.append({"criterion": criterion, "found": text, "limit": limit, "met": bool(met)})
    return found


def run(folder: Path, sessions: int, plan: dict) -> list[dict]:
    """All of it; returns the criteria."""
    gpus = visible_gpus()
    if len(gpus) < 2:
        sys.exit(f"error: two GPUs are needed, {len(gpus)} found (see CUDA_VISIBLE_DEVICES)")
    folder.mkdir(parents=True, exist_ok=True)
    first, second = gpus[:2]
    # A machine that has just started reads Python's libraries from its disk for seconds.
    campaign(folder, "warm", [first, second], 2, plan)
    found = summarise(
        campaign(folder, "first_alone", [first], sessions, plan),
        campaign(folder, "second_alone", [second], sessions // 2, plan),
        campaign(folder, "both", [first, second], sessions, plan),
    )
    (folder / "campaign.json").write_text(json.dumps(found, indent=1), encoding="utf8")
    return found


def main() -> None:
    """Run it on the GPUs of this machine and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=2, help="an even number")
    given = parser.parse_args()
    plan = {"parameters": {**PARAMETERS, "device": "cuda"}}
    found = run(given.folder, given.sessions, plan)
    for one in found:
        print(f"{one['criterion']}: {one['found']}, {one['limit']}: {one['met']}")
    sys.exit(int(not all(one["met"] for one in found)))


if __name__ == "__main__":
    main()

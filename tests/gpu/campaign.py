"""Two GPUs measure at once what each measures alone, in little more than half the time.

    python -m tests.gpu.campaign FOLDER          # two GPUs, requirements-campaign.txt installed

One plan of N sessions, three times: on the first GPU alone (all N), on the second alone (half of
them, for its own figures), on both at once. N follows from how long a first session on each takes
and from --limit. FOLDER gets the campaigns, campaign.json and campaign.md; exit code 1 says that a
criterion is not met.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from helpers.after.campaign.runner import run_campaign
from helpers.after.campaign.session import visible_gpus

LIMIT_S = 240
SESSIONS = (2, 12)  # at least, at most; even, so that two GPUs can halve them
PARAMETERS = {"dataset": "synthetic", "eval_images": 50}  # they cost time and touch no latency
P95_LIMIT, WALL_LIMIT, OVERLAP_LIMIT = 0.01, 0.6, 0.5
IMPORTS = "import torch, torchvision, pandas, matplotlib, IPython, ipykernel"


def campaign(folder: Path, name: str, gpus: list[str], sessions: int, plan: dict) -> dict:
    """Run a campaign on these GPUs of this machine; returns its rows and its wall time."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump({**plan, "repetitions": sessions}))
    start = time.perf_counter()
    outcome = run_campaign(file, results_dir=folder / name)
    wall_s = time.perf_counter() - start
    if outcome.failures:
        sys.exit(f"error: {name}: {outcome.failures}")
    print(f"{name}: {outcome.finished} sessions, {wall_s:.1f} s", flush=True)
    return {"rows": outcome.rows, "wall_s": wall_s}


def how_many(left_s: float, session_s: float) -> int:
    """The largest even N whose N + N / 2 + N / 2 sessions take no longer than `left_s`."""
    fits = int(left_s / (2 * session_s)) // 2 * 2
    return max(SESSIONS[0], min(SESSIONS[1], fits))


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
    found.append(
        {
            "criterion": "both GPUs in a session at once",
            "found": f"{share:.0%} of the time",
            "limit": f"at least {OVERLAP_LIMIT:.0%}",
            "met": share >= OVERLAP_LIMIT,
        }
    )
    found.append(
        {
            "criterion": "wall time of both against one doing all",
            "found": f"{ratio:.2f} ({walls})",
            "limit": f"at most {WALL_LIMIT}",
            "met": ratio <= WALL_LIMIT,
        }
    )
    return found


def markdown(found: list[dict]) -> str:
    lines = [("criterion", "found", "limit", "met"), ("---",) * 4]
    lines += [
        (one["criterion"], one["found"], one["limit"], "yes" if one["met"] else "NO")
        for one in found
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(folder: Path, limit_s: float, plan: dict) -> list[dict]:
    """All of it; returns the criteria."""
    begun = time.perf_counter()
    gpus = visible_gpus()
    if len(gpus) < 2:
        sys.exit(f"error: two GPUs are needed, {len(gpus)} found (see CUDA_VISIBLE_DEVICES)")
    folder.mkdir(parents=True, exist_ok=True)
    first, second = gpus[:2]
    # A machine that has just started reads these from its disk for seconds.
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    warm = campaign(folder, "warm", [first, second], 2, plan)
    left_s = limit_s - (time.perf_counter() - begun)
    sessions = how_many(left_s, warm["wall_s"])  # with the start of a cluster: on the safe side
    print(f"N = {sessions}", flush=True)
    found = summarise(
        campaign(folder, "first_alone", [first], sessions, plan),
        campaign(folder, "second_alone", [second], sessions // 2, plan),
        campaign(folder, "both", [first, second], sessions, plan),
    )
    (folder / "campaign.json").write_text(json.dumps(found, indent=1))
    (folder / "campaign.md").write_text(markdown(found) + "\n")
    return found


def main() -> None:
    """Run it on the GPUs of this machine and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for all of it")
    given = parser.parse_args()
    begun = time.perf_counter()
    found = run(given.folder, given.limit, {"parameters": {**PARAMETERS, "device": "cuda"}})
    print(markdown(found))
    print(f"total {time.perf_counter() - begun:.0f} s")
    sys.exit(int(not all(one["met"] for one in found)))


if __name__ == "__main__":
    main()

"""Workers killed at random, the scheduler killed too: every session is measured, and lands once."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers.after.campaign.merge import FAILURES, TABLE
from helpers.after.campaign.plan import read_plan
from helpers.after.campaign.session import FACTS, NOTEBOOK, ROOT
from tests.campaign.dask_processes import cluster
from tests.campaign.stand_in import FAILING_SEED, write_notebook

pytest.importorskip("distributed", reason="needs Dask: run by `make test-campaign`")

COMMAND = """import sys
from helpers.after.campaign.runner import run_campaign
plan, notebook, *where = sys.argv[1:]
sys.exit(bool(run_campaign(plan, *where, notebook=notebook).failures))"""


def start_campaign(*arguments) -> subprocess.Popen:
    """A campaign in a process of its own, as `python -m helpers.after.campaign` is."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def landed(results: Path) -> dict[str, float]:
    """The sessions that are there, and when they landed."""
    folders = [path for path in results.glob("campaign_*/s*") if path.is_dir()]
    assert all((folder / FACTS).exists() for folder in folders)  # no half one, at any moment
    return {folder.name: (folder / "session.json").stat().st_mtime_ns for folder in folders}


def kill_until(campaign, results, running, *, count, every_s, stop_at) -> None:
    """Kill `count` workers, one after another, until so many sessions are there."""
    killed, next_kill = 0, time.monotonic() + every_s
    while campaign.poll() is None and len(landed(results)) < stop_at:
        time.sleep(0.3)
        if killed < count and time.monotonic() > next_kill and landed(results):
            killed += running.kill_worker()
            next_kill = time.monotonic() + every_s


def survive(tmp_path, plan, notebook, failing: int, *, kills: int, every_s: float, **environment):
    """A campaign whose workers are killed, whose scheduler dies half-way, and that goes on."""
    file, results = tmp_path / "plan.yml", tmp_path / "results"
    file.write_text(yaml.safe_dump(plan))
    planned = len(read_plan(file, notebook).tasks())
    with cluster(tmp_path / "dask", 4, **environment) as running:
        first = start_campaign(file, notebook, running.address, results)
        half = (planned - failing) // 2
        first_half = {"count": kills // 2, "every_s": every_s, "stop_at": half}
        kill_until(first, results, running, **first_half)
        running.kill_all()  # the scheduler first
        said = first.communicate(timeout=300)
        assert first.returncode == 1, said
        assert "the Dask scheduler was lost" in said[1], said
        before = landed(results)
        assert half <= len(before) < planned - failing
        running.start()
        second = start_campaign(file, notebook, running.address, results)
        rest = {"count": kills - kills // 2, "every_s": every_s, "stop_at": planned + 1}
        kill_until(second, results, running, **rest)
        said = second.communicate(timeout=300)
        assert second.returncode == int(failing > 0), said
        killed = running.killed
    assert killed > 0
    after = landed(results)
    assert before.items() <= after.items()  # none of the finished ones was measured again
    assert f"{planned} sessions, dont {len(before)} déjà finies" in said[0]
    (folder,) = results.glob("campaign_*")
    failures = json.loads((folder / FAILURES).read_text())
    assert (len(after), len(failures)) == (planned - failing, failing)
    table = pd.read_csv(folder / TABLE)
    assert Counter(table["session"]) == dict.fromkeys(after, int(table["run"].max()))
    return failures


def test_killed_workers_and_a_killed_scheduler_with_a_stand_in(tmp_path):
    plan = {"parameters": {"seed": [0, 1, 2, 3, 4, FAILING_SEED]}, "repetitions": 2}
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))
    failures = survive(tmp_path, plan, notebook, 2, kills=4, every_s=2, STAND_IN_S="0.5")
    assert all("RuntimeError: no GPU likes seed 13" in one["error"] for one in failures)


@pytest.mark.slow
def test_killed_workers_and_a_killed_scheduler_with_the_notebook_itself(tmp_path):
    small = {"device": ["cpu", "cuda:7"], "dataset": "synthetic", "runs": 2, "warmup_iters": 1}
    small |= {"measure_iters": 20, "eval_images": 50, "isolation": "none"}
    plan = {"parameters": small, "repetitions": 20}
    failures = survive(tmp_path, plan, NOTEBOOK, 20, kills=10, every_s=40, OMP_THREAD_LIMIT="1")
    assert all("DeviceError: device='cuda:7' cannot be had" in one["error"] for one in failures)

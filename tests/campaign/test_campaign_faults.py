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
from tests.campaign.dask_processes import Cluster
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


STAND_IN = {"seed": [0, 1, 2, 3, 4, FAILING_SEED]}
SMALL = {"device": ["cpu", "cuda:7"], "dataset": "synthetic", "runs": 2, "warmup_iters": 1}
SMALL |= {"measure_iters": 20, "eval_images": 50, "isolation": "none"}
LIKES_NO_SEED = "RuntimeError: no GPU likes seed 13"
NO_DEVICE = "DeviceError: device='cuda:7' cannot be had"
CAMPAIGNS = [  # parameters, repetitions, workers killed, seconds between, what fails each time, env
    (STAND_IN, 2, 4, 2, LIKES_NO_SEED, {"STAND_IN_S": "0.5"}),
    pytest.param(SMALL, 20, 10, 40, NO_DEVICE, {"OMP_THREAD_LIMIT": "1"}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    ("parameters", "repetitions", "kills", "every_s", "told", "environment"),
    CAMPAIGNS,
    ids=["a stand-in", "the notebook itself"],
)
def test_workers_are_killed_and_the_scheduler_half_way_and_the_campaign_goes_on(
    tmp_path, parameters, repetitions, kills, every_s, told, environment
):
    file, results, notebook = tmp_path / "plan.yml", tmp_path / "results", NOTEBOOK
    if parameters is STAND_IN:
        notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))
    file.write_text(yaml.safe_dump({"parameters": parameters, "repetitions": repetitions}))
    planned = len(read_plan(file, notebook).tasks())
    finish = planned - repetitions
    pace = {"count": kills // 2, "every_s": every_s}
    with Cluster(tmp_path / "dask", 4, **environment) as running:
        first = start_campaign(file, notebook, running.address, results)
        kill_until(first, results, running, **pace, stop_at=finish // 2)
        running.kill_all()  # the scheduler first
        said = first.communicate(timeout=300)
        assert first.returncode == 1, said
        assert "the Dask scheduler was lost" in said[1], said
        before = landed(results)
        assert finish // 2 <= len(before) < finish
        running.start()
        second = start_campaign(file, notebook, running.address, results)
        kill_until(second, results, running, **pace, stop_at=planned + 1)
        said = second.communicate(timeout=300)
        assert second.returncode == 1, said
    assert running.killed > 0
    after = landed(results)
    assert before.items() <= after.items()  # none of the finished ones was measured again
    assert f"{planned} sessions, dont {len(before)} déjà finies" in said[0]
    (folder,) = results.glob("campaign_*")
    failures = json.loads((folder / FAILURES).read_text())
    assert (len(after), len(failures)) == (finish, repetitions)
    assert all(told in failure["error"] for failure in failures)
    table = pd.read_csv(folder / TABLE)
    assert Counter(table["session"]) == dict.fromkeys(after, int(table["run"].max()))

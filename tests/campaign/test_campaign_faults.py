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
from helpers.after.campaign.session import FACTS, ROOT
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


def test_a_worker_then_the_scheduler_are_killed_and_the_same_command_goes_on(tmp_path):
    file, results = tmp_path / "plan.yml", tmp_path / "results"
    notebook = str(write_notebook(tmp_path / "stand_in.ipynb"))
    parameters = {"seed": [0, 1, 2, 3, 4, FAILING_SEED]}
    file.write_text(yaml.safe_dump({"parameters": parameters, "repetitions": 2}))
    with Cluster(tmp_path / "dask", 4, STAND_IN_S="0.5") as running:
        first = start_campaign(file, notebook, running.address, results)
        killed = False
        while first.poll() is None and len(landed(results)) < 5:
            time.sleep(0.3)
            killed = killed or (bool(landed(results)) and running.kill_worker())
        running.kill_all()  # the scheduler first
        said = first.communicate(timeout=300)
        assert (first.returncode, killed) == (1, True), said
        assert "the Dask scheduler was lost" in said[1], said
        before = landed(results)
        assert 5 <= len(before) < 10
        running.start()
        second = start_campaign(file, notebook, running.address, results)
        said = second.communicate(timeout=300)
        assert second.returncode == 1, said
    after = landed(results)
    assert before.items() <= after.items()  # none of the finished ones was measured again
    assert f"12 sessions, dont {len(before)} déjà finies" in said[0]
    (folder,) = results.glob("campaign_*")
    failures = json.loads((folder / FAILURES).read_text())
    assert (len(after), len(failures)) == (10, 2)
    assert all("RuntimeError: no GPU likes seed 13" in failure["error"] for failure in failures)
    table = pd.read_csv(folder / TABLE)
    assert Counter(table["session"]) == dict.fromkeys(after, 2)

"""The notebook as a campaign: many sessions on many GPUs and machines, through Dask.

    python -m helpers.after.campaign plan.yml                          # the GPUs of this machine
    python -m helpers.after.campaign plan.yml --scheduler ADDRESS      # an existing cluster

The same command goes on where it was stopped, whatever stopped it: finished sessions are kept, the
others are measured. See `campaign.plan` for the plan, `campaign.merge` for what is written where.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dask
import distributed
import filelock
import pandas as pd
import psutil
from distributed import Client, Security
from tqdm import tqdm

from helpers.after.campaign.merge import land, merged, write_tables
from helpers.after.campaign.plan import read_plan
from helpers.after.campaign.session import NOTEBOOK, Task, measure, visible_gpus
from helpers.environment.facts import first_line

RETRIES = 1  # of a session that failed; those of a worker that died are Dask's allowed-failures
ONE_GPU = {"GPU": 1}  # which a worker has and a session takes: a GPU never measures two at once
SETTINGS = {
    "distributed.nanny.pre-spawn-environ": {},  # a session must see what one alone would see
    # Dask counts a worker's death against all that it was given, begun or not.
    "distributed.scheduler.allowed-failures": 100,
}


class Outcome(NamedTuple):
    """What a campaign left in its folder."""

    folder: Path
    rows: pd.DataFrame  # one per run, as in campaign.csv
    failures: dict[str, str]  # session: the line of its error that says most
    table: pd.DataFrame  # the comparison of its devices


def run_campaign(
    plan_file: str | Path,
    scheduler: str | None = None,
    results_dir: str | Path = "results",
    notebook: str = NOTEBOOK,
) -> Outcome:
    """Measure what the plan asks for and is not there yet.

    On the cluster of `scheduler`, by default on one of this machine: a worker per GPU, or one where
    there is none. Raises ValueError before anything is started, ConnectionError where the scheduler
    was lost, filelock.Timeout where another process runs the same campaign, and what Dask raises.
    """
    plan, failures = read_plan(plan_file, notebook), {}
    folder, tasks = Path(results_dir) / f"campaign_{plan.id}", plan.tasks()
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".campaign.lock", timeout=0):
        for left in folder.glob(".*.tmp"):  # by a campaign that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        there = set(merged(folder, tasks)[0]["session"])
        missing = [task for task in tasks if task.session not in there]
        print(f"Campagne {plan.id} : {len(tasks)} sessions, dont {len(there)} déjà finies.")
        wanted = ONE_GPU | plan.resources
        try:
            if missing:
                with connected(scheduler, wanted) as client:
                    print(f"Tableau de bord de Dask : {client.dashboard_link}")
                    print(f"Une session attend un worker qui offre {wanted} (--resources).")
                    _measure(client, notebook, wanted, missing, folder, failures)
        finally:  # also of a campaign that is stopped: what is there can be read
            rows, damaged = merged(folder, tasks)
            failures = damaged | failures
            table = write_tables(folder, rows, failures)
    return Outcome(folder, rows, failures, table)


def _measure(client: Client, notebook: str, wanted: dict, missing, folder: Path, failures: dict):
    """Have each missing session measured; land those that succeed, list those that fail."""
    options, tasks = {"resources": wanted, "retries": RETRIES, "pure": False}, {}
    for task in missing:
        options["key"] = f"{task.campaign}-{task.session}"
        tasks[client.submit(run, task, notebook, **options)] = task
    done = distributed.as_completed(list(tasks))
    for future in tqdm(done, desc="sessions", total=len(tasks), disable=None):  # at a terminal
        task = tasks.pop(future)
        try:
            files = future.result()
        except Exception as error:  # the session's, or KilledWorker: workers died again
            if future.cancelled():
                told = "the Dask scheduler was lost: start it again, then run the same command"
                raise ConnectionError(told) from error
            failures[task.session] = first_line(error)
        else:
            land(folder, task, files)
        future.release()


def run(task: Task, notebook: str) -> dict[str, bytes]:
    """Measure a session on this worker, whose scratch folder Dask clears if it dies."""
    worker = distributed.get_worker()
    if worker.nanny:  # which sets one thread for numerical libraries, and another malloc
        before = psutil.Process(os.getppid()).environ()  # as of its start, whatever it set since
        for name in dask.config.get("distributed.nanny.pre-spawn-environ"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
    with tempfile.TemporaryDirectory(dir=worker.local_directory) as scratch:
        return measure(task, notebook, Path(scratch))


@contextmanager
def connected(scheduler: str | None, wanted: dict) -> Iterator[Client]:
    """A client of an existing cluster (TLS as Dask is configured), or of one on this machine."""
    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with dask.config.set(SETTINGS), _local_cluster(wanted) as cluster, Client(cluster) as client:
        yield client


def _local_cluster(offered: dict) -> distributed.SpecCluster:
    """A worker per GPU, pinned to it, or one where there is none; only its owner can connect.

    Whoever reaches a Dask scheduler can have it run anything: TLS keys exist in memory only.
    """
    quiet = {"silence_logs": logging.CRITICAL}  # what fails is listed at the end, once
    keys = Security.temporary()
    common = {"host": "127.0.0.1", "protocol": "tls://", "security": keys}
    options = {"nthreads": 1, "memory_limit": 0, "resources": offered, **quiet, **common}
    workers = [
        {"cls": distributed.Nanny, "options": options | {"env": environment}}
        for environment in [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in visible_gpus()] or [{}]
    ]
    scheduler = common | {"dashboard_address": "127.0.0.1:8787"}
    scheduler = {"cls": distributed.Scheduler, "options": scheduler}
    return distributed.SpecCluster(dict(enumerate(workers)), scheduler, security=keys, **quiet)


def main() -> None:
    """Run the campaign named on the command line; exit code 1 unless every session is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="such as tls://host:8786")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args()
    try:
        outcome = run_campaign(given.plan, given.scheduler, given.results_dir)
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # also of Dask and of the lock
        sys.exit(f"error: {error}")
    print(outcome.table.to_string())
    for name, error in sorted(outcome.failures.items()):
        print(f"échec : {name} : {error}")
    finished = outcome.rows["session"].nunique()
    print(f"{finished} sessions, {len(outcome.failures)} échecs : {outcome.folder}")
    sys.exit(int(bool(outcome.failures)))

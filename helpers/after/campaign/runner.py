"""The notebook as a campaign: many sessions on many GPUs and machines, through Dask.

    python -m helpers.after.campaign plan.yml                          # the GPUs of this machine
    python -m helpers.after.campaign plan.yml --scheduler ADDRESS      # an existing cluster

The same command goes on where it was stopped, whatever stopped it: finished sessions are kept, the
others are measured. See `campaign.plan` for the plan, `campaign.merge` for what is written where.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import filelock
import pandas as pd
from distributed import Client, as_completed
from tqdm import tqdm

from helpers.after.campaign.cluster import TLS, CampaignError, connected, run
from helpers.after.campaign.merge import land, merged, write_tables
from helpers.after.campaign.plan import Plan, PlanError, read_plan
from helpers.after.campaign.session import NOTEBOOK, first_lines
from helpers.results import ResultsError

RETRIES = 1  # of a session that failed; those of a worker that died are Dask's allowed-failures


@dataclass(frozen=True)
class Outcome:
    """What a campaign left in its folder."""

    folder: Path
    planned: int
    rows: pd.DataFrame  # one per run, as in campaign.csv
    failures: dict[str, str]  # session: the first lines of its error
    table: pd.DataFrame  # the comparison of its devices

    @property
    def finished(self) -> int:
        return self.rows["session"].nunique()


def run_campaign(
    plan_file: str | Path,
    scheduler: str | None = None,
    results_dir: str | Path = "results",
    tls: Mapping[str, Path] | None = None,
    notebook: str = NOTEBOOK,
) -> Outcome:
    """Measure what the plan asks for and is not there yet.

    On the cluster of `scheduler` ("tls://host:8786", with the `tls` paths "ca_file", "cert" and
    "key"), by default on one of this machine: a worker per GPU, or one where there is none.

    Raises
    ------
    PlanError
        The plan is wrong; nothing was started.
    CampaignError
        The scheduler cannot be reached, or was lost.
    ResultsError, filelock.Timeout
        The results cannot be written, or another process runs the same campaign.
    """
    plan = read_plan(plan_file, notebook)
    folder, tasks = Path(results_dir) / f"campaign_{plan.id}", list(plan.tasks())
    failures: dict[str, str] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / ".campaign.lock", timeout=0):
        for left in folder.glob(".*.tmp"):  # by a campaign that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        there = set(merged(folder, [task for task, _ in tasks])[0]["session"])
        missing = [one for one in tasks if one[0].session not in there]
        print(f"Campagne {plan.id} : {len(tasks)} sessions, dont {len(there)} déjà finies.")
        try:
            if missing:
                with connected(scheduler, plan, tls or {}) as client:
                    _measure(client, plan, notebook, folder, missing, failures)
        finally:  # also of a campaign that is stopped: what is there can be read
            rows, damaged = merged(folder, [task for task, _ in tasks])
            failures = damaged | failures
            table = write_tables(folder, rows, failures)
    return Outcome(folder, len(tasks), rows, failures, table)


def _measure(
    client: Client, plan: Plan, notebook: str, folder: Path, missing: list, failures: dict
) -> None:
    """Have each missing session measured; land those that succeed, list those that fail."""
    tasks = {}
    for task, kind in missing:
        key = f"{task.campaign}-{task.session}"
        options = {"key": key, "resources": kind, "retries": RETRIES, "pure": False}
        tasks[client.submit(run, task, notebook, plan.exclusive_host, **options)] = task
    done = as_completed(list(tasks))
    for future in tqdm(done, desc="sessions", total=len(tasks), disable=None):  # at a terminal
        task = tasks.pop(future)
        try:
            files = future.result()
        except Exception as error:  # the session's, or KilledWorker: workers died again
            if future.cancelled():
                raise CampaignError(
                    "the Dask scheduler was lost: start it and its workers again, then run the "
                    "same command; finished sessions are kept"
                ) from error
            failures[task.session] = first_lines(f"{type(error).__name__}: {error}")
        else:
            land(folder, task, files)
        future.release()


def main() -> None:
    """Run the campaign named on the command line; exit code 1 unless every session is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="such as tls://host:8786")
    for name in TLS:
        parser.add_argument(f"--tls-{name.replace('_', '-')}", type=Path, metavar="PEM_FILE")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args()
    tls = {name: path for name in TLS if (path := getattr(given, f"tls_{name}"))}
    try:
        outcome = run_campaign(given.plan, given.scheduler, given.results_dir, tls)
    except (PlanError, CampaignError, ResultsError, OSError) as error:  # a lock held is an OSError
        sys.exit(f"error: {error}")
    print(outcome.table.to_string())
    for session, error in sorted(outcome.failures.items()):
        print(f"échec : {session} : {error}")
    print(f"{outcome.finished} sessions sur {outcome.planned} dans {outcome.folder}")
    sys.exit(int(outcome.finished < outcome.planned))

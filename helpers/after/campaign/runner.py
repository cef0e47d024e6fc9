"""The notebook as a campaign: many sessions on many GPUs and machines, through Dask.

    python -m helpers.after.campaign plan.yml                          # the GPUs of this machine
    python -m helpers.after.campaign plan.yml --scheduler ADDRESS      # an existing cluster

The same command goes on where it was stopped, whatever stopped it: finished sessions are kept, the
others are measured. See `campaign.plan` for the plan, `campaign.merge` for what is written where.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from distributed import Client, as_completed

from helpers.after.campaign.cluster import TLS, CampaignError, connected, run
from helpers.after.campaign.comparison import Device, comparison_table
from helpers.after.campaign.merge import claimed, land, merged, write_tables
from helpers.after.campaign.plan import Plan, PlanError, read_plan
from helpers.after.campaign.session import NOTEBOOK
from helpers.after.campaign.stored import first_lines
from helpers.environment.progress import bar
from helpers.results import ResultsError

__all__ = ["CampaignError", "Outcome", "PlanError", "run_campaign"]

RETRIES = 1  # of a session that failed; those of a worker that died are Dask's allowed-failures
LOST = (
    "the Dask scheduler was lost: start it and its workers again, then run the same command; "
    "finished sessions are kept"
)


@dataclass(frozen=True)
class Outcome:
    """What a campaign left in its folder."""

    folder: Path
    planned: int
    rows: pd.DataFrame  # one per run, as in campaign.csv
    failures: dict[str, str]  # session: the first lines of its error
    devices: list[Device]

    @property
    def finished(self) -> int:
        return self.rows["session"].nunique() if len(self.rows) else 0


def run_campaign(
    plan_file: str | Path,
    scheduler: str | None = None,
    results_dir: str | Path = "results",
    tls: Mapping[str, Path] | None = None,
    notebook: str = NOTEBOOK,
) -> Outcome:
    """Measure what the plan asks for and is not there yet.

    Parameters
    ----------
    scheduler
        Address of a Dask scheduler, such as "tls://host:8786"; by default a cluster on this
        machine, one worker per GPU, or one where there is none.
    tls
        Paths of "ca_file", "cert" and "key", for a tls:// address.

    Raises
    ------
    PlanError
        The plan is wrong; nothing was started.
    CampaignError
        The scheduler cannot be reached, or was lost.
    ResultsError
        The results cannot be written, or another process runs the same campaign.
    """
    plan = read_plan(plan_file, notebook)
    folder, tasks = Path(results_dir) / f"campaign_{plan.id}", list(plan.tasks())
    failures: dict[str, str] = {}
    with claimed(folder):
        there, _ = merged(folder, [task for task, _ in tasks])
        missing = [one for one in tasks if one[0].session not in there]
        print(f"Campagne {plan.id} : {len(tasks)} sessions, dont {len(there)} déjà finies.")
        try:
            if missing:
                with connected(scheduler, plan, tls or {}) as client:
                    _measure(client, plan, notebook, folder, missing, failures)
        finally:  # also of a campaign that is stopped: what is there can be read
            sessions, damaged = merged(folder, [task for task, _ in tasks])
            rows = [row for own in sessions.values() for row in own]
            failures = damaged | failures
            devices = write_tables(folder, rows, failures)
    return Outcome(folder, len(tasks), pd.DataFrame(rows), failures, devices)


def _measure(
    client: Client, plan: Plan, notebook: str, folder: Path, missing: list, failures: dict
) -> None:
    """Have each missing session measured; land those that succeed, list those that fail."""
    tasks = {
        client.submit(
            run,
            task,
            notebook,
            plan.exclusive_host,
            key=f"{task.campaign}-{task.session}",
            resources=kind,
            retries=RETRIES,
            pure=False,
        ): task
        for task, kind in missing
    }
    with bar(total=len(tasks), desc="sessions", unit="session") as progress:
        for future in as_completed(list(tasks)):
            task = tasks.pop(future)
            try:
                land(folder, task, future.result())
            except ResultsError:  # of this machine's disk
                raise
            except Exception as error:  # the session's, or KilledWorker: workers died again
                if future.cancelled():
                    raise CampaignError(LOST) from error
                failures[task.session] = first_lines(f"{type(error).__name__}: {error}")
            future.release()
            progress.update()


def main() -> None:
    """Run the campaign named on the command line; exit code 1 unless every session is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="such as tls://host:8786")
    for name in TLS:
        told = "PEM file, for a tls:// scheduler"
        parser.add_argument(f"--tls-{name.replace('_', '-')}", type=Path, metavar="FILE", help=told)
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args()
    tls = {name: path for name in TLS if (path := getattr(given, f"tls_{name}"))}
    try:
        outcome = run_campaign(given.plan, given.scheduler, given.results_dir, tls)
    except (PlanError, CampaignError, ResultsError) as error:
        sys.exit(f"error: {error}")
    print(comparison_table(outcome.devices).to_string())
    for session, error in sorted(outcome.failures.items()):
        print(f"échec : {session} : {error}")
    print(f"{outcome.finished} sessions sur {outcome.planned} dans {outcome.folder}")
    sys.exit(int(outcome.finished < outcome.planned))

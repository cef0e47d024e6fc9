"""The notebook as a campaign: many sessions on many GPUs and machines, through Dask.

    python -m helpers.after.campaign plan.yml                          # the GPUs of this machine
    python -m helpers.after.campaign plan.yml --scheduler ADDRESS      # an existing cluster

The same command goes on where it was stopped, whatever stopped it: finished sessions are kept, the
others are measured. See `campaign.plan` for the plan, `campaign.merge` for what is written where.
"""

import argparse
import io
import sys
from collections import defaultdict, deque
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from distributed import Client, Future, wait

from helpers.after.campaign.cluster import CampaignError, connected, lost, slots
from helpers.after.campaign.comparison import Device, compare, comparison_table
from helpers.after.campaign.merge import (
    claimed,
    is_finished,
    land,
    merged,
    write_failures,
    write_table,
)
from helpers.after.campaign.plan import Plan, PlanError, read_plan
from helpers.after.campaign.plot import plot_campaign
from helpers.after.campaign.session import first_lines
from helpers.after.campaign.worker import run
from helpers.progress import bar
from helpers.results import ResultsError
from helpers.results.files import write_file

__all__ = ["CampaignError", "Outcome", "PlanError", "run_campaign"]

RETRIES = 1  # of a session that failed; those of a worker that died are Dask's (allowed-failures)
POLL_S = 5  # how soon a worker that joins is given work while no session ends


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
    plan_file: str | Path, scheduler: str | None = None, results_dir: str | Path = "results"
) -> Outcome:
    """Measure what the plan asks for and is not there yet.

    Parameters
    ----------
    scheduler
        Address of a Dask scheduler, such as "tcp://host:8786"; by default a cluster on this
        machine, one worker per GPU, or one where there is none.

    Raises
    ------
    PlanError
        The plan is wrong; nothing was started.
    CampaignError
        The scheduler cannot be reached, or was lost.
    ResultsError
        The results cannot be written, or another process runs the same campaign.
    """
    plan = read_plan(plan_file)
    folder, tasks = Path(results_dir) / f"campaign_{plan.id}", list(plan.tasks())
    names, failures = [task.session for task, _ in tasks], {}
    with claimed(folder):
        missing = [one for one in tasks if not is_finished(folder / one[0].session)]
        done = len(tasks) - len(missing)
        print(f"Campagne {plan.id} : {len(tasks)} sessions, dont {done} déjà finies.")
        try:
            if missing:
                with connected(scheduler, plan) as client:
                    _measure(client, plan, folder, missing, failures)
        finally:  # also of a campaign that is stopped: what is there can be read
            rows = merged(folder, names)
            devices = compare(rows)
            _write(folder, rows, devices, failures)
    return Outcome(folder, len(tasks), pd.DataFrame(rows), failures, devices)


def _measure(client: Client, plan: Plan, folder: Path, missing: list, failures: dict) -> None:
    """Have each missing session measured; land those that succeed, list those that fail.

    As many are submitted as workers can measure at once: Dask counts a worker's death against all
    that it was given, begun or not, and would give up those that waited there.
    """
    waiting, running = defaultdict(deque), {}
    for task, kind in missing:
        waiting[plan.resources.index(kind)].append(task)
    with bar(total=len(missing), desc="sessions", unit="session") as progress:
        while any(waiting.values()) or running:
            _submit(client, plan, waiting, running)
            ended = [(future, running.pop(future)[0]) for future in _ended(running)]
            progress.set_postfix_str("" if ended or client.nthreads() else "aucun worker")
            _submit(client, plan, waiting, running)  # before landing: no worker waits for the disk
            for future, task in ended:
                error = _landed(future, folder, task.session)
                if error:
                    failures[task.session] = error
                future.release()
                progress.update()


def _landed(future: Future, folder: Path, session: str) -> str:
    """Land what a worker sent; returns the first lines of its error where there is one."""
    try:
        files = future.result()
    except CancelledError as error:
        raise lost() from error
    except Exception as error:  # the session's own, or Dask's where workers died again and again
        return first_lines(f"{type(error).__name__}: {error}")
    land(folder, session, files)
    return ""


def _submit(client: Client, plan: Plan, waiting: dict, running: dict[Future, tuple]) -> None:
    for number, tasks in waiting.items():
        given = sum(kind == number for _, kind in running.values())
        free = max(1, slots(client, plan.resources[number])) - given if tasks else 0
        for _ in range(min(free, len(tasks))):
            task = tasks.popleft()
            future = client.submit(
                run,
                task,
                plan.exclusive_host,
                key=f"{task.campaign}-{task.session}",
                resources=plan.resources[number],
                retries=RETRIES,
                pure=False,
            )
            running[future] = (task, number)


def _ended(running: dict[Future, tuple]) -> list[Future]:
    try:
        return list(wait(list(running), timeout=POLL_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []
    except CancelledError as error:
        raise lost() from error


def _write(folder: Path, rows: list[dict], devices: list[Device], failures: dict) -> None:
    write_failures(folder, failures)
    if rows:
        write_table(folder, rows)
        table = comparison_table(devices).reset_index()
        write_file(folder / "comparaison.csv", table.to_csv(index=False).encode())
        figure, png = plot_campaign(devices), io.BytesIO()
        figure.savefig(png, format="png", metadata={"Description": figure.get_label()})
        write_file(folder / "comparaison.png", png.getvalue())


def main() -> None:
    """Run the campaign named on the command line; exit code 1 unless every session is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="such as tcp://host:8786")
    parser.add_argument("--results-dir", type=Path, default=Path("results"))
    given = parser.parse_args()
    try:
        outcome = run_campaign(given.plan, given.scheduler, given.results_dir)
    except (PlanError, CampaignError, ResultsError) as error:
        sys.exit(f"error: {error}")
    print(comparison_table(outcome.devices).to_string())
    for session, error in sorted(outcome.failures.items()):
        print(f"échec : {session} : {error}")
    print(f"{outcome.finished} sessions sur {outcome.planned} dans {outcome.folder}")
    sys.exit(int(outcome.finished < outcome.planned))

"""Where a campaign's sessions run: workers of this machine, or an existing Dask cluster."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, Nanny, Scheduler, SpecCluster

from helpers.after.campaign.plan import Plan, PlanError
from helpers.after.campaign.session import visible_gpus

QUIET = logging.CRITICAL  # what fails is listed at the end, once
LOCAL = "127.0.0.1"  # who reaches a scheduler can have it run anything


class CampaignError(RuntimeError):
    """The campaign stopped before its end; what is finished is kept."""


@contextmanager
def connected(scheduler: str | None, plan: Plan) -> Iterator[Client]:
    """A client of an existing cluster, or of one on this machine for as long as it is used.

    Raises
    ------
    CampaignError
        No scheduler answers at that address.
    PlanError
        The plan asks for what no worker of this machine will ever offer.
    """
    if scheduler is None:
        with local_cluster(plan) as cluster, Client(cluster) as client:
            print(f"Tableau de bord de Dask : {client.dashboard_link}")
            yield client
        return
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise CampaignError(f"no Dask scheduler answers at {scheduler!r}: {error}") from None
    with client:
        print(f"Tableau de bord de Dask : {client.dashboard_link}")
        for kind in plan.resources:
            if not slots(client, kind):
                print(f"Aucun worker n'offre encore {kind} (dask worker --resources) : attente.")
        yield client


def local_cluster(plan: Plan) -> SpecCluster:
    """One worker per GPU of this machine, pinned to it, or one worker where there is none.

    Worker k offers GPU=1 and GPU<k>=1, so that a plan may ask for a certain one.
    """
    gpus, workers = visible_gpus(), {}
    for index in range(max(1, len(gpus))):
        pinned = {"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}
        offered = {"GPU": 1, f"GPU{index}": 1}
        options = {"nthreads": 1, "resources": offered, "env": pinned, "host": LOCAL}
        options["silence_logs"] = QUIET
        workers[index] = {"cls": Nanny, "options": options}
    for kind in plan.resources:
        if not any(_fits(worker["options"]["resources"], kind) for worker in workers.values()):
            raise PlanError(
                f"resources: no worker of this machine offers {kind}: they offer GPU=1 and one of "
                f"GPU0 to GPU{len(workers) - 1}; use --scheduler for others"
            )
    scheduler = {"host": LOCAL, "dashboard_address": f"{LOCAL}:8787"}
    scheduler = {"cls": Scheduler, "options": scheduler}
    return SpecCluster(workers, scheduler, name="campaign", silence_logs=QUIET)


def slots(client: Client, kind: dict[str, float]) -> int:
    """How many sessions that need `kind` can be measured at once as of now: one per worker."""
    try:
        workers = client.scheduler_info()["workers"].values()
    except OSError as error:
        raise lost() from error
    return sum(_fits(worker["resources"], kind) for worker in workers)


def _fits(offered: dict[str, float], kind: dict[str, float]) -> bool:
    return all(offered.get(name, 0) >= amount for name, amount in kind.items())


def lost() -> CampaignError:
    return CampaignError(
        "the Dask scheduler was lost: start it and its workers again, then run the same command; "
        "finished sessions are kept"
    )

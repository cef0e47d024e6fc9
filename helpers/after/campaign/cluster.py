"""Where a campaign's sessions run: workers of this machine, or an existing Dask cluster.

On this machine everything is encrypted and authenticated with keys that exist in memory only:
whoever reaches a Dask scheduler can have it run anything, as its owner.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask
import psutil
from distributed import Client, Nanny, Scheduler, Security, Semaphore, SpecCluster, get_worker

from helpers.after.campaign.plan import Plan, PlanError
from helpers.after.campaign.session import Task, machine, measure, visible_gpus

QUIET = logging.CRITICAL  # what fails is listed at the end, once
SETTINGS = {
    "distributed.nanny.pre-spawn-environ": {},  # a session must see what one alone would see
    # Dask counts a worker's death against all that it was given, begun or not.
    "distributed.scheduler.allowed-failures": 100,
    "distributed.scheduler.worker-ttl": "2 minutes",
}
TLS = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}


class CampaignError(RuntimeError):
    """The campaign stopped before its end; what is finished is kept."""


def run(task: Task, notebook: str, exclusive_host: bool) -> dict[str, bytes]:
    """Measure a session on this worker; with `exclusive_host`, when no other one of the campaign
    is being measured on this host. A worker that dies gives its turn back by not renewing it.

    The scratch folder lies in the worker's, which Dask clears after a worker that was killed.
    """
    if get_worker().nanny:  # which sets one thread for numerical libraries, and another malloc
        before = psutil.Process(os.getppid()).environ()  # as of its start, whatever it set since
        for name in dask.config.get("distributed.nanny.pre-spawn-environ"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
    alone = Semaphore(1, f"{task.campaign} on {machine()}") if exclusive_host else nullcontext()
    with alone, tempfile.TemporaryDirectory(dir=get_worker().local_directory) as scratch:
        return measure(task, notebook, Path(scratch))


@contextmanager
def connected(scheduler: str | None, plan: Plan, tls: Mapping[str, Path]) -> Iterator[Client]:
    """A client of an existing cluster, or of one on this machine for as long as it is used.

    Raises CampaignError where no scheduler answers, or PlanError from `local_cluster`.
    """
    if scheduler is None:
        with dask.config.set(SETTINGS), local_cluster(plan) as cluster, Client(cluster) as client:
            print(f"Tableau de bord de Dask : {client.dashboard_link}")
            yield client
        return
    if tls and not scheduler.startswith("tls://"):
        raise CampaignError(f"files for TLS are given, but {scheduler!r} is no tls:// address")
    try:
        security = Security(**{TLS[name]: str(path) for name, path in tls.items()})
        client = Client(scheduler, security=security)
    except (OSError, ValueError, TypeError) as error:
        raise CampaignError(
            f"no Dask scheduler answers at {scheduler!r} (a tls:// one needs --tls-ca-file, "
            f"--tls-cert and --tls-key): {error}"
        ) from None
    with client:
        print(f"Tableau de bord de Dask : {client.dashboard_link}")
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        for kind in plan.resources:
            if not any(_fits(worker["resources"], kind) for worker in workers):
                print(f"Aucun worker n'offre encore {kind} (dask worker --resources) : attente.")
        yield client


def local_cluster(plan: Plan) -> SpecCluster:
    """One worker per GPU of this machine, pinned to it, or one worker where there is none.

    Worker k offers GPU=1 and GPU<k>=1, so that a plan may ask for a certain one; PlanError where it
    asks for what no worker will ever offer.
    """
    gpus, security = visible_gpus(), Security.temporary()
    common = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    workers = {}
    for index in range(max(1, len(gpus))):
        options = {"nthreads": 1, "memory_limit": 0, "silence_logs": QUIET, **common}
        options["resources"] = {"GPU": 1, f"GPU{index}": 1}
        options["env"] = {"CUDA_VISIBLE_DEVICES": gpus[index]} if gpus else {}
        workers[index] = {"cls": Nanny, "options": options}
    for kind in plan.resources:
        if not any(_fits(worker["options"]["resources"], kind) for worker in workers.values()):
            raise PlanError(
                f"resources: no worker of this machine offers {kind}: they offer GPU=1 and one of "
                f"GPU0 to GPU{len(workers) - 1}; use --scheduler for others"
            )
    scheduler = {"cls": Scheduler, "options": {**common, "dashboard_address": "127.0.0.1:8787"}}
    return SpecCluster(workers, scheduler, name="campaign", silence_logs=QUIET, security=security)


def _fits(offered: dict[str, float], kind: dict[str, float]) -> bool:
    return all(offered.get(name, 0) >= amount for name, amount in kind.items())

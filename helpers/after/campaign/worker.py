"""The task that Dask sends to a worker."""

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import dask
from distributed import Semaphore, get_worker

from helpers.after.campaign.session import Task, machine, measure


def run(task: Task, exclusive_host: bool) -> dict[str, bytes]:
    """Measure a session on this worker; with `exclusive_host`, when no other one of the campaign
    is being measured on this host. A worker that dies gives its turn back by not renewing it.

    The scratch folder lies in the worker's, which Dask clears after a worker that was killed.
    """
    _undo_settings_of_dask()
    alone = Semaphore(1, f"{task.campaign} on {machine()}") if exclusive_host else nullcontext()
    with alone, tempfile.TemporaryDirectory(dir=get_worker().local_directory) as scratch:
        return measure(task, Path(scratch))


def _undo_settings_of_dask() -> None:
    """Let the notebook's kernel see the machine as it is outside Dask.

    Dask's nanny gives its workers one thread for numerical libraries and another malloc: a session
    measured under them would not compare with one measured alone.
    """
    for name, value in dask.config.get("distributed.nanny.pre-spawn-environ").items():
        if os.environ.get(name) == str(value):
            del os.environ[name]

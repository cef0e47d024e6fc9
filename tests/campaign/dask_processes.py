"""A Dask cluster of processes, as `dask scheduler` and `dask worker` start them, to be killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from helpers.after.campaign.session import ROOT


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Cluster:
    """A scheduler and workers, of which any may be killed; `address` stays the same."""

    def __init__(self, folder: Path, workers: int, tls: dict | None = None, **environment):
        self.folder, self.workers, self.processes = folder, workers, []
        self.host, self.port = f"{'tls' if tls else 'tcp'}://127.0.0.1", free_port()
        self.address = f"{self.host}:{self.port}"
        files = {f"--tls-{name.replace('_', '-')}": path for name, path in (tls or {}).items()}
        self.tls = [part for option in files.items() for part in option]
        # A worker's death counts against all that it was given (README: existing clusters).
        settings = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "100"}
        settings["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.environment = os.environ | settings | environment
        folder.mkdir()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill_all()

    def start(self) -> None:
        options = f"--nworkers {self.workers} --nthreads 1 --resources GPU=1 --memory-limit 0"
        self._spawn("scheduler", "--port", self.port)
        self._spawn("worker", self.address, *options.split(), "--local-directory", self.folder)

    def _spawn(self, *arguments) -> None:
        parts = (*arguments, "--host", self.host, "--dashboard-address", "127.0.0.1:0", *self.tls)
        command = [sys.executable, "-m", "dask", *map(str, parts)]
        with open(self.folder / f"{arguments[0]}.log", "a", encoding="utf-8") as log:
            outputs = {"stdout": log, "stderr": log, "start_new_session": True}
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, **outputs)
        self.processes.append(process)

    def kill_worker(self) -> bool:
        """kill -9 a worker's process that has a kernel, mid-session, if there is one right now.

        Its nanny starts another, but would die with one that is killed while it starts.
        """
        children = psutil.Process(self.processes[1].pid).children(recursive=True)
        measuring = [child.ppid() for child in children if _is_kernel(child)]
        if measuring:
            psutil.Process(random.choice(measuring)).kill()
        return bool(measuring)

    def kill_all(self) -> None:
        """kill -9 the scheduler, then the workers, and wait for their kernels to notice."""
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes = []
        time.sleep(2)


def _is_kernel(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "ipykernel_launcher" in " ".join(process.cmdline())
    return False

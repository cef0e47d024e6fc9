"""Sessions opened and filled as the notebook does it, and what a results folder holds."""

import json
from types import SimpleNamespace

from fakes import make_run, series

from helpers.parameters import validate
from helpers.results import Session
from helpers.validation.interference import tags

FACTS = {
    "gpu": {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-1"},
    "software": {"torch": "2.14.1+cu130"},
    "cuda": {"torch_cuda": "13.0", "driver": "580"},
    "cpu": {"model": "A CPU"},
}
ACCURACY = SimpleNamespace(fraction=0.0981, images=10_000)


def opened(folder, name="s", facts=FACTS, **parameters):
    given = validate(results_dir=str(folder), session=name, **parameters)
    return Session(given, SimpleNamespace(facts=facts))


def a_run(host_ms=2.0, gpu_ms=1.3, seed=0, **changes):
    """A run around levels in ms; gpu_ms=None: without GPU clock."""
    gpu = gpu_ms and series(gpu_ms, seed + 1, 100, 0.001)
    return make_run(series(host_ms, seed, 100), gpu, **changes)


def add(session, run=None, **told):
    """Add a run; returns the path of its samples."""
    return session.add_run(run or a_run(), **{"dataset": "cifar10", "accuracy": ACCURACY} | told)


def judged(session, outcome, deciding="gpu"):
    """A verdict over the session's runs, as far as `complete` reads it."""
    flags = [one.codes for one in tags(session.runs)]
    return SimpleNamespace(outcome=outcome, runs=session.runs, flags=flags, deciding=deciding)


def write_session(folder, name="s", runs=3, **parameters):
    """Write a complete session and return its folder."""
    session = opened(folder, name, **parameters)
    for seed in range(runs):
        add(session, a_run(seed=seed))
    session.keep("verdict", {"sentences": ["ACCEPTÉ"], "accepted": True})
    session.complete(judged(session, "yes"))
    return session.folder


def snapshot(folder):
    """Every file under a folder, hidden ones too: {relative path: bytes}."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def state_of(folder):
    return json.loads((folder / "session.json").read_text())["state"]

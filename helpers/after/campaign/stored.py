"""A session of a campaign: what is asked, and what is read back from the folder it left."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from helpers.results import read_session
from helpers.results.files import read_file

FACTS = "campaign.json"  # who measured where and when, beside the session's own files
ADDED = (  # columns of campaign.csv before those of a session
    *("campaign", "set", "repetition", "host", "machine", "gpu_uuid", "driver", "cpu"),
    *("python", "torchvision", "cudnn", "torch_threads", "commit"),
    *("started_s", "finished_s", "host_shared", "accepted", "parameters"),
)
ERROR_LINES = 3
MOST_FACTS = 1 << 20  # bytes; ours have a few hundred

Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SessionError(RuntimeError):
    """A session could not be measured, or is not what was asked; short enough to be listed."""


class Task(BaseModel):
    """What a worker is asked to measure."""

    model_config = ConfigDict(frozen=True, strict=True)
    campaign: str
    session: str
    set: int
    repetition: int
    parameters: dict[str, Any]  # of the notebook, all of them but session and results_dir
    code: str  # what `code_hash` must say on the worker


class Facts(Task):
    """What a worker says of the session it measured; times in seconds since 1970."""

    host: str
    machine: str
    visible_gpus: list[str]
    started_s: Moment
    finished_s: Moment


def read_finished(folder: Path, task: Task) -> tuple[Facts, list[dict[str, Any]]]:
    """The facts and the rows (ADDED but `host_shared`, then a session's columns) of a session.

    Raises
    ------
    SessionError
        The folder holds no complete session of this task: damaged, without a run, other code, …
    """
    try:
        facts = Facts.model_validate_json(read_file(folder / FACTS, MOST_FACTS))
        for name in Task.model_fields:
            if getattr(facts, name) != getattr(task, name):
                raise ValueError(f"{name} is {getattr(facts, name)!r}, not {getattr(task, name)!r}")
        session = read_session(folder)
        if {task.session} != set(session.rows["session"]):
            raise ValueError("results.csv holds no run, or runs of another session")
        added = _added(facts, session.environment) | {"accepted": session.accepted}
    except Exception as error:  # foreign files fail in dozens of ways; none may stop a campaign
        told = first_lines(f"{type(error).__name__}: {error}")
        raise SessionError(f"{folder.name} is no finished session of this plan: {told}") from None
    return facts, [{**added, **row} for row in session.rows.to_dict("records")]


def _added(facts: Facts, environment: dict[str, Any]) -> dict[str, Any]:
    software, cuda, cpu = environment["software"], environment["cuda"], environment["cpu"]
    added = {
        **facts.model_dump(include=set(ADDED)),
        "gpu_uuid": (environment["gpu"] or {}).get("uuid"),
        "driver": cuda["driver"],
        "cpu": cpu["model"],
        "python": software["python"],
        "torchvision": software["torchvision"],
        "cudnn": cuda["cudnn"],
        "torch_threads": int(cpu["torch_threads"]),
        "commit": environment["git"]["commit"],
        "parameters": json.dumps(facts.parameters, sort_keys=True),
    }
    texts = ("gpu_uuid", "driver", "cpu", "python", "torchvision", "cudnn", "commit")
    return added | {name: str(added[name] or "") for name in texts}


def first_lines(text: str) -> str:
    """The first lines of an error that say something, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -")]
    return " | ".join(lines[:ERROR_LINES])[:500]

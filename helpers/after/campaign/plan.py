"""The plan of a campaign: a small YAML file, checked as a whole before anything runs.

    parameters:              # the notebook's; a list means each of its values, lists are crossed
      seed: [0, 1, 2]
      model: [resnet18, resnet50]
    repetitions: 5           # of each crossing; 1 if left out
    resources: {GPU: 1}      # of a worker, for one session; this if left out
    exclusive_host: false    # true: one session at a time on each host

`parameters` may also be a list of such mappings, each crossed for itself; `resources` may be a list
of mappings, and each session is then measured once with each.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.after.campaign.session import NOTEBOOK, ROOT, Task, code_hash
from helpers.parameters import ParameterError, validate

KEYS = ("parameters", "repetitions", "resources", "exclusive_host", "notebook")
OURS = {
    "session": "a campaign names its sessions itself",
    "results_dir": "a campaign decides where its results go",
    "strict": "the campaign's table holds every session's verdict",
}
MOST_SESSIONS = 100_000


class PlanError(ValueError):
    """The plan cannot be carried out; the message names the entry and the remedy."""


@dataclass(frozen=True)
class Plan:
    """A checked plan: `sets` are whole sets of the notebook's parameters, `resources` are per kind
    of worker."""

    sets: tuple[dict[str, Any], ...]
    repetitions: int
    resources: tuple[dict[str, float], ...]
    exclusive_host: bool
    notebook: str
    code: str

    @property
    def id(self) -> str:
        """The same for the same content and the same measuring code, however it was written."""
        content = {name: value for name, value in asdict(self).items() if name != "notebook"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def tasks(self) -> Iterator[tuple[Task, dict[str, float]]]:
        """Every session and the resources it needs; all sets once, then all again.

        So a drift over the campaign touches all sets alike.
        """
        numbered = list(enumerate(self.sets, start=1))
        for repetition in range(1, self.repetitions + 1):
            for (number, parameters), kind in itertools.product(numbered, self.resources):
                where = "".join(f"-{name}" for name in sorted(kind) if name != "GPU")
                name = f"s{number:04d}-r{repetition:04d}{where}"
                task = Task(self.id, name, number, repetition, parameters, self.notebook, self.code)
                yield task, kind


def read_plan(path: str | Path) -> Plan:
    """Read and check a plan.

    Raises
    ------
    PlanError
        The file cannot be read, or an entry is wrong; nothing has been started.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{path} cannot be read as a plan: {error}") from None
    try:
        return make_plan(content)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


def make_plan(content: Any) -> Plan:
    """Check a plan's content, as YAML gives it."""
    if not isinstance(content, dict):
        raise PlanError(f"got {_shown(content)}, a mapping with {', '.join(KEYS)} is needed")
    for key in content:
        if key not in KEYS:
            raise PlanError(f"unknown entry {key!r}: the entries are {', '.join(KEYS)}")
    repetitions, exclusive = content.get("repetitions", 1), content.get("exclusive_host", False)
    if type(repetitions) is not int or repetitions < 1:
        raise PlanError(f"repetitions: got {_shown(repetitions)}, an integer >= 1 is needed")
    if type(exclusive) is not bool:
        raise PlanError(f"exclusive_host: got {_shown(exclusive)}, true or false is needed")
    resources = _resources(content.get("resources", {"GPU": 1}))
    sets = _sets(content.get("parameters", {}))
    count = len(sets) * len(resources) * repetitions
    if count > MOST_SESSIONS:
        raise PlanError(
            f"{count} sessions are planned, at most {MOST_SESSIONS}: make several plans"
        )
    notebook = content.get("notebook", NOTEBOOK)
    try:
        code = code_hash(notebook)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"notebook: {_shown(notebook)} is no notebook in {ROOT}: {error}") from None
    return Plan(tuple(sets), repetitions, tuple(resources), exclusive, notebook, code)


def _sets(given: Any) -> list[dict[str, Any]]:
    sets, seen = [], {}
    for where, mapping in _entries("parameters", given):
        for name, value in mapping.items():
            if name in OURS:
                raise PlanError(f"{where}: {name!r} cannot be planned: {OURS[name]}")
            if value == []:
                raise PlanError(
                    f"{where}: {name!r} is an empty list: give a value, or leave it out"
                )
        values = (value if isinstance(value, list) else [value] for value in mapping.values())
        for crossing in itertools.product(*values):
            chosen = dict(zip(mapping, crossing, strict=True))
            try:
                checked = asdict(validate(**{str(name): value for name, value in chosen.items()}))
            except ParameterError as error:
                raise PlanError(f"{where}: {error}") from None
            parameters = {name: value for name, value in checked.items() if name not in OURS}
            same = json.dumps(parameters)
            if same in seen:
                raise PlanError(
                    f"{where}: {_shown(chosen)} is planned twice (first in {seen[same]}): use "
                    "`repetitions` to measure it again"
                )
            seen[same] = where
            sets.append(parameters)
    return sets


def _resources(given: Any) -> list[dict[str, float]]:
    kinds = []
    for where, mapping in _entries("resources", given):
        for name, value in mapping.items():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name):
                raise PlanError(f"{where}: {_shown(name)} is no name of a resource, such as GPU")
            if type(value) not in (int, float) or not 0 < value < 1e6:
                raise PlanError(f"{where}: {name}: got {_shown(value)}, a number > 0 is needed")
        if "GPU" not in mapping:
            raise PlanError(
                f"{where}: GPU is missing: without `GPU: 1` a GPU may measure two at once"
            )
        if mapping in kinds:
            raise PlanError(f"{where}: {_shown(mapping)} is there twice: use `repetitions`")
        kinds.append(mapping)
    return kinds


def _entries(key: str, given: Any) -> list[tuple[str, dict]]:
    """One mapping, or a list of mappings, each with the words that name it."""
    entries = [(key, given)]
    if isinstance(given, list):
        entries = [(f"{key}, entry {number}", one) for number, one in enumerate(given, start=1)]
    if not entries:
        raise PlanError(f"{key}: the list is empty")
    for where, mapping in entries:
        if not isinstance(mapping, dict):
            raise PlanError(f"{where}: got {_shown(mapping)}, a mapping `name: value` is needed")
    return entries


def _shown(value: Any) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= 120 else f"{text[:119]}…"

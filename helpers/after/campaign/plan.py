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
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from helpers.after.campaign.session import NOTEBOOK, code_hash
from helpers.after.campaign.stored import Task
from helpers.annex.variants.select import variants_problem
from helpers.models import model_problem
from helpers.parameters import checked

OURS = {
    "session": "a campaign names its sessions itself",
    "results_dir": "a campaign decides where its results go",
    "strict": "the campaign's table holds every session's verdict",
}
NAMES = {"model": model_problem, "variants": variants_problem}
MOST_SESSIONS, MOST_BYTES, MOST_DEPTH = 10_000, 100_000, 10

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,30}$")]
Amount = Annotated[float, Field(gt=0, lt=1e6)]


class PlanError(ValueError):
    """The plan cannot be carried out; the message names the entry."""


class Entries(BaseModel):
    """What the file may say."""

    model_config = ConfigDict(extra="forbid", strict=True)
    parameters: list[dict[str, Any]] = Field([{}], min_length=1)
    repetitions: int = Field(1, ge=1)
    resources: list[dict[Name, Amount]] = Field([{"GPU": 1.0}], min_length=1)
    exclusive_host: bool = False

    @field_validator("parameters", "resources", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given


@dataclass(frozen=True)
class Plan:
    """`sets` are whole sets of the notebook's parameters, `resources` are per kind of worker."""

    sets: list[dict[str, Any]]
    repetitions: int
    resources: list[dict[str, float]]
    exclusive_host: bool
    code: str

    @property
    def id(self) -> str:
        """The same for the same content and the same measuring code, however it was written."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def tasks(self) -> Iterator[tuple[Task, dict[str, float]]]:
        """Every session and the resources it needs; all sets once, then all again.

        So a drift over the campaign touches all sets alike.
        """
        own, numbered = self.id, list(enumerate(self.sets, start=1))
        for repetition in range(1, self.repetitions + 1):
            for (number, parameters), kind in itertools.product(numbered, self.resources):
                where = "".join(f"-{name}" for name in sorted(kind) if name != "GPU")
                yield (
                    Task(
                        campaign=own,
                        session=f"s{number:04d}-r{repetition:04d}{where}",
                        set=number,
                        repetition=repetition,
                        parameters=parameters,
                        code=self.code,
                    ),
                    kind,
                )


class _Loader(yaml.SafeLoader):
    """YAML without what grows or hides when it is read: aliases, merges, keys twice, depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        self.depth += 1
        if isinstance(event, yaml.AliasEvent):
            raise PlanError(f"line {event.start_mark.line + 1}: an alias (*name): write it out")
        if self.depth > MOST_DEPTH:
            raise PlanError(f"line {event.start_mark.line + 1}: nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if (str(key.value), key.tag) in seen or key.tag.endswith(":merge"):
                raise PlanError(f"line {key.start_mark.line + 1}: {key.value!r} is there twice")
            seen.add((str(key.value), key.tag))
        return super().construct_mapping(node, deep)


def read_plan(path: str | Path, notebook: str = NOTEBOOK) -> Plan:
    """Read and check a plan.

    Raises
    ------
    PlanError
        The file cannot be read, or an entry is wrong; nothing has been started.
    """
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise PlanError(f"no file of at most {MOST_BYTES:,} bytes")
        return make_plan(yaml.load(path.read_text(encoding="utf8"), _Loader), notebook)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: {error}") from None


def make_plan(content: Any, notebook: str = NOTEBOOK) -> Plan:
    """Check a plan's content, as YAML gives it."""
    try:
        given = Entries.model_validate(content)
    except ValidationError as error:
        raise PlanError("; ".join(map(_told, error.errors()))) from None
    for number, kind in enumerate(given.resources, start=1):
        if "GPU" not in kind or kind in given.resources[: number - 1]:
            raise PlanError(
                f"resources, entry {number}: GPU is missing (a GPU might then measure two at "
                "once), or the same entry is there twice"
            )
    asked = [
        {name: _values(name, value) for name, value in one.items()} for one in given.parameters
    ]
    crossed = sum(math.prod(map(len, one.values())) for one in asked)
    count = crossed * len(given.resources) * given.repetitions
    if count > MOST_SESSIONS:
        raise PlanError(
            f"{count} sessions are planned, at most {MOST_SESSIONS}: make several plans"
        )
    sets: list[dict[str, Any]] = []
    for number, one in enumerate(asked, start=1):
        for crossing in itertools.product(*one.values()):
            try:
                found = asdict(checked(dict(zip(one, crossing, strict=True)), **NAMES))
            except ValueError as error:
                raise PlanError(f"parameters, entry {number}: {error}") from None
            sets.append({name: value for name, value in found.items() if name not in OURS})
    seen: dict[str, int] = {}
    for number, one in enumerate(sets, start=1):
        first = seen.setdefault(json.dumps(one), number)
        if first != number:
            raise PlanError(f"set {number} is planned twice (see set {first}): use `repetitions`")
    return Plan(sets, given.repetitions, given.resources, given.exclusive_host, code_hash(notebook))


def _values(name: str, value: Any) -> list:
    if name in OURS:
        raise PlanError(f"parameters: {name!r} cannot be planned: {OURS[name]}")
    if value == []:
        raise PlanError(f"parameters: {name!r} is an empty list: give a value, or leave it out")
    return value if isinstance(value, list) else [value]


def _told(error: Any) -> str:
    where = ", ".join(map(str, error["loc"])) or "plan"
    return f"{where}: got {repr(error['input'])[:80]}: {error['msg']}"

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
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from helpers.after.campaign.session import NOTEBOOK, Task, code_hash
from helpers.models import model_problem
from helpers.parameters import checked

OURS = ("session", "results_dir", "strict")  # of the notebook's parameters: a campaign's to decide
MOST_SESSIONS, MOST_BYTES, MOST_DEPTH = 10_000, 100_000, 10

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,30}$")]
Amount = Annotated[float, Field(gt=0, lt=1e6)]


class PlanError(ValueError):
    """The plan cannot be carried out; the message names the entry."""


class Plan(BaseModel):
    """What the file says; once checked, `parameters` are whole sets of the notebook's."""

    model_config = ConfigDict(extra="forbid", strict=True)
    parameters: list[dict[str, Any]] = Field([{}], min_length=1, validate_default=True)
    repetitions: int = Field(1, ge=1)
    resources: list[dict[Name, Amount]] = Field([{"GPU": 1.0}], min_length=1)
    exclusive_host: bool = False
    code: Literal[""] = ""  # what `code_hash` says, filled in by make_plan

    @field_validator("parameters", "resources", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [given] if isinstance(given, dict) else given

    @field_validator("parameters")
    @classmethod
    def _crossed(cls, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Cross the lists: counted before they are built, whole sets, none of them twice."""
        values = [[v if isinstance(v, list) else [v] for v in one.values()] for one in given]
        _check_count(sum(math.prod(map(len, one)) for one in values))
        sets = []
        for number, (one, lists) in enumerate(zip(given, values, strict=True), start=1):
            if wrong := [name for name in one if name in OURS or one[name] == []]:
                raise ValueError(f"entry {number}: {wrong[0]!r} cannot be planned, or has no value")
            for crossing in itertools.product(*lists):
                try:
                    found = checked(dict(zip(one, crossing, strict=True)), model=model_problem)
                except ValueError as error:
                    raise ValueError(f"entry {number}: {error}") from None
                sets.append({k: v for k, v in asdict(found).items() if k not in OURS})
        if len(set(map(json.dumps, sets))) < len(sets):
            raise ValueError("a set of parameters is planned twice: use `repetitions`")
        return sets

    @field_validator("resources")
    @classmethod
    def _with_a_gpu(cls, given: list[dict[str, float]]) -> list[dict[str, float]]:
        if not all("GPU" in kind for kind in given) or len(set(map(frozenset, given))) < len(given):
            raise ValueError(
                "each entry names GPU, which measures one at once, and no two the same"
            )
        return given

    @model_validator(mode="after")
    def _counted(self) -> "Plan":
        _check_count(len(self.parameters) * len(self.resources) * self.repetitions)
        return self

    @property
    def id(self) -> str:
        """The same for the same content and the same measuring code, however it was written."""
        content = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def tasks(self) -> Iterator[tuple[Task, dict[str, float]]]:
        """Every session and the resources it needs; all sets once, then all again.

        So a drift over the campaign touches all sets alike.
        """
        own, numbered = self.id, list(enumerate(self.parameters, start=1))
        for repetition in range(1, self.repetitions + 1):
            for (number, parameters), kind in itertools.product(numbered, self.resources):
                where = "".join(f"-{name}" for name in sorted(kind) if name != "GPU")
                told = {"session": f"s{number:04d}-r{repetition:04d}{where}", "campaign": own}
                told |= {"parameters": parameters, "code": self.code}
                yield Task(set=number, repetition=repetition, **told), kind


def _check_count(sessions: int) -> None:
    if sessions > MOST_SESSIONS:
        raise ValueError(f"{sessions} sessions are planned, at most {MOST_SESSIONS}")


class _Loader(yaml.SafeLoader):
    """YAML without what hides when it is read: keys twice, merges."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        for key, times in Counter(str(key.value) for key, _ in node.value).items():
            if times > 1 or key == "<<":
                line = node.start_mark.line + 1
                raise PlanError(f"mapping of line {line}: {key!r} is there twice, or a merge")
        return super().construct_mapping(node, deep)


def read_plan(path: str | Path, notebook: str = NOTEBOOK) -> Plan:
    """Read and check a plan; PlanError where the file cannot be read, or an entry is wrong."""
    path = Path(path)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise PlanError(f"no file of at most {MOST_BYTES:,} bytes")
        text, depth = path.read_text(encoding="utf8"), 0
        for event in yaml.parse(text, yaml.SafeLoader):  # before anything is built of it
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MOST_DEPTH:
                line = event.start_mark.line + 1
                raise PlanError(f"line {line}: an alias (*name), or nested too deeply")
        return make_plan(yaml.load(text, _Loader), notebook)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: {error}") from None


def make_plan(content: Any, notebook: str = NOTEBOOK) -> Plan:
    """Check a plan's content, as YAML gives it; ValueError names what is wrong."""
    return Plan.model_validate(content).model_copy(update={"code": code_hash(notebook)})

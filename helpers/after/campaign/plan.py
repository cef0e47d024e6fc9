"""The plan of a campaign: a small YAML file, checked whole; `examples/campaign.yml` explains it."""

import hashlib
import itertools
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from helpers.after.campaign.session import NOTEBOOK, Task, code_hash
from helpers.models import model_problem
from helpers.parameters import checked

OURS = {"session", "results_dir", "strict"}  # of the notebook's parameters: a campaign's to decide
MOST = 1000  # sets of parameters, and repetitions of each


def _crossed(given: Any) -> list[dict[str, Any]]:
    """Cross the lists, counted before they are built, into whole sets of parameters."""
    if not isinstance(given, dict) or OURS & given.keys():
        raise ValueError(f"give a mapping of the notebook's parameters, none of {sorted(OURS)}")
    values = [value if isinstance(value, list) else [value] for value in given.values()]
    if not 1 <= (count := math.prod(map(len, values))) <= MOST:
        raise ValueError(f"{count} sets of parameters, 1 to {MOST} are possible")
    sets = [dict(zip(given, crossing, strict=True)) for crossing in itertools.product(*values)]
    whole = [asdict(checked(one, model=model_problem)) for one in sets]
    return [{name: value for name, value in one.items() if name not in OURS} for one in whole]


class Plan(BaseModel):
    """What the file says; once checked, `parameters` are whole sets of the notebook's."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True)
    parameters: Annotated[list[dict[str, Any]], BeforeValidator(_crossed)] = {}
    repetitions: int = Field(1, ge=1, le=MOST)
    resources: dict[str, Annotated[float, Field(gt=0, lt=math.inf)]] = {"GPU": 1}
    code: Literal[""] = ""  # what `code_hash` says, filled in by read_plan

    @property
    def id(self) -> str:
        """The same for the same content and the same measuring code, however it was written."""
        content = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def tasks(self) -> list[Task]:
        """Every session: all sets once, then all again, so that a drift touches all alike.

        Each time another set comes first, so that two GPUs do not share two sets between them.
        """
        own, sets = self.id, list(enumerate(self.parameters, start=1))
        return [
            Task(own, f"s{number:04d}-r{k + 1:04d}", number, k + 1, parameters, self.code)
            for k in range(self.repetitions)
            for number, parameters in sets[k % len(sets) :] + sets[: k % len(sets)]
        ]


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, of which one would count in silence."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        keys = [str(key.value) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"{twice[0]!r} is there twice {node.start_mark}")
        return super().construct_mapping(node, deep)


def read_plan(path: str | Path, notebook: str = NOTEBOOK) -> Plan:
    """Read and check a plan; ValueError where the file cannot be read, or an entry is wrong."""
    try:
        plan = Plan.model_validate(yaml.load(Path(path).read_text(encoding="utf8"), _Loader))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
    return plan.model_copy(update={"code": code_hash(notebook)})

"""The notebook's parameters: one class says what is allowed, one function checks them."""

import difflib
import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass


class ParameterError(ValueError):
    """A parameter of the notebook is unknown, has the wrong type or is out of range."""


def _at_home(path: str) -> str:
    """Replace a leading `~`, also in NAME@~/FILE: no shell does it behind `-p` or in a cell."""
    return "@".join(os.path.expanduser(part) for part in path.split("@", 1))


_Count = Annotated[int, Field(ge=1)]
_Images = Annotated[int, Field(ge=1, le=10_000)]  # of the test set
_Share = Annotated[float, Field(gt=0, lt=1)]  # 0.10 means 10 %
_Path = Annotated[str, Field(pattern=r"\S"), AfterValidator(_at_home)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Parameters:
    """The parameters of one session, checked; types are strict but an int will do for a float."""

    runs: Annotated[int, Field(ge=2)] = 3  # a spread needs two
    warmup_iters: _Count = 50  # the first forward also chooses algorithms and loads kernels
    measure_iters: Annotated[int, Field(ge=20)] = 500  # the smallest n whose p95 is no maximum
    batch_size: _Images = 1
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?)$")] = "auto"
    clock: Literal["auto", "host", "gpu"] = "auto"
    isolation: Literal["process", "none"] = "process"
    dataset: Literal["auto", "cifar10", "synthetic"] = "auto"
    data_dir: _Path = "data"
    results_dir: _Path = "results"
    model: _Path = "resnet18"
    input_shape: Annotated[str, Field(pattern=r"^[1-9][0-9]*(x[1-9][0-9]*)*$")] = "3x32x32"
    train_epochs: Annotated[int, Field(ge=0, le=1000)] = 0
    eval_images: _Images = 10_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # NumPy's legacy generators take no more
    max_p95_spread: _Share = 0.10
    variants: str = "fp32"  # names separated by commas, or 'all'
    compare_processes: Annotated[int, Field(ge=3)] = 6  # an interval over processes needs three
    pauses_ms: Annotated[str, Field(pattern=r"^([0-9]{1,4}(\.[0-9]+)?(, ?|$))*$")] = ""  # < 10 s
    baseline: Annotated[str, AfterValidator(_at_home)] = ""  # an earlier session's folder
    max_regression: _Share = 0.05
    strict: bool = False
    # It names a folder: no separator, and no leading dot, so it cannot leave the results folder.
    session: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$")] = ""


_FIELDS = Parameters.__pydantic_fields__
_IN_WORDS = {  # where pydantic would show a regular expression
    "device": "use auto, cpu, cuda or cuda:1",
    "input_shape": "use numbers joined by x, such as 3x224x224",
    "pauses_ms": "use numbers below 10000 with commas, such as 0,1,10,100",
    "session": "use up to 100 letters, digits and . _ -, a letter or digit first",
    **dict.fromkeys(("data_dir", "results_dir", "model"), "use text that is not blank"),
}
_INJECTED = (bool, int, float, str, list, dict, type(None))  # what papermill can set


def checked(namespace: Mapping[str, Any], **problems: Callable[[Any], str | None]) -> Parameters:
    """Pick the parameters out of the notebook's global names and check them, all at once.

    Before "parameters" exists there is nothing else yet but what papermill injected: a misspelled
    `-p` name is refused. `problems`: by name, what finds a fault in a value not the default.
    """
    first = not isinstance(namespace.get("parameters"), Parameters)
    ours = {"In", "Out", *(name for name in namespace if name.startswith("_"))}  # IPython's own
    injected = {n for n, value in namespace.items() if first and type(value) in _INJECTED} - ours
    found = validate(**{n: v for n, v in namespace.items() if n in _FIELDS or n in injected})
    for name, problem in problems.items():
        value = getattr(found, name)
        if value != _FIELDS[name].default and (reason := problem(value)):
            raise ParameterError(f"parameter '{name}': {reason}")
    return found


def validate(**given: Any) -> Parameters:
    """Check parameters given by name, as `checked` does; one left out takes its default."""
    try:
        return Parameters(**given)
    except ValidationError as error:
        lines = "\n".join(_told(e["loc"][0], e) for e in error.errors())
    raise ParameterError(lines)


def _told(name: str, error: Mapping[str, Any]) -> str:
    """One line: the parameter, what was given, what is allowed, how to pass it."""
    if name not in _FIELDS:
        close = difflib.get_close_matches(name, _FIELDS, n=1)
        meant = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(_FIELDS)}"
        return f"unknown parameter '{name}': {meant} (if it is a variable of yours: `del {name}`)"
    value, kind, hint = error["input"], _FIELDS[name].annotation, ""
    if kind is bool and str(value).lower() in ("true", "false"):
        hint = f"; this is text, write `-p {name} {value.capitalize()}`"
    elif kind is str and type(value) in (int, float):
        hint = f'; as text: {name} = "{value}" in the notebook, or `-r {name} {value}`'
    given = f"{repr(value)[:120]} ({type(value).__name__})"
    return f"parameter '{name}': got {given}: {_IN_WORDS.get(name, error['msg'])}{hint}"

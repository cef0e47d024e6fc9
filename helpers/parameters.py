"""The notebook's parameters: one class says what is allowed, one function checks them.

papermill passes on whatever the command line says (``-p strict true`` arrives as the string
``"true"``), and a wrong value would otherwise surface minutes later, inside a measurement.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

TEST_SET_SIZE = 10_000


class ParameterError(ValueError):
    """A parameter of the notebook is unknown, has the wrong type or is out of range."""


def _integer(low: int, high: int | None = None) -> Any:
    words = f"an integer >= {low}" + (f" and <= {high}" if high else "")
    return Annotated[int, Field(ge=low, le=high, description=words)]


def _share(example: str) -> Any:
    words = f"a number > 0 and < 1 ({example})"
    return Annotated[float, Field(gt=0, lt=1, description=words)]


def _text(words: str, pattern: str) -> Any:
    return Annotated[str, Field(pattern=f"^({pattern})$", description=words)]


def _at_home(path: str) -> str:
    """Replace a leading `~`, also in NAME@~/FILE: no shell does it behind `-p` or in a cell."""
    name, at, file = path.partition("@")
    found = name + at + os.path.expanduser(file) if file[:1] == "~" else os.path.expanduser(path)
    if found.startswith("~"):
        raise ValueError("no home folder is known for it")
    return found


_PATH = r"[^\x00]*[^\x00\s][^\x00]*"
_Path = Annotated[
    _text("a path (non-empty text without a null character)", _PATH), AfterValidator(_at_home)
]
_Model = Annotated[
    _text("a model's name, 'package.module:function', a file of weights, or NAME@FILE", _PATH),
    AfterValidator(_at_home),
]
_Baseline = Annotated[
    _text("empty, or the path of an earlier session's folder", r"[^\x00]*"),
    AfterValidator(_at_home),
]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Parameters:
    """The parameters of one session, checked; types are strict but an int will do for a float."""

    runs: _integer(2) = 3  # a spread needs two
    warmup_iters: _integer(1) = 50  # the first forward also chooses algorithms and loads kernels
    measure_iters: _integer(20) = 500  # the smallest n whose p95 is not the maximum
    batch_size: _integer(1, TEST_SET_SIZE) = 1
    device: _text(
        "'auto', 'cpu', 'cuda' or 'cuda:N' (N the index of a GPU)",
        "auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?",
    ) = "auto"
    clock: Literal["auto", "host", "gpu"] = "auto"
    isolation: Literal["none", "process"] = "none"
    dataset: Literal["auto", "cifar10", "synthetic"] = "auto"
    data_dir: _Path = "data"
    results_dir: _Path = "results"
    model: _Model = "resnet18"
    train_epochs: _integer(0, 1000) = 0
    eval_images: _integer(1, TEST_SET_SIZE) = TEST_SET_SIZE
    seed: _integer(0, 2**32 - 1) = 0  # NumPy's legacy generators take no more
    max_p95_spread: _share("0.10 means 10 %") = 0.10
    variants: Annotated[str, Field(description="names separated by commas, or 'all'")] = "fp32"
    baseline: _Baseline = ""
    max_regression: _share("0.05 means 5 %") = 0.05
    strict: Annotated[bool, Field(description="True or False")] = False
    # It names a folder: no separator, and no leading dot, so it cannot leave the results folder.
    session: _text(
        "empty (a name is then made) or at most 100 letters, digits, '.', '_' and '-', "
        "beginning with a letter or a digit",
        "|[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    ) = ""


_FIELDS = Parameters.__pydantic_fields__


def checked(namespace: Mapping[str, Any], **problems: Callable[[Any], str | None]) -> Parameters:
    """Pick the parameters out of the notebook's global names and check them, all at once.

    On the first run of the day, before "parameters" exists, there is nothing else yet but what
    papermill injected: a misspelled `-p` name is picked too, so that it is refused. A leading `~`
    of a path is replaced by the home folder, here and nowhere else.

    Parameters
    ----------
    problems
        By a parameter's name, a function that says what is wrong with a value of the right type
        (or returns None); not asked about the default.

    Raises
    ------
    ParameterError
        One line per problem: the parameter, what was given and its type, what is allowed.
    """
    injected = not isinstance(namespace.get("parameters"), Parameters)
    picked = {
        name: value
        for name, value in namespace.items()
        if name in _FIELDS or (injected and _may_be_injected(name, value))
    }
    return _check(picked, problems)


def validate(**given: Any) -> Parameters:
    """Check parameters given by name, as `checked` does; one left out takes its default."""
    return _check(given, {})


def _check(given: dict[str, Any], problems: Mapping[str, Callable]) -> Parameters:
    known = {name: value for name, value in given.items() if name in _FIELDS}
    wrong = {name: _unknown(name) for name in given if name not in _FIELDS}
    try:
        found = Parameters(**known)
    except ValidationError as error:
        wrong |= {e["loc"][0]: _allowed(e["loc"][0], e) for e in error.errors()}
        found = Parameters(**{name: known[name] for name in known if name not in wrong})
    for name, problem in problems.items():
        value = getattr(found, name)
        if value != _FIELDS[name].default and (reason := problem(value)):
            wrong[name] = f"{_given(name, value)}: {' '.join(reason.split())}"
    if wrong:
        raise ParameterError("\n".join(wrong[name] for name in given if name in wrong))
    return found


def _may_be_injected(name: str, value: Any) -> bool:
    """Can papermill have set it? `In` and `Out` are IPython's own, as all that begins with "_"."""
    kinds = (bool, int, float, str, list, dict, type(None))
    return type(value) in kinds and not name.startswith("_") and name not in ("In", "Out")


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, _FIELDS, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return (
        f"unknown parameter '{name}'{hint} The parameters are {', '.join(_FIELDS)}. A variable "
        f"of your own must wait until they are checked: `del {name}`."
    )


def _given(name: str, value: Any, limit: int = 120) -> str:
    text = repr(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"parameter '{name}': got {text} ({type(value).__name__})"


def _allowed(name: str, error: Mapping[str, Any]) -> str:
    """What is allowed, and how to pass what papermill turned into another type."""
    value, kind = error["input"], _FIELDS[name].annotation
    reason = re.sub("^Input should be ", "", error["msg"])
    words = _FIELDS[name].description or f"one of {reason}"
    if error["type"] == "value_error":  # of `_at_home`
        words += f"; {error['ctx']['error']}"
    if kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        words += f"; this is text, write `-p {name} {value.capitalize()}`"
    elif kind not in (bool, int, float) and not isinstance(value, str):
        words += f"; this is no text, pass it with `-r {name} VALUE`"  # -r leaves digits alone
    return f"{_given(name, value)}, allowed: {words}."

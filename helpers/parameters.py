"""The notebook's parameters: one table says what is allowed, one function checks it.

papermill passes on whatever the command line says (``-p strict true`` arrives as the string
``"true"``), and a wrong value would otherwise surface minutes later, inside a measurement.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from helpers.annex.variants import VariantError, parse
from helpers.annex.variants.select import split_names
from helpers.models import model_problem

LARGEST_SEED = 2**32 - 1  # NumPy's legacy generators take no more
TEST_SET_SIZE = 10_000


class ParameterError(ValueError):
    """A parameter of the notebook is unknown, has the wrong type or is out of range."""


@dataclass(frozen=True)
class Parameters:
    """The parameters of one session, checked; build it with `validate`."""

    runs: int = 3
    warmup_iters: int = 50
    measure_iters: int = 500
    batch_size: int = 1
    device: str = "auto"
    clock: str = "auto"
    schedule: str = "consecutive"
    isolation: str = "none"
    dataset: str = "auto"
    data_dir: str = "data"
    results_dir: str = "results"
    model: str = "resnet18"
    train_epochs: int = 0
    eval_images: int = TEST_SET_SIZE
    seed: int = 0
    wait_quiet_s: float = 0.0
    max_p95_spread: float = 0.10
    variants: str = "fp32"
    baseline: str = ""
    max_regression: float = 0.05
    strict: bool = False
    session: str = ""


@dataclass(frozen=True)
class Rule:
    """What one parameter may be: its type, a test on values of that type, and the test in words.

    `explain` says what is wrong with a value where words for all of them would not do.
    """

    kind: type
    allowed: str
    accepts: Callable[[Any], bool] = lambda value: True
    explain: Callable[[Any], str | None] = lambda value: None


def _integer(low: int, high: float = math.inf) -> Rule:
    upper = f" and <= {high}" if math.isfinite(high) else ""
    return Rule(int, f"an integer >= {low}{upper}", lambda value: low <= value <= high)


def _choice(*choices: str) -> Rule:
    return Rule(str, "one of " + ", ".join(map(repr, choices)), lambda value: value in choices)


def _text(allowed: str, pattern: str) -> Rule:
    return Rule(str, allowed, lambda value: re.fullmatch(pattern, value) is not None)


def _variants_problem(text: str) -> str | None:
    try:
        for name in split_names(text):
            parse(name)
    except VariantError as error:
        return str(error)
    return None


def _path() -> Rule:
    return _text("a path (non-empty text without a null character)", r"[^\0]*[^\0\s][^\0]*")


RULES: dict[str, Rule] = {
    "runs": _integer(2),  # a spread needs two
    "warmup_iters": _integer(1),  # the first forward also chooses algorithms and loads kernels
    "measure_iters": _integer(20),  # the smallest n whose p95 is not the maximum
    "batch_size": _integer(1, TEST_SET_SIZE),
    "device": _text(
        "'auto', 'cpu', 'cuda' or 'cuda:N' (N the index of a GPU)",
        r"auto|cpu|cuda(:(0|[1-9][0-9]{0,3}))?",
    ),
    "clock": _choice("auto", "host", "gpu"),
    "schedule": _choice("consecutive", "interleaved"),
    "isolation": _choice("none", "process"),
    "dataset": _choice("auto", "cifar10", "synthetic"),
    "data_dir": _path(),
    "results_dir": _path(),
    "model": Rule(
        str,
        "the name of a model, 'package.module:function', or the path of a checkpoint",
        explain=model_problem,
    ),
    "train_epochs": _integer(0, 1000),
    "eval_images": _integer(1, TEST_SET_SIZE),
    "seed": _integer(0, LARGEST_SEED),
    "wait_quiet_s": Rule(
        float, "a number of seconds >= 0 and <= 3600", lambda value: 0 <= value <= 3600
    ),
    "max_p95_spread": Rule(
        float, "a number > 0 and < 1 (0.10 means 10 %)", lambda value: 0 < value < 1
    ),
    "variants": Rule(
        str, "names of variants, separated by commas, or 'all'", explain=_variants_problem
    ),
    "baseline": _text("empty, or the path of an earlier session's folder", r"[^\0]*"),
    "max_regression": Rule(
        float, "a number > 0 and < 1 (0.05 means 5 %)", lambda value: 0 < value < 1
    ),
    "strict": Rule(bool, "True or False"),
    # It names a folder: no separator, and no leading dot, so it cannot leave the results folder.
    "session": _text(
        "empty (a name is then made) or at most 100 letters, digits, '.', '_' and '-', "
        "beginning with a letter or a digit",
        r"|[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    ),
}


def notebook_parameters(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the parameters out of the notebook's global names, for `validate`.

    On the first run of the day, before "parameters" exists, there is nothing else yet but what
    papermill injected: a misspelled `-p` name is picked too, so that it is refused.
    """
    injected = not isinstance(namespace.get("parameters"), Parameters)
    return {
        name: value
        for name, value in namespace.items()
        if name in RULES or (injected and _may_be_injected(name, value))
    }


def _may_be_injected(name: str, value: Any) -> bool:
    """Can papermill have set it? `In` and `Out` are IPython's own, as all that begins with "_"."""
    kinds = (bool, int, float, str, list, dict, type(None))
    return type(value) in kinds and not name.startswith("_") and name not in ("In", "Out")


def validate(**given: Any) -> Parameters:
    """Check the notebook's parameters, all of them at once.

    Parameters
    ----------
    **given
        Values by name, as papermill left them; a name left out takes its default.

    Returns
    -------
    Parameters

    Raises
    ------
    ParameterError
        One line per problem: the parameter, what was given and its type, what is allowed.
    """
    problems = [problem for name, value in given.items() if (problem := _problem(name, value))]
    if given.get("schedule") == "interleaved" and given.get("isolation") == "process":
        problems.append(
            "schedule='interleaved' needs all runs in one process: use isolation='none', or "
            "schedule='consecutive'"
        )
    if problems:
        raise ParameterError("\n".join(problems))
    kinds = {field.name: field.type for field in fields(Parameters)}
    return Parameters(**{name: kinds[name](value) for name, value in given.items()})


def _problem(name: str, value: Any) -> str | None:
    """Say what is wrong with one parameter, or return None."""
    if name not in RULES:
        close = difflib.get_close_matches(name, RULES, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        return (
            f"unknown parameter '{name}'{hint} The parameters are {', '.join(RULES)}. A variable "
            f"of your own must wait until they are checked: `del {name}`."
        )
    rule = RULES[name]
    given = f"parameter '{name}': got {_shorten(repr(value))} ({type(value).__name__})"
    if _has_type(value, rule.kind) and rule.accepts(value):
        reason = rule.explain(value)
        return f"{given}, allowed: {rule.allowed}; {reason}." if reason else None
    return f"{given}, allowed: {rule.allowed}{_remedy(name, value, rule)}."


def _has_type(value: Any, kind: type) -> bool:
    """Tell whether a value has the type exactly; bool is no int, and int will do for float."""
    return type(value) is kind or (kind is float and type(value) is int)


def _remedy(name: str, value: Any, rule: Rule) -> str:
    """Say how to pass what papermill turned into another type, or return an empty string."""
    if rule.kind is bool and isinstance(value, str) and value.lower() in {"true", "false"}:
        return f"; this is text, write `-p {name} {value.capitalize()}`"
    if rule.kind is str and not isinstance(value, str):
        return f"; this is no text, pass it with `-r {name} VALUE`"  # -r leaves digits as they are
    return ""


def _shorten(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"

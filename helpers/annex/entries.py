"""The notebook's annex, step by step: admit, score, measure, compare."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from helpers.annex.comparison import CONTROL, REFERENCE, Measured
from helpers.annex.comparison.process import measure_process
from helpers.annex.variants import Refusal, VariantFailed, guard, parse
from helpers.annex.variants.select import select
from helpers.clocks.checks import move_inputs
from helpers.clocks.conditions import no_gc
from helpers.environment.facts import first_line
from helpers.environment.progress import track
from helpers.models.accuracy import Accuracy, measure_accuracy
from helpers.parameters import Parameters
from helpers.validation.processes import in_fresh_process, pack_model

SCHEDULE = "randomised"  # blocks of all variants in turn, in random order
_MEASURED: WeakKeyDictionary = WeakKeyDictionary()  # by session: what its rows are made of


@dataclass(frozen=True)
class Candidates:
    """The variants of a session that may be timed, and why others may not."""

    parameters: Parameters
    model: nn.Module
    inputs: list[torch.Tensor]
    device: torch.device
    admitted: dict[str, guard.Admitted]
    refused: dict[str, Refusal]

    def record(self) -> dict[str, Any]:
        """What the guard saw of each, and why others are not timed, to be kept as JSON."""
        seen = {name: admitted.report for name, admitted in self.admitted.items()}
        return {"measured": seen, "not_measured": self.refused}


def admit(
    parameters: Parameters, model: nn.Module, dataloader: Iterable, device: torch.device
) -> Candidates:
    """Build and guard every variant that the parameters name; those that fail are named.

    None is built where the reference alone is named, which is measured already; none is admitted
    where the reference is not: there is nothing to compare with.
    """
    chosen, refused = select(parameters.variants, device)
    inputs, admitted = move_inputs(dataloader, device), {}
    for variant in track(chosen if len(chosen) > 1 else (), description="variants"):
        try:
            admitted[variant.name] = guard.admit(variant, model, inputs, device)
        except VariantFailed as error:
            refused[variant.name] = error.args
    if REFERENCE in refused:
        refused |= dict.fromkeys(admitted, ("no_reference", {}))
        admitted = {}
    return Candidates(parameters, model, inputs, device, admitted, refused)


@no_gc()
def score(candidates: Candidates, batches: Iterable) -> dict[str, Accuracy | None]:
    """Accuracy of the very callables that the guard admitted, on (images, labels) batches.

    A variant that cannot be scored is refused after all; the reference's own error is raised.
    """
    timed, device, found = candidates.parameters.batch_size, candidates.device, {}
    for name, a in list(candidates.admitted.items()):
        rounding = 1e-3 if a.variant.precision == "fp32" else 3e-2
        given = batches, device, a.variant.conditions, timed, rounding
        try:
            found[name] = measure_accuracy(a.call, *given)
        except Exception as error:
            if name == REFERENCE:
                raise
            candidates.refused[name] = "not_scored", {"error": first_line(error)}
            del candidates.admitted[name]
    return found


def measure(
    candidates: Candidates, session, *, accuracies: dict[str, Accuracy], **told: Any
) -> Measured | None:
    """Measure all admitted variants in each of `compare_processes` fresh processes; add the rows.

    `told`: what else `session.add_run` takes. May be called again at any time: what was measured is
    not measured again, what was interrupted goes on. A process that fails as a whole ends the
    comparison; those before it stay. None before the session's runs, or with nothing to compare.
    """
    parameters, ready = candidates.parameters, len(candidates.admitted) > 1
    if session not in _MEASURED:
        if not ready or len(session.runs) < parameters.runs:
            return None
        _MEASURED[session] = Measured()
    measured = _MEASURED[session]
    left = range(len(measured.processes) + 1, parameters.compare_processes + 1) if ready else ()
    _record(session, measured, accuracies, told)
    if left:
        session.check_open()
    for number in track(left, description="processes"):
        try:
            packed, inputs = pack_model(candidates.model), [b.cpu() for b in candidates.inputs]
            given = packed, inputs, tuple(candidates.admitted), candidates.device, parameters
            measured.processes.append(in_fresh_process(measure_process, *given, number))
        except Exception as error:  # whatever ends a process, or keeps the model from reaching it
            measured.stopped = first_line(error)
            break
        measured.stopped = ""
        _record(session, measured, accuracies, told)
    return measured


def _record(session, measured: Measured, accuracies: dict[str, Accuracy], told: dict) -> None:
    """Add the rows that the session lacks: of each entry, one for each process."""
    rows = session.rows[session.rows["schedule"] == SCHEDULE]
    there = set(zip(rows["variant"], rows["run"], strict=True))
    for number, process in enumerate(measured.processes, start=1):
        for name, run in process.runs.items():
            if (name, number) not in there:
                precision = parse(REFERENCE if name == CONTROL else name).precision
                own = {"variant": name, "precision": precision, "accuracy": accuracies.get(name)}
                session.add_run(run, **own, schedule=SCHEDULE, number=number, **told)

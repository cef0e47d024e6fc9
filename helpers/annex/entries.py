"""The notebook's annex: all variants of a session admitted, measured in turn, recorded as rows."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from helpers.annex.comparison import Interleaved, measure_interleaved
from helpers.annex.variants import Variant
from helpers.annex.variants.guard import Admitted, VariantFailed, admit
from helpers.environment.progress import track
from helpers.models.accuracy import Accuracy
from helpers.results.rows import run_row, run_samples
from helpers.validation.interference import flags

REFERENCE = "fp32"
# The reference in other memory, three times: what placement alone does to a latency.
COPIES = ("fp32 (copie 1)", "fp32 (copie 2)", "fp32 (copie 3)")
SCHEDULE = "randomised"  # blocks of all variants in turn, in random order
_MEASURED: WeakKeyDictionary = WeakKeyDictionary()  # by session: what its rows are made of


def admit_all(
    chosen: Sequence[Variant],
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    device: torch.device,
    skipped: dict[str, str] | None = None,
    progress: Callable = track,
) -> tuple[dict[str, Admitted], dict[str, str]]:
    """Build and guard every variant; those that fail are named with their reason (French).

    `skipped` are named after them. The reference alone is measured already: then none is built.
    Without the reference there is nothing to compare with: then none is admitted.
    """
    chosen = chosen if len(chosen) > 1 else []
    admitted, refused = {}, {}
    for variant in progress(chosen, len(chosen), "variantes"):
        try:
            admitted[variant.name] = admit(variant, model, inputs, device)
        except VariantFailed as error:
            refused[variant.name] = error.reason
    if REFERENCE in refused:
        refused |= dict.fromkeys(admitted, "sans la référence fp32, rien à quoi la comparer")
        admitted = {}
    return admitted, refused | (skipped or {})


def guard_record(admitted: dict[str, Admitted], refused: dict[str, str]) -> dict[str, dict]:
    """What the guard saw of each variant, and why the others are not timed, to be kept as JSON."""
    seen = {
        name: {"build_s": found.build_s, **asdict(found.report)} for name, found in admitted.items()
    }
    return {"measured": seen, "not_measured": refused}


def callables(admitted: dict[str, Admitted], model: nn.Module) -> dict[str, tuple[Callable, str]]:
    """What `measure_interleaved` takes: the variants, and the reference's copies."""
    found = {name: (a.call, a.variant.conditions) for name, a in admitted.items()}
    return found | {name: (copy.deepcopy(model), REFERENCE) for name in COPIES}


def measure_and_record(
    session,
    admitted: dict[str, Admitted],
    accuracies: dict[str, Accuracy],
    model: nn.Module,
    dataloader: Sequence,
    facts: dict,
    *,
    receipt_flags: Sequence[str] = (),
    **settings,
) -> Interleaved | None:
    """Measure all admitted variants in turn and add their rows to the session.

    May be called again at any time: what the session has a row of is never measured again, and a
    recording that was interrupted goes on where it stopped. None where there is nothing to compare,
    or while the session's own runs are not complete.

    Parameters
    ----------
    facts
        Of the session's rows, see `run_row`; its parameters say how much is measured.
    settings
        The `device` and the `watch` of `measure_interleaved`.
    """
    parameters, rows = facts["parameters"], session.rows
    own = rows["schedule"] == SCHEDULE
    if own.sum() == 0:
        if len(admitted) < 2 or len(rows) < parameters.runs:
            return None
        counts = {
            key: getattr(parameters, key) for key in ("runs", "warmup_iters", "measure_iters")
        }
        settings |= counts | {"seed": parameters.seed, "copies": COPIES}
        measured = measure_interleaved(callables(admitted, model), dataloader, **settings)
        _MEASURED[session] = measured, admitted, accuracies
    if session not in _MEASURED:  # its rows come from elsewhere
        return None
    measured, *scored = _MEASURED[session]
    recorded = set(zip(rows["variant"][own], rows["run"][own], strict=True))
    for row, samples in comparison_rows(measured, *scored, receipt_flags, facts):
        if (row["variant"], row["run"]) not in recorded:
            session.add_run(row, samples)
    return measured


def comparison_rows(
    compared: Interleaved,
    admitted: dict[str, Admitted],
    accuracies: dict[str, Accuracy],
    receipt_flags: Sequence[str],
    facts: dict,
) -> Iterator[tuple[dict, dict]]:
    """Each run of each entry as (row, samples) for the session, the controls among them."""
    for name, results in compared.runs.items():
        precision = admitted[name].variant.precision if name in admitted else REFERENCE
        scored = {"accuracy": None, "eval_images": 0}
        if name in accuracies:
            scored = {"accuracy": accuracies[name].fraction, "eval_images": accuracies[name].images}
        for run, (result, seen) in enumerate(zip(results, compared.observed, strict=True), 1):
            told = {"variant": name, "precision": precision, "schedule": SCHEDULE, "run": run}
            told["flags"] = (*flags(seen), *receipt_flags)
            if result.gpu is None:  # of this variant alone: its row says that the host decides
                asked = facts["parameters"]
                counts = {key: getattr(asked, key) for key in ("warmup_iters", "measure_iters")}
                told["parameters"] = SimpleNamespace(clock="auto", **counts)
            yield run_row(result, **facts | scored | told), run_samples(result)

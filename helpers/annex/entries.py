"""The notebook's annex: all variants of a session admitted, scored, laid out as rows and tables."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace

import pandas as pd
import torch
from torch import nn

from helpers.annex.comparison import Interleaved
from helpers.annex.variants import Variant
from helpers.annex.variants.guard import Admitted, VariantFailed, admit
from helpers.display.french import number, percent, scientific
from helpers.models.accuracy import Accuracy, compare_accuracy
from helpers.progress import track
from helpers.results.rows import run_row, run_samples
from helpers.validation.interference import flags

REFERENCE = "fp32"
# The reference in other memory, three times: what placement alone does to a latency.
COPIES = ("fp32 (copie 1)", "fp32 (copie 2)", "fp32 (copie 3)")
SCHEDULE = "randomised"  # blocks of all variants in turn, in random order
NOTHING = (
    "Une seule variante, `fp32` : rien à comparer. `-p variants all` compare tout ce que cet "
    "appareil permet, `-p variants tf32,fp16+channels_last` ce qui est nommé."
)


def admit_all(
    chosen: Sequence[Variant],
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    device: torch.device,
    progress: Callable = track,
) -> tuple[dict[str, Admitted], dict[str, str]]:
    """Build and guard every variant; those that fail are named with their reason (French).

    Without the reference there is nothing to compare with: then none is admitted.
    """
    admitted, refused = {}, {}
    for variant in progress(chosen, len(chosen), "variantes"):
        try:
            admitted[variant.name] = admit(variant, model, inputs, device)
        except VariantFailed as error:
            refused[variant.name] = error.reason
    if REFERENCE in refused:
        refused |= dict.fromkeys(admitted, "sans la référence fp32, rien à quoi la comparer")
        admitted = {}
    return admitted, refused


def guard_table(admitted: dict[str, Admitted], refused: dict[str, str]) -> pd.DataFrame:
    """What was seen of each variant before its timing, and why the others are not timed."""
    rows = [
        {
            "Variante": name,
            "Ce que c'est": found.variant.french,
            "Écart des logits": scientific(found.report.drift),
            "Toléré": scientific(found.report.tolerance),
            "Précision exécutée, d'après les noms de noyaux": found.report.precision_evidence,
            "Noyaux": _count(found.report.kernels),
            "Construction (s)": number(found.build_s, 2),
            "Mesurée": "oui",
        }
        for name, found in admitted.items()
    ]
    for name, reason in refused.items():
        rows.append(dict.fromkeys(rows[0] if rows else ("Variante",), "–"))
        rows[-1] |= {"Variante": name, "Mesurée": f"non : {reason}"}
    return pd.DataFrame(rows, columns=None if rows else ["Variante"]).set_index("Variante")


def guard_record(admitted: dict[str, Admitted], refused: dict[str, str]) -> dict[str, dict]:
    """What the guard saw of each variant, and why the others are not timed, to be kept as JSON."""
    seen = {
        name: {"build_s": found.build_s, **asdict(found.report)} for name, found in admitted.items()
    }
    return {"measured": seen, "not_measured": refused}


def refused_lines(refused: dict[str, str]) -> str:
    """The variants that are not timed, in Markdown, to stand below a table of the others."""
    return "".join(f"- `{name}` : non mesurée, {reason}\n" for name, reason in refused.items())


def _count(kernels: float | None) -> str:
    """Kernels per forward: whole, unless forwards differ."""
    return f"{kernels:.4g}".replace(".", ",") if kernels else "–"


def accuracy_table(accuracies: dict[str, Accuracy]) -> pd.DataFrame:
    """Accuracy of the very callables that are timed, and what changed against the reference."""
    rows = []
    for name, found in accuracies.items():
        bounds = f"{percent(found.low, 4)} – {percent(found.high, 4)}"
        change = compare_accuracy(accuracies[REFERENCE], found)
        rows.append(
            {
                "Variante": name,
                "Exactitude": percent(found.fraction, 4),
                f"Écart à {REFERENCE} (points)": number(100 * change.difference, 2),
                "Intervalle de Wilson à 95 %": bounds,
                "Images": str(found.images),
                "Lot": str(found.batch_size),
                "Perdues / gagnées": f"{change.lost} / {change.gained}",
                "p (McNemar)": number(change.p_value, 2),
                "Plus grand écart d'un logit": scientific(change.largest_drift),
            }
        )
    return pd.DataFrame(rows).set_index("Variante")


def callables(admitted: dict[str, Admitted], model: nn.Module) -> dict[str, tuple[Callable, str]]:
    """What `measure_interleaved` takes: the variants, and the reference's copies."""
    found = {name: (a.call, a.variant.conditions) for name, a in admitted.items()}
    return found | {name: (copy.deepcopy(model), REFERENCE) for name in COPIES}


def comparison_rows(
    compared: Interleaved,
    admitted: dict[str, Admitted],
    accuracies: dict[str, Accuracy],
    receipt_flags: Iterable[str],
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
                told["parameters"] = replace(facts["parameters"], clock="auto")
            yield run_row(result, **facts | scored | told), run_samples(result)

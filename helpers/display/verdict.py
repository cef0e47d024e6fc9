"""The verdict of the day in French sentences: what was met, on which clock, and if not, why."""

import os
from collections.abc import Sequence

from helpers import clocks
from helpers.bench_latency import NO_GPU, NO_KERNELS, NOT_ASKED, LatencyResult
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.profiling import ForwardProfile
from helpers.display.french import number, percent, percents_apart
from helpers.validation import CONTRADICTED, UNPROVEN, ClockVerdict, Validation
from helpers.validation.interference import Observation, describe, not_observable

CLOCK_NAMES = {"gpu": "horloge GPU", "host": "horloge hôte"}
RECEIPTS = {
    "calibrated": "horloges étalonnées, dans leurs tolérances",
    "uncalibrated": "session NON ÉTALONNÉE : une horloge dépasse sa propre tolérance",
    "not calibrated": "pas d'étalonnage possible sur cette plateforme",
}

# Why there is no GPU clock; {why} is the first line of the error itself.
NO_GPU_CLOCK = {
    NO_GPU: "aucun GPU CUDA",
    NOT_ASKED: 'clock="host" l\'écarte',
    NO_KERNELS: "ses noyaux n'ont pu être compilés ou lancés ici ({why})",
    clocks.LAUNCHES_BLOCK: (
        "CUDA_LAUNCH_BLOCKING est définie, chaque lancement attend le GPU : la retirer, puis "
        "redémarrer le noyau"
    ),
    clocks.QUEUE_TOO_SHORT: (
        "un passage lance plus de noyaux que la file de lancement n'en contient : définir "
        "CUDA_SCALE_LAUNCH_QUEUES=4x avant de lancer Python, ou capturer le modèle dans un graphe "
        "(variante `cudagraph`)"
    ),
    clocks.WAITS_INSIDE: (
        "le modèle attend le GPU pendant son passage (.item(), .cpu(), synchronize), ses noyaux ne "
        "peuvent donc pas être mis en file"
    ),
    clocks.HOST_TOO_SLOW: (
        "l'hôte n'a pas pu remplir la file à temps (processeur occupé, ou quota trop petit) ; ce "
        "run n'a que l'horloge hôte"
    ),
}
DOUBTS = {
    CONTRADICTED: (
        "L'horloge GPU est CONTREDITE par les noyaux : elle lit {gpu} ms, ils durent {kernels} ms "
        "par passage. Le modèle calcule sur un flux CUDA à lui ; l'horloge hôte décide, les "
        "chiffres GPU portent le signalement `gpu_clock_contradicted`."
    ),
    UNPROVEN: (
        "L'horloge GPU n'a pu être recoupée (aucun noyau visible du profileur) et lit moins d'un "
        "cinquième de l'horloge hôte : ses chiffres portent le signalement `gpu_clock_unproven`."
    ),
}


class AcceptanceError(RuntimeError):
    """strict=True and the criterion was not met."""


def headline(validation: Validation) -> str:
    """The verdict in one line, the same form whatever the outcome."""
    clock = validation.clocks[validation.deciding]
    outcome = "ACCEPTÉ" if validation.accepted else "NON ACCEPTÉ"
    sign = "<" if clock.met else "≥"
    found, limit = percents_apart(clock.p95_spread, validation.max_p95_spread)
    return (
        f"{outcome} — {CLOCK_NAMES[clock.clock]} : écart du p95 {found} {sign} {limit} sur "
        f"{len(clock.p95_ms)} runs"
    )


def clock_sentence(clock: ClockVerdict, limit: float, decides: bool) -> str:
    """What one clock says: its p95, both spreads, met or not, and the causes if not."""
    name = CLOCK_NAMES[clock.clock].replace("horloge", "Horloge") + (" (décide)" if decides else "")
    values = " · ".join(number(p95) for p95 in clock.p95_ms)
    met = "critère tenu" if clock.met else "critère non tenu"
    found, allowed = percents_apart(clock.p95_spread, limit)
    return _with_points(
        f"{name} : p95 {values} ms, écart {found} (moyenne : {percent(clock.mean_spread)}), limite "
        f"{allowed}, {met}",
        clock.causes,
    )


def disturbances(observed: Sequence[Sequence[Observation]], during: str) -> str:
    """What was seen around the blocks of each run, in one sentence with points."""
    seen = [told for run, blocks in enumerate(observed, 1) for told in describe(blocks, run)]
    once = list(dict.fromkeys(seen))  # a condition of all runs
    return _with_points(f"Perturbations pendant {during}", once or ["aucune constatée"])


def _with_points(sentence: str, points: Sequence[str]) -> str:
    """A sentence, and under it, as a nested Markdown list, what there is to say about it."""
    if not points:
        return f"{sentence}."
    return "\n".join([f"{sentence} :", *(f"  - {point}" for point in points)])


def verdict_sentences(
    validation: Validation,
    receipt: CalibrationReceipt,
    profile: ForwardProfile | None,
    observed: Sequence[Sequence[Observation]] = (),
    unseen: str = "",
) -> list[str]:
    """The whole verdict, headline first; what was seen around the blocks is said even if it met.

    `unseen`: why there is no profile, "" where none is to be had (a CPU).
    """
    sentences = [headline(validation)]
    if validation.doubt:
        gpu = next(r.gpu.p50 for r in validation.results if r.gpu is not None)
        kernels = number(profile.kernel_ms) if profile else ""
        sentences.append(DOUBTS[validation.doubt].format(gpu=number(gpu), kernels=kernels))
    sentences += [
        clock_sentence(clock, validation.max_p95_spread, name == validation.deciding)
        for name, clock in validation.clocks.items()
    ]
    sentences += dict.fromkeys(
        f"Pas d'horloge GPU : {no_gpu_clock(result)}."
        for result in validation.results
        if result.gpu is None
    )
    sentences += dict.fromkeys(filter(None, map(_conditions, validation.results)))
    reason = f" ({receipt.reason})" if receipt.reason else ""
    sentences.append(f"Étalonnage : {RECEIPTS[receipt.status]}{reason}.")
    sentences.append(_copies(profile, unseen))
    if observed:
        sentences.append(disturbances(observed, "les runs"))
    if hidden := not_observable([block for blocks in observed for block in blocks]):
        sentences.append(f"Non observable ici : {', '.join(hidden)}.")
    return sentences


def verdict_markdown(sentences: Sequence[str]) -> str:
    """Lay the verdict's sentences out: the headline as a title, the others as a list."""
    headline, *others = sentences
    return "\n".join([f"### {headline}", "", *(f"- {sentence}" for sentence in others)])


def _conditions(result: LatencyResult) -> str:
    """What was not as the precision requires during a run, "" if all was."""
    seen = result.conditions
    if seen.required_for(result.precision):
        return ""
    told = {
        "TF32 permis dans les convolutions": seen.tf32_convolutions,
        "TF32 permis dans les produits matriciels": seen.tf32_matmul,
        "des modules hors du mode eval": seen.modules_in_eval != seen.modules,
        "gradient calculé": seen.grad_enabled,
        "ramasse-miettes actif": seen.gc_enabled,
    }
    found = ", ".join(name for name, raised in told.items() if raised) or "TF32 interdit"
    forced = os.environ.get("NVIDIA_TF32_OVERRIDE")
    why = f" ; NVIDIA_TF32_OVERRIDE={forced} l'impose" if forced is not None else ""
    return f"ATTENTION, conditions de précision non tenues ({result.precision}) : {found}{why}."


def no_gpu_clock(result: LatencyResult) -> str:
    """Why a run has no GPU clock (French)."""
    return NO_GPU_CLOCK[result.gpu_unavailable].format(why=result.gpu_unavailable_why)


def _copies(profile: ForwardProfile | None, unseen: str) -> str:
    if unseen:
        return f"Copies hôte↔GPU dans la boucle : non observables (profileur : {unseen})."
    if profile is None:
        return "Copies hôte↔GPU : sans objet sur un processeur."
    if profile.copies == 0:
        return f"Copies hôte↔GPU dans la boucle : aucune ({profile.forwards} passages profilés)."
    return (
        f"ATTENTION, copies hôte↔GPU dans la boucle : {profile.host_to_device} vers le GPU, "
        f"{profile.device_to_host} vers l'hôte en {profile.forwards} passages."
    )


def enforce(validation: Validation, strict: bool) -> None:
    """With `strict`, fail unless the day is accepted.

    Raises
    ------
    AcceptanceError
        The criterion is not met.
    """
    if strict and not validation.accepted:
        raise AcceptanceError(
            f"{headline(validation)}. strict=True makes this an error; the session's results are "
            "complete and stay. Read the causes above, or run without strict"
        )

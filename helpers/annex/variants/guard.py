"""Before a variant is timed: does it compute the right thing, anew each time, as its name says?"""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from helpers.annex.variants import Variant, build
from helpers.annex.variants.kernels import PrecisionProof, prove_precision
from helpers.annex.variants.network import NothingToChange
from helpers.clocks import GpuClock
from helpers.clocks.conditions import measuring_conditions, modules_of
from helpers.clocks.profiling import ForwardProfile, contradicted, try_profile
from helpers.display.french import number
from helpers.environment.facts import first_line
from helpers.stats import percentile

# Relative rounding of one operand: half a unit in the last place of 10 (TF32, FP16) or 7 (BF16)
# bits of mantissa. FP32 rounds at 2^-24, but also accumulates in FP32: over the up to K = 4,608
# products of ResNet-18 the errors grow like sqrt(K) = 2^6.
ROUNDING = {"fp32": 2.0**-18, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
GUARD_IMAGES = 3
CLOCK_SAMPLES = 30  # of the GPU clock's quick look; behind a gate a dozen forwards are one batch


class VariantFailed(RuntimeError):
    """A variant could not be built, or computes something else; `reason` is a French sentence."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name} : {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class GuardReport:
    """What was seen of a variant before its timing.

    `drift`: the largest absolute difference of a logit from strict FP32; `tolerance`: what the
    precision explains; `scale`: the largest absolute logit of the reference. `repeats_exactly`: the
    same image gave the same bits again. `kernels` and `kernel_ms` (their summed durations) are per
    forward, and None like `precision_proven` without a profile. `failure` is a French sentence, ""
    if all is well.
    """

    drift: float
    tolerance: float
    scale: float
    repeats_exactly: bool
    kernels: float | None
    kernel_ms: float | None
    kernel_names: tuple[str, ...]
    precision_proven: bool | None
    precision_evidence: str
    failure: str

    @property
    def passed(self) -> bool:
        """May it be timed?"""
        return not self.failure


@dataclass(frozen=True)
class Admitted:
    """A variant that may be timed: its callable, the guard's report, what building took (s)."""

    variant: Variant
    call: Callable
    report: GuardReport
    build_s: float


def tolerance(precision: str, reference: nn.Module, scale: float) -> float:
    """Largest drift of a logit that a precision explains, in a network whose logits reach `scale`.

    Each of the L layers with weights adds a relative error of about one rounding u of its operands,
    with random signs: sqrt(L) u after L layers (the probabilistic bound of Higham and Mary, "A new
    approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41, 2019). Four times
    that leaves room for the largest of all logits. A wrong layer is off by the scale itself.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    layers = sum(isinstance(module, kinds) for module in modules_of(reference))
    return 4 * math.sqrt(max(layers, 1)) * ROUNDING[precision] * scale


def guard(
    call: Callable,
    variant: Variant,
    reference: nn.Module,
    inputs: Sequence[torch.Tensor],
    device: torch.device,
) -> GuardReport:
    """Check a built variant against `reference`, the same model in strict FP32 on `device`.

    Parameters
    ----------
    inputs
        At least two different batches of the built shape, on `device`.

    Raises
    ------
    ValueError
        Fewer than two batches.
    """
    if len(inputs) < 2:
        raise ValueError(f"the guard compares two different images at least, got {len(inputs)}")
    inputs = inputs[:GUARD_IMAGES]
    with measuring_conditions(reference, "fp32"):
        expected = [reference(x).clone() for x in inputs]
    with measuring_conditions(call, variant.conditions), no_recompilation() as seen:
        # Cloned at once: the next call may overwrite what the last one returned.
        outputs = [call(x).clone() for x in inputs]
        again = call(inputs[0]).clone()
    profile, unseen = try_profile(call, inputs, device, variant.conditions)
    names, proof = (), PrecisionProof(None, "sans GPU, aucun nom de noyau à lire")
    if profile:
        proof = prove_precision(variant.precision, names := profile.kernel_names)
    elif unseen:
        proof = PrecisionProof(None, f"non démontrable : le profileur n'a rien pu lire ({unseen})")
    scale = max(e.abs().max().item() for e in expected)
    allowed = tolerance(variant.precision, reference, scale)
    drift, failures = math.inf, [_wrong_form(outputs, expected)]
    if not failures[0]:
        drift = max(map(_distance, outputs, expected))
        failures += [*_wrong_values(outputs, again, expected, drift, allowed), seen.problem]
    if proof.proven is False:
        failures.append(f"des produits sont moins précis qu'annoncé ({proof.french})")
    if profile:
        failures.append(_missed_by_clock(call, inputs, device, variant.conditions, profile))
    return GuardReport(
        drift=drift,
        tolerance=allowed,
        scale=scale,
        repeats_exactly=torch.equal(outputs[0], again),
        kernels=profile.kernels if profile else None,
        kernel_ms=profile.kernel_ms if profile else None,
        kernel_names=names,
        precision_proven=proof.proven,
        precision_evidence=_evidence(variant, reference, proof.french, drift, scale),
        failure=" ; ".join(filter(None, failures)),
    )


def _missed_by_clock(call, inputs, device, conditions: str, profile: ForwardProfile) -> str:
    """Does the GPU clock read less than the kernels take? Nothing is said where it cannot read."""
    try:
        with measuring_conditions(call, conditions):
            samples = GpuClock(device).measure(call, inputs, CLOCK_SAMPLES).samples_ms
    except Exception:  # the clock itself is not to be had: then it will measure nothing either
        return ""
    if not contradicted(read := percentile(samples, 0.5), profile.kernel_ms):
        return ""
    return (
        f"l'horloge GPU lit {number(read, 3)} ms, ses noyaux durent {number(profile.kernel_ms, 3)} "
        "ms : du travail se fait sur un flux que l'appelant n'attend pas"
    )


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def _wrong_form(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    y, e = outputs[0], expected[0]
    if y.shape != e.shape or y.dtype != e.dtype or y.device != e.device:
        return (
            f"la sortie est {tuple(y.shape)} {y.dtype} sur {y.device}, la référence "
            f"{tuple(e.shape)} {e.dtype} sur {e.device}"
        )
    if not all(torch.isfinite(y).all() for y in outputs):
        return "la sortie contient NaN ou l'infini"
    return ""


def _wrong_values(outputs, again, expected, drift: float, allowed: float) -> Iterator[str]:
    if drift > allowed:
        yield (
            f"l'écart à la référence FP32 atteint {number(drift, 2)}, la précision n'en explique "
            f"que {number(allowed, 2)}"
        )
    # Each output must be nearest to its own image's reference: an output that does not follow its
    # input (a graph that replays a stale buffer) is as near to one as to another.
    for i, y in enumerate(outputs):
        others = [_distance(y, e) for j, e in enumerate(expected) if j != i]
        if _distance(y, expected[i]) >= min(others):
            yield "la sortie ne suit pas l'entrée : des images différentes donnent la même réponse"
            break
    if _distance(again, outputs[0]) > allowed / 2:
        yield "la même image, redonnée après d'autres, ne redonne pas la même réponse"


def _evidence(variant: Variant, reference, sentence: str, drift: float, scale: float) -> str:
    """What the names say, and whether the drift is larger than FP32's could be."""
    if variant.precision == "fp32" or not math.isfinite(drift):
        return sentence
    within = drift <= tolerance("fp32", reference, scale)
    return f"{sentence} ; écart {'possible' if within else 'impossible'} en FP32"


@dataclass
class Recompilations:
    """What torch.compile did inside `no_recompilation`: graphs compiled anew, and graph breaks."""

    compilations: int = 0
    graph_breaks: int = 0

    @property
    def problem(self) -> str:
        """A French sentence, "" if nothing happened."""
        if not self.compilations and not self.graph_breaks:
            return ""
        return (
            f"{self.compilations} recompilation(s) et {self.graph_breaks} rupture(s) de graphe "
            "pendant les passages"
        )


@contextmanager
def no_recompilation() -> Iterator[Recompilations]:
    """Count what torch.compile does inside, by torch's own counters; read it afterwards."""
    from torch._dynamo.utils import counters

    def read() -> tuple[int, int]:
        return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())

    before, seen = read(), Recompilations()
    try:
        yield seen
    finally:
        seen.compilations, seen.graph_breaks = (a - b for a, b in zip(read(), before, strict=True))


def admit(
    variant: Variant, model: nn.Module, inputs: Sequence[torch.Tensor], device: torch.device
) -> Admitted:
    """Build a variant for the shape of `inputs` and guard it; what failed is freed.

    `model` is the reference, on `device`; it stays as it is.

    Raises
    ------
    VariantFailed
        It cannot be built here, the memory does not suffice, it raised (anything but the user's
        own interruption), or the guard refused it.
    """
    failure, doing = "", "construction"
    try:
        start = perf_counter()
        call = build(variant, model, inputs[0])
        build_s, doing = perf_counter() - start, "vérification"
        report = guard(call, variant, model, inputs, device)
        if report.passed:
            return Admitted(variant, call, report, build_s)
        failure = report.failure
    except KeyboardInterrupt:
        raise
    except NothingToChange as error:
        failure = str(error)
    except torch.OutOfMemoryError:
        failure = f"mémoire insuffisante sur {device}"
    except BaseException as error:  # of the user's model (SystemExit too), FX, Inductor, cuDNN …
        failure = f"{doing} impossible : {first_line(error)}"
    call = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise VariantFailed(variant.name, failure)

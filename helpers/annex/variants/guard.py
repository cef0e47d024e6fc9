"""Before a variant is timed: does it compute the right thing, anew each time, as its name says?"""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from helpers.annex.variants import Variant, VariantFailed, build
from helpers.annex.variants.precisions import holds, products_in
from helpers.clocks import GpuClock
from helpers.clocks.conditions import measuring_conditions, modules_of, no_gc
from helpers.clocks.profiling import ForwardProfile, contradicted, try_profile
from helpers.environment.facts import first_line
from helpers.stats import percentile

# Relative rounding of one operand, half a unit in the last place. FP32 rounds at 2^-24, but also
# accumulates in FP32: over K = 4,608 products, ResNet-18's most, errors grow like sqrt(K) = 2^6.
ROUNDING = {"fp32": 2.0**-18, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
CLOCK_SAMPLES = 30  # of the GPU clock's quick look; behind a gate a dozen forwards are one batch


@dataclass(frozen=True)
class GuardReport:
    """What was seen of a variant that may be timed."""

    drift: float  # largest absolute difference of a logit from strict FP32
    tolerance: float  # the drift that the precision explains
    profile: ForwardProfile | None
    unseen: str  # why there is no profile on a GPU
    products: dict[str, int]  # how many of its kernels multiply in each precision, if names tell


@dataclass(frozen=True)
class Admitted:
    """A variant that may be timed: its callable and the guard's report."""

    variant: Variant
    call: Callable
    report: GuardReport


@no_gc()
def admit(
    variant: Variant, model: nn.Module, inputs: Sequence[torch.Tensor], device: torch.device
) -> Admitted:
    """Build a variant of `model` (on `device`) for the shape of `inputs` and guard it.

    Raises VariantFailed where it cannot be built, raises anything but the user's own interruption,
    or is refused by the guard; what was built is then freed.
    """
    doing = "not_built"
    try:
        call = build(variant, model, inputs[0])
        doing = "not_checked"
        return Admitted(variant, call, guard(call, variant, model, inputs, device))
    except KeyboardInterrupt:
        raise
    except VariantFailed as error:
        failed = error.with_traceback(None)  # whose frames hold what was built
    except BaseException as error:  # of the user's model (SystemExit too), FX, Inductor, cuDNN …
        failed = VariantFailed(doing, error=first_line(error))
    call = None
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    raise failed


def guard(
    call: Callable,
    variant: Variant,
    reference: nn.Module,
    inputs: Sequence[torch.Tensor],
    device: torch.device,
) -> GuardReport:
    """Check a built variant against `reference`, the same model in strict FP32 on `device`.

    `inputs` are different batches of the built shape on `device`, at least two. Raises
    VariantFailed where the variant must not be timed.
    """
    inputs = inputs[:3]  # enough to see that outputs follow them
    with measuring_conditions(reference, "fp32"):
        expected = [reference(x).clone() for x in inputs]
    with measuring_conditions(call, variant.conditions), no_recompilation() as recompiled:
        # Cloned at once: the next call may overwrite what the last one returned.
        outputs = [call(x).clone() for x in inputs]
        again = call(inputs[0]).clone()
    scale = max(e.abs().max().item() for e in expected)
    allowed = tolerance(variant.precision, reference, scale)
    drift = _check_outputs(outputs, again, expected, allowed)
    if recompiled:
        raise VariantFailed("recompiled", **recompiled)
    profile, unseen = try_profile(call, inputs, device, variant.conditions)
    products = products_in(profile.kernel_names if profile else ())
    if not all(holds(seen, variant.precision) for seen in products):
        raise VariantFailed("lower_precision", products=products, announced=variant.precision)
    if profile:
        _check_clock(call, inputs, device, variant.conditions, profile)
    return GuardReport(drift, allowed, profile, unseen, products)


def tolerance(precision: str, reference: nn.Module, scale: float) -> float:
    """Largest drift of a logit that a precision explains, in a network whose logits reach `scale`.

    After L layers with weights sqrt(L) roundings of an operand (the probabilistic bound of Higham
    and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41,
    2019), four times for the largest of all logits. A wrong layer is off by the scale itself.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    layers = sum(isinstance(module, kinds) for module in modules_of(reference))
    return 4 * math.sqrt(max(layers, 1)) * ROUNDING[precision] * scale


@contextmanager
def no_recompilation() -> Iterator[dict[str, int]]:
    """Yield a dict that gets, at the end, what torch.compile did inside; empty if nothing."""
    from torch._dynamo.utils import counters

    def read() -> tuple[int, int]:
        return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())

    before, seen = read(), {}
    try:
        yield seen
    finally:
        compilations, graph_breaks = (a - b for a, b in zip(read(), before, strict=True))
        if compilations or graph_breaks:
            seen.update(compilations=compilations, graph_breaks=graph_breaks)


def _check_outputs(outputs, again, expected, allowed: float) -> float:
    found, wanted = (f"{tuple(y.shape)} {y.dtype} {y.device}" for y in (outputs[0], expected[0]))
    if found != wanted:
        raise VariantFailed("wrong_form", found=found, expected=wanted)
    if not all(torch.isfinite(y).all() for y in outputs):
        raise VariantFailed("not_finite")
    # Each output must be nearest to its own image's reference: an output that does not follow its
    # input (a graph that replays a stale buffer) is as near to one as to another.
    for i, y in enumerate(outputs):
        others = [_distance(y, e) for j, e in enumerate(expected) if j != i]
        if _distance(y, expected[i]) >= min(others):
            raise VariantFailed("ignores_input")
    if _distance(again, outputs[0]) > allowed / 2:
        raise VariantFailed("keeps_state")
    drift = max(map(_distance, outputs, expected))
    if drift > allowed:
        raise VariantFailed("drift", drift=drift, tolerance=allowed)
    return drift


def _check_clock(call, inputs, device, conditions: str, profile: ForwardProfile) -> None:
    """Refuse a variant where the GPU clock, if it can read, reads less than its kernels take."""
    try:
        with measuring_conditions(call, conditions):
            samples = GpuClock(device).measure(call, inputs, CLOCK_SAMPLES).samples_ms
    except Exception:  # the clock itself is not to be had: then it will measure nothing either
        return
    if contradicted(read := percentile(samples, 0.5), profile.kernel_ms):
        raise VariantFailed("unwatched_stream", clock_ms=read, kernel_ms=profile.kernel_ms)


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()

"""What is compared: precision, layout, fusion, compilation, graphs, and combinations of them.

A variant's name joins parts with "+", such as "fp16+channels_last+cudagraph". Every variant is a
callable with one contract: FP32 images (N, 3, H, W) on the device in, FP32 logits (N, classes) on
the device out; casts, layout changes and copies are inside, and so inside every timing.

To add a part of your own: one function here or beside, one line in `PARTS`.
"""

import copy
import difflib
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from helpers.annex.variants.graph import WARMUP_CALLS, Captured, Compiled
from helpers.annex.variants.network import (
    Adapted,
    crop_to_image,
    fold_batch_norm,
    fuse_epilogues,
    suit_stem,
)
from helpers.annex.variants.overlap import overlap_shortcuts
from helpers.annex.variants.refusal import Refusal, VariantFailed
from helpers.clocks.conditions import measuring_conditions

__all__ = ["PARTS", "Part", "Refusal", "Variant", "VariantError", "VariantFailed", "build", "parse"]


class VariantError(ValueError):
    """A variant's name has an unknown part, or parts that exclude each other."""


@dataclass(frozen=True)
class Part:
    """One part of a variant's name; the parts of a kind are taken in the table's order.

    `kind` says when `apply` comes and what it is:
    "precision" the type of weights and activations; "network" a function (network, example) ->
    network, rewritten in FP32; "layout" a memory format; "compiler" and "capture" functions
    (network, example) -> callable module, at most one of each. `needs` is "cuda" where a part means
    nothing elsewhere.
    """

    kind: str
    apply: object
    needs: str = ""


PARTS: dict[str, Part] = {
    "fp32": Part("precision", torch.float32),
    "tf32": Part("precision", torch.float32, "cuda"),  # stored in FP32, multiplied in TF32
    "fp16": Part("precision", torch.float16, "cuda"),
    "bf16": Part("precision", torch.bfloat16),
    "fused": Part("network", fold_batch_norm),
    "cropped": Part("network", crop_to_image),
    "stem": Part("network", suit_stem),
    "epilogue": Part("network", fuse_epilogues, "cuda"),
    "overlap": Part("network", overlap_shortcuts, "cuda"),
    "channels_last": Part("layout", torch.channels_last),
    "compile": Part("compiler", Compiled),
    "compile_reduce_overhead": Part("compiler", partial(Compiled, mode="reduce-overhead"), "cuda"),
    "compile_max_autotune": Part("compiler", partial(Compiled, mode="max-autotune"), "cuda"),
    "compile_frozen": Part("compiler", partial(Compiled, freeze=True)),
    "cudagraph": Part("capture", Captured, "cuda"),
    "cudagraph_tuned": Part("capture", partial(Captured, tuned=True), "cuda"),
}
OWN_GRAPH = ("compile_reduce_overhead", "compile_max_autotune")  # they capture graphs themselves


@dataclass(frozen=True)
class Variant:
    """A parsed name: `precision` is one of "fp32", "tf32", "fp16", "bf16", `parts` the others."""

    name: str
    precision: str
    parts: tuple[str, ...] = ()

    @property
    def conditions(self) -> str:
        """What `measuring_conditions` takes as precision: TF32 allowed for "tf32" alone.

        FP16 and BF16 run with the strict switches: their FP32 remainders are no TF32.
        """
        return "tf32" if self.precision == "tf32" else "fp32"

    @property
    def fixed_shape(self) -> bool:
        """Does it only take batches of the example's shape?"""
        return any(PARTS[p].kind in ("compiler", "capture") or p == "cropped" for p in self.parts)


def parse(name: str) -> Variant:
    """Read one name: parts come in any order, the variant's own name has them in the table's.

    "fp32" is what a name without a precision means, and is left out beside other parts. Raises
    VariantError for an unknown part (with a suggestion), two precisions or two executions.
    """
    given = list(dict.fromkeys(part.strip() for part in name.split("+")))
    for part in given:
        if part not in PARTS:
            close = difflib.get_close_matches(part.lower(), PARTS, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise VariantError(
                f"variant {name!r} has an unknown part {part!r}: {hint}known are {', '.join(PARTS)}"
            )
    for kind in ("precision", "compiler", "capture"):
        also = OWN_GRAPH if kind == "capture" else ()
        rivals = [part for part in given if PARTS[part].kind == kind or part in also]
        if len(rivals) > 1:
            raise VariantError(
                f"variant {name!r} has {' and '.join(rivals)}, which exclude each other: keep one"
            )
    ordered = [part for part in PARTS if part in given]
    precision = next((part for part in ordered if PARTS[part].kind == "precision"), "fp32")
    parts = tuple(part for part in ordered if PARTS[part].kind != "precision")
    explicit = [] if precision == "fp32" and parts else [precision]
    return Variant("+".join([*explicit, *parts]), precision, parts)


def build(variant: Variant, model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Build the callable of a variant, unguarded, from a copy of `model`, which stays as it is.

    It is warm and in eval mode, and takes its images under
    `measuring_conditions(call, variant.conditions)`, under which it was built. Its attribute
    `static_batch` is the only batch size it takes, None where any will do. What was built is freed
    with the callable; a captured one returns its own buffer, which its next call overwrites. What
    torch raises where a part cannot be built is sorted by `guard.admit`.

    Parameters
    ----------
    example
        A batch (N, 3, H, W) on the device where the variant shall run; its values do not matter.
    """
    chosen = {PARTS[part].kind: PARTS[part].apply for part in variant.parts}
    dtype = PARTS[variant.precision].apply
    layout = chosen.get("layout", torch.preserve_format)
    network = copy.deepcopy(model).to(example.device).eval().requires_grad_(False)
    with torch.inference_mode(False), torch.no_grad():
        for part in variant.parts:
            if PARTS[part].kind == "network":
                network = PARTS[part].apply(network, example)
        network = network.to(dtype=dtype, memory_format=layout)
    inside = example.detach().to(dtype=dtype, memory_format=layout)
    adapted = dtype != torch.float32 or layout != torch.preserve_format
    compiler, capture = chosen.get("compiler"), chosen.get("capture")
    with measuring_conditions(network, variant.conditions):
        if compiler and capture:  # the graph's copy casts already: compile what comes after it
            network = compiler(network, inside)
        call = Adapted(network, dtype, layout) if adapted else network
        if capture:
            call = capture(call, example)
        elif compiler:
            call = compiler(call, example)
        for _ in range(WARMUP_CALLS):
            call(example)
    call = call.eval()
    call.static_batch = example.shape[0] if variant.fixed_shape else None
    return call

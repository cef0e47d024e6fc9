"""What is compared: precision, layout, fusion, compilation, graphs, and combinations of them.

A variant's name joins parts with "+", such as "fp16+channels_last+cudagraph". Every variant is a
callable with one contract: FP32 images (N, 3, H, W), or other inputs (N, …), on the device in, FP32
logits on the device out; casts, layout changes and copies are inside, and so inside every timing.

To add a part of your own: README.md, Development.
"""

import copy
import difflib
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from helpers.annex.variants import network as rewritten
from helpers.annex.variants.graph import WARMUP_CALLS, Captured, Compiled
from helpers.annex.variants.network import VariantFailed as VariantFailed
from helpers.annex.variants.overlap import overlap_shortcuts
from helpers.clocks.conditions import measuring_conditions

Refusal = tuple[str, dict]  # why a variant is not timed, as VariantFailed has it


class VariantError(ValueError):
    """A variant's name has an unknown part, or parts that exclude each other."""


@dataclass(frozen=True)
class Part:
    """One part of a variant's name; `kind` says what `apply` is.

    "precision": the type of weights and activations. "layout": a memory format. "network": a
    function (FP32 network, example) -> network. "compiler" and "capture", at most one of each:
    functions (network, example in the network's own type) -> callable module.
    """

    kind: str
    apply: object
    needs: str = ""  # "cuda" where the part means nothing elsewhere
    sized: bool = False  # what it makes takes one batch size, as all compilers and captures do


PARTS: dict[str, Part] = {  # applied in this order, whatever the order in a name
    "fp32": Part("precision", torch.float32),
    "tf32": Part("precision", torch.float32, "cuda"),  # stored in FP32, multiplied in TF32
    "fp16": Part("precision", torch.float16, "cuda"),
    "bf16": Part("precision", torch.bfloat16),
    "fused": Part("network", rewritten.fold_batch_norm),
    "cropped": Part("network", rewritten.crop_to_image, sized=True),
    "stem": Part("network", rewritten.suit_stem),
    "epilogue": Part("network", rewritten.fuse_epilogues, "cuda"),
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
        """The precision of `measuring_conditions`; FP16's and BF16's FP32 remainders are strict."""
        return "tf32" if self.precision == "tf32" else "fp32"


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
    """Build a variant's callable, warm and unguarded, from a copy of `model`, which stays as it is.

    `example` is a batch of inputs on the device to run on; its values do not matter. Call it
    under `measuring_conditions(call, variant.conditions)`. Its attribute `static_batch` is the only
    batch size it takes, None where any will do; a captured one returns its own buffer, which its
    next call overwrites. What was built is freed with it.
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
    kind = dtype if example.is_floating_point() else example.dtype  # tokens stay tokens
    inside = example.detach().to(dtype=kind, memory_format=layout)
    adapted = dtype != torch.float32 or layout != torch.preserve_format
    compiler, capture = chosen.get("compiler"), chosen.get("capture")
    with measuring_conditions(network, variant.conditions):
        if capture:  # its copy casts already: compiled is what comes after it
            call = capture(compiler(network, inside) if compiler else network, inside)
        else:
            call = rewritten.Adapted(network, kind, layout) if adapted else network
            call = compiler(call, example) if compiler else call
        for _ in range(WARMUP_CALLS):
            call(example)
    call = call.eval()
    fixed = compiler or capture or any(PARTS[part].sized for part in variant.parts)
    call.static_batch = example.shape[0] if fixed else None
    return call

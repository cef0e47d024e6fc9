"""What is compared: precision, layout, fusion, compilation, graphs, and combinations of them.

A variant's name joins parts with "+", such as "fp16+channels_last+cudagraph". Every variant is a
callable with one contract: FP32 images (N, 3, H, W) on the device in, FP32 logits (N, classes) on
the device out; casts, layout changes and copies are inside, and so inside every timing.

To add a part of your own: one function here or beside, one line in `PARTS`.
"""

import copy
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from helpers.annex.variants.graph import WARMUP_CALLS, Captured, Compiled
from helpers.annex.variants.network import Adapted, crop_to_image, fold_batch_norm, fuse_epilogues
from helpers.annex.variants.overlap import overlap_shortcuts
from helpers.annex.variants.stem import suit_stem
from helpers.clocks.conditions import measuring_conditions

__all__ = ["PARTS", "Part", "Variant", "VariantError", "build", "parse"]


class VariantError(ValueError):
    """A variant's name has an unknown part, or parts that exclude each other."""


@dataclass(frozen=True)
class Part:
    """One part of a variant's name; the parts of a kind are taken in the table's order.

    `kind` says when `apply` comes and what it is:
    "precision" the type of weights and activations; "network" a function (network, example) ->
    network, rewritten in FP32; "layout" a memory format; "compiler" and "capture" functions
    (network, example) -> callable module, at most one of each. `needs` is "cuda" where a part means
    nothing elsewhere. `fixed`: what it builds is for images of the example's shape alone.
    """

    kind: str
    french: str
    apply: object
    needs: str = ""
    fixed: bool = False


PARTS: dict[str, Part] = {
    "fp32": Part("precision", "FP32 strict", torch.float32),
    "tf32": Part("precision", "FP32 stocké, TF32 dans les produits", torch.float32, "cuda"),
    "fp16": Part("precision", "FP16", torch.float16, "cuda"),
    "bf16": Part("precision", "BF16", torch.bfloat16),
    "fused": Part("network", "BatchNorm repliée dans les convolutions", fold_batch_norm),
    "cropped": Part(
        "network", "poids qui ne voient que le bord nul retirés", crop_to_image, fixed=True
    ),
    "stem": Part("network", "image complétée à 4 canaux, max-pooling par le noyau 3D", suit_stem),
    "epilogue": Part(
        "network", "biais, addition et ReLU dans la convolution cuDNN", fuse_epilogues, "cuda"
    ),
    "overlap": Part("network", "raccourcis sur un second flux CUDA", overlap_shortcuts, "cuda"),
    "channels_last": Part("layout", "canaux en dernier (NHWC)", torch.channels_last),
    "compile": Part("compiler", "torch.compile", Compiled, fixed=True),
    "compile_reduce_overhead": Part(
        "compiler",
        "torch.compile, mode reduce-overhead",
        partial(Compiled, mode="reduce-overhead"),
        "cuda",
        fixed=True,
    ),
    "compile_max_autotune": Part(
        "compiler",
        "torch.compile, mode max-autotune",
        partial(Compiled, mode="max-autotune"),
        "cuda",
        fixed=True,
    ),
    "compile_frozen": Part(
        "compiler",
        "torch.compile, poids figés, canaux en dernier",
        partial(Compiled, freeze=True),
        fixed=True,
    ),
    "cudagraph": Part("capture", "graphe CUDA", Captured, "cuda", fixed=True),
    "cudagraph_tuned": Part(
        "capture",
        "graphe CUDA, algorithmes de cuDNN choisis par essai",
        partial(Captured, tuned=True),
        "cuda",
        fixed=True,
    ),
}
PRECISIONS = tuple(name for name, part in PARTS.items() if part.kind == "precision")
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

        FP16 and BF16 run with the strict switches: their FP32 remainders are no TF32. PyTorch's
        `allow_fp16_reduced_precision_reduction` and its BF16 twin stay as they are, True: a matrix
        product split along K may add its parts in half precision. They concern cuBLAS alone, here
        the last layer; convolutions accumulate in FP32, and the guard sees the drift of both.
        """
        return "tf32" if self.precision == "tf32" else "fp32"

    @property
    def fixed_shape(self) -> bool:
        """Does it only take batches of the example's shape?"""
        return any(PARTS[part].fixed for part in self.parts)

    @property
    def french(self) -> str:
        """What it is, for a table."""
        return ", ".join(PARTS[part].french for part in (self.precision, *self.parts))


def parse(name: str) -> Variant:
    """Read one name: parts come in any order, the variant's own name has them in the table's.

    "fp32" is what a name without a precision means, and is left out beside other parts.

    Raises
    ------
    VariantError
        An unknown part (with a suggestion), a part twice, two precisions, two executions.
    """
    given = [part.strip() for part in name.split("+")]
    for part in given:
        if part not in PARTS:
            close = difflib.get_close_matches(part.lower(), PARTS, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise VariantError(
                f"variant {name!r} has an unknown part {part!r}: {hint}known are {', '.join(PARTS)}"
            )
        if given.count(part) > 1:
            raise VariantError(f"variant {name!r} names {part!r} twice: once is enough")
    for kind in ("precision", "compiler", "capture"):
        rivals = [part for part in given if PARTS[part].kind == kind]
        if len(rivals) > 1:
            raise VariantError(
                f"variant {name!r} has {' and '.join(rivals)}, which exclude each other: keep one"
            )
    own = [part for part in given if part in OWN_GRAPH]
    if own and any(PARTS[part].kind == "capture" for part in given):
        raise VariantError(
            f"variant {name!r}: {own[0]} already captures CUDA graphs; use 'compile' or "
            "'compile_frozen' with a graph of one's own"
        )
    ordered = [part for part in PARTS if part in given]
    precision = next((part for part in ordered if part in PRECISIONS), "fp32")
    parts = tuple(part for part in ordered if part not in PRECISIONS)
    explicit = [] if precision == "fp32" and parts else [precision]
    return Variant("+".join([*explicit, *parts]), precision, parts)


def build(variant: Variant, model: nn.Module, example: torch.Tensor) -> Callable:
    """Build the callable of a variant from a copy of `model`, which stays as it is.

    It is an `nn.Module`, warm and in eval mode, and takes its images under
    `measuring_conditions(call, variant.conditions)`, under which it was built. Its attribute
    `static_batch` is the only batch size it takes, None where any will do. What was built is freed
    with the callable; a captured one returns its own buffer, which its next call overwrites.

    Parameters
    ----------
    example
        A batch (N, 3, H, W) on the device where the variant shall run; its values do not matter.

    Raises
    ------
    Exception
        Whatever torch raises where a part cannot be built; `guard.admit` sorts it.
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

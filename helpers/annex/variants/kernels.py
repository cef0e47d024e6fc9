"""In which precision a GPU really multiplied, as far as the names of its kernels tell."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

# Kernels that multiply: NVIDIA's convolutions and matrix products, and PyTorch's own convolutions.
PRODUCT = re.compile(
    r"gemm|gemv|nvjet|scudnn|fprop|convolve|winograd|conv2d|conv_depthwise|cutlass"
)
# Helpers of theirs, which only move data.
HELPER = re.compile(
    r"nchwToNhwc|nhwcToNchw|convertTensor|[Pp]adding|splitKreduce|splitkreduce|compute\w*Offsets"
    r"|triton_"
)
# First match wins: "bf16bf16_bf16f32" is also f16-like, "f32f32_tf32f32" also f32-like. In cuBLAS's
# nvjet names the first letter is the operands' type: h is FP16, t is BF16; s says nothing here.
# s1688 without a 16-bit type is TF32's tensor-core instruction, ffma and sgemm are plain FP32.
TYPES = (
    ("bf16", re.compile(r"bf16|bfloat16|nvjet_(sm\d+_)?t")),
    ("fp16", re.compile(r"f16|fp16|half|hgemm|h884|h1688|h16816|nvjet_(sm\d+_)?h")),
    ("tf32", re.compile(r"tf32|s1688")),
    ("fp32", re.compile(r"f32f32_f32f32|ffma|sgemm|scudnn|simt_s|[<, ]float\b")),
)
FRENCH = {"fp32": "FP32", "tf32": "TF32", "fp16": "FP16", "bf16": "BF16"}
# Bits of mantissa (the hidden one too) and of exponent: a type with no fewer of either holds every
# number of the other. So fp32 ⊇ tf32 ⊇ fp16 and tf32 ⊇ bf16, but neither of fp16 and bf16 holds
# the other: FP16 overflows at 65,504, which BF16 was chosen to avoid.
BITS = {"fp32": (24, 8), "tf32": (11, 8), "fp16": (11, 5), "bf16": (8, 8)}


@dataclass(frozen=True)
class PrecisionProof:
    """What the names prove. `proven`: None where they say nothing; `french` is a sentence."""

    proven: bool | None
    french: str


def kernel_precision(name: str) -> str | None:
    """Return the precision of the products in one kernel; None if it has none or hides it.

    Triton names its kernels after PyTorch's operations, without any type.
    """
    if HELPER.search(name) or not PRODUCT.search(name):
        return None
    return next((precision for precision, pattern in TYPES if pattern.search(name)), None)


def holds(precision: str, other: str) -> bool:
    """Is every number of `other` one of `precision` too?"""
    return all(mine >= its for mine, its in zip(BITS[precision], BITS[other], strict=True))


def prove_precision(precision: str, names: Sequence[str]) -> PrecisionProof:
    """Judge the names of all kernels of a forward against a variant's precision, which is a floor.

    NVIDIA's libraries choose a more precise kernel where it is faster, such as one convolution of
    an FP16 ResNet in TF32 (cuDNN 9.24): that passes and is listed, even where no kernel is left in
    the announced precision. Only a product of less precision, or of less range, refutes.
    """
    found = Counter(seen for name in names if (seen := kernel_precision(name)))
    if not found:
        return PrecisionProof(
            None, f"non démontrable : aucun des {len(names)} noms de noyaux ne dit de type"
        )
    listed = ", ".join(f"{count} en {FRENCH[seen]}" for seen, count in sorted(found.items()))
    if precision not in found:
        listed += f", aucun en {FRENCH[precision]}"
    proven = all(holds(seen, precision) for seen in found)
    return PrecisionProof(proven, f"noyaux de produit : {listed}")

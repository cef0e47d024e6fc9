"""In which precision a GPU really multiplied, as far as the names of its kernels tell."""

import re
from collections import Counter
from collections.abc import Sequence

# Kernels that multiply: NVIDIA's convolutions and matrix products, and PyTorch's own convolutions.
PRODUCT = re.compile(
    r"gemm|gemv|nvjet|scudnn|fprop|convolve|winograd|conv2d|conv_depthwise|cutlass"
)
# Helpers of theirs, which only move data, and Triton's, which are named without any type.
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
# Bits of mantissa (the hidden one too) and of exponent: neither of fp16 and bf16 holds the other,
# for FP16 overflows at 65,504, which BF16 was chosen to avoid.
BITS = {"fp32": (24, 8), "tf32": (11, 8), "fp16": (11, 5), "bf16": (8, 8)}


def kernel_precision(name: str) -> str | None:
    """Return the precision of the products in one kernel; None if it has none or hides it."""
    if HELPER.search(name) or not PRODUCT.search(name):
        return None
    return next((precision for precision, pattern in TYPES if pattern.search(name)), None)


def products_in(names: Sequence[str]) -> dict[str, int]:
    """Count the kernels that multiply by their precision, those that hide it left out."""
    return dict(sorted(Counter(filter(None, map(kernel_precision, names))).items()))


def holds(precision: str, other: str) -> bool:
    """Is every number of `other` one of `precision` too?

    What a variant's name announces is a floor: NVIDIA's libraries choose a more precise kernel
    where it is faster, and that passes. Only a product of less precision or range refutes.
    """
    return all(mine >= its for mine, its in zip(BITS[precision], BITS[other], strict=True))

"""Precisions told from the names of kernels, those of the committed profiles among them."""

import json
from pathlib import Path

import pytest

from helpers.annex.variants import parse
from helpers.annex.variants.precisions import BITS, holds, kernel_precision, products_in

PROFILES = Path(__file__).parents[2] / "benchmarks" / "variants"

# Written after NVIDIA's naming for GPUs, versions and helpers that the committed profiles lack.
NAMES = [
    ("ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "fp32"),
    ("void convolve_common_engine_float_NHWC<float, float, 1024, 5, 5, 3, 3, 3, true>", "fp32"),
    ("sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw", "tf32"),
    ("sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc", "tf32"),
    ("ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn", "fp16"),
    ("nvjet_sm100_tst_64x8_64x16_4x1_v_bz_TNT", "bf16"),
    ("void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float>", "bf16"),
    ("nvjet_sss_64x8_64x16_4x1_v_bz_TNT", None),
    ("triton_tem_fused_convolution_7", None),
    ("void cudnn::engines_precompiled::nchwToNhwcKernel<float, float, float, false, true>", None),
    ("void splitKreduce_kernel<32, 16, int, float, __half, float, __half, true, false>", None),
    # What cuDNN 9.24 puts around its one TF32 convolution of an FP16 network.
    ("void cudnn::ops::convertTensor_kernel<float, float, __half, (cudnnKernelDataType_t)0>", None),
]


@pytest.mark.parametrize(("name", "precision"), NAMES)
def test_names_of_other_machines(name, precision):
    assert kernel_precision(name) == precision


@pytest.mark.parametrize("session", ["resnet18", "resnet18_cifar"])
def test_every_variant_of_the_reference_sessions_is_told_from_its_real_kernels(session):
    """A variant that ran in another precision than its name's would not have been measured."""
    measured = json.loads((PROFILES / session / "variants.json").read_text("utf8"))["measured"]
    for name, seen in measured.items():
        products, precision = products_in(seen["profile"]["kernel_names"]), parse(name).precision
        for other in BITS:
            passes = all(holds(found, other) for found in products)
            assert passes is holds(precision, other), (name, other)

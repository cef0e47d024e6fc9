"""Precisions told from the names of kernels, those of the committed profiles among them."""

import json
from pathlib import Path

import pytest

from helpers.annex.variants import parse
from helpers.annex.variants.kernels import BITS, holds, kernel_precision, prove_precision

PROFILES = Path(__file__).parents[2] / "benchmarks" / "variants"

# The first ten come from profiles of ResNet-18 on an H100 with cuDNN 9.19 and CUDA 13; the others
# are written after the same libraries' naming, for other GPUs and versions.
SGEMM_CONVOLUTION = (
    "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_stage3_"
    "warpsize1x2x1_g1_ffma_aligna4_alignc4_execute_kernel__5x_cudnn"
)
GEMV = (
    "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, int, float, float, float, "
    "float, false, true, true, false, 7, false, cublasGemvParamsEx<int, "
    "cublasGemvTensorStridedBatched<float const> > >"
)
TF32_CONVOLUTION = (
    "sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x32x32_"
    "warpgroupsize1x1x1_g1_execute_segment_k_off_kernel__5x_cudnn"
)
NAMES = [
    (SGEMM_CONVOLUTION, "fp32"),
    ("void implicit_convolve_sgemm<float, float, 1024, 5, 5, 3, 3, 3, 1>", "fp32"),
    ("void convolve_common_engine_float_NHWC<float, float, 1024, 5, 5, 3, 3, 3, true>", "fp32"),
    (GEMV, "fp32"),
    (TF32_CONVOLUTION, "tf32"),
    (
        "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nchw_tilesize64x32x64_stage5_"
        "warpsize2x2x1_g1_tensor16x8x8_alignc4_execute_kernel__5x_cudnn",
        "tf32",
    ),
    ("void cudnn::bn_fw_inf_1C11_kernel_NCHW<float, float, true, 1>(float, float)", None),
    ("void cudnn::engines_precompiled::nchwToNhwcKernel<float, float, float, false, true>", None),
    ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float> >", None),
    ("void at::native::(anonymous namespace)::max_pool_forward_nchw<float, int>", None),
    ("ampere_sgemm_32x32_sliced1x4_tn", "fp32"),
    ("ampere_scudnn_128x32_relu_interior_nn_v1", "fp32"),
    ("ampere_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1", "fp32"),
    ("void cutlass::Kernel<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>", "fp32"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64_16x6_tn_align4>", "tf32"),
    ("cutlass_tensorop_s1688fprop_optimized_tf32_64x64_16x10_nhwc_align4", "tf32"),
    ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_f16_s161616gemm_f16_16x16_128x1>", "fp16"),
    (
        "sm80_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc_tilesize64x64x64_stage4_"
        "warpsize2x2x1_g1_tensor16x8x16_execute_kernel__5x_cudnn",
        "fp16",
    ),
    ("void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4>", "fp16"),
    ("ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn", "fp16"),
    ("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "fp16"),
    ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", "bf16"),
    ("nvjet_sm100_tst_64x8_64x16_4x1_v_bz_TNT", "bf16"),
    ("nvjet_sss_64x8_64x16_4x1_v_bz_TNT", None),
    (
        "sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize64x64x64_stage4_"
        "warpsize2x2x1_g1_tensor16x8x16_execute_kernel__5x_cudnn",
        "bf16",
    ),
    ("void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, float>", "bf16"),
    ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_64x64_32x6_tn>", "bf16"),
    ("triton_poi_fused_convolution_relu_3", None),
    ("triton_tem_fused_convolution_7", None),
    ("void splitKreduce_kernel<32, 16, int, float, __half, float, __half, true, false>", None),
    ("void cask__5x_cudnn::computeOffsetsKernel(cask__5x_cudnn::ComputeOffsetsParams)", None),
    # What cuDNN 9.24 puts around its one TF32 convolution of an FP16 or BF16 network.
    ("void cudnn::ops::convertTensor_kernel<float, float, __half, (cudnnKernelDataType_t)0>", None),
    ("void cutlass__5x_cudnn::convertTensor_kernel<__nv_bfloat16, float>", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "precision"), NAMES)
def test_real_names(name, precision):
    assert kernel_precision(name) == precision


@pytest.mark.parametrize("session", ["resnet18", "resnet18_cifar"])
def test_every_variant_of_the_reference_sessions_is_told_from_its_real_kernels(session):
    """A variant that ran in another precision than its name's would not have been measured."""
    measured = json.loads((PROFILES / session / "variants.json").read_text("utf8"))["measured"]
    assert len(measured) == 20
    for name, seen in measured.items():
        precision = parse(name).precision
        assert prove_precision(precision, seen["kernel_names"]).proven is True, name
        for other in {"fp32", "tf32", "fp16", "bf16"} - {precision}:
            proof = prove_precision(other, seen["kernel_names"])
            assert proof.proven is holds(precision, other), (name, other)


def test_a_type_holds_another_by_mantissa_and_range():
    wider = {(a, b) for a in BITS for b in BITS if a != b and holds(a, b)}
    over_tf32 = {("fp32", "tf32"), ("tf32", "fp16"), ("tf32", "bf16")}
    assert wider == over_tf32 | {("fp32", "fp16"), ("fp32", "bf16")}


HALF, BRAIN = "nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "nvjet_tst_64x8_64x16_4x1_v_bz_TNT"
CONVERT = "void cudnn::ops::convertTensor_kernel<float, float, __half, (cudnnKernelDataType_t)0>"


@pytest.mark.parametrize(
    ("precision", "names", "proven", "listed"),
    [
        ("fp32", [SGEMM_CONVOLUTION, GEMV], True, "2 en FP32"),
        ("fp32", [SGEMM_CONVOLUTION, TF32_CONVOLUTION], False, "1 en FP32, 1 en TF32"),
        ("tf32", [TF32_CONVOLUTION, GEMV], True, "1 en FP32, 1 en TF32"),
        ("tf32", [GEMV], True, "1 en FP32, aucun en TF32"),
        ("tf32", [TF32_CONVOLUTION, HALF], False, "1 en FP16, 1 en TF32"),
        ("fp16", [HALF, "triton_poi_fused_relu_0"], True, "1 en FP16"),
        ("fp16", [HALF, CONVERT, TF32_CONVOLUTION, CONVERT], True, "1 en FP16, 1 en TF32"),
        ("bf16", [BRAIN, CONVERT, TF32_CONVOLUTION, CONVERT], True, "1 en BF16, 1 en TF32"),
        ("fp16", [SGEMM_CONVOLUTION, TF32_CONVOLUTION], True, "aucun en FP16"),
        ("fp16", [BRAIN, HALF], False, "1 en BF16, 1 en FP16"),
        ("bf16", [HALF], False, "1 en FP16"),
        ("fp16", ["triton_poi_fused_convolution_0", "void at::native::add<__half>"], None, ""),
        ("fp32", [], None, ""),
    ],
)
def test_a_precision_is_a_floor_and_what_is_above_it_is_listed(precision, names, proven, listed):
    """Issue 15 E: at least as precise as announced passes and is listed, less is refuted."""
    proof = prove_precision(precision, names)
    assert proof.proven is proven
    assert listed in proof.french

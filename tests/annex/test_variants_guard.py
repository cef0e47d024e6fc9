"""What is refused before it is timed."""

import copy
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from fakes import TinyNet

from helpers.annex.variants import VariantFailed, parse
from helpers.annex.variants import guard as variants_guard
from helpers.annex.variants.guard import admit, guard, no_recompilation
from helpers.clocks.profiling import ForwardProfile
from helpers.models import build_model

CPU, FP32, BF16 = torch.device("cpu"), parse("fp32"), parse("bf16")
IMAGES = [torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyNet().eval()


def judged(model, call, variant=FP32):
    return guard(call, variant, model, IMAGES, CPU)


@contextmanager
def refused(code, **values):
    """A check that the block refuses a variant for this reason."""
    with pytest.raises(VariantFailed) as caught:
        yield
    found, its = caught.value.args
    assert found == code
    assert its.items() >= values.items()


@pytest.mark.parametrize("name", ["bf16", "bf16+channels_last", "fused", "cropped+stem"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small"])
def test_honest_variants_of_real_networks_are_admitted(name, network):
    reference = build_model(network).eval()
    images = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    admitted = admit(parse(name), reference, images, CPU)
    assert admitted.report.drift < admitted.report.tolerance < 1


def test_a_buffer_that_the_next_call_overwrites_is_no_stale_one(model):
    buffer = torch.zeros(1, 10)
    report = judged(model, lambda x: buffer.copy_(model(x).detach()))
    assert report.drift == 0
    assert (report.profile, report.products) == (None, {})


def test_a_lower_precision_than_announced_is_caught_by_its_drift(model):
    half = copy.deepcopy(model).to(torch.bfloat16)
    call = lambda x: half(x.bfloat16()).float()  # noqa: E731
    report = judged(model, call, BF16)
    with refused("drift", drift=report.drift):
        judged(model, call, FP32)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda y, call: y.bfloat16(), "wrong_form"),
        (lambda y, call: y[:, :5], "wrong_form"),
        (lambda y, call: y * float("nan"), "not_finite"),
        (lambda y, call: torch.arange(10.0)[None], "ignores_input"),
        (lambda y, call: y + 1e-3 * (call >= 3), "keeps_state"),
    ],
)
def test_wrong_outputs_are_refused(model, wrong, code):
    count = iter(range(99))
    with refused(code):
        judged(model, lambda x: wrong(model(x), next(count)))


# --- what a profile and the GPU clock tell


def profiled(monkeypatch, names=("ampere_sgemm_32x32",), gpu_ms=1.0):
    """Let a CPU look like a GPU whose kernels take 1 ms, and whose clock reads `gpu_ms`."""
    profile = ForwardProfile(10, 21.0, 1.0, 0, 0, tuple(names))

    class Clock:
        def __init__(self, device):
            if isinstance(gpu_ms, Exception):
                raise gpu_ms

        def measure(self, call, inputs, count):
            return SimpleNamespace(samples_ms=torch.full((count,), gpu_ms).numpy())

    monkeypatch.setattr(variants_guard, "try_profile", lambda *args: (profile, ""))
    monkeypatch.setattr(variants_guard, "GpuClock", Clock)


HALF, BRAIN = "nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "nvjet_tst_64x8_64x16_4x1_v_bz_TNT"
STRICT, TF32 = "ampere_sgemm_32x32_sliced1x4_tn", "cutlass_tensorop_s1688fprop_optimized_tf32_64x64"


@pytest.mark.parametrize(
    ("announced", "names", "passes"),
    [
        ("fp32", [STRICT, TF32], False),
        ("tf32", [TF32, HALF], False),
        ("fp16", [HALF, TF32, "triton_poi_fused_relu_0"], True),
        ("fp16", [BRAIN, HALF], False),
        ("bf16", [HALF], False),
        ("fp16", ["triton_poi_fused_convolution_0"], True),
    ],
)
def test_a_precision_is_a_floor(model, monkeypatch, announced, names, passes):
    """At least as precise as announced passes and is listed, less is refused."""
    profiled(monkeypatch, names)
    if not passes:
        with refused("lower_precision", announced=announced):
            judged(model, model, parse(announced))
        return
    report = judged(model, model, parse(announced))
    assert sum(report.products.values()) == sum("triton" not in name for name in names)


@pytest.mark.parametrize(
    ("gpu_ms", "passed"),
    [
        (1.4, True),
        (0.6, True),  # two streams, forked and joined by events, overlap
        (0.003, False),  # the work is on a stream that the clock does not watch
        (OSError("no NVRTC"), True),  # a clock that cannot be had contradicts nothing
    ],
)
def test_a_gpu_clock_that_its_kernels_contradict_refuses(model, monkeypatch, gpu_ms, passed):
    profiled(monkeypatch, gpu_ms=gpu_ms)
    if passed:
        assert judged(model, model).profile.kernel_ms == 1.0
    else:
        with refused("unwatched_stream", kernel_ms=1.0):
            judged(model, model)


# --- what raises


@pytest.mark.parametrize(
    ("error", "code", "values"),
    [
        (RuntimeError("no engine\nmore"), "not_built", {"error": "RuntimeError: no engine"}),
        (SystemExit("bye"), "not_built", {"error": "SystemExit: bye"}),
        (VariantFailed("nothing_to_change", part="x"), "nothing_to_change", {"part": "x"}),
        (KeyboardInterrupt(), "", {}),  # the user's own interruption is none of the variants
    ],
)
def test_what_cannot_be_built_gives_a_reason(model, monkeypatch, error, code, values):
    def fails(*args):
        raise error

    monkeypatch.setattr(variants_guard, "build", fails)
    with refused(code, **values) if code else pytest.raises(KeyboardInterrupt):
        admit(BF16, model, IMAGES, CPU)


def test_compiling_meanwhile_is_seen_and_refused(model):
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    function(torch.zeros(2))
    with no_recompilation() as seen:
        function(torch.zeros(2))
    assert seen == {}
    count = iter(range(4, 40))

    def recompiles(x):
        function(torch.zeros(next(count)))
        return model(x)

    with refused("recompiled", compilations=4):
        judged(model, recompiles)


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tf32", "fp16+channels_last", "bf16+channels_last+cudagraph"])
def test_the_precision_is_proven_by_kernel_names(name):
    images = [torch.randn(1, 3, 32, 32, device="cuda") for _ in range(3)]
    report = admit(parse(name), build_model().cuda(), images, torch.device("cuda")).report
    assert report.products
    assert report.profile.kernels > 10

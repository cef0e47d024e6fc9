"""What is refused before it is timed."""

from types import SimpleNamespace

import pytest
import torch
from fakes import TinyNet
from torch import nn

from helpers.annex.entries import admit_all
from helpers.annex.variants import guard as variants_guard
from helpers.annex.variants import parse
from helpers.annex.variants.guard import VariantFailed, admit, guard, no_recompilation, tolerance
from helpers.clocks import NotQueueableError, profiling
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


def test_the_reference_itself_passes_with_no_drift(model):
    report = judged(model, model)
    assert report.passed
    assert report.drift == 0
    assert report.repeats_exactly
    assert report.kernels is report.precision_proven is None


@pytest.mark.parametrize("name", ["fp32", "bf16", "channels_last", "bf16+channels_last", "fused"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v3_small"])
def test_honest_variants_of_real_networks_are_admitted(name, network):
    reference = build_model(network).eval()
    images = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    admitted = admit(parse(name), reference, images, CPU)
    assert admitted.report.passed
    assert admitted.report.drift < admitted.report.tolerance < admitted.report.scale
    assert admitted.build_s > 0


def test_a_stale_buffer_is_caught(model):
    first = model(IMAGES[0]).detach()
    assert "ne suit pas l'entrée" in judged(model, lambda x: first).failure


def test_an_output_that_is_overwritten_by_the_next_call_is_no_fault(model):
    buffer = torch.zeros(1, 10)
    assert judged(model, lambda x: buffer.copy_(model(x).detach())).passed


def test_what_depends_on_its_past_is_caught(model):
    calls = []

    def drifting(x):
        calls.append(x)
        return model(x) + 1e-3 * (len(calls) > 3)

    assert "ne redonne pas la même réponse" in judged(model, drifting).failure


def test_a_lower_precision_than_announced_is_caught_by_its_drift(model):
    half = TinyNet().eval()
    half.load_state_dict(model.state_dict())
    half.to(torch.bfloat16)

    def call(x):
        return half(x.bfloat16()).float()

    assert judged(model, call, BF16).passed
    assert "l'écart à la référence FP32" in judged(model, call, FP32).failure
    assert "écart impossible en FP32" in judged(model, call, BF16).precision_evidence


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda y: y.bfloat16(), "torch.bfloat16"),
        (lambda y: y[:, :5], "(1, 5)"),
        (lambda y: y * float("nan"), "NaN"),
    ],
)
def test_outputs_of_another_form_are_caught(model, wrong, told):
    report = judged(model, lambda x: wrong(model(x)))
    assert not report.passed
    assert report.drift == float("inf")
    assert told in report.failure


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


def test_a_precision_refuted_by_kernel_names_is_caught(model, monkeypatch):
    profiled(monkeypatch, ["nvjet_hsh_64x8_64x16_4x1_v_bz_TNT"])
    report = judged(model, model)
    assert report.precision_proven is False
    assert "1 en FP16" in report.failure
    profiled(monkeypatch, ["triton_"])
    report = judged(model, model)
    assert report.passed
    assert report.precision_proven is None


@pytest.mark.parametrize(
    ("gpu_ms", "passed"),
    [
        (1.4, True),
        (0.6, True),  # two streams, forked and joined by events, overlap
        (0.003, False),  # the work is on a stream that the clock does not watch
        (OSError("no NVRTC"), True),
        (NotQueueableError("waits_inside", "it waits"), True),
    ],
)
def test_a_gpu_clock_that_its_kernels_contradict_refuses_the_variant(
    model, monkeypatch, gpu_ms, passed
):
    """Issue 15 D: a clock that cannot be had contradicts nothing."""
    profiled(monkeypatch, gpu_ms=gpu_ms)
    report = judged(model, model)
    assert report.passed is passed
    assert passed or "horloge GPU" in report.failure


@pytest.mark.parametrize("error", [RuntimeError("no kernel"), OSError("CUPTI"), MemoryError()])
def test_a_profiler_that_fails_in_any_way_leaves_the_precision_open(model, monkeypatch, error):
    """Issue 16 A: only the measurement may end a session."""

    def blind(*args):
        raise error

    monkeypatch.setattr(profiling, "profile_forwards", blind)
    report = judged(model, model)
    assert report.passed
    assert report.precision_proven is report.kernel_ms is None
    assert type(error).__name__ in report.precision_evidence


def test_one_image_cannot_show_that_outputs_follow_inputs(model):
    with pytest.raises(ValueError, match="two different images"):
        guard(model, FP32, model, IMAGES[:1], CPU)


def test_tolerances_follow_the_precision_the_depth_and_the_scale(model):
    assert tolerance("fp16", model, 2.0) == 2 * tolerance("fp16", model, 1.0)
    assert tolerance("bf16", model, 1.0) == 8 * tolerance("fp16", model, 1.0)
    assert tolerance("tf32", model, 1.0) == tolerance("fp16", model, 1.0)
    assert tolerance("fp32", model, 1.0) < tolerance("tf32", model, 1.0) / 100
    deep = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    assert tolerance("fp16", deep, 1.0) == 2 * tolerance("fp16", model, 1.0)
    assert tolerance("fp16", nn.Identity(), 1.0) > 0


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no engine\nmore"), "construction impossible : RuntimeError: no engine"),
        (torch.OutOfMemoryError("CUDA out of memory"), "mémoire insuffisante sur cpu"),
        (SystemExit(3), "construction impossible : SystemExit: 3"),
    ],
)
def test_what_cannot_be_built_gives_a_reason(model, monkeypatch, error, told):
    def fails(*args):
        raise error

    monkeypatch.setattr(variants_guard, "build", fails)
    with pytest.raises(VariantFailed) as caught:
        admit(BF16, model, IMAGES, CPU)
    assert caught.value.reason == told
    assert caught.value.name == "bf16"


def test_a_model_that_cannot_be_traced_fails_alone():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.norm(x).mean((2, 3)) if x.sum() > 0 else x.mean((2, 3))

    network = Branching().eval()
    with pytest.raises(VariantFailed, match="construction impossible : TraceError"):
        admit(parse("fused"), network, IMAGES, CPU)
    assert admit(parse("channels_last"), network, IMAGES, CPU).report.passed


def test_recompilations_and_graph_breaks_are_counted():
    from torch._dynamo.utils import counters

    with no_recompilation() as seen:
        counters["stats"]["unique_graphs"] += 1
        counters["graph_break"]["for a test"] += 2
    assert (seen.compilations, seen.graph_breaks) == (1, 2)
    assert seen.problem.startswith("1 recompilation(s) et 2 rupture(s)")
    with no_recompilation() as seen:
        pass
    assert not seen.problem


def test_a_new_shape_is_seen_as_a_recompilation():
    function = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    function(torch.zeros(2))
    with no_recompilation() as seen:
        function(torch.zeros(2))
    assert seen.compilations == 0
    with no_recompilation() as seen:
        function(torch.zeros(3))
    assert seen.compilations == 1


class Quits(TinyNet):
    def forward(self, x):
        if x.dtype == torch.bfloat16:
            raise SystemExit("bye")
        return super().forward(x)


def test_a_model_that_would_end_the_session_fails_alone():
    torch.manual_seed(0)
    wanted = [parse(name) for name in ("fp32", "bf16", "channels_last")]
    admitted, refused = admit_all(wanted, Quits().eval(), IMAGES, CPU)
    assert list(admitted) == ["fp32", "channels_last"]
    assert "SystemExit: bye" in refused["bf16"]


def test_the_users_own_interruption_is_none_of_the_variants(model, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(variants_guard, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        admit(BF16, model, IMAGES, CPU)


class Greedy(nn.Module):
    """Needs 64 TiB for a forward in BF16."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3 * 32 * 32, 10)

    def forward(self, x):
        if x.dtype == torch.bfloat16:
            torch.empty(2**46, dtype=torch.uint8, device=x.device)
        return self.last(x.flatten(1))


@pytest.mark.gpu
def test_out_of_gpu_memory_a_variant_is_named_and_the_next_goes_on():
    model, device = Greedy().cuda(), torch.device("cuda", 0)
    images = [torch.randn(1, 3, 32, 32, device="cuda") for _ in range(3)]
    wanted = [parse(name) for name in ("fp32", "bf16", "fp16")]
    admitted, refused = admit_all(wanted, model, images, device)
    assert refused == {"bf16": "mémoire insuffisante sur cuda:0"}
    assert list(admitted) == ["fp32", "fp16"]
    assert torch.cuda.memory_allocated() < 2**28


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tf32", "fp16+channels_last", "bf16+channels_last+cudagraph"])
def test_the_precision_is_proven_by_kernel_names(name):
    images = [torch.randn(1, 3, 32, 32, device="cuda") for _ in range(3)]
    report = admit(parse(name), build_model().cuda(), images, torch.device("cuda")).report
    assert report.precision_proven is True
    assert report.kernels > 10


class OwnStream(nn.Module):
    """Works on a CUDA stream of its own; `joined`, the caller's waits for it by events."""

    def __init__(self, joined):
        super().__init__()
        self.net, self.joined = build_model(), joined

    def forward(self, x):
        stream = torch.cuda.Stream(x.device)
        if self.joined:
            stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            y = self.net(x)
        if self.joined:
            torch.cuda.current_stream().wait_stream(stream)
        else:
            stream.synchronize()
        return y


@pytest.mark.gpu
@pytest.mark.parametrize("joined", [True, False])
def test_work_on_a_stream_of_its_own_is_refused_unless_it_is_joined(joined):
    model, device = OwnStream(joined).cuda().eval(), torch.device("cuda", 0)
    images = [torch.randn(1, 3, 32, 32, device="cuda") for _ in range(3)]
    report = guard(model, FP32, model, images, device)
    assert report.passed is joined
    assert joined or "horloge GPU" in report.failure

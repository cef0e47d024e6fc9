"""What is refused before it is timed."""

from dataclasses import replace

import pytest
import torch
from fakes import TinyNet
from torch import nn

from helpers.annex.entries import admit_all
from helpers.annex.variants import dram, parse
from helpers.annex.variants import guard as variants_guard
from helpers.annex.variants.dram import copy_bandwidth, dram_sentences, weight_bytes
from helpers.annex.variants.guard import VariantFailed, admit, guard, no_recompilation, tolerance
from helpers.clocks.profiling import ForwardProfile, NoKernelSeenError
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


def test_outputs_one_image_late_are_caught(model):
    last = [IMAGES[0]]

    def late(x):
        y, last[0] = model(last[0]).detach(), x
        return y

    assert "ne suit pas l'entrée" in judged(model, late).failure


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


def test_a_precision_refuted_by_kernel_names_is_caught(model, monkeypatch):
    profile = ForwardProfile(10, 21.0, 0.1, 0, 0, ("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT",))
    monkeypatch.setattr(variants_guard, "profile_forwards", lambda *args: profile)
    report = judged(model, model)
    assert report.precision_proven is False
    assert "la précision annoncée n'est pas celle exécutée" in report.failure
    monkeypatch.setattr(
        variants_guard, "profile_forwards", lambda *a: replace(profile, kernel_names=("triton_",))
    )
    report = judged(model, model)
    assert report.passed
    assert report.precision_proven is None
    assert "non démontrable" in report.precision_evidence


def test_a_profiler_that_sees_nothing_leaves_the_precision_open(model, monkeypatch):
    def blind(*args):
        raise NoKernelSeenError("the profiler recorded no GPU kernel")

    monkeypatch.setattr(variants_guard, "profile_forwards", blind)
    report = judged(model, model)
    assert report.passed
    assert report.precision_proven is None
    assert "recorded no GPU kernel" in report.precision_evidence


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
        assert seen.problem == ""
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
        function(torch.zeros(3))
    assert seen.compilations == 1


def test_the_weights_bytes_over_the_bandwidth(monkeypatch):
    model = nn.Linear(99, 10)
    assert weight_bytes(model, "fp32") == weight_bytes(model, "tf32") == 4000
    assert weight_bytes(model, "fp16") == weight_bytes(model, "bf16") == 2000
    assert dram_sentences(model, CPU) == []
    monkeypatch.setattr(dram, "copy_bandwidth", lambda device: 2e6)
    (told,) = dram_sentences(model, torch.device("cuda"))
    assert "2,000 ms en FP32 (0,00400 Mo) ou 1,000 ms en FP16" in told


def test_a_gpu_without_room_for_the_copy_is_told_not_fatal(monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    monkeypatch.setattr(dram, "copy_bandwidth", full)
    (told,) = dram_sentences(nn.Linear(9, 1), torch.device("cuda"))
    assert told.startswith("Bande passante de la mémoire du GPU non mesurée (")


@pytest.mark.gpu
def test_the_gpus_memory_is_as_fast_as_such_memories_are():
    assert 1e11 < copy_bandwidth(torch.device("cuda")) < 2e13


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


def test_what_else_goes_wrong_while_profiling_refuses_the_variant(model, monkeypatch):
    def exhausted(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(variants_guard, "profile_forwards", exhausted)
    with pytest.raises(VariantFailed, match="mémoire insuffisante"):
        admit(parse("channels_last"), model, IMAGES, CPU)

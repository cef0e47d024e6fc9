"""Names of variants, and what is built from them."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from helpers.annex.variants import VariantError, build, parse
from helpers.annex.variants import select as variants_select
from helpers.annex.variants.select import ALL, FASTEST, select
from helpers.bench_latency import benchmark_latency
from helpers.clocks.conditions import measuring_conditions, modules_of
from helpers.models import build_model

CPU = torch.device("cpu")
IMAGES = [torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        return self.head(self.relu(self.branch(x) + x).mean((2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SmallNet()


def test_parts_come_in_any_order_and_the_reference_is_first():
    text = "cudagraph+channels_last+bf16, fused+fp32, fused,  channels_last + fused + fused"
    chosen, skipped = select(text, CPU)
    assert [v.name for v in chosen] == ["fp32", "fused", "fused+channels_last"]
    assert list(skipped) == ["bf16+channels_last+cudagraph"]


def test_tokens_stay_integers_whatever_the_precision():
    torch.manual_seed(0)
    model, tokens = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)), torch.arange(8).view(1, 8)
    call = build(parse("bf16"), model, tokens)
    with measuring_conditions(call):
        assert call(tokens).dtype == torch.float32
        torch.testing.assert_close(call(tokens), model(tokens), atol=0.02, rtol=0.02)


WRONG = {
    "FP16": "did you mean 'fp16'",
    "fp16+": "unknown part ''",
    "fp16+bf16": "fp16 and bf16, which exclude",
    "compile_reduce_overhead+cudagraph": "exclude",
}


@pytest.mark.parametrize(("name", "told"), WRONG.items())
def test_wrong_names_are_explained(name, told):
    with pytest.raises(VariantError, match=told):
        parse(name)


def test_all_on_a_cpu_says_what_is_skipped_and_why(monkeypatch):
    def compiles(problem):
        monkeypatch.setattr(variants_select, "compile_problem", lambda device: problem)

    compiles("")
    chosen, skipped = select("all", CPU)
    assert {"fp32", "bf16+channels_last", "fused", "compile"} < {v.name for v in chosen}
    assert {*(v.name for v in chosen), *skipped} == set(ALL)
    assert skipped["cudagraph"] == ("needs_gpu", {"part": "cudagraph"})
    compiles("no gcc")
    chosen, skipped = select("compile,channels_last", CPU)
    assert [v.name for v in chosen] == ["fp32", "channels_last"]
    assert skipped == {"compile": ("no_compiler", {"reason": "no gcc"})}


@pytest.mark.parametrize("name", ["fp32", "bf16", "bf16+channels_last", "fused+cropped"])
def test_every_callable_takes_and_gives_fp32_and_leaves_the_model_alone(model, name):
    model.train()
    before, variant = copy.deepcopy(model.state_dict()), parse(name)
    call = build(variant, model, IMAGES[0])
    assert torch.is_grad_enabled()
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert call.static_batch == (2 if "cropped" in name else None)
    with measuring_conditions(model):
        expected = [model(x) for x in IMAGES]
    assert not any(module.training for module in modules_of(call))
    dtype = torch.bfloat16 if "bf16" in name else torch.float32
    assert {parameter.dtype for parameter in call.parameters()} == {dtype}
    with measuring_conditions(call, variant.conditions):
        outputs = [call(x) for x in IMAGES]
    for y, e in zip(outputs, expected, strict=True):
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, e, atol=0.05 if "bf16" in name else 1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", [pytest.param("compile", marks=pytest.mark.slow), "compile_frozen"]
)
def test_compiled_variants_agree_and_are_freed(model, name):
    from torch._inductor.codecache import PyCodeCache

    if "compile" in (skipped := select("compile", CPU)[1]):
        pytest.skip(str(skipped))
    generated = len(PyCodeCache.modules)
    call = build(parse(name), model, IMAGES[0])
    with measuring_conditions(model), measuring_conditions(call):
        torch.testing.assert_close(call(IMAGES[1]), model(IMAGES[1]), atol=1e-5, rtol=0)
    assert not torch._inductor.config.freezing
    held = weakref.ref(call.network.branch.weight)
    del call
    gc.collect()
    assert held() is None
    assert len(PyCodeCache.modules) == generated


# --- on a GPU


def on_gpu(name):
    """A variant's name, read and built from a ResNet-18; the model, images and the callable."""
    model, variant = build_model().cuda(), parse(name)
    inputs = [torch.randn(1, 3, 32, 32, device="cuda") for _ in range(3)]
    return model, variant, inputs, build(variant, model, inputs[0])


GRAPHS = ["cudagraph", "fp16+cropped+epilogue+overlap+channels_last+cudagraph_tuned"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*GRAPHS, "fp16+cropped+epilogue+channels_last"])
def test_on_a_gpu_the_logits_are_the_references_and_follow_their_images(name):
    model, _, inputs, call = on_gpu(name)
    with measuring_conditions(model), measuring_conditions(call):
        for x in [*inputs, inputs[0]]:
            torch.testing.assert_close(call(x).clone(), model(x), atol=5e-3, rtol=0)
        if name in GRAPHS:
            with pytest.raises(ValueError, match="captured for batches"):
                call(inputs[0].expand(2, -1, -1, -1))
    call(inputs[0])  # outside inference mode too


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cudagraph", "bf16+compile_frozen+cudagraph", FASTEST])
def test_a_graph_owns_all_the_memory_it_reads(name):
    _, variant, inputs, call = on_gpu(name)
    with measuring_conditions(call, variant.conditions):
        before = [call(x).clone() for x in inputs]
    # What Inductor does when it records graphs of its own, and then somebody writes there.
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    filled = [torch.full((2**20,), torch.nan, device="cuda") for _ in range(64)]
    with measuring_conditions(call, variant.conditions):
        assert all(torch.equal(call(x), y) for x, y in zip(inputs, before, strict=True))
    del filled


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fp16", "fp16+channels_last+cudagraph_tuned"])
def test_both_clocks_read_a_variant_and_memory_is_given_back(name):
    allocated = []
    for _ in range(4):
        _, variant, inputs, call = on_gpu(name)
        result = benchmark_latency(call, inputs, 5, 20, device="cuda", precision=variant.conditions)
        assert result.gpu.n == 20
        del call, result, inputs
        gc.collect()
        allocated.append(torch.cuda.memory_allocated())
    assert allocated[-1] <= allocated[0] + 2**20

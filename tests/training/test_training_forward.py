import copy

import pytest
import torch

from helpers.annex.training import forward
from helpers.annex.training.forward import forward_of
from helpers.annex.variants.graph import own_code
from helpers.annex.variants.guard import no_recompilation
from helpers.clocks.conditions import modules_of
from tests.fakes import TinyNet
from tests.training.test_training import DATA, SMALL, small_network, train


def example(device="cpu"):
    return torch.rand(4, 3, 32, 32, device=device)


def branching_network():
    """torch.compile cannot compile it in one piece: its way depends on the images' values."""

    class Branching(torch.nn.Sequential):
        def forward(self, images):
            return super().forward(-images if images.mean().item() > 100 else images)

    return Branching(*small_network())


def test_a_cpu_runs_the_network_as_it_is():
    network = TinyNet().train()
    with forward_of(network, x := example()) as (call, how):
        assert how == "fp32"
        scores = call(x)
    assert scores.requires_grad
    assert scores.dtype == torch.float32
    assert torch.equal(scores, network(x))


def backend(outcome):
    """A compiler for the tests, which need none to be installed."""

    def compile_graph(graph, inputs):
        if isinstance(outcome, Exception):
            raise outcome
        return graph.forward

    return compile_graph


@pytest.mark.parametrize(
    ("outcome", "problem"), [(None, ""), (ValueError("no kernel for it"), "no kernel for it")]
)
def test_warming_up_leaves_no_trace_and_says_why_it_did_not_compile(outcome, problem):
    network = small_network().train()
    assert any("BatchNorm" in type(module).__name__ for module in modules_of(network))
    before = copy.deepcopy(network.state_dict())
    function = own_code(lambda x: network(x))
    compiled = torch.compile(function, backend=backend(outcome))
    told = forward._warm(compiled, network, example())
    assert problem in told
    assert bool(told) == bool(problem)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_other_errors_are_not_taken_for_what_cannot_be_compiled():
    def full(images):
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        forward._warm(full, small_network(), example())


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "how"),
    [
        (SMALL, "bf16 autocast, torch.compile"),
        (
            "tests.training.test_training_forward:branching_network",
            "bf16 autocast, without torch.compile : ",
        ),
    ],
)
def test_a_gpu_compiles_nothing_between_the_first_step_and_the_last(model, how):
    problems = []

    def progress(steps, total, description):
        with no_recompilation() as seen:
            yield from steps
        problems.append(seen.problem)

    result = train(model, DATA, epochs=2, device=torch.device("cuda:0"), progress=progress)
    assert problems == ["", ""]
    assert f", {how}" in result.trained_on


@pytest.mark.gpu
def test_a_gpu_step_has_the_eager_steps_gradients(monkeypatch):
    """In bfloat16 both round, each in its own places."""
    device, gradients = torch.device("cuda:0"), []
    network, x = small_network().to(device).eval(), example("cuda:0")  # eval: no dropout
    with forward_of(network, x) as (call, how):
        assert how == "bf16 autocast, torch.compile"
        for _ in range(3):  # replays too
            network.zero_grad()
            call(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    monkeypatch.setattr(forward, "_warm", lambda *_: "not today")
    network.zero_grad()
    with forward_of(network, x) as (call, how):
        assert how == "bf16 autocast, without torch.compile : not today"
        call(x).square().sum().backward()
    for ours, eager in zip(gradients[0], (p.grad for p in network.parameters()), strict=True):
        assert (ours - eager).abs().max() <= 0.05 * eager.abs().max()

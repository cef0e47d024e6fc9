"""A training step compiled on a GPU: no trace of warming up, nothing compiled meanwhile."""

import copy

import pytest
import torch

from helpers.annex import training
from helpers.annex.training import forward
from helpers.annex.training.forward import forward_of
from helpers.annex.variants.graph import own_code
from helpers.annex.variants.guard import no_recompilation
from tests.training.test_training import DATA, SMALL, small_network, train


@pytest.mark.parametrize("outcome", [None, ValueError("no kernel for it")])
def test_warming_up_leaves_no_trace_and_says_why_it_did_not_compile(outcome):
    def compile_graph(graph, inputs):
        if outcome:
            raise outcome
        return graph.forward

    network = small_network().train()
    before = copy.deepcopy(network.state_dict())
    compiled = torch.compile(own_code(lambda x: network(x)), backend=compile_graph)
    told = forward._warm(compiled, network, torch.rand(4, 3, 32, 32))
    assert (str(outcome) in told) if outcome else told == ""
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.gpu
def test_a_gpu_compiles_nothing_between_the_first_step_and_the_last(monkeypatch):
    recompiled = []

    def track(steps, total, description):
        with no_recompilation() as seen:
            yield from steps
        recompiled.append(seen)

    monkeypatch.setattr(training, "track", track)
    result = train(SMALL, DATA, epochs=2, device=torch.device("cuda:0"))
    assert recompiled == [{}, {}]
    assert result.trained_on.endswith(", bf16 autocast, torch.compile")


@pytest.mark.gpu
def test_a_gpu_step_has_the_eager_steps_gradients(monkeypatch):
    """In bfloat16 both round, each in its own places."""
    device, gradients = torch.device("cuda:0"), []
    network, x = small_network().to(device).eval(), torch.rand(4, 3, 32, 32, device="cuda:0")
    for problem in ("", "not today"):
        if problem:
            monkeypatch.setattr(forward, "_warm", lambda *_, told=problem: told)
        with forward_of(network, x) as (call, how):
            assert how.endswith(problem or ", torch.compile")
            for _ in range(3):  # replays too
                network.zero_grad()
                call(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in network.parameters()])
    for ours, eager in zip(*gradients, strict=True):
        assert (ours - eager).abs().max() <= 0.05 * eager.abs().max()

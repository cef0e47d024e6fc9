"""A training step on a GPU: captured without a trace, as CUDA graphs or eagerly the same."""

import copy

import pytest
import torch

from helpers.annex.training import forward
from helpers.annex.training.forward import forward_of
from tests.training.test_training import small_network


@pytest.mark.parametrize("outcome", ["", "no graph of it", "random numbers on the CPU"])
def test_capturing_leaves_no_trace_and_says_why_it_was_not_done(monkeypatch, outcome):
    def capture(half, inputs, **how):
        half(*inputs)
        if outcome:
            raise RuntimeError(outcome)

    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    network = small_network().train()
    network[5].p = 0.1 * ("random" in outcome)  # the dropout draws where it runs, here on the CPU
    before = copy.deepcopy(network.state_dict())
    told = forward._capture(forward._Half(network), torch.rand(4, 3, 32, 32))
    assert (told.endswith(outcome), told == "") == (True, not outcome)
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert (modes[:2], modes[-1]) == (["default", "error"], "default")


@pytest.mark.gpu
def test_a_gpu_step_has_the_eager_steps_gradients(monkeypatch):
    device, gradients = torch.device("cuda:0"), []
    network, x = small_network().to(device).eval(), torch.rand(4, 3, 32, 32, device="cuda:0")
    for problem in ("", "not today"):
        if problem:
            monkeypatch.setattr(forward, "_capture", lambda *_, told=problem: told)
        with forward_of(network, torch.zeros_like(x)) as (call, how):
            assert how.endswith(problem or ", CUDA graphs")
            for _ in range(3):  # replays too
                network.zero_grad()
                call(x).square().sum().backward()
            gradients.append([p.grad.clone() for p in network.parameters()])
    for ours, eager in zip(*gradients, strict=True):
        assert (ours - eager).abs().max() <= 0.01 * eager.abs().max()


@pytest.mark.gpu
def test_a_network_that_waits_for_the_gpu_trains_eagerly_and_torch_goes_on():
    def wait(_, inputs):
        inputs[0].max().item()

    network, x = small_network().to("cuda:0"), torch.rand(4, 3, 32, 32, device="cuda:0")
    network.register_forward_pre_hook(wait)
    with forward_of(network, x) as (call, how):
        assert ", no CUDA graph: " in how
        call(x).sum().backward()
    assert torch.cuda.get_sync_debug_mode() == 0
    assert torch.rand(3, device="cuda:0").sum() >= 0  # its generator works

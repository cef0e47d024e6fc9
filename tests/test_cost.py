import torch

from helpers.environment.cost import session_cost


def test_cost_is_that_of_this_process():
    cost = session_cost()
    assert 0 < cost["wall_s"] < 24 * 3600
    assert cost["peak_host_mib"] > 50
    assert (cost["peak_gpu_mib"] is None) == (not torch.cuda.is_initialized())

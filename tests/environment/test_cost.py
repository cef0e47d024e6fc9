import torch

from helpers.environment.cost import session_cost


def test_cost_is_that_of_this_process():
    cost = session_cost()
    assert 0 < cost["wall_s"] < 24 * 3600
    assert cost["peak_host_mib"] > 50
    assert (cost["peak_gpu_mib"] is None) == (not torch.cuda.is_initialized())


def test_peak_memory_is_that_of_the_measured_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    peaks = {0: 0, 1: 3 * 2**20}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peaks[device.index])
    assert session_cost(torch.device("cuda:1"))["peak_gpu_mib"] == 3
    assert session_cost(torch.device("cuda:0"))["peak_gpu_mib"] == 0
    assert session_cost(torch.device("cpu"))["peak_gpu_mib"] is None

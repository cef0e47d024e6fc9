"""Bad models and loaders: each fails before it spoils a figure, in silence never.

What torch or Python refuses by itself fails in its own words; the errors of ours are asserted by
the word that names the trouble.
"""

import itertools

import numpy as np
import pytest
import torch
from fakes import TinyNet, leave
from torch import nn
from torch.utils.data import TensorDataset

from helpers.bench_latency import benchmark_latency

ONE = [torch.zeros(1, 3, 8, 8)]
ANY = (ValueError, RuntimeError, TypeError, AttributeError, OSError, IndexError, StopIteration)


class Counting(nn.Module):
    """Does `then` from the nth forward on."""

    def __init__(self, nth, then):
        super().__init__()
        self.nth, self.then, self.calls = nth, then, 0

    def forward(self, x):
        self.calls += 1
        return self.then(x) if self.calls >= self.nth else x.mean((2, 3))


def boom(x):
    raise RuntimeError("inner trouble")


def writes(x):
    return x.add_(1).mean((2, 3))


MODELS = {
    "tuple": (lambda x: (x, x), "tuple"),
    "nothing": (lambda x: None, "NoneType"),
    "empty": (lambda x: x[:0], "empty"),
    "NaN": (lambda x: x * float("nan"), "NaN"),
    "output elsewhere": (lambda x: x.to("meta"), "on meta"),
    "mutates": (writes, "in place"),
    "by NumPy": (lambda x: torch.from_numpy(np.add(x.numpy(), 1, out=x.numpy())), "in place"),
    "mutates late": (Counting(60, writes), "in place"),
    "shrinks": (Counting(3, lambda x: x.mean((1, 2, 3))), "now has"),
    "shrinks late": (Counting(60, lambda x: x.mean((1, 2, 3))), "now has"),
    "of another shape": (nn.Conv2d(1, 1, 3), r"given torch.float32 \(1, 3, 8, 8\)"),
    "raises at once": (boom, "inner trouble"),
    "raises in the warm-up": (Counting(8, boom), "inner trouble"),
    "case 5: exit": (leave, "SystemExit"),
}


@pytest.mark.parametrize(("model", "word"), MODELS.values(), ids=MODELS)
def test_models(model, word):
    random = torch.rand(1, 3, 8, 8) - (0.5 if word == "in place" else 0)  # zero stays zero
    with pytest.raises(ANY, match=word or None):
        benchmark_latency(model, [random], 10, 120, device="cpu")


def test_a_model_that_raises_while_it_is_measured_says_when():
    with pytest.raises(RuntimeError, match="inner trouble") as caught:
        benchmark_latency(Counting(300, boom), ONE, 10, 300, device="cpu")
    assert caught.value.__notes__ == ["in the measurement by the host's clock"]


@pytest.mark.parametrize("asked", ["device=meta", "clock=hots", "clock=gpu", "precision=fp16"])
def test_a_device_without_a_clock_and_a_clock_without_a_device(asked):
    name, value = asked.split("=")
    with pytest.raises((ValueError, RuntimeError), match=f"{name}='{value}'"):
        benchmark_latency(lambda x: x, ONE, 2, 20, **{"device": "cpu", name: value})


LOADERS = {
    "empty": ([], "nothing"),
    "one tensor": (ONE[0], r"split\(1\)"),
    "no batches": (TensorDataset(ONE[0]), "DataLoader"),
    "no dimension": ([torch.tensor(1.0)], "N, ..."),
    "raises": (map(open, ["nowhere.png"]), "nowhere.png"),
    "dictionary": ([{"x": ONE[0]}], "'dict'"),
    "no image": ([torch.zeros(0, 3, 8, 8)], ""),
    "two sizes": ([torch.zeros(2, 3, 8, 8), ONE[0]], "drop_last"),
    "two types": ([ONE[0], ONE[0].double()], "float64"),
    "NaN": ([ONE[0] * float("nan")], "NaN"),
}


@pytest.mark.parametrize(("loader", "word"), LOADERS.values(), ids=LOADERS)
def test_loaders(loader, word):
    with pytest.raises(ANY, match=word or None):
        benchmark_latency(TinyNet(), loader, 2, 20)


def test_an_endless_loader_is_read_only_as_far_as_needed():
    assert benchmark_latency(TinyNet(), itertools.repeat(ONE[0]), 2, 20).host.n == 20


@pytest.mark.parametrize("name", ["warmup_iters", "measure_iters"])
@pytest.mark.parametrize("value", [0, -5, 2.5, float("nan"), "20", None], ids=repr)
def test_iterations(name, value):
    with pytest.raises((ValueError, TypeError)):
        benchmark_latency(TinyNet(), ONE, **{name: value})


@pytest.mark.gpu
def test_out_of_memory_is_shown_cleaned_up_and_the_next_model_goes_on():
    benchmark_latency(TinyNet().cuda(), ONE, 5, 50)  # cuBLAS keeps a workspace once it was used
    before = torch.cuda.memory_allocated()
    with pytest.raises(torch.OutOfMemoryError):
        benchmark_latency(lambda x: torch.empty(1 << 44, device="cuda"), ONE, 5, 20, device="cuda")
    run = benchmark_latency(TinyNet().cuda(), ONE, 5, 50)
    assert run.gpu.n == 50
    del run
    assert torch.cuda.memory_allocated() <= before + (1 << 20)

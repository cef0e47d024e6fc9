"""Bad input, table-driven: each error names the thing, the value and the remedy, in its message.

The parameters' own table is in tests/test_parameters.py, that of hostile rows and CSV files in
tests/test_results.py; here are models, loaders, archives and what crosses from one module to
another. Every case gives the parts that its message must contain.
"""

import itertools
import re

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from helpers import bench_latency
from helpers.bench_latency import ModelError, benchmark_latency
from helpers.cifar10 import test_loader
from helpers.cifar10.transforms import MEAN, STD, ImageDataset, check_batches, test_transform
from helpers.clocks import WAITS_INSIDE, ForwardError, NotQueueableError
from helpers.models import build_model, model_problem
from helpers.models.accuracy import measure_accuracy
from helpers.parameters import ParameterError, checked, validate
from helpers.validation import judge, validation_runs

test_loader.__test__ = test_transform.__test__ = False  # their names are not ours to choose
CPU = torch.device("cpu")
ONE = [torch.zeros(1, 3, 8, 8)]


def says(error, *parts):
    """A check that the block raises exactly this, its message made of all these parts."""
    pattern = "".join(f"(?=.*(?:{part}))" for part in parts)
    return pytest.raises(error, match=rf"(?s)^{pattern}")


# --- parameters: each with a value no rule may let through


@pytest.mark.parametrize("name", ["runs", "warmup_iters", "measure_iters", "batch_size"])
@pytest.mark.parametrize(
    "value",
    [0, -1, -(10**30), float("nan"), float("inf"), 1.5, "", "many", None, True, [], b"3"],
    ids=repr,
)
def test_counts(name, value):
    with says(ParameterError, f"parameter '{name}'", "allowed: an integer >="):
        validate(**{name: value})


@pytest.mark.parametrize(
    "value",
    ["..", "../x", "a/../../b", "/etc/passwd", "a\\b", "C:\\x", "~", "a\0", "a\n", " ", "..."],
    ids=repr,
)
def test_a_session_cannot_leave_its_folder(value):
    with says(ParameterError, "parameter 'session'", "beginning with a letter or a digit"):
        validate(session=value)


@pytest.mark.parametrize("value", ["../resnet18", "resnet18; rm -rf x", "__import__('os')", "é"])
def test_a_model_is_a_name_from_the_list(value):
    with says(ParameterError, "parameter 'model'", "use for instance 'resnet18'"):
        checked({"model": value}, model=model_problem)
    with says(ValueError, "is not a torchvision classification model", "'resnet18'"):
        build_model(value)


# --- models


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


def half_on_meta():
    model = TinyNet()
    model.head.to("meta")
    return model


MODELS = {
    "tuple": (lambda x: (x, x), ValueError, ["returned tuple", "wrap it"]),
    "dict": (lambda x: {"logits": x}, ValueError, ["returned dict", "wrap it"]),
    "nothing": (lambda x: None, ValueError, ["returned NoneType", "wrap it"]),
    "number": (lambda x: 1.0, ValueError, ["returned float", "wrap it"]),
    "array": (lambda x: x.numpy(), ValueError, ["returned ndarray", "wrap it"]),
    "empty": (lambda x: x[:0], ValueError, [r"empty, of shape \(0, 3, 8, 8\)"]),
    "NaN": (lambda x: x * float("nan"), ValueError, ["NaN", "check its weights"]),
    "infinite": (lambda x: x + float("inf"), ValueError, ["infinity", "check its weights"]),
    "output elsewhere": (lambda x: x.to("meta"), ValueError, ["on meta", r"\.to\('cpu'\)"]),
    "elsewhere": (TinyNet().to("meta"), ValueError, ["is on meta", "on cpu", r"\.to\('cpu'\)"]),
    "half elsewhere": (half_on_meta(), ValueError, ["a part of it, is on meta", r"\.to\('cpu'\)"]),
    "no model": (None, ModelError, ["TypeError", "NoneType", "check of its output"]),
    "wrong channels": (
        nn.Conv2d(1, 2, 3),
        ModelError,
        ["RuntimeError in iteration 1 of the check of its output", "channels", "model alone"],
    ),
    "half precision": (
        TinyNet().half(),
        ModelError,
        ["iteration 1 of the check of its output", "model alone on one batch"],
    ),
    "mutates": (lambda x: x.add_(1).mean((2, 3)), ValueError, ["in place", r"x\.clone\(\)"]),
    "mutates through a view": (
        lambda x: x.view(-1).mul_(0.5).sum(0, keepdim=True),
        ValueError,
        ["in place", r"x\.clone\(\)"],
    ),
    "mutates through NumPy": (
        lambda x: torch.from_numpy(np.add(x.numpy(), 1, out=x.numpy())).mean((2, 3)),
        ValueError,
        ["in place", r"x\.clone\(\)"],
    ),
    "mutates late": (
        Counting(60, lambda x: x.add_(1).mean((2, 3))),
        ValueError,
        ["in place", r"x\.clone\(\)"],
    ),
    "shrinks": (
        Counting(3, lambda x: x.mean((1, 2, 3))),
        ValueError,
        [r"had shape \(1, 3\) and now has \(1,\)", "state"],
    ),
    "shrinks late": (
        Counting(60, lambda x: x.mean((1, 2, 3))),
        ValueError,
        [r"had shape \(1, 3\) and now has \(1,\)", "state"],
    ),
    "raises at once": (boom, ModelError, ["iteration 1 of the check", "inner trouble"]),
    "raises in the warm-up": (
        Counting(1 + 7, boom),
        ModelError,
        ["RuntimeError in iteration 5 of the warm-up: inner trouble", "model alone"],
    ),
}


@pytest.mark.parametrize(("model", "error", "parts"), MODELS.values(), ids=MODELS)
def test_models(model, error, parts):
    with says(error, *parts):
        benchmark_latency(model, [torch.rand(1, 3, 8, 8)], 10, 120, device="cpu")


def test_a_model_that_raises_in_its_300th_measured_iteration():
    model = Counting(1 << 40, boom)

    def armed():  # once the warm-up is over, whatever it took
        if model.nth == 1 << 40:
            model.nth = model.calls + 300 + 3  # one unmeasured forward ahead of each block

    with says(
        ModelError,
        "RuntimeError in iteration 300 of the measurement by the host's clock: inner trouble",
    ) as caught:
        benchmark_latency(model, ONE, 5, 500, between_blocks=armed)
    assert str(caught.value.__cause__) == "inner trouble"  # the model's own traceback is kept


def test_no_memory_gets_its_own_remedy():
    def too_big(x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 TiB")

    with says(ModelError, "OutOfMemoryError", r"2\.00 TiB", "smaller batch_size"):
        benchmark_latency(too_big, ONE, 5, 20)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu"])
def test_a_device_without_a_clock(device):
    with says(ValueError, f"device='{device}'", "'cpu' or 'cuda'"):
        benchmark_latency(lambda x: x, ONE, 2, 20, device=device)


# --- data loaders


class Broken(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise OSError(f"image {index} cannot be read")
        return torch.zeros(3, 8, 8)


LOADERS = {
    "none": (None, [r"\(NoneType\) raised TypeError", "iterate over it alone"]),
    "number": (7, [r"\(int\) raised TypeError", "iterate over it alone"]),
    "empty": ([], ["yields no batch", "at least one image"]),
    "empty loader": (DataLoader(TensorDataset(torch.zeros(0, 3, 8, 8))), ["yields no batch"]),
    "raises": (DataLoader(Broken()), ["raised OSError", "batch 2", "image 2 cannot be read"]),
    "empty tuple": ([()], ["batch 0", "is tuple", "test transform"]),
    "dictionary": ([{"x": ONE[0]}], ["batch 0", "is dict", "test transform"]),
    "text": (["images"], ["batch 0", "is str", "test transform"]),
    "arrays": ([np.zeros((1, 3, 8, 8))], ["float64", "test transform"]),
    "bytes": ([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], ["torch.uint8", "test transform"]),
    "complex": ([torch.zeros(1, 3, dtype=torch.complex64)], ["complex64", "test transform"]),
    "scalar": ([torch.tensor(1.0)], [r"shape \(\)", "N >= 1"]),
    "no image": ([torch.zeros(0, 3, 8, 8)], [r"shape \(0, 3, 8, 8\)", "N >= 1"]),
    "two sizes": (
        [torch.zeros(2, 3, 8, 8), torch.zeros(1, 3, 8, 8)],
        ["batch 1", r"\(1, 3, 8, 8\)", r"\(2, 3, 8, 8\)", "drop_last=True"],
    ),
    "two types": ([ONE[0], ONE[0].double()], ["batch 1", "float64", "float32", "one type"]),
    "NaN": ([ONE[0] * float("nan")], ["batch 0", "NaN", "mend the data"]),
    "infinite": ([ONE[0], ONE[0] + float("inf")], ["batch 1", "infinity", "mend the data"]),
}


@pytest.mark.parametrize(("loader", "parts"), LOADERS.values(), ids=LOADERS)
def test_loaders(loader, parts):
    with says(ValueError, *parts):
        benchmark_latency(TinyNet(), loader, 2, 20)


def test_an_endless_loader_is_read_only_as_far_as_needed():
    assert benchmark_latency(TinyNet(), itertools.repeat(ONE[0]), 2, 20).host.n == 20


@pytest.mark.parametrize("name", ["warmup_iters", "measure_iters"])
@pytest.mark.parametrize("value", [0, -5, 2.5, float("nan"), "20", None, True], ids=repr)
def test_iterations(name, value):
    with says(ValueError, f"{name}={value!r}", type(value).__name__, "an integer of at least 1"):
        benchmark_latency(TinyNet(), ONE, **{name: value})


# --- the test set's loader, as declared


def images(count=4, size=32, seed=0):
    shape = (count, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def loader_of(pixels, transform=None, batch_size=2):
    labels = np.arange(len(pixels)) % 10
    return DataLoader(ImageDataset(pixels, labels, transform or test_transform()), batch_size)


def changed(change):
    return [(change(batch), labels) for batch, labels in loader_of(images())]


mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
DECLARED = {
    "empty": ([], ["test_loader"]),
    "batch size": (loader_of(images(), batch_size=4), [r"\(4, 3, 32, 32\)", r"\(2, 3, 32, 32\)"]),
    "image size": (loader_of(images(size=28)), [r"\(2, 3, 28, 28\)", r"\(2, 3, 32, 32\)"]),
    "channels last": (changed(lambda x: x.permute(0, 2, 3, 1)), [r"\(2, 32, 32, 3\)"]),
    "float64": (changed(lambda x: x.double()), ["torch.float64", "test_loader"]),
    "not normalised": (changed(lambda x: x * std + mean), ["normalised", "test_transform"]),
    "0 to 255": (changed(lambda x: (x * std + mean) * 255), ["normalised", "test_transform"]),
    "twice": (changed(lambda x: (x - mean) / std), ["normalised", "test_transform"]),
    "ImageNet's": (
        changed(
            lambda x: (
                (x * std + mean - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
                / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
            )
        ),
        ["normalised", "test_transform"],
    ),
    "NaN": (changed(lambda x: x * float("nan")), ["normalised", "test_transform"]),
    "labels": ([(x, y[:1]) for x, y in loader_of(images())], ["labels", "test_loader"]),
}


@pytest.mark.parametrize(("loader", "parts"), DECLARED.values(), ids=DECLARED)
def test_a_loader_that_is_not_as_declared(loader, parts):
    with says(ValueError, *parts):
        check_batches(loader, 2)


def test_the_projects_own_loader_is_as_declared():
    check_batches(loader_of(images(64), batch_size=64), 64)


# --- accuracy: nothing is counted that was not recognised


LABELS = torch.arange(4)
SCORES = {
    "tuple": (lambda x: (x,), LABELS, ["tuple", "Module whose forward"]),
    "flat": (lambda x: x.flatten(), LABELS, [r"returned \(40,\)", "logits"]),
    "NaN": (lambda x: x * float("nan"), LABELS, ["NaN", "name no class"]),
    "labels that broadcast": (lambda x: x, LABELS[:, None], [r"\(4, 1\)", "one label"]),
    "too few labels": (lambda x: x, LABELS[:3], [r"\(3,\)", "one label"]),
    "other classes": (lambda x: x, LABELS + 97, ["from 97 to 100", "10 classes"]),
    "negative labels": (lambda x: x, LABELS - 1, ["from -1", "10 classes"]),
}


@pytest.mark.parametrize(("model", "labels", "parts"), SCORES.values(), ids=SCORES)
def test_accuracy_is_never_counted_from_nonsense(model, labels, parts):
    with says(ValueError, *parts):
        measure_accuracy(model, [(torch.eye(10)[:4], labels)], CPU)


# --- validation


def with_lambda():
    model = TinyNet()
    model.register_forward_hook(lambda *_: None)
    return model


class Dies(TinyNet):
    def __setstate__(self, state):
        raise SystemError("this class cannot be unpickled")


RUNS = {
    "isolation": ({"isolation": "vm"}, ValueError, ["isolation='vm'", "'process'"]),
    "function": ({"model": lambda x: x, "isolation": "process"}, ValueError, ["no nn.Module"]),
    "hook": ({"model": with_lambda(), "isolation": "process"}, ValueError, ["hooks", "'none'"]),
    "dies": ({"model": Dies(), "isolation": "process"}, RuntimeError, ["ended before", "'none'"]),
}


@pytest.mark.parametrize(("settings", "error", "parts"), RUNS.values(), ids=RUNS)
def test_runs(settings, error, parts):
    settings = {
        "model": TinyNet(),
        "dataloader": ONE,
        "device": CPU,
        "measure_iters": 20,
    } | settings
    with says(error, *parts):
        list(validation_runs(**settings))


@pytest.mark.parametrize("results", [[], [make_result([1.0, 2.0])]], ids=["none", "one"])
def test_a_verdict_needs_two_runs(results):
    with says(ValueError, "at least two|two runs"):
        judge(results)


def test_the_gpu_clock_is_never_replaced_in_silence():
    with says(RuntimeError, "clock='gpu'", "no CUDA GPU", "clock='auto' or 'host'"):
        judge([make_result([1.0, 2.0])] * 3, clock="gpu")


# --- a GPU clock that cannot be had is said, and none stands in for it unseen


class NoClock:
    def __init__(self, device):
        raise RuntimeError("torch 2.8 cannot compile CUDA kernels: install torch >= 2.9")


class WaitsInside:
    batch = 0

    def __init__(self, device):
        pass

    def adapt(self, call, inputs):
        raise NotQueueableError(WAITS_INSIDE, "it waits for the GPU inside: remove the wait")


class ModelFails(WaitsInside):
    def adapt(self, call, inputs):
        raise ForwardError(3, RuntimeError("inner trouble")) from RuntimeError("inner trouble")


@pytest.mark.parametrize("clock", [NoClock, WaitsInside])
def test_why_there_is_no_gpu_clock(monkeypatch, clock):
    monkeypatch.setattr(bench_latency, "GpuClock", clock)
    with bench_latency.prepared(TinyNet(), ONE, 5) as bench:
        bench._start_gpu_clock()
        run = bench.new_run(20)
        run.measure_block()
        result = run.result()
    assert result.gpu is None
    assert re.search("install torch|remove the wait", result.gpu_unavailable_why)
    with says(RuntimeError, "clock='gpu'", "install torch|remove the wait", "clock='auto'"):
        judge([result, result], clock="gpu")


def test_a_model_that_raises_while_the_gpu_clock_adapts(monkeypatch):
    monkeypatch.setattr(bench_latency, "GpuClock", ModelFails)
    with (
        bench_latency.prepared(TinyNet(), ONE, 5) as bench,
        says(ModelError, "iteration 4 of the GPU clock's adaptation: inner trouble"),
    ):
        bench._start_gpu_clock()


# --- on a GPU


@pytest.mark.gpu
def test_out_of_memory_is_shown_cleaned_up_and_the_next_model_goes_on():
    def too_big(x):
        return torch.empty(1 << 44, device="cuda") + x.sum()

    benchmark_latency(TinyNet().cuda(), ONE, 5, 50)  # cuBLAS keeps a workspace once it was used
    before = torch.cuda.memory_allocated()
    with says(ModelError, "OutOfMemoryError", "smaller batch_size"):
        benchmark_latency(too_big, ONE, 5, 20, device="cuda")
    result = benchmark_latency(TinyNet().cuda(), ONE, 5, 50)
    assert result.gpu.n == 50
    del result
    assert torch.cuda.memory_allocated() <= before + (1 << 20)


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "device"), [(TinyNet(), "cuda"), (TinyNet(), "cuda:0")])
def test_a_model_left_on_the_cpu(model, device):
    with says(ValueError, "is on cpu", f"on {device}", r"\.to\('cuda"):
        benchmark_latency(model, ONE, 5, 20, device=device)


@pytest.mark.gpu
def test_a_model_on_the_gpu_with_inputs_kept_on_the_cpu():
    with says(ValueError, "is on cuda:0", "on cpu", r"\.to\('cpu'\)"):
        benchmark_latency(TinyNet().cuda(), ONE, 5, 20, device="cpu")


@pytest.mark.gpu
def test_a_model_that_raises_behind_the_closed_gate_leaves_no_stream_held():
    model = Counting(1 << 40, boom)

    def armed():
        if model.nth == 1 << 40:
            model.nth = model.calls + 1 + 100 + 30  # in the first block's GPU series

    with says(ModelError, "iteration 30 of the measurement by the GPU's clock", "inner trouble"):
        benchmark_latency(model, ONE, 5, 500, device="cuda", between_blocks=armed)
    torch.cuda.synchronize()  # returns at once: the gate is open
    assert benchmark_latency(TinyNet().cuda(), ONE, 5, 50).gpu.n == 50


@pytest.mark.gpu
def test_a_model_that_mutates_its_input_on_the_gpu():
    with says(ValueError, "in place", r"x\.clone\(\)"):
        benchmark_latency(lambda x: x.add_(1).mean((2, 3)), ONE, 5, 50, device="cuda")

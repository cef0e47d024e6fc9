"""A short training: what it learns, leaves behind and keeps, and what it refuses."""

import errno
import gc
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import Bomb
from torch import nn

from helpers.annex import training
from helpers.annex.training import Recipe, train
from helpers.cifar10 import Cifar10, test_loader
from helpers.models import ModelNameError, build_model
from helpers.models.accuracy import measure_accuracy
from helpers.results import files as results_files

test_loader.__test__ = False  # its name is not ours to choose
CPU = torch.device("cpu")
SMALL = "tests.training.test_training:small_network"


def small_network():
    """Fast on a CPU; a batch-norm, a dropout and a 1x1 kernel, since each needs its own care."""
    first, second = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 8, 1)
    layers = [first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def drawn(train_count=400, test_count=200):
    """Images that a small network can tell apart: each class has a colour, under noise."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (10, 3))

    def draw(count):
        labels = np.arange(count) % 10
        noise = random.normal(0, 30, (count, 32, 32, 3))
        return (colours[labels][:, None, None] + noise).clip(0, 255).astype(np.uint8), labels

    found = {"train": "a", "test": "b"}
    return Cifar10(*draw(train_count), *draw(test_count), "synthetic", "here", found)


DATA = drawn()


def short(checkpoint=None, **changes):
    settings = {"epochs": 3, "device": CPU, "seed": 0, "limit": 100, "checkpoint": checkpoint}
    return train(SMALL, DATA, **{**settings, **changes})


def same_weights(one, other):
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_short_training_learns_on_a_cpu():
    result = train(SMALL, DATA, epochs=6, device=CPU, recipe=Recipe(peak_rate=2))
    assert result.losses[-1] < result.losses[0] - 0.3
    scored = measure_accuracy(result.network, test_loader(DATA, 100), CPU)
    assert scored.fraction > 0.4  # chance: 0.1
    assert result.trained_on == "CPU, fp32"
    assert not any(module.training for module in result.network.modules())


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    one, again, other = short(), short(), short(seed=1)
    assert same_weights(one.network, again.network)
    assert one.losses == again.losses
    assert not same_weights(one.network, other.network)
    for built, found in zip(build_model(SMALL).parameters(), one.network.parameters(), strict=True):
        assert (found.stride(), found.grad) == (built.stride(), None)  # not the training's layout


def test_the_last_half_of_the_epochs_is_not_rotated(monkeypatch):
    asked, made = [], training.augmented_batches

    def batches(*given, degrees=None):
        asked.append(degrees)
        return made(*given, degrees or 0)

    monkeypatch.setattr(training, "augmented_batches", batches)
    short(epochs=4)
    assert asked == [None, 15, 15, 0, 0]  # first the example for the capture


def test_momentum_starts_at_zero_whatever_the_first_step_is():
    sgd = training._optimizer(small_network(), Recipe())
    assert [state["momentum_buffer"].abs().sum() for state in sgd.state.values()] == [0] * 8


def test_gradients_that_are_never_finite_are_told(monkeypatch):
    scaler = torch.amp.GradScaler("cpu")  # as on a GPU
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: scaler)
    monkeypatch.setattr(scaler, "scale", lambda loss, f=scaler.scale: f(loss) * float("nan"))
    with pytest.raises(RuntimeError, match=r"diverged in epoch 1: loss [\d.]+, gradients scaled"):
        short()


def test_a_training_that_diverges_leaves_no_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="diverged in epoch 1"):
        short(tmp_path / "training.pt", recipe=Recipe(peak_rate=1e30))
    assert list(tmp_path.iterdir()) == []


def test_random_state_and_switches_are_restored_whatever_happens(monkeypatch):
    random, benchmark = torch.random.get_rng_state(), torch.backends.cudnn.benchmark

    def track(steps, total, description):
        assert torch.backends.cudnn.benchmark
        yield from steps
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "track", track)
    with torch.no_grad():
        with pytest.raises(KeyboardInterrupt):
            short()  # gradients are turned on inside
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.backends.cudnn.benchmark == benchmark


# --- a model that cannot be trained


class Leaves(nn.Linear):
    def forward(self, x):
        raise SystemExit(0)


UNTRAINABLE = {
    "case 10: other answers than in eval mode": (lambda: build_model("googlenet"), "GoogLeNetO"),
    "case 5: exit": (lambda: Leaves(1, 1), "SystemExit"),
}


@pytest.mark.parametrize(("make", "told"), UNTRAINABLE.values(), ids=UNTRAINABLE)
def test_what_cannot_be_trained_is_told_before_the_first_step(monkeypatch, make, told):
    monkeypatch.setattr(training, "_train", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr(training, "build_model", lambda *_: make())
    with pytest.raises(ModelNameError, match=told):
        short()


@pytest.mark.parametrize("use", [lambda: build_model("resnet18", 0), lambda: short(epochs=1)])
def test_a_gpu_that_is_not_in_use_yet_gets_no_seed(use, monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    use()


# --- the checkpoint


def test_a_finished_training_is_only_read_and_build_model_reads_it_too(tmp_path, monkeypatch):
    settings = {"train_epochs": 1, "seed": 0, "model": "resnet18_cifar", "data_dir": tmp_path}
    monkeypatch.setattr(training, "CPU_IMAGES", 2)
    parameters = SimpleNamespace(**settings)
    first = training.train_model(parameters, DATA, CPU)
    monkeypatch.setattr(training, "_train", lambda *_: pytest.fail("it trained"))
    again = training.train_model(parameters, DATA, CPU)
    assert same_weights(first, again)
    (path,) = (tmp_path / "checkpoints").iterdir()
    assert "1 × 2 images, CPU, fp32" in str(first.built_from)
    assert f"checkpoint {path.name}" in str(again.built_from)
    assert torch.load(path, weights_only=True)["epochs"] == 1
    assert same_weights(build_model(str(path)), first)


OTHERS = [{"seed": 1}, {"epochs": 4}, {"limit": 90}, {"recipe": Recipe(peak_rate=0.1)}]
# Case 4: the model changed behind its name, in its layers or its weights.
OTHERS += [lambda n: n.append(nn.Dropout(0.2)), lambda n: (nn.init.zeros_(n[0].weight), n)[1]]


@pytest.mark.parametrize("change", OTHERS)
def test_another_trainings_checkpoint_is_not_taken_for_this_one(tmp_path, monkeypatch, change):
    path = tmp_path / "training.pt"
    short(path)
    if callable(change):
        made, change = (change, small_network), {}
        monkeypatch.setattr(SMALL.replace(":", "."), lambda: made[0](made[1]()))
    assert not short(path, **change).from_checkpoint
    assert short(path, **change).from_checkpoint  # replaced


WRONG = {"cut": "cut", "foreign": {"state_dict": {}}, "code": Bomb()}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a_file_that_is_no_checkpoint_is_named_kept_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "training.pt"
    torch.save(content, path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"training\.pt"):
        short(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: before}


def test_a_full_disk_leaves_the_file_before_and_ends_nothing(tmp_path, monkeypatch):
    short(path := tmp_path / "training.pt", epochs=1)
    before = path.read_bytes()
    monkeypatch.setattr(results_files.os, "fsync", lambda _: os.close(-1))
    assert os.strerror(errno.EBADF) in short(path, epochs=1, seed=1).unsaved
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {path.name: before}


@pytest.mark.gpu
def test_a_short_training_learns_on_a_gpu():
    device = torch.device("cuda:0")
    state, memory = torch.cuda.get_rng_state(device), torch.cuda.memory_allocated(device)
    result = train(SMALL, DATA, epochs=6, device=device)
    assert result.losses[-1] < result.losses[0]
    assert {p.device.type for p in result.network.parameters()} == {"cuda"}
    assert torch.equal(torch.cuda.get_rng_state(device), state)
    assert result.trained_on.endswith(", fp16 autocast, CUDA graphs")
    del result
    gc.collect()
    assert torch.cuda.memory_allocated(device) - memory < 2**20  # graphs and gradients are freed

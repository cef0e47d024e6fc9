"""Models by name, by the user's function, from a checkpoint."""

import pytest
import torch
from torch import nn

from helpers.models import ModelNameError, build_model, model_problem, resnet18_cifar

SOURCES = """
import torch
from torch import nn

class Own(nn.Linear):
    pass

def make():
    return Own(3, 10)

def with_arguments(width):
    return nn.Linear(width, 10)

def no_module():
    return [1]

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, importable."""
    (tmp_path / "own_models_for_a_test.py").write_text(SOURCES)
    (tmp_path / "own_broken_for_a_test.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def saved(path, value):
    torch.save(value, path)
    return str(path)


def test_the_same_seed_gives_the_same_weights_and_touches_no_random_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = build_model(seed=0), build_model(seed=0), build_model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.fc.weight, two.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar", "mobilenet_v3_small"])
def test_as_many_outputs_as_classes(name):
    with torch.no_grad():
        assert build_model(name).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        assert build_model(name, 0, 7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_the_stem_for_small_images_keeps_their_resolution():
    model = build_model("resnet18_cifar").eval()
    x, weights = torch.zeros(1, 3, 32, 32), sum(p.numel() for p in model.parameters())
    assert model.maxpool(model.conv1(x)).shape == (1, 64, 32, 32)
    assert weights == 11_173_962  # the usual count of the CIFAR variant of ResNet-18
    assert type(model) is type(build_model("resnet18"))


@pytest.mark.parametrize(
    "name", ["resnet19", "", "ResNet18", "../resnet18", "a:b:c", "a b:c", "os;rm:x", "é:f", ":f"]
)
def test_an_unknown_model_is_named(name):
    assert repr(name) in model_problem(name)
    with pytest.raises(ModelNameError, match="not a torchvision classification model"):
        build_model(name)


def test_a_name_is_checked_without_importing_anything(own):
    assert model_problem("own_broken_for_a_test:make") is None
    assert model_problem("resnet18_cifar") is None
    assert model_problem("nowhere.pt") == "there is no file 'nowhere.pt'"


def test_a_users_function_makes_the_model(own):
    one, two = (build_model("own_models_for_a_test:make", 3) for _ in range(2))
    assert type(one).__name__ == "Own"
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("own_broken_for_a_test:make", "importing own_broken_for_a_test raised ModuleNotFound"),
        ("no_such_module_at_all:make", "importing no_such_module_at_all raised ModuleNotFound"),
        ("own_models_for_a_test:other", "has no function 'other'"),
        ("own_models_for_a_test:number", "has no function 'number'"),
        ("own_models_for_a_test:with_arguments", "raised TypeError.*without arguments"),
        ("own_models_for_a_test:no_module", "returned list, not a torch.nn.Module"),
    ],
)
def test_a_users_function_that_fails_is_explained(own, name, told):
    with pytest.raises(ModelNameError, match=told):
        build_model(name)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_cifar"])
@pytest.mark.parametrize("bare", [True, False])
def test_a_checkpoint_gives_its_weights_back(tmp_path, name, bare):
    model = build_model(name, 5)
    weights = model.state_dict()
    path = saved(
        tmp_path / "m.pt", weights if bare else {"model": name, "state_dict": weights, "epoch": 3}
    )
    assert model_problem(path) is None
    found = build_model(path, seed=1)
    assert all(torch.equal(v, weights[k]) for k, v in found.state_dict().items())
    assert found.conv1.kernel_size == model.conv1.kernel_size


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ModelNameError, match="no such file"):
        build_model(str(tmp_path / "m.pth"))


def test_a_pickled_model_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    for value in (nn.Linear(2, 2), Evil()):
        path = saved(tmp_path / "m.pt", value)
        with pytest.raises(ModelNameError, match="cannot be read as weights"):
            build_model(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 damaged"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(ModelNameError, match="cannot be read as weights"):
        build_model(str(tmp_path / "m.pt"))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2], "holds list, not weights"),
        ({}, "holds no weights"),
        ({"epoch": 3}, "holds no weights"),
        ({"model": "resnet18", "state_dict": {"a": 1}}, "holds no weights"),
        ({"model": "os:getcwd", "state_dict": {}}, "the weights of 'os:getcwd'"),
        ({"state_dict": {}}, "the weights of None"),
        ({"model": "resnet18", "state_dict": {"fc.bias": torch.zeros(10)}}, "Missing key"),
        ({"fc.bias": torch.zeros(10)}, "resnet18: .*resnet18_cifar: "),
    ],
)
def test_a_checkpoint_that_fits_nothing_is_explained(tmp_path, value, told):
    with pytest.raises(ModelNameError, match=told):
        build_model(saved(tmp_path / "m.pt", value))


def test_weights_for_other_classes_are_named(tmp_path):
    path = saved(tmp_path / "m.pt", resnet18_cifar(100).state_dict())
    with pytest.raises(ModelNameError, match=r"with 10 classes .*size mismatch"):
        build_model(path)

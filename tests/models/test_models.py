"""Models by name, by the user's function, from a checkpoint."""

import sys

import numpy as np
import pytest
import torch
from fakes import Bomb, leave
from safetensors.torch import save_file
from torch import nn

from helpers.models import ModelNameError, Origin, build_model, model_problem, prepare, try_forward
from helpers.parameters import validate
from helpers.validation.processes import in_fresh_process

SOURCES = """
import torch
from torch import nn

class Mine(nn.Linear):
    pass

def make():
    return Mine(3, 10)

def half():
    return make().half()

def tokens(given=torch.arange(40).reshape(5, 8)):
    model = nn.Sequential(nn.Embedding(40, 4), nn.Linear(4, 7))
    model.example_inputs = given
    return model

def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 5))

def with_arguments(width):
    return nn.Linear(width, 10)

def no_module():
    return [1]

def leaves():
    raise SystemExit(0)

def make_cifar_with_pool():
    from helpers.models import resnet18_cifar
    model = resnet18_cifar()
    model.maxpool = nn.MaxPool2d(3, 2, 1)
    return model
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, importable."""
    (tmp_path / "own_models_for_a_test.py").write_text(SOURCES)
    (tmp_path / "own_broken_for_a_test.py").write_text("import nowhere_to_be_found")
    (tmp_path / "own_exit_for_a_test.py").write_text("import sys; sys.exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


WEIGHTS = build_model("resnet18_cifar").state_dict()


def saved(path, value):
    (save_file if path.suffix == ".safetensors" else torch.save)(value, path)
    return str(path)


def test_the_same_seed_gives_the_same_weights_and_touches_no_random_state(own):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = build_model(seed=0), build_model(seed=0), build_model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.fc.weight, two.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    one, two = (build_model("own_models_for_a_test:make", 3) for _ in range(2))
    assert torch.equal(one.weight, two.weight)


def prepared(**given):
    return prepare(validate(**given), torch.device("cpu"))


def test_other_inputs_are_drawn_from_the_seed_or_the_modules_own(own):
    assert prepared(model="resnet18", batch_size=2)[1] is None  # CIFAR-10's images
    given = {"model": "mobilenet_v3_small", "input_shape": "3x64x48", "batch_size": 2}
    (name, one), (_, same), (_, other) = (prepared(**given, seed=s)[1] for s in (0, 0, 1))
    assert (name, len(one), {batch.shape for batch in one}) == ("random", 8, {(2, 3, 64, 48)})
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])
    network, (name, batches) = prepared(model="own_models_for_a_test:tokens", batch_size=2)
    assert (name, len(batches), batches[0].dtype) == ("example", 2, torch.int64)
    assert torch.equal(torch.cat(batches), network.example_inputs[:4])
    assert network(batches[0]).dim() == 3  # no logits: there are no labels to score


def test_inputs_that_do_not_fit_are_told_before_anything_is_measured(own):
    for name, epochs in (("five", 0), ("tokens", 1)):  # case 10
        with pytest.raises(ModelNameError, match=r"returns [57] scores.*example_inputs"):
            prepared(model=f"own_models_for_a_test:{name}", train_epochs=epochs)
    with pytest.raises(ModelNameError, match=r"batch_size=6.*\[5, 8\]"):
        prepared(model="own_models_for_a_test:tokens", batch_size=6)
    with pytest.raises(ModelNameError, match=r"float16.*fp16"):  # it would be called strict FP32
        prepared(model="own_models_for_a_test:half", input_shape="3")
    with pytest.raises(AssertionError, match="Wrong image height") as caught:  # case 14
        prepared(model="vit_b_16")
    assert "input_shape" in caught.value.__notes__[0]


def test_a_users_module_is_found_where_the_caller_is_by_fresh_processes_too(tmp_path, monkeypatch):
    """A shell keeps its folder in PWD where papermill's --cwd starts the kernel elsewhere."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PWD", str(tmp_path))
    with pytest.raises(ModelNameError, match=rf"'own_away'.*{tmp_path}.*PYTHONPATH"):
        build_model("own_away:make")
    (tmp_path / "own_away.py").write_text(SOURCES)
    found = build_model("own_away:make")
    assert "random" not in str(found.built_from)  # its weights are its author's affair
    with pytest.raises(ModelNameError, match=r"'maek'.*own_away\.py"):
        build_model("own_away:maek")
    with pytest.raises(ModelNameError, match="own_away:function"):
        build_model("own_away.py:make")
    assert in_fresh_process(type, found).__module__ == "own_away"  # its class was imported there


@pytest.mark.parametrize("name", ["resnet19", "", "ResNet18", "../resnet18", "os;rm:x", ":f"])
def test_an_unknown_model_is_named(name):
    with pytest.raises(ModelNameError, match=repr(name)):
        build_model(name)


def test_a_name_is_checked_without_importing_anything(own):
    assert model_problem("own_broken_for_a_test:make") is model_problem("resnet18_cifar") is None
    assert "'nowhere.pt'" in model_problem("resnet18@nowhere.pt")


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("own_broken_for_a_test:make", ModuleNotFoundError, "nowhere_to_be_found"),
        ("own_models_for_a_test:with_arguments", TypeError, "(?s)width.*without arguments"),
        ("own_exit_for_a_test:make", ModelNameError, "own_exit_for_a_test.* SystemExit"),  # case 5
        ("own_models_for_a_test:leaves", ModelNameError, "leaves.* SystemExit"),  # case 5
        ("own_models_for_a_test:no_module", ModelNameError, "list.*not a torch.nn.Module"),
    ],
)
def test_a_users_function_that_fails_is_told_in_its_own_words(own, name, error, told):
    with pytest.raises(error, match=told):
        build_model(name)


@pytest.mark.parametrize("bare", [True, False])
def test_a_checkpoint_gives_its_weights_back(tmp_path, bare):
    weights = build_model("resnet18", 5).state_dict()
    content = weights if bare else {"model": "resnet18", "state_dict": weights, "epoch": 3}
    found = build_model(saved(tmp_path / "a@b.pt", content), seed=1)
    assert all(torch.equal(v, weights[k]) for k, v in found.state_dict().items())
    assert found.built_from == Origin("resnet18", str(tmp_path / "a@b.pt"), guessed=bare)


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 damaged"])
def test_a_damaged_checkpoint_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelNameError, match=f"{name}' cannot be read"):
        build_model(str(tmp_path / name))


class Hostile(dict):
    """A mapping of the user's own: the restricted loader sets no items of such."""


TENSORS = {"a": torch.zeros(1)}
REFUSED = [
    ([1, 2], "holds .*list"),
    ({"epoch": 3}, "keys .*epoch"),
    ({"model": "os:getcwd", "state_dict": TENSORS}, "name the model"),
    ({"model": "resnet18", "state_dict": TENSORS}, "m.pt': .*do not fit resnet18.*Unexpected.*a"),
    ({"net": TENSORS, "model": TENSORS}, "no one model.*net.*model"),
    (WEIGHTS | {"fc.weight": torch.zeros(9, 512)}, r"fc\.weight.*\[9, 512\].*\[10, 512\]"),
    (nn.Linear(2, 2), "no one model"),
    (Bomb(), "no one model"),
    ({"w": WEIGHTS, "x": Hostile(a=1)}, "beside weights: .*Hostile"),
]


@pytest.mark.parametrize(("value", "told"), REFUSED)
def test_cases_12_and_13_what_is_no_one_models_weights_is_explained_and_not_run(
    tmp_path, monkeypatch, value, told
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNameError, match=f"(?s){told}") as caught:
        build_model(saved(tmp_path / "m.pt", value))
    assert "\x1b" not in str(caught.value)
    assert not (tmp_path / "went_off").exists()


def renamed(*prefixes):
    return {"".join(prefixes) + key: value for key, value in WEIGHTS.items()}


COMPILED_PART = {k.replace("layer1.", "layer1._orig_mod."): v for k, v in WEIGHTS.items()}
LAYOUTS = {  # case 13: the form of the file, what lies in it, prefixes that are stripped
    "model": ("pt", {"model": WEIGHTS, "acc": 0.9, "epoch": 3}, ()),
    "model_state_dict": ("pt", {"model_state_dict": WEIGHTS, "optimizer": {"state": {}}}, ()),
    "DataParallel": ("pt", renamed("module."), ("module.",)),
    "both": ("pt", renamed("_orig_mod.", "module."), ("_orig_mod.module.",)),
    "lightning": ("pt", {"state_dict": renamed("model.")}, ("model.",)),
    "a part compiled": ("pt", COMPILED_PART, ("_orig_mod.",)),
    "safetensors": ("safetensors", renamed("module."), ("module.",)),
}


@pytest.mark.parametrize(("form", "content", "stripped"), LAYOUTS.values(), ids=LAYOUTS)
def test_case_13_common_layouts_are_read_and_what_was_stripped_is_said(
    tmp_path, form, content, stripped
):
    network = build_model(saved(tmp_path / f"m.{form}", content))
    assert all(torch.equal(v, WEIGHTS[k]) for k, v in network.state_dict().items())
    assert network.built_from.stripped == stripped
    assert all(prefix in str(network.built_from) for prefix in stripped)


def test_case_12_what_lies_beside_the_weights_is_named_and_not_run(tmp_path):
    content = {"arch": "resnet18_cifar", "state_dict": WEIGHTS, "best_acc": np.float64(0.93)}
    origin = build_model(saved(tmp_path / "m.pt", content | {"epoch": 3})).built_from
    assert (origin.ignored, origin.guessed) == (("best_acc",), False)
    assert "best_acc" in str(origin)


def test_case_3_an_architecture_told_from_shapes_is_said_to_be_a_guess(tmp_path, own):
    """The weights fit with and without max-pool: only a name tells them apart."""
    path = saved(tmp_path / "m.pt", WEIGHTS)
    guess = build_model(path).built_from
    assert guess == Origin("resnet18_cifar", path, guessed=True)
    assert "GUESS" in str(guess)
    for name in ("resnet18_cifar", "own_models_for_a_test:make_cifar_with_pool"):
        named = build_model(f"{name}@{path}")
        assert named.built_from == Origin(name, path)
        assert torch.equal(named.fc.weight, WEIGHTS["fc.weight"])
        assert isinstance(named.maxpool, nn.MaxPool2d) == ("own" in name)


@pytest.mark.parametrize(
    ("forward", "told"),
    [
        (lambda x: {"logits": x}, "returned dict"),  # case 15
        (leave, "raised SystemExit"),  # case 5
        (lambda x: {}["key"], "key.*\n.*own:make.*look in its forward"),
    ],
)
def test_what_cannot_be_measured_is_told_by_one_forward(forward, told):
    network = nn.Identity()
    network.forward, network.built_from = forward, Origin("own:make")
    with pytest.raises((ModelNameError, KeyError), match=told):
        try_forward(network, torch.zeros(2, 3, 32, 32), "cpu")


def test_a_forward_that_works_leaves_no_trace():
    network = build_model("resnet18").train()
    before, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    assert try_forward(network, torch.zeros(1, 3, 32, 32), "cpu") == 10
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)

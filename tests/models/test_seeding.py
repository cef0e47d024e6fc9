import pytest
import torch

from helpers.models import build_model
from helpers.models.trial import own_random_state, seed_generators
from tests.training.test_training import short

USERS = {"build_model": lambda: build_model("resnet18", 0), "train": lambda: short(epochs=1)}


def test_numbers_inside_follow_the_seed_and_those_outside_go_on():
    before = torch.get_rng_state()
    with own_random_state():
        seed_generators(7)
        first = torch.rand(2)
        seed_generators(7)
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_a_gpu_that_is_not_in_use_yet_gets_no_seed(use, monkeypatch):
    queued = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    use()
    assert queued == []


@pytest.mark.gpu
@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_a_gpus_random_state_is_left_alone(use):
    torch.cuda.manual_seed_all(5)
    before = torch.cuda.get_rng_state()
    use()
    assert torch.equal(torch.cuda.get_rng_state(), before)

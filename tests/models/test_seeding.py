import pytest
import torch

from helpers.models import build_model
from tests.training.test_training import short

USERS = {"build_model": lambda: build_model("resnet18", 0), "train": lambda: short(epochs=1)}


@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_a_gpu_that_is_not_in_use_yet_gets_no_seed(use, monkeypatch):
    queued = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", queued.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    use()
    assert queued == []

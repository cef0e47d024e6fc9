import pytest
import torch

from helpers.variants import build_model


def test_the_same_seed_gives_the_same_weights_and_touches_no_random_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = build_model(seed=0), build_model(seed=0), build_model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.fc.weight, two.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def test_ten_classes():
    with torch.no_grad():
        assert build_model().eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="resnet19"):
        build_model("resnet19")

"""The drawn set, the checks that every set passes, the transforms and the loaders."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import cifar10
from helpers.cifar10.transforms import draw_synthetic


@pytest.fixture(scope="module")
def synthetic():
    return cifar10.load("untouched", "synthetic", seed=3)


def test_the_drawn_set_touches_no_file_passes_its_checks_and_is_never_called_cifar10(synthetic):
    assert (synthetic.name, synthetic.source.code) == ("synthetic", "drawn")
    assert not Path("untouched").exists()
    with pytest.raises(ValueError, match="cifar100"):
        cifar10.load("untouched", "cifar100")
    assert synthetic.fingerprint["test"][:16] == "9f410afe2dd7add9"  # of seed 3, on every machine
    assert not np.array_equal(draw_synthetic(4, (500, 100))[2], draw_synthetic(5, (500, 100))[2])
    checks = {check.code: check for check in cifar10.check(synthetic)}
    assert all(check.ok for check in checks.values()), checks
    assert checks["fingerprint_synthetic"].values["test"] == "9f410afe2dd7"
    assert set(checks["classes"].values["names"]).isdisjoint(cifar10.CLASSES)
    *_, last = cifar10.check(dataclasses.replace(synthetic, name="cifar10"))
    assert (last.code, last.ok) == ("fingerprint", False)
    scaled = synthetic.train_images[:, ::4] / 255
    found = checks["mean"].values["found"], checks["std"].values["found"]
    np.testing.assert_allclose(found, (scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))), atol=1e-2)


@pytest.mark.parametrize(
    ("array", "change", "failed"),
    [
        ("test_images", lambda a: a ^ (np.arange(len(a)) == 5)[:, None, None, None], set()),
        ("train_labels", lambda a: np.r_[(a[0] + 1) % 10, a[1:]], {"balance"}),
        ("test_labels", lambda a: np.r_[10, a[1:]], {"classes", "balance"}),
        ("train_images", lambda a: a // 2, {"mean", "std"}),
        ("test_images", lambda a: a[:-1], {"sizes"}),
        ("train_images", lambda a: a.transpose(0, 3, 1, 2), {"layout"}),
        ("test_images", lambda a: a.astype(np.float32), {"layout"}),
    ],
)
def test_another_set_fails_the_check_that_says_so(synthetic, array, change, failed):
    data = dataclasses.replace(synthetic, **{array: change(getattr(synthetic, array))})
    failed = failed if failed & {"sizes", "layout"} else failed | {"fingerprint_synthetic"}
    assert {check.code for check in cifar10.check(data) if not check.ok} == failed


def test_the_constants_are_those_asked_for():
    """The transforms': tests/training/test_training_augment.py."""
    assert (*cifar10.MEAN, *cifar10.STD) == (0.4914, 0.4822, 0.4465, 0.2470, 0.2435, 0.2616)


def test_the_train_order_is_the_seeds_and_each_image_is_augmented_anew(synthetic):
    same = np.repeat(synthetic.train_images[:1], 64, axis=0)
    data = dataclasses.replace(synthetic, train_images=same, train_labels=np.arange(64))

    def batch(seed):
        return next(iter(cifar10.train_loader(data, batch_size=64, seed=seed)))

    images, first = batch(1)
    assert images.shape == (64, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in images}) > 40
    assert torch.equal(batch(1)[1], first)
    assert not torch.equal(batch(2)[1], first)


def test_the_test_loader_gives_images_in_official_order_and_draws_no_random_number(synthetic):
    before = torch.random.get_rng_state()
    assert len(cifar10.test_loader(synthetic)) == 10_000
    loader = cifar10.test_loader(synthetic, limit=5)
    for index, (image, label) in enumerate(loader):
        assert label.tolist() == [synthetic.test_labels[index]]
        expected = (synthetic.test_images[index] / 255 - cifar10.MEAN) / cifar10.STD
        assert (type(image), image.dtype) == (torch.Tensor, torch.float32)
        np.testing.assert_allclose(image[0].permute(1, 2, 0), expected, atol=1e-5)
    assert torch.equal(torch.random.get_rng_state(), before)

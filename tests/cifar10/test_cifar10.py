"""The drawn set, the checks that every set passes, the transforms and the loaders."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from helpers import cifar10
from helpers.cifar10 import load_cifar10
from helpers.cifar10.synthetic import draw_synthetic
from helpers.cifar10.transforms import check_batches


@pytest.fixture(scope="module")
def synthetic():
    return load_cifar10("untouched", "synthetic", seed=3)


def check(data, name):
    return next(check for check in cifar10.check_dataset(data) if check.name == name)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match=r"'cifar100'.*auto, cifar10, synthetic"):
        load_cifar10("data", "cifar100")


def test_synthetic_touches_neither_files_nor_network(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "read_local", None)
    monkeypatch.setattr(cifar10, "fetch", None)
    assert load_cifar10(tmp_path / "data", "synthetic", seed=3).name == "synthetic"
    assert not (tmp_path / "data").exists()


def test_a_seed_draws_the_same_set_again_and_another_seed_another():
    first, again, other = (draw_synthetic(seed, (500, 100)) for seed in (3, 3, 4))
    for index in range(4):
        np.testing.assert_array_equal(first[index], again[index])
        assert not np.array_equal(first[index], other[index])


def test_the_drawn_set_is_the_same_on_every_machine(synthetic):
    assert synthetic.fingerprint["test"][:16] == "9f410afe2dd7add9"


def test_the_drawn_set_passes_its_checks_and_is_never_called_cifar10(synthetic):
    checks = cifar10.check_dataset(synthetic)
    assert all(check.ok for check in checks), [check for check in checks if not check.ok]
    assert "n'est pas CIFAR-10" in check(synthetic, "empreinte").detail
    assert "airplane" not in check(synthetic, "classes").detail


def test_the_drawn_classes_can_be_learnt(synthetic):
    """A small network tells unseen images apart after a few hundred steps."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, 2, 2), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    )
    images = torch.from_numpy(synthetic.train_images[:2000]).permute(0, 3, 1, 2) / 255 - 0.5
    labels = torch.from_numpy(synthetic.train_labels[:2000])
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(4):
        for batch in torch.randperm(2000).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimizer.step()
    unseen = torch.from_numpy(synthetic.test_images[:1000]).permute(0, 3, 1, 2) / 255 - 0.5
    with torch.inference_mode():
        found = net.eval()(unseen).argmax(1).numpy()
    assert (found == synthetic.test_labels[:1000]).mean() > 0.6


def flip_a_bit(images):
    images[5, 3, 2, 1] ^= 1


def relabel(labels):
    labels[0] = (labels[0] + 1) % 10


def unknown(labels):
    labels[labels == 9] = 10


def darken(images):
    images //= 2


@pytest.mark.parametrize(
    ("array", "change", "failed"),
    [
        ("test_images", flip_a_bit, {"empreinte"}),
        ("train_labels", relabel, {"équilibre", "empreinte"}),
        ("test_labels", unknown, {"classes", "empreinte"}),
        ("train_images", darken, {"moyenne", "écart-type", "empreinte"}),
        ("test_images", lambda a: a[:-1], {"tailles"}),
        ("train_labels", lambda a: a[:-1], {"tailles"}),
        ("train_images", lambda a: a.transpose(0, 3, 1, 2), {"formes"}),
        ("test_images", lambda a: a.astype(np.float32), {"types"}),
    ],
)
def test_another_set_fails_the_check_that_says_so(synthetic, array, change, failed):
    values = getattr(synthetic, array).copy()
    values = values if (changed := change(values)) is None else changed
    data = dataclasses.replace(synthetic, **{array: values})
    assert {check.name for check in cifar10.check_dataset(data) if not check.ok} == failed


def test_calling_another_set_cifar10_fails(synthetic):
    found = check(dataclasses.replace(synthetic, name="cifar10"), "empreinte")
    assert not found.ok
    assert "n'est PAS CIFAR-10" in found.detail


def test_channel_statistics_are_numpys(synthetic):
    images = synthetic.test_images[:500]
    mean, std = cifar10.channel_statistics(images)
    scaled = images / 255
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 1, 2)), rtol=1e-9)


def test_the_constants_are_those_asked_for():
    assert cifar10.MEAN == (0.4914, 0.4822, 0.4465)
    assert cifar10.STD == (0.2470, 0.2435, 0.2616)
    assert len(cifar10.CLASSES) == 10


def test_the_test_transform_only_normalises(synthetic):
    image = synthetic.test_images[0]
    tensor = cifar10.test_transform()(image)
    assert type(tensor) is torch.Tensor
    assert tensor.dtype == torch.float32
    expected = (image / 255 - cifar10.MEAN) / cifar10.STD
    np.testing.assert_allclose(tensor.permute(1, 2, 0), expected, atol=1e-5)
    torch.testing.assert_close(cifar10.test_transform()(Image.fromarray(image)), tensor)


def test_a_loader_whose_images_are_not_normalised_once_is_refused(synthetic):
    images, labels = next(iter(cifar10.test_loader(synthetic, 4)))
    check_batches([(images, labels)], 4)
    twice = (images - torch.tensor(cifar10.MEAN).view(3, 1, 1)) / 0.25
    noisy = images + 0.001 * torch.randn_like(images)
    wrong = [(twice, labels), (noisy, labels), (images[:2], labels[:2]), (images, labels[:2])]
    wrong += [(images.double(), labels), (images + 10, labels), (images * torch.nan, labels)]
    for batches in ([], *([one] for one in wrong)):
        with pytest.raises(ValueError, match="data loader"):
            check_batches(batches, 4)


def test_the_train_transform_is_the_one_asked_for():
    kinds = {type(step): step for step in cifar10.train_transform().transforms}
    assert kinds[v2.RandomCrop].size == (32, 32)
    assert set(kinds[v2.RandomCrop].padding) == {4}
    assert kinds[v2.RandomHorizontalFlip].p == 0.5
    assert list(kinds[v2.RandomRotation].degrees) == [-15, 15]


def test_the_train_transform_is_drawn_for_each_image(synthetic):
    one = dataclasses.replace(
        synthetic,
        train_images=np.repeat(synthetic.train_images[:1], 8, axis=0),
        train_labels=synthetic.train_labels[:8],
    )
    images, _ = next(iter(cifar10.train_loader(one, batch_size=8)))
    assert type(images) is torch.Tensor
    assert images.shape == (8, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in images}) > 4


def test_the_train_order_is_the_seeds(synthetic):
    def order(seed):
        loader = cifar10.train_loader(synthetic, batch_size=64, seed=seed)
        return next(iter(loader))[1].tolist()

    torch.manual_seed(0)
    first = order(1)
    torch.manual_seed(99)
    assert order(1) == first
    assert order(2) != first


def test_the_test_loader_gives_single_images_in_official_order(synthetic):
    loader = cifar10.test_loader(synthetic)
    assert len(loader) == 10_000
    transform = cifar10.test_transform()
    for index, (image, label) in zip(range(5), loader, strict=False):
        assert image.shape == (1, 3, 32, 32)
        assert label.tolist() == [synthetic.test_labels[index]]
        torch.testing.assert_close(image[0], transform(synthetic.test_images[index]))


def test_iterating_the_test_loader_leaves_the_global_generator_alone(synthetic):
    before = torch.random.get_rng_state()
    next(iter(cifar10.test_loader(synthetic)))
    assert torch.equal(torch.random.get_rng_state(), before)

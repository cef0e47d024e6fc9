"""Sessions that measure at once see each other, and nobody sees those that are gone."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result

from helpers import bench_latency, measuring
from helpers.bench_latency import benchmark_latency
from helpers.clocks.calibration import calibrate
from helpers.display.verdict import verdict_sentences
from helpers.measuring import announced, other_session
from helpers.parameters import validate
from helpers.results.rows import run_row
from helpers.validation import judge

CPU = torch.device("cpu")
INPUTS = [torch.zeros(1, 3, 8, 8)]
MEASURING = """
import sys, torch
from helpers.measuring import announced
with announced(torch.device(sys.argv[1])):
    print("measuring", flush=True)
    input()
print("done", flush=True)
"""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Not the machine's temporary folder: sessions that really measure are not ours to see."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path / measuring.FOLDER
    tempfile.tempdir = None


@pytest.fixture
def neighbour(request):
    """Another process that is measuring until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURING, getattr(request, "param", "cpu")],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "measuring\n"
    yield process
    process.kill()
    process.communicate()


def test_nobody_is_seen_where_nobody_measures():
    assert other_session(CPU) == ""


def test_another_process_is_seen_until_it_has_finished(neighbour, own_folder):
    seen = other_session(CPU)
    assert seen == f"une autre session mesure sur le même processeur (processus {neighbour.pid})"
    neighbour.communicate("\n", timeout=30)
    assert other_session(CPU) == ""
    assert list(own_folder.iterdir()) == []


def test_a_killed_process_is_no_longer_seen_and_its_file_is_removed(neighbour, own_folder):
    neighbour.send_signal(signal.SIGKILL)
    neighbour.wait()
    assert len(list(own_folder.iterdir())) == 1
    assert other_session(CPU) == ""
    assert list(own_folder.iterdir()) == []


def test_one_is_not_its_own_neighbour_even_with_two_benchmarks():
    with announced(CPU), announced(CPU):
        assert other_session(CPU) == ""


def test_an_error_or_an_interruption_withdraws_the_announcement(own_folder):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), announced(CPU):
            raise error
    assert list(own_folder.iterdir()) == []


def test_who_measures_elsewhere_does_not_disturb(neighbour, monkeypatch):
    monkeypatch.setattr(measuring, "_key", lambda device: "gpu-another")
    assert other_session(CPU) == ""


def test_without_a_temporary_folder_the_measurement_goes_on(own_folder):
    own_folder.write_text("a file where the folder should be")
    with announced(CPU):
        assert other_session(CPU) == ""


def test_the_benchmark_says_who_else_measured(neighbour):
    result = benchmark_latency(TinyNet(), INPUTS, 2, 20)
    assert f"(processus {neighbour.pid})" in result.other_session


def test_the_benchmark_alone_says_nothing():
    assert benchmark_latency(TinyNet(), INPUTS, 2, 20).other_session == ""


def test_who_measured_for_a_while_only_is_said_too(monkeypatch):
    looks = iter(["", "quelqu'un", "quelqu'un", ""])
    monkeypatch.setattr(bench_latency, "other_session", lambda device: next(looks))
    assert benchmark_latency(TinyNet(), INPUTS, 2, 250).other_session == "quelqu'un"


def test_the_benchmark_is_seen_while_it_measures():
    names = []
    benchmark_latency(
        TinyNet(),
        INPUTS,
        2,
        20,
        between_blocks=lambda: names.extend(os.listdir(measuring._folder())),
    )
    assert names
    assert all(name.startswith(f"cpu.{os.getpid()}.") for name in names)


def test_a_contaminated_run_says_so_in_its_row_its_verdict_and_its_causes():
    who = "une autre session mesure sur le même GPU (processus 7)"
    runs = [make_result(np.full(100, ms), other_session=who) for ms in (1.0, 1.3)]
    machine = {"gpu": None, "software": {"torch": "2.14.1"}, "cuda": {"torch_cuda": None}}
    settings = {"parameters": validate(), "environment": machine, "dataset": "cifar10"}
    row = run_row(runs[0], run=1, accuracy=0.1, eval_images=1, session="s", **settings)
    assert "other_session" in row["flags"].split(";")
    validation = judge(runs)
    assert who in " ".join(validation.clocks["host"].causes)
    sentences = verdict_sentences(validation, calibrate(CPU), None)
    assert f"ATTENTION, mesures contaminées : {who}." in sentences


@pytest.mark.gpu
@pytest.mark.parametrize("neighbour", ["cuda:0"], indirect=True)
def test_sessions_on_one_gpu_know_it_by_its_uuid(neighbour):
    gpu = torch.device("cuda:0")
    assert str(torch.cuda.get_device_properties(0).uuid) in measuring._key(gpu)
    seen = f"une autre session mesure sur le même GPU (processus {neighbour.pid})"
    assert other_session(gpu) == seen
    assert other_session(CPU) == ""
    assert benchmark_latency(TinyNet().cuda(), INPUTS, 5, 50).other_session == seen

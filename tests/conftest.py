"""Skips, visibly, what this machine or this command cannot run."""

import os

import pytest

# OpenMP's threads would spin where they wait: beside two busy neighbours on two cores, ResNet-18
# then takes 390 ms instead of 21. Set before torch is loaded; kernels that tests start inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", help="run the tests marked slow")
    parser.addoption("--runbrowser", action="store_true", help="run the tests marked browser")


def pytest_collection_modifyitems(config, items):
    missing = not torch.cuda.is_available()
    why = "torch.cuda.is_available() is False" if missing else "run by `pytest -m gpu`, alone"
    no_gpu, several = pytest.mark.skip(reason=why), "PYTEST_XDIST_WORKER" in os.environ
    for item in items:
        for mark in ("browser", "slow"):
            if mark in item.keywords and not config.getoption(f"--run{mark}"):
                item.add_marker(pytest.mark.skip(reason=f"{mark}: run by `make test-{mark}`"))
        if "gpu" in item.keywords and (missing or several):
            item.add_marker(no_gpu)

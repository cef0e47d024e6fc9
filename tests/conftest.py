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
    no_gpu = pytest.mark.skip(reason="needs a CUDA GPU; torch.cuda.is_available() is False")
    not_asked = pytest.mark.skip(reason="slow: run by `make test-slow` (--runslow)")
    no_browser = pytest.mark.skip(reason="browser: run by `make test-browser` (--runbrowser)")
    for item in items:
        if "browser" in item.keywords and not config.getoption("--runbrowser"):
            item.add_marker(no_browser)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if "slow" in item.keywords and not config.getoption("--runslow"):
            item.add_marker(not_asked)

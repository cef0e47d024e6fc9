"""The tables of a machine, in French."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.display.machine import environment_table, fixed_conditions

ROW = {"variant": "fp32", "schedule": "consecutive", "precision": "fp32", "batch_size": 1}
ROW |= {"input_shape": "1x3x32x32", "warmup_iters": 50, "measure_iters": 500}
ROWS = pd.DataFrame([ROW, ROW, ROW, ROW | {"variant": "tf32"}])
GPU = {"name": "NVIDIA H100", "compute_capability": "9.0", "memory_gib": 79.2}
CLOCKS = ("sm_clock_mhz", "sm_clock_max_mhz", "memory_clock_mhz", "memory_clock_max_mhz")
GPU |= dict.fromkeys(CLOCKS, 1980) | {"power_limit_w": 700.0, "temperature_c": None}


def tables(machine, facts, parameters):
    session = SimpleNamespace(environment=facts, parameters=parameters, rows=ROWS)
    yield environment_table(replace(machine, facts=facts))["Valeur"]
    yield fixed_conditions(session)["Valeur"]


@pytest.mark.parametrize("kind", [dict, SimpleNamespace], ids=["stored", "live"])
@pytest.mark.parametrize("gpu", [None, GPU], ids=["CPU", "GPU"])
def test_tables_of_each_device_and_what_its_surroundings_impose(machine, gpu, kind):
    facts = machine.facts | {"gpu": gpu, "variables": {"CUDA_LAUNCH_BLOCKING": "1"}}
    facts["cpu"] = facts["cpu"] | {"torch_threads": 1, "quota_cpus": 1.5}
    given = kind(model="checkpoints/resnet18.pt", train_epochs=40)
    table, fixed = tables(machine, facts, given)
    assert table.index.is_unique
    assert {"CUDA_LAUNCH_BLOCKING=1", "1,50 CPU"} <= set(table)
    assert fixed["Appareil"].startswith("NVIDIA H100" if gpu else "CPU ")
    assert ({"CUDA", "Pilote"} <= set(fixed.index)) == bool(gpu)
    expected = ["resnet18.pt, 40 époques", "1×3×32×32", "3"]
    assert fixed[["Modèle", "Forme de l'entrée", "Runs"]].tolist() == expected
    if gpu:
        assert table["GPU"] == "NVIDIA H100, capacité de calcul 9.0, 79,2 Gio"
        assert table["Fréquence SM / maximale (MHz)"] == "1980 / 1980"
        assert table["Limite de puissance (W) / température (°C)"] == "700 / non visible"


def blank(record: dict) -> dict:
    """The same record on a machine that shows nothing at all."""
    return {key: blank(value) if isinstance(value, dict) else None for key, value in record.items()}


@pytest.mark.parametrize("gpu", [None, GPU | dict.fromkeys(list(GPU)[3:])], ids=["CPU", "GPU"])
def test_tables_of_a_machine_that_shows_nothing(machine, gpu):
    facts = blank(machine.facts) | {"gpu": gpu, "variables": {}}
    assert all("None" not in table.to_string() for table in tables(machine, facts, {}))

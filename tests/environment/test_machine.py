"""The tables of a machine, in French."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from helpers.display.machine import environment_table, fixed_conditions

PARAMETERS = {"model": "checkpoints/resnet18.pt", "train_epochs": 0}
ROW = {
    "variant": "fp32",
    "schedule": "consecutive",
    "precision": "fp32",
    "batch_size": 1,
    "input_shape": "1x3x32x32",
    "warmup_iters": 50,
    "measure_iters": 500,
}
GPU = {
    "name": "NVIDIA H100",
    "compute_capability": "9.0",
    "memory_gib": 79.2,
    "sm_clock_mhz": 1980,
    "sm_clock_max_mhz": 1980,
    "memory_clock_mhz": 2619,
    "memory_clock_max_mhz": 2619,
    "power_limit_w": 700.0,
    "temperature_c": 54,
    "ecc": True,
    "persistence_mode": None,
}


def blank(record: dict) -> dict:
    """The same record on a machine that shows nothing at all."""
    return {key: blank(value) if isinstance(value, dict) else None for key, value in record.items()}


def test_table_on_the_cpu(machine):
    table = environment_table(machine)
    assert table.index.is_unique
    assert table.loc["GPU", "Valeur"] == "non utilisé"
    assert table.map(lambda value: isinstance(value, str) and value != "").all(axis=None)


def test_table_on_a_gpu_and_what_the_surroundings_impose(machine):
    given = {"gpu": GPU, "variables": {"CUDA_LAUNCH_BLOCKING": "1"}}
    given["cpu"] = machine.facts["cpu"] | {"torch_threads": 1, "quota_cpus": 1.5}
    table = environment_table(replace(machine, facts=machine.facts | given))["Valeur"]
    assert table["GPU"] == "NVIDIA H100, capacité de calcul 9.0, 79,2 Gio"
    assert table["Horloge SM / maximale (MHz)"] == "1980 / 1980"
    assert table["ECC / mode persistant"] == "oui / non visible"
    assert table["Fils d'exécution de PyTorch"] == "1"
    assert {"CUDA_LAUNCH_BLOCKING=1", "1,50 CPU"} <= set(table)


@pytest.mark.parametrize("gpu", [None, GPU | dict.fromkeys(list(GPU)[3:])], ids=["CPU", "GPU"])
def test_tables_of_a_machine_that_shows_nothing(machine, gpu):
    facts = blank(machine.facts) | {"gpu": gpu, "variables": {}}
    assert "None" not in environment_table(replace(machine, facts=facts)).to_string()
    session = SimpleNamespace(environment=facts, parameters={}, rows=pd.DataFrame([ROW]))
    assert "None" not in fixed_conditions(session).to_string()


@pytest.mark.parametrize("gpu", [None, GPU], ids=["CPU", "GPU"])
@pytest.mark.parametrize("kind", [dict, SimpleNamespace], ids=["stored", "live"])
def test_fixed_conditions_on_each_device(machine, gpu, kind):
    rows = pd.DataFrame([ROW, ROW, ROW, ROW | {"variant": "tf32"}])
    facts = machine.facts | {"gpu": gpu}
    session = SimpleNamespace(environment=facts, parameters=kind(**PARAMETERS), rows=rows)
    table = fixed_conditions(session)["Valeur"]
    assert table["Appareil"].startswith("NVIDIA H100" if gpu else "CPU ")
    assert ({"CUDA", "Pilote"} <= set(table.index)) == bool(gpu)
    assert table["Modèle"] == "resnet18.pt"
    assert table["Forme de l'entrée"] == "1×3×32×32"
    assert table["Runs"] == "3"
    session.parameters = kind(**PARAMETERS | {"train_epochs": 40})
    assert fixed_conditions(session)["Valeur"]["Modèle"] == "resnet18.pt, 40 époques"

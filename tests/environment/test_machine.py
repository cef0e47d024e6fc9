"""The checks of a record, and its tables."""

from helpers.environment import (
    check_environment,
    environment_table,
    fixed_conditions,
)

CONDITIONS = {
    "model": "resnet18",
    "train_epochs": 0,
    "train_images": 0,
    "precision": "fp32",
    "batch_size": 1,
    "input_shape": (1, 3, 32, 32),
    "warmup_iters": 50,
    "measure_iters": 500,
    "runs": 3,
}
GPU = {
    "name": "NVIDIA H100",
    "uuid": "GPU-1",
    "compute_capability": "9.0",
    "memory_gib": 79.2,
    "multiprocessors": 132,
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
    return {
        key: blank(value) if isinstance(value, dict) else [] if isinstance(value, list) else None
        for key, value in record.items()
    }


def by_name(env: dict) -> dict:
    return {check.name: check for check in check_environment(env)}


def test_a_machine_without_gpu_passes_with_a_banner(env):
    cuda = env["cuda"] | {"diagnosis": "none", "nvml": "NVMLError_LibraryNotFound: …"}
    checks = by_name(env | {"cuda": cuda | {"torch_gpus": 0, "nvml_remedy": None}})
    assert all(check.ok for check in checks.values())
    assert "tout est mesuré sur le CPU" in checks["GPU"].detail


def test_old_torch_and_broken_compiler_do_not_pass(env):
    old = env | {
        "software": env["software"] | {"torch": "1.13.1"},
        "compile": {"usable": False, "reason": "InvalidCxxCompiler"},
    }
    checks = by_name(old)
    assert not checks["PyTorch ≥ 2.0"].ok
    assert not checks["torch.compile"].ok
    assert "InvalidCxxCompiler" in checks["torch.compile"].detail


def test_table_on_the_cpu(env):
    table = environment_table(env)
    assert list(table.columns) == ["Valeur"]
    assert table.index.is_unique
    assert table.loc["GPU", "Valeur"] == "non utilisé"
    assert table.map(lambda value: isinstance(value, str) and value != "").all(axis=None)


def test_table_on_a_gpu(env):
    table = environment_table(env | {"gpu": GPU})["Valeur"]
    assert table["GPU"] == "NVIDIA H100, capacité de calcul 9.0, 79,2 Gio"
    assert table["Horloge SM / maximale (MHz)"] == "1980 / 1980"
    assert table["ECC / mode persistant"] == "oui / non visible"


def test_tables_of_a_machine_that_shows_nothing(env):
    shown = blank(env) | {"gpu": None, "variables": {}}
    assert "None" not in environment_table(shown).to_string()
    assert "None" not in fixed_conditions(shown, **CONDITIONS).to_string()
    shown = shown | {"gpu": blank(GPU)}
    assert environment_table(shown)["Valeur"]["CPU"] == "non visible"


def test_fixed_conditions_on_each_device(env):
    cpu = fixed_conditions(env, **CONDITIONS)["Valeur"]
    assert cpu["Appareil"].startswith("CPU ")
    assert "Pilote" not in cpu
    assert cpu["Forme de l'entrée"] == "1×3×32×32"
    assert cpu["Modèle"] == "resnet18"
    trained = fixed_conditions(env, **CONDITIONS | {"train_epochs": 40, "train_images": 500})[
        "Valeur"
    ]
    assert trained["Modèle"] == "resnet18, 40 époques sur 500 images"
    unknown = fixed_conditions(env, **CONDITIONS | {"model": None, "train_epochs": None})
    assert unknown["Valeur"]["Modèle"] == "non visible"
    gpu = fixed_conditions(env | {"gpu": GPU}, **CONDITIONS)["Valeur"]
    assert gpu["Appareil"] == "NVIDIA H100"
    assert {"CUDA", "Pilote"} <= set(gpu.index)

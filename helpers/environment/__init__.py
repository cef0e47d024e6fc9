"""Step 1: what machine this is, whether it can do the day's work, and the tables that say so."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from helpers.display.french import counted, number
from helpers.environment.compile import CompileCheck, check_compile, check_compile_once
from helpers.environment.device import FRENCH, DeviceChoice, choose_device, explain_gpu
from helpers.environment.facts import (
    collect_cpu,
    collect_git,
    collect_software,
    collect_switches,
    collect_system,
)
from helpers.environment.gpu import collect_gpu

__all__ = [
    "Check",
    "CompileCheck",
    "DeviceChoice",
    "check_compile",
    "check_environment",
    "choose_device",
    "collect_environment",
    "environment_table",
    "fixed_conditions",
]

NOT_VISIBLE = "non visible"


@dataclass(frozen=True)
class Check:
    """One thing that was verified, here or in the data; `detail` is a French sentence."""

    name: str
    ok: bool
    detail: str


def collect_environment(choice: DeviceChoice) -> dict:
    """Record the machine and the software of a session.

    Parameters
    ----------
    choice
        What `choose_device` returned.

    Returns
    -------
    dict
        Nested and ready for JSON; a value that cannot be seen is None.
    """
    return {
        "device": str(choice.device),
        "device_reason": choice.reason,
        "software": collect_software(),
        "cuda": choice.cuda,
        "gpu": collect_gpu(choice.device),
        "cpu": collect_cpu(),
        "system": collect_system(),
        "git": collect_git(),
        "switches": collect_switches(),
        "compile": asdict(check_compile_once(choice.device)),
    }


def check_environment(env: dict) -> list[Check]:
    """Judge a record of `collect_environment`.

    `ok` is False where something that should work does not. A machine without a GPU is no fault:
    its check is True and the detail is the banner that says so.
    """
    version, compiling = env["software"]["torch"], env["compile"]
    built_for = f"CUDA {env['cuda']['torch_cuda']}" if env["cuda"]["torch_cuda"] else "le CPU seul"
    return [
        Check(
            "PyTorch ≥ 2.0",
            int(version.split(".")[0]) >= 2,
            f"PyTorch {version}, construit pour {built_for}.",
        ),
        _check_gpu(env["cuda"]),
        Check(
            "torch.compile",
            compiling["usable"],
            "Une fonction compilée donne le même résultat que sans compilation."
            if compiling["usable"]
            else f"Inutilisable : {compiling['reason']}",
        ),
    ]


def _check_gpu(cuda: dict) -> Check:
    no_gpu = not cuda["gpus"] and not cuda["torch_gpus"]
    return Check("GPU", cuda["usable"] or no_gpu, explain_gpu(cuda, FRENCH))


def environment_table(env: dict) -> pd.DataFrame:
    """Show a record of `collect_environment` in short, one row per subject, in French."""
    software, cuda, cpu, system = env["software"], env["cuda"], env["cpu"], env["system"]
    return _table(
        {
            "Python": software["python"],
            "PyTorch / torchvision": _join(software["torch"], software["torchvision"]),
            "CUDA de PyTorch / cuDNN": _join(cuda["torch_cuda"], cuda["cudnn"]),
            "Pilote NVIDIA (CUDA maximale)": _join(cuda["driver"], cuda["driver_cuda"]),
            **_gpu_rows(env["gpu"]),
            "CPU": cpu["model"],
            "Cœurs physiques / logiques / utilisables": _join(
                cpu["physical_cores"], cpu["logical_cores"], cpu["usable_cores"]
            ),
            "Gouverneur de fréquence": cpu["governor"],
            "Système / noyau": _join(system["os"], system["kernel"]),
            "Virtualisation": _virtualisation(system),
            "TF32 par défaut (convolutions / matmul)": _join(
                env["switches"]["tf32_convolutions"], env["switches"]["tf32_matmul"]
            ),
            "Fils d'exécution de PyTorch": cpu["torch_threads"],
            "Commit git": _commit(env["git"]),
        }
    )


def _gpu_rows(gpu: dict | None) -> dict[str, Any]:
    if gpu is None:
        return {"GPU": "non utilisé"}
    sm = _join(gpu["sm_clock_mhz"], gpu["sm_clock_max_mhz"])
    memory = _join(gpu["memory_clock_mhz"], gpu["memory_clock_max_mhz"])
    return {
        "GPU": f"{gpu['name']}, capacité de calcul {gpu['compute_capability']}, "
        f"{_text(_figure(gpu['memory_gib']))} Gio",
        "Horloge SM / maximale (MHz)": sm,
        "Horloge mémoire / maximale (MHz)": memory,
        "Limite de puissance (W) / température (°C)": _join(
            _figure(gpu["power_limit_w"]), gpu["temperature_c"]
        ),
        "ECC / mode persistant": _join(gpu["ecc"], gpu["persistence_mode"]),
    }


def _figure(value: float | None) -> str | None:
    return None if value is None else number(value, 3)


def fixed_conditions(
    env: dict,
    *,
    model: str | None,
    train_epochs: int | None,
    train_images: int | None,
    precision: str,
    batch_size: int,
    input_shape: tuple[int, ...],
    warmup_iters: int,
    measure_iters: int,
    runs: int,
) -> pd.DataFrame:
    """List what was held fixed during the runs, to be shown beside the verdict, in French."""
    gpu, cuda = env["gpu"], env["cuda"]
    on_gpu = {"CUDA": cuda["torch_cuda"], "Pilote": cuda["driver"]} if gpu else {}
    trained = model
    if train_epochs:
        trained = f"{model}, {counted(train_epochs, 'époque')} sur {train_images} images"
    return _table(
        {
            "Appareil": gpu["name"] if gpu else f"CPU {_text(env['cpu']['model'])}",
            "PyTorch": env["software"]["torch"],
            **on_gpu,
            "Modèle": trained,
            "Précision": precision,
            "Taille de lot": batch_size,
            "Forme de l'entrée": "×".join(map(str, input_shape)),
            "Échauffement (itérations)": warmup_iters,
            "Mesure (itérations)": measure_iters,
            "Runs": runs,
        }
    )


def _table(rows: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame({"Valeur": [_text(value) for value in rows.values()]}, index=list(rows))
    return table.rename_axis("Élément")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "oui" if value else "non"
    return NOT_VISIBLE if value is None else str(value)


def _join(*values: Any) -> str:
    seen = any(value is not None for value in values)
    return " / ".join(map(_text, values)) if seen else NOT_VISIBLE


def _virtualisation(system: dict) -> str:
    hints = [
        "machine virtuelle" if system["hypervisor"] else None,
        system["machine"],
        f"conteneur {system['container']}" if system["container"] else None,
    ]
    return ", ".join(filter(None, hints)) or "aucun indice"


def _commit(git: dict) -> str | None:
    if git["commit"] is None:
        return None
    note = {True: " (modifications non validées)", False: "", None: " (état inconnu)"}
    return git["commit"][:12] + note[git["dirty"]]

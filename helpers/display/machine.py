"""The machine in French: the sentences of its checks, and its tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.display.french import counted, number
from helpers.environment import Machine

NOT_VISIBLE = "non visible"
_INSTALL = "installer un PyTorch construit pour CUDA {cuda_major}.x (sélecteur de pytorch.org)"
# By what `environment` says of CUDA, facts["cuda"]["diagnosis"].
GPU_SENTENCES = {
    "usable": "GPU utilisable par PyTorch.",
    "none": "Aucun GPU NVIDIA visible : tout est mesuré sur le CPU. Les latences sont réelles, mais"
    " ce sont celles du CPU.",
    "broken": "Le pilote NVIDIA est défaillant, le réparer : {words}.",
    "rocm_build": "Ce PyTorch est construit pour ROCm {torch_hip} (GPU AMD) : {problem}. Pour un "
    f"GPU NVIDIA, {_INSTALL}.",
    "cpu_build": f"{{gpu}} est visible, mais ce PyTorch est construit sans CUDA : {_INSTALL}.",
    "old_driver": "{gpu} est visible, mais ce PyTorch (CUDA {torch_cuda}) demande un pilote ≥ "
    f"{{needed_driver}}, et celui-ci est {{driver}} : le mettre à jour, ou {_INSTALL}.",
    "hidden": "{gpu} est visible, mais CUDA_VISIBLE_DEVICES={visible_devices!r} le cache à PyTorch "
    ": corriger cette variable, puis redémarrer le noyau.",
    "unusable": "Un GPU est visible, mais PyTorch ne peut pas l'utiliser : {problem}.",
}
_TORCH = "PyTorch {version}, construit pour {built_for}."
_QUOTA = "{threads} fils de PyTorch pour un quota de {quota:2} CPU (cgroup)"
# By code of a check of the machine: what is checked, the sentence if it holds, and if not.
MACHINE_CHECKS = {
    "torch": ("PyTorch ≥ 2.0", _TORCH, _TORCH),
    **{f"gpu_{code}": ("GPU", told, told) for code, told in GPU_SENTENCES.items()},
    "compile": (
        "torch.compile",
        "Une fonction compilée donne le même résultat que sans compilation.",
        "Inutilisable : {reason}.",
    ),
    "code": (
        "Code mesuré",
        "Rien n'indique un autre que celui du carnet.",
        "Un autre que celui du carnet : {other_code}.",
    ),
    "assertions": (
        "Assertions",
        "En vigueur.",
        "Sans effet : retirer PYTHONOPTIMIZE (ou -O) et redémarrer le noyau.",
    ),
    "nvml_package": (
        "NVML",
        "",
        "Lectures absentes ou incomplètes, un ancien `pynvml` cache nvidia-ml-py : {remedy}.",
    ),
    "nvml": ("NVML", "", "Processus, horloges et pilote illisibles : {why}."),
    "mig": ("NVML", "Instance MIG : ce que NVML n'en dit pas est non observable.", ""),
    "mig_parent": ("NVML", "Instance MIG lue comme GPU entier, voisines comprises.", ""),
    "quota": (
        "Quota de CPU",
        f"{_QUOTA}.",
        f"{_QUOTA} : le noyau les suspend par moments. Régler OMP_NUM_THREADS au plus au quota.",
    ),
}
# By code of `Machine.reason`
REASONS = {
    "asked": "{device}, demandé explicitement.",
    "automatic": "{device}, choisi automatiquement.",
    "no_usable_gpu": "CPU. {gpu}",
}
PRECISIONS = {"fp32": "FP32 strict (sans TF32)"}


def reason(machine: Machine) -> str:
    """Say why this device measures."""
    gpu = next(check for check in machine.checks if check.code.startswith("gpu_"))
    sentence = MACHINE_CHECKS[gpu.code][1].format(**gpu.values)
    return REASONS[machine.reason].format(device=machine.device, gpu=sentence)


def environment_table(machine: Machine) -> pd.DataFrame:
    """Show the machine's record in short, one row per subject."""
    facts, gpu = machine.facts, machine.facts["gpu"]
    software, cuda, cpu, system = (facts[name] for name in ("software", "cuda", "cpu", "system"))
    build = f"ROCm {cuda['torch_hip']}" if cuda["torch_hip"] else cuda["torch_cuda"]
    rows = {
        "Python": software["python"],
        "PyTorch / torchvision": (software["torch"], software["torchvision"]),
        "CUDA de PyTorch / cuDNN": (build, cuda["cudnn"]),
        "Pilote NVIDIA (CUDA maximale)": (cuda["driver"], cuda["driver_cuda"]),
        "GPU": "non utilisé",
    }
    if gpu:
        what = f"{gpu['name']}, capacité de calcul {gpu['compute_capability']}"
        rows |= {
            "GPU": f"{what}, {number(gpu['memory_gib'], 3)} Gio",
            "Horloge SM / maximale (MHz)": (gpu["sm_clock_mhz"], gpu["sm_clock_max_mhz"]),
            "Horloge mémoire / maximale (MHz)": (
                gpu["memory_clock_mhz"],
                gpu["memory_clock_max_mhz"],
            ),
            "Limite de puissance (W) / température (°C)": (
                gpu["power_limit_w"],
                gpu["temperature_c"],
            ),
            "ECC / mode persistant": (gpu["ecc"], gpu["persistence_mode"]),
        }
    cores = ("physical_cores", "logical_cores", "usable_cores")
    tf32 = ("tf32_convolutions", "tf32_matmul")
    rows |= {
        "CPU": cpu["model"],
        "Cœurs physiques / logiques / utilisables": tuple(cpu[name] for name in cores),
        "Gouverneur de fréquence": cpu["governor"],
        "Système / noyau": (system["os"], system["kernel"]),
        "Virtualisation": _virtualisation(system),
        "TF32 par défaut (convolutions / matmul)": tuple(facts["switches"][name] for name in tf32),
        "Fils d'exécution de PyTorch": cpu["torch_threads"],
        "Commit git": _commit(facts["git"]),
    }
    if cpu["quota_cpus"]:
        rows["Quota de CPU (cgroup)"] = f"{number(cpu['quota_cpus'], 3)} CPU"
    if facts["variables"]:
        told = (f"{name}={value}" for name, value in facts["variables"].items())
        rows["Variables qui changent la mesure"] = ", ".join(told)
    return _table(rows)


def fixed_conditions(session: Any) -> pd.DataFrame:
    """List what was held fixed during the runs of a session, one that runs or one read back.

    It has the machine's record as `environment`, `parameters`, and one row per run as `rows`.
    """
    facts, given, row = session.environment, session.parameters, session.rows.iloc[0]
    given = given if isinstance(given, Mapping) else vars(given)
    gpu, cuda = facts["gpu"], facts["cuda"]
    model, epochs = given.get("model"), given.get("train_epochs")
    model = model and Path(model).name  # a checkpoint's folder is the machine's affair
    keys = ["variant", "schedule"]  # the runs that the verdict is about are those of the first row
    return _table(
        {
            "Appareil": gpu["name"] if gpu else f"CPU {_text(facts['cpu']['model'])}",
            "PyTorch": facts["software"]["torch"],
            **({"CUDA": cuda["torch_cuda"], "Pilote": cuda["driver"]} if gpu else {}),
            "Modèle": f"{model}, {counted(epochs, 'époque')}" if epochs else model,
            "Précision": PRECISIONS.get(row["precision"], row["precision"]),
            "Taille de lot": row["batch_size"],
            "Forme de l'entrée": row["input_shape"].replace("x", "×"),
            "Échauffement (itérations)": row["warmup_iters"],
            "Mesure (itérations)": row["measure_iters"],
            "Runs": int((session.rows[keys] == row[keys]).all(axis=1).sum()),
        }
    )


def cost_sentence(cost: dict) -> str:
    """Say in short what `environment.cost` found; what it could not see is left out."""
    seen = {"wall_s": "{:.0f} s", "peak_host_mib": "{:.0f} Mio au plus"}
    told = [text.format(cost[name]) for name, text in seen.items() if cost[name] is not None]
    return ", ".join(told) or "coût non visible"


def _table(rows: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame({"Valeur": [_text(value) for value in rows.values()]}, index=list(rows))
    return table.rename_axis("Élément")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " / ".join(map(_text, value)) if set(value) - {None} else NOT_VISIBLE
    if isinstance(value, bool):
        return "oui" if value else "non"
    text = number(value, 3) if isinstance(value, float) else str(value)
    return NOT_VISIBLE if value is None else text


def _virtualisation(system: dict) -> str:
    container = system["container"] and f"conteneur {system['container']}"
    hints = ["machine virtuelle" if system["hypervisor"] else None, system["machine"], container]
    return ", ".join(filter(None, hints)) or "aucun indice"


def _commit(git: dict) -> str | None:
    if git["commit"] is None:
        return git["problem"] and f"{NOT_VISIBLE} : {git['problem']}"
    note = {True: " (modifications non validées)", False: "", None: " (état inconnu)"}
    return git["commit"][:12] + note[git["dirty"]]

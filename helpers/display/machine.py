"""The machine in French: the sentences of its checks, and its tables."""

from pathlib import Path
from typing import Any

import pandas as pd

from helpers.display.french import counted, number
from helpers.environment import Machine

NOT_VISIBLE = "non visible"
_QUOTA = "{threads} fils de PyTorch pour un quota de {quota:2} CPU (cgroup)"
_UNUSABLE = "PyTorch ne peut pas utiliser le GPU (« {seen} »). À vérifier : le pilote, "
_UNUSABLE += "CUDA_VISIBLE_DEVICES, un PyTorch construit pour CUDA (sélecteur de pytorch.org)."
# By code of a check of the machine: what is checked, the sentence if it holds, and if not.
MACHINE_CHECKS = {
    "torch": ("PyTorch ≥ 2.0", "PyTorch {version}.", "PyTorch {version}."),
    "gpu_usable": ("GPU", "GPU utilisable par PyTorch.", ""),
    "gpu_none": ("GPU", "Aucun GPU NVIDIA visible : tout est mesuré sur le CPU.", ""),
    "gpu_unusable": ("GPU", "", _UNUSABLE),
    "compile": ("torch.compile", "Compilé ou non, le résultat est le même.", "Non : « {reason} »."),
    "assertions": ("Assertions", "Actives.", "Sans effet : retirer PYTHONOPTIMIZE (ou -O)."),
    "nvml": ("NVML", "", "Processus, fréquences et pilote illisibles : « {why} »."),
    "mig": ("NVML", "Instance MIG : NVML la lit peut-être comme GPU entier.", ""),
    "quota": ("Quota de CPU", f"{_QUOTA}.", f"{_QUOTA} ; fixer OMP_NUM_THREADS au quota."),
}
CHOSEN = {"asked": "demandé explicitement", "automatic": "choisi automatiquement"}


def reason(machine: Machine) -> str:
    """Say why this device measures."""
    gpu = next(check for check in machine.checks if check.code.startswith("gpu_"))
    told = MACHINE_CHECKS[gpu.code][1 if gpu.ok else 2].format(**gpu.values)
    chosen = CHOSEN.get(machine.reason)
    return f"{machine.device}, {chosen}." if chosen else f"CPU. {told}"


def environment_table(machine: Machine) -> pd.DataFrame:
    """Show the machine's record in short, one row per subject."""
    facts, sections = machine.facts, ("gpu", "software", "cuda", "cpu", "system")
    gpu, software, cuda, cpu, system = (facts[name] for name in sections)
    rows = {
        "Python": software["python"],
        "PyTorch / torchvision": (software["torch"], software["torchvision"]),
        "CUDA de PyTorch / cuDNN": (cuda["torch_cuda"], cuda["cudnn"]),
        "Pilote NVIDIA (CUDA maximale)": (cuda["driver"], cuda["driver_cuda"]),
        "GPU": "non utilisé",
    }
    if gpu:
        pairs = {
            "Fréquence SM / maximale (MHz)": ("sm_clock_mhz", "sm_clock_max_mhz"),
            "Fréquence mémoire / maximale (MHz)": ("memory_clock_mhz", "memory_clock_max_mhz"),
            "Limite de puissance (W) / température (°C)": ("power_limit_w", "temperature_c"),
        }
        what = f"{gpu['name']}, capacité de calcul {gpu['compute_capability']}"
        rows["GPU"] = f"{what}, {number(gpu['memory_gib'], 3)} Gio"
        rows |= {label: tuple(gpu[name] for name in names) for label, names in pairs.items()}
    cores, tf32 = ("physical", "logical", "usable"), ("tf32_convolutions", "tf32_matmul")
    rows |= {
        "CPU": cpu["model"],
        "Cœurs physiques / logiques / utilisables": tuple(cpu[f"{n}_cores"] for n in cores),
        "Gouverneur de fréquence": cpu["governor"],
        "Système / noyau Linux": (system["os"], system["kernel"]),
        "Machine virtuelle": system["hypervisor"],
        "TF32 par défaut (convolutions / matmul)": tuple(facts["switches"][name] for name in tf32),
        "Fils d'exécution de PyTorch": cpu["torch_threads"],
        "Commit git": _commit(facts["git"], facts["unreadable"].get("git.commit")),
    }
    if cpu["quota_cpus"]:
        rows["Quota de CPU (cgroup)"] = f"{number(cpu['quota_cpus'], 3)} CPU"
    if told := ", ".join(f"{name}={value}" for name, value in facts["variables"].items()):
        rows["Variables qui changent la mesure"] = told
    return _table(rows)


def fixed_conditions(session: Any) -> pd.DataFrame:
    """List what was held fixed during a session's runs: `environment`, `parameters` and `rows`."""
    facts, given, row = session.environment, session.parameters, session.rows.iloc[0]
    given, gpu, cuda = getattr(given, "__dict__", given), facts["gpu"], facts["cuda"]
    # A checkpoint's folder is the machine's affair.
    model, epochs = Path(given.get("model") or "").name or None, given.get("train_epochs")
    keys = ["variant", "schedule"]  # the verdict is about the runs like the first
    return _table(
        {
            "Appareil": gpu["name"] if gpu else f"CPU {_text(facts['cpu']['model'])}",
            "PyTorch": facts["software"]["torch"],
            **({"CUDA": cuda["torch_cuda"], "Pilote": cuda["driver"]} if gpu else {}),
            "Modèle": f"{model}, {counted(epochs, 'époque')}" if epochs else model,
            "Précision": row["precision"].replace("fp32", "FP32 strict (sans TF32)"),
            "Taille de lot (batch)": row["batch_size"],
            "Forme de l'entrée": row["input_shape"].replace("x", "×"),
            "Échauffement (passages)": row["warmup_iters"],
            "Mesure (passages)": row["measure_iters"],
            "Runs": int((session.rows[keys] == row[keys]).all(axis=1).sum()),
        }
    )


def cost_sentence(cost: dict) -> str:
    """Say in short what `environment.cost` found; what it could not see is left out."""
    seen = {"session_s": "{:.0f} s depuis l'ouverture de la session"}
    seen |= {"peak_host_mib": "{:.0f} Mio au plus pour le processus du notebook"}
    return ", ".join(t.format(cost[name]) for name, t in seen.items() if cost[name] is not None)


def _table(rows: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame({"Valeur": [_text(value) for value in rows.values()]}, index=list(rows))
    return table.rename_axis("Élément")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " / ".join(map(_text, value)) if set(value) - {None} else NOT_VISIBLE
    if isinstance(value, bool):
        return "oui" if value else "non"
    if value is None:
        return NOT_VISIBLE
    return number(value, 3) if isinstance(value, float) else str(value)


def _commit(git: dict, why: str | None) -> str | None:
    if git["commit"] is None:
        return why and f"{NOT_VISIBLE} : « {why} »"
    note = {True: " (modifications non validées)", False: "", None: " (état inconnu)"}
    return git["commit"][:12] + note[git["dirty"]]

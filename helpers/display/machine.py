"""The machine in French: why its GPU is or is not used, its checks, and its tables."""

from typing import Any

import pandas as pd

from helpers.display.french import counted, number
from helpers.environment.facts import Check

NOT_VISIBLE = "non visible"
_INSTALL = "un PyTorch construit pour CUDA {cuda_major}.x (sélecteur de pytorch.org)"
# By `diagnose_gpu`.
GPU_SENTENCES = {
    "usable": "GPU utilisable par PyTorch.",
    "none": "Aucun GPU NVIDIA visible : tout est mesuré sur le CPU. Les latences sont réelles, "
    "mais ce sont celles du CPU.",
    "broken": "Le pilote NVIDIA est défaillant : {words}. Le réparer (souvent : redémarrer la "
    "machine, ou réinstaller le pilote).",
    "rocm_build": "Ce PyTorch est construit pour ROCm {torch_hip} (GPU AMD), pas pour CUDA : "
    f"{{problem}}. Pour un GPU NVIDIA, installer {_INSTALL}.",
    "cpu_build": "{gpu} est visible, mais ce PyTorch est construit sans CUDA. Installer "
    f"{_INSTALL}.",
    "old_driver": "{gpu} est visible, mais le pilote {driver} est trop ancien pour ce PyTorch "
    "construit pour CUDA {torch_cuda}, qui demande un pilote ≥ {needed_driver}. Mettre à jour le "
    f"pilote, ou installer {_INSTALL}.",
    "hidden": "{gpu} est visible, mais CUDA_VISIBLE_DEVICES={visible_devices!r} le cache à "
    "PyTorch. Retirer ou corriger cette variable, puis redémarrer le noyau.",
    "unusable": "Un GPU est visible, mais PyTorch ne peut pas l'utiliser : {problem}",
}


def explain_gpu(cuda: dict) -> str:
    """Say what `collect_cuda` found to be the matter with the GPU, if anything is."""
    driver_cuda = cuda["driver_cuda"]
    words = [cuda["problem"], cuda["nvml"] and f"NVML : {cuda['nvml']}"]
    return GPU_SENTENCES[cuda["diagnosis"]].format(
        **cuda,
        gpu=cuda["gpus"][0]["name"] if cuda["gpus"] else "GPU",
        cuda_major=driver_cuda.split(".")[0] if driver_cuda else 13,
        words=" ; ".join(filter(None, words)),
    )


def check_environment(env: dict) -> list[Check]:
    """Judge a record of `collect_environment`.

    `ok` is False where something that should work does not. A machine without a GPU is no fault:
    its check is True and the detail is the banner that says so.
    """
    version, cuda, cpu = env["software"]["torch"], env["cuda"], env["cpu"]
    builds = {"ROCm": cuda["torch_hip"], "CUDA": cuda["torch_cuda"]}
    built_for = [f"{name} {build}" for name, build in builds.items() if build] or ["le CPU seul"]
    compiling, other_code = env["compile"], env["other_code"]
    optimize, diagnosis = env["software"]["optimize"], cuda["diagnosis"]
    threads, quota = cpu["torch_threads"], cpu["quota_cpus"]
    checks = [
        Check(
            "PyTorch ≥ 2.0",
            int(version.split(".")[0]) >= 2,
            f"PyTorch {version}, construit pour {built_for[0]}.",
        ),
        Check("GPU", diagnosis in ("usable", "none"), explain_gpu(cuda)),
        Check(
            "torch.compile",
            compiling["usable"],
            "Une fonction compilée donne le même résultat que sans compilation."
            if compiling["usable"]
            else f"Inutilisable : {compiling['reason']}",
        ),
        Check(
            "Code mesuré",
            other_code is None,
            f"Un autre que celui du carnet : {other_code}."
            if other_code
            else "Rien n'indique un autre que celui du carnet.",
        ),
        Check(
            "Assertions",
            not optimize,
            "Sans effet : retirer PYTHONOPTIMIZE (ou -O) et redémarrer le noyau."
            if optimize
            else "En vigueur.",
        ),
    ]
    if unread := _unread_nvml(cuda, env["gpu"]):
        checks.append(unread)
    if quota:
        said = f"{threads} fils de PyTorch pour un quota de {number(quota, 3)} CPU (cgroup)"
        advice = " : le noyau les suspend par moments. Régler OMP_NUM_THREADS au plus au quota."
        checks.append(Check("Quota de CPU", threads <= quota, said + advice * (threads > quota)))
    return checks


def _unread_nvml(cuda: dict, gpu: dict | None) -> Check | None:
    """What NVML does not tell, or tells of more than the measured device; None: nothing to say."""
    if remedy := cuda["nvml_remedy"]:
        why = cuda["nvml"] or "un ancien paquet `pynvml` cache nvidia-ml-py"
        return Check("NVML", False, f"Lectures absentes ou incomplètes : {why}. Taper {remedy}.")
    if cuda["nvml"] and (cuda["torch_gpus"] or "LibraryNotFound" not in cuda["nvml"]):
        return Check("NVML", False, f"Processus, horloges et pilote illisibles : {cuda['nvml']}.")
    scopes = {
        "MIG instance": "Lue comme instance MIG : ce que NVML n'en dit pas est non observable.",
        "parent GPU of a MIG instance": "Instance MIG lue comme GPU entier, voisines comprises.",
    }
    scope = gpu and gpu["nvml_reads"]
    return Check("NVML", True, scopes[scope]) if scope else None


def environment_table(env: dict) -> pd.DataFrame:
    """Show a record of `collect_environment` in short, one row per subject, in French."""
    software, cuda, cpu, system = env["software"], env["cuda"], env["cpu"], env["system"]
    return _table(
        {
            "Python": software["python"],
            "PyTorch / torchvision": _join(software["torch"], software["torchvision"]),
            "CUDA de PyTorch / cuDNN": _join(_build(cuda), cuda["cudnn"]),
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
            **_limits(env),
            "Commit git": _commit(env["git"]),
        }
    )


def _build(cuda: dict) -> str | None:
    return f"ROCm {cuda['torch_hip']}" if cuda["torch_hip"] else cuda["torch_cuda"]


def _limits(env: dict) -> dict[str, Any]:
    """What the process's surroundings impose, where they do."""
    quota, variables = env["cpu"]["quota_cpus"], env["variables"]
    rows = {"Quota de CPU (cgroup)": quota and f"{number(quota, 3)} CPU"}
    rows["Variables qui changent la mesure"] = ", ".join(
        f"{name}={value}" for name, value in variables.items()
    )
    return {name: text for name, text in rows.items() if text}


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


def cost_sentence(cost: dict) -> str:
    """Say in short what `session_cost` found; what it could not see is left out."""
    seen = {"wall_s": "{:.0f} s", "peak_host_mib": "{:.0f} Mio au plus"}
    told = [text.format(cost[name]) for name, text in seen.items() if cost[name] is not None]
    return ", ".join(told) or "coût non visible"


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
        return git["problem"] and f"{NOT_VISIBLE} : {git['problem']}"
    note = {True: " (modifications non validées)", False: "", None: " (état inconnu)"}
    return git["commit"][:12] + note[git["dirty"]]

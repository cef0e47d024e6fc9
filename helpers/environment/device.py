"""Which device measures, and what to do about a GPU that is there but cannot be used."""

from dataclasses import dataclass

import torch

from helpers.environment.gpu import collect_cuda

# Oldest Linux driver on which anything built for a CUDA major version runs. Sources: NVIDIA's "CUDA
# Compatibility" guide, minor version compatibility, and the CUDA Toolkit release notes.
MINIMUM_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}

# What the notebook's reader sees.
FRENCH = {
    "usable": "GPU utilisable par PyTorch.",
    "none": "Aucun GPU NVIDIA visible : tout est mesuré sur le CPU. Les latences sont réelles, "
    "mais ce sont celles du CPU.",
    "cpu_build": "{gpu} est visible, mais ce PyTorch est construit sans CUDA. Installer un PyTorch "
    "construit pour CUDA {driver_major}.x (sélecteur d'installation de pytorch.org).",
    "old_driver": "{gpu} est visible, mais le pilote {driver} est trop ancien pour ce PyTorch "
    "construit pour CUDA {torch_cuda}, qui demande un pilote ≥ {needed}. Mettre à jour le pilote, "
    "ou installer un PyTorch construit pour CUDA {driver_major}.x (sélecteur d'installation de "
    "pytorch.org).",
    "hidden": "{gpu} est visible, mais CUDA_VISIBLE_DEVICES={visible!r} le cache à PyTorch. "
    "Retirer ou corriger cette variable, puis redémarrer le noyau.",
    "unusable": "Un GPU est visible, mais PyTorch ne peut pas l'utiliser : {problem}",
}

# The same for error messages.
ENGLISH = {
    "none": "no NVIDIA GPU is visible (no driver, or no GPU given to this container). "
    "Use device='cpu' or 'auto'.",
    "cpu_build": "{gpu} is visible, but this PyTorch is built without CUDA. Install a PyTorch "
    "built for CUDA {driver_major}.x (installation selector of pytorch.org).",
    "old_driver": "{gpu} is visible, but driver {driver} is too old for this PyTorch built for "
    "CUDA {torch_cuda}, which needs a driver >= {needed}. Update the driver, or install a PyTorch "
    "built for CUDA {driver_major}.x (installation selector of pytorch.org).",
    "hidden": "{gpu} is visible, but CUDA_VISIBLE_DEVICES={visible!r} hides it from PyTorch. "
    "Remove or correct that variable and restart the kernel.",
    "unusable": "{problem}. Use another GPU, device='cpu' or 'auto'.",
}


class DeviceError(RuntimeError):
    """The device that was asked for cannot be had."""


@dataclass(frozen=True)
class DeviceChoice:
    """The device that measures, why (French), and what was seen of CUDA while choosing."""

    device: torch.device
    reason: str
    cuda: dict


def choose_device(requested: str) -> DeviceChoice:
    """Choose the device that measures.

    Parameters
    ----------
    requested
        ``"auto"`` (the current GPU if PyTorch can run a kernel on it, else the CPU), ``"cpu"``,
        ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    DeviceError
        A GPU was asked for explicitly and cannot be had; the message says why and what to do.
        There is no silent fall-back to another device.
    """
    if requested == "cpu":
        return DeviceChoice(torch.device("cpu"), "CPU, demandé explicitement.", collect_cuda())
    wanted = torch.device("cuda" if requested == "auto" else requested)
    if wanted.type != "cuda":
        raise DeviceError(f"device={requested!r}: only the CPU and CUDA GPUs are measured here")
    cuda = collect_cuda(wanted)
    if cuda["usable"]:
        if wanted.index is None:
            wanted = torch.device("cuda", torch.cuda.current_device())
        why = "choisi automatiquement" if requested == "auto" else "demandé explicitement"
        return DeviceChoice(
            wanted, f"{wanted} ({torch.cuda.get_device_name(wanted)}), {why}.", cuda
        )
    if requested == "auto":
        return DeviceChoice(torch.device("cpu"), f"CPU. {explain_gpu(cuda, FRENCH)}", cuda)
    raise DeviceError(f"device={requested!r} cannot be had: {explain_gpu(cuda, ENGLISH)}")


def diagnose_gpu(cuda: dict) -> str:
    """Name why PyTorch cannot use a GPU, from the facts of `collect_cuda` alone.

    Returns
    -------
    str
        "usable", "none" (no GPU at all), "cpu_build", "old_driver", "hidden" (by
        CUDA_VISIBLE_DEVICES) or "unusable" (anything else; the facts' `problem` says what).
    """
    if cuda["usable"]:
        return "usable"
    if not cuda["gpus"] and not cuda["torch_gpus"]:
        return "none"
    if cuda["torch_cuda"] is None:
        return "cpu_build"
    needed = needed_driver(cuda["torch_cuda"])
    if needed and cuda["driver"] and _version(cuda["driver"]) < _version(needed):
        return "old_driver"
    if cuda["visible_devices"] is not None and not cuda["torch_gpus"]:
        return "hidden"
    return "unusable"


def explain_gpu(cuda: dict, language: dict[str, str]) -> str:
    """Write the diagnosis of `diagnose_gpu` as a sentence, FRENCH or ENGLISH."""
    driver_cuda = cuda["driver_cuda"]
    return language[diagnose_gpu(cuda)].format(
        gpu=cuda["gpus"][0]["name"] if cuda["gpus"] else "GPU",
        driver=cuda["driver"],
        torch_cuda=cuda["torch_cuda"],
        needed=needed_driver(cuda["torch_cuda"]),
        driver_major=driver_cuda.split(".")[0] if driver_cuda else max(MINIMUM_DRIVER),
        visible=cuda["visible_devices"],
        problem=cuda["problem"],
    )


def needed_driver(torch_cuda: str | None) -> str | None:
    """Return the oldest driver for the CUDA version of this PyTorch ("13.0"), if it is known."""
    return MINIMUM_DRIVER.get(int(torch_cuda.split(".")[0])) if torch_cuda else None


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())

"""Which device measures."""

from dataclasses import dataclass

import torch

from helpers.display.machine import explain_gpu
from helpers.environment.gpu import collect_cuda


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
        A GPU was asked for explicitly and cannot be had; the message quotes the facts.
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
        return DeviceChoice(torch.device("cpu"), f"CPU. {explain_gpu(cuda)}", cuda)
    told = {
        "torch": cuda["problem"],
        "NVML": cuda["nvml"],
        "driver": cuda["driver"],
        "torch.version.cuda": cuda["torch_cuda"],
        "torch.version.hip": cuda["torch_hip"],
        "CUDA_VISIBLE_DEVICES": cuda["visible_devices"],
    }
    facts = "; ".join(f"{name}: {text}" for name, text in told.items() if text is not None)
    raise DeviceError(f"device={requested!r} cannot be had; use 'cpu' or 'auto' ({facts})")

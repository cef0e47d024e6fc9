"""Which variants a session compares, and which of them this machine cannot run."""

import torch
from torch import nn

from helpers.annex.variants import PARTS, Variant, VariantError, parse
from helpers.environment.compile import check_compile_once

FASTEST = "fp16+cropped+stem+epilogue+overlap+channels_last+cudagraph_tuned"
ALL = (
    "fp32",
    "tf32",
    "fp16",
    "bf16",
    "channels_last",
    "tf32+channels_last",
    "fp16+channels_last",
    "bf16+channels_last",
    "fused",
    "cudagraph",
    "tf32+channels_last+cudagraph",
    "fp16+channels_last+cudagraph",
    "compile",
    "fp16+compile_reduce_overhead",
    "compile_frozen",
    "tf32+compile_frozen+cudagraph",
    "fp16+compile_frozen+cudagraph",
    "bf16+compile_frozen+cudagraph",
    "fp16+cropped+epilogue+channels_last+cudagraph_tuned",
    FASTEST,
)
ALL_SLOW = (*ALL, "tf32+compile_max_autotune", "fp16+compile_max_autotune")  # minutes each

GROUPS = {"all": ALL, "all_slow": ALL_SLOW}


def split_names(text: str) -> list[str]:
    """The names in a comma-separated text, groups replaced by their members; not yet parsed."""
    return [name for item in text.split(",") for name in GROUPS.get(item.strip(), (item.strip(),))]


def select(
    text: str, device: torch.device | str, model: nn.Module | None = None
) -> tuple[list[Variant], dict[str, str]]:
    """Choose the variants of a session from a comma-separated text.

    Parameters
    ----------
    text
        Names; "all" stands for `ALL` (everything but max-autotune), "all_slow" for `ALL_SLOW`.
    model
        Where given, variants that would change nothing in it are skipped.

    Returns
    -------
    tuple
        The variants, each once, "fp32" (the reference) always first; and name -> French reason for
        those that cannot run here.

    Raises
    ------
    VariantError
        See `parse`.
    """
    names = split_names(text)
    wanted = dict.fromkeys(parse(name) for name in ("fp32", *names))
    reasons = {v: _problem(v, torch.device(device), model) for v in wanted}
    skipped = {v.name: reason for v, reason in reasons.items() if reason}
    return [v for v in wanted if v.name not in skipped], skipped


def _problem(variant: Variant, device: torch.device, model: nn.Module | None) -> str:
    """Say in French why a variant cannot run here, "" if it can as far as is known."""
    parts = (variant.precision, *variant.parts)
    if device.type != "cuda" and (missing := [p for p in parts if PARTS[p].needs == "cuda"]):
        return f"{missing[0]} demande un GPU NVIDIA"
    if device.type == "cuda" and variant.precision in ("tf32", "bf16"):
        major, minor = torch.cuda.get_device_capability(device)
        if major < 8:
            return (
                f"{variant.precision} demande la capacité de calcul 8.0, ce GPU a {major}.{minor}"
            )
    if "fused" in parts and model is not None and not _has_batch_norm(model):
        return "le modèle n'a aucune BatchNorm à replier"
    if any(PARTS[p].kind == "compiler" for p in parts):
        check = check_compile_once(device)
        if not check.usable:
            return f"torch.compile ne fonctionne pas ici : {check.reason}"
    return ""


def _has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


def variants_problem(text: str) -> str | None:
    """Say what is wrong with the parameter `variants`, or return None."""
    try:
        for name in split_names(text):
            parse(name)
    except VariantError as error:
        return str(error)
    return None

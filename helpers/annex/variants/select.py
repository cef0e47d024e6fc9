"""Which variants a session compares, and which of them this machine cannot run."""

import torch

from helpers.annex.variants import PARTS, Refusal, Variant, VariantError, parse
from helpers.environment.compile import compile_problem

FASTEST = "fp16+cropped+stem+epilogue+overlap+channels_last+cudagraph_tuned"
ALL = (
    *("fp32", "tf32", "fp16", "bf16"),
    *("channels_last", "tf32+channels_last", "fp16+channels_last", "bf16+channels_last", "fused"),
    *("cudagraph", "tf32+channels_last+cudagraph", "fp16+channels_last+cudagraph"),
    *("compile", "fp16+compile_reduce_overhead", "compile_frozen", "tf32+compile_frozen+cudagraph"),
    *("fp16+compile_frozen+cudagraph", "bf16+compile_frozen+cudagraph"),
    *("fp16+cropped+epilogue+channels_last+cudagraph_tuned", FASTEST),
)
SLOW = ("tf32+compile_max_autotune", "fp16+compile_max_autotune")  # minutes each
GROUPS = {"all": ALL, "all_slow": (*ALL, *SLOW)}


def select(text: str, device: torch.device) -> tuple[list[Variant], dict[str, Refusal]]:
    """Choose a session's variants from comma-separated names and `GROUPS`; fp32 is the first.

    Returns those that can run here and, by name, why others cannot. VariantError as `parse` does.
    """
    wanted = list(dict.fromkeys([parse("fp32"), *_parsed(text)]))
    skipped = {v.name: found for v in wanted if (found := _refusal(v, device))}
    return [v for v in wanted if v.name not in skipped], skipped


def variants_problem(text: str) -> str | None:
    """Say what is wrong with the parameter `variants`, or return None."""
    try:
        _parsed(text)
    except VariantError as error:
        return str(error)
    return None


def _parsed(text: str) -> list[Variant]:
    items = (item.strip() for item in text.split(","))
    return [parse(name) for item in items for name in GROUPS.get(item, (item,))]


def _refusal(variant: Variant, device: torch.device) -> Refusal | None:
    parts = (variant.precision, *variant.parts)
    if device.type != "cuda" and (missing := [p for p in parts if PARTS[p].needs == "cuda"]):
        return "needs_gpu", {"part": missing[0]}
    if any(PARTS[p].kind == "compiler" for p in parts):
        reason = compile_problem(device)
        return ("no_compiler", {"reason": reason}) if reason else None
    return None

"""What counts as interference: one rule per code, each with its threshold and the reason for it.

The thresholds follow from what they protect, not from trials. The criterion is a p95 that moves by
at most 10 %. Half of that, 5 %, is the most that one known cause may contribute unnoticed; and a
p95 moves once 5 % of the samples are touched, whatever happens to each of them.
"""

import numpy as np

from helpers.display.french import number, percent
from helpers.validation.interference.evidence import Evidence, Found, Rule, foreign_shares

TOUCHED = 0.05  # share of samples, or of time, beyond which a p95 moves
SLOWER = 0.05  # half of the 10 % criterion; the GPU clock repeats to 0.1 %, NVML's steps are 1 %
BUSY_CPUS = 0.5  # beyond half of the logical CPUs, two of them share a physical core (SMT)
PREEMPTIONS = 5  # a block has 100 samples of each clock: 5 % of them
# A sample of the GPU clock is dispersed when it exceeds its block's lower quartile by 10 %, five
# times what the largest of a clean run does (1.02), and by more than the clock's own 0.004 ms.
DISPERSED, DISPERSED_MS = 1.10, 0.02
STEAL_TICKS_S = 0.03  # the kernel counts stolen time in ticks of 0.01 s: fewer than 3 say nothing

# NVML's clock-event reasons that slow work down. Left out: an idle GPU, clocks set by the user or
# by an application, sync boost and the display's clock are states, not disturbances.
POWER_CAP = 0x04  # SwPowerCap
HARMFUL_REASONS = {
    POWER_CAP: "limite de puissance",
    0x08: "ralentissement matériel",  # HwSlowdown
    0x20: "ralentissement thermique logiciel",  # SwThermalSlowdown
    0x40: "ralentissement thermique matériel",  # HwThermalSlowdown
    0x80: "freinage par l'alimentation",  # HwPowerBrakeSlowdown
}


def foreign_gpu_process(e: Evidence) -> Found:
    gpu = e.after.gpu
    # We are on the GPU: a list without anyone, or shares that never come, hide others as well.
    if gpu is None or gpu.shares is None or not gpu.processes or not e.sampled:
        return None
    shares = foreign_shares(gpu, e.own, e.listed)
    total = min(1.0, sum(shares.values()))
    if e.own & e.listed:
        who = ", ".join(str(pid) for pid in sorted(shares))
        return total, f"processus étranger {who}, {percent(total)} des SM"
    return total, f"processus étranger (PID masqués), au moins {percent(total)} des SM"


def gpu_disturbed(e: Evidence) -> Found:
    if e.gpu_ms is None or not e.gpu_ms.size:
        return None
    level = float(np.quantile(e.gpu_ms, 0.25))
    touched = float(np.mean(e.gpu_ms > max(level * DISPERSED, level + DISPERSED_MS)))
    return touched, (
        f"GPU occupé par autre chose : {percent(touched)} des échantillons de l'horloge GPU "
        f"dépassent leur niveau de plus de 10 % (jusqu'à {number(e.gpu_ms.max())} ms)"
    )


def gpu_shift(e: Evidence) -> Found:
    if e.gpu_ms is None or not e.gpu_ms.size or not e.levels.gpu_block_ms:
        return None
    slower = float(np.median(e.gpu_ms)) / e.levels.gpu_block_ms - 1
    return slower, f"bloc plus lent de {percent(slower)} que le plus rapide, sur l'horloge GPU"


def gpu_clock_drop(e: Evidence) -> Found:
    gpu = e.after.gpu
    if gpu is None or not gpu.sm_mhz or not e.levels.sm_mhz:
        return None
    sm = 1 - gpu.sm_mhz / e.levels.sm_mhz
    memory = 1 - gpu.memory_mhz / e.levels.memory_mhz if gpu.memory_mhz else 0.0
    if memory > sm:
        return memory, f"horloge mémoire à {gpu.memory_mhz} MHz au lieu de {e.levels.memory_mhz}"
    return sm, f"horloge SM à {gpu.sm_mhz} MHz au lieu de {e.levels.sm_mhz} (−{percent(sm)})"


def throttle(e: Evidence) -> Found:
    power, thermal = e.rise("power_limited_s", "gpu"), e.rise("thermal_limited_s", "gpu")
    reasons = getattr(e.after.gpu, "reasons", None)
    if reasons is None and power is None and thermal is None:
        return None
    if e.steady_power_cap:  # a condition of the whole run, which is said once
        reasons, power = reasons & ~POWER_CAP, None
    names = [name for bit, name in HARMFUL_REASONS.items() if (reasons or 0) & bit]
    why = ", ".join(names) or "limite de puissance ou de température"
    share = min(1.0, max(0.0, ((power or 0.0) + (thermal or 0.0)) / e.wall_s))
    return max(share, float(bool(names))), f"horloge GPU bridée ({why}), {percent(share)} du temps"


def cpu_load(e: Evidence) -> Found:
    busy = e.rise("busy_s")
    if busy is None or busy <= 0:  # we were computing: a sandbox that says nothing of its CPUs
        return None
    load = min(1.0, max(0.0, (busy - e.rise("own_s")) / (e.cpus * e.wall_s)))
    return load, f"CPU occupé par d'autres : {percent(load)} des {e.cpus} cœurs logiques"


def steal(e: Evidence) -> Found:
    before, after = e.before.host, e.after.host
    if before.steal_s is None or after.steal_s is None:
        return None
    # The measuring thread was on one of these cores; what other cores lost has not delayed it.
    cores = {before.core, after.core}
    if not cores <= before.steal_s.keys() & after.steal_s.keys():  # not listed, or not known
        return None
    stolen = max(after.steal_s[core] - before.steal_s[core] for core in cores)
    share = stolen / e.wall_s if stolen >= STEAL_TICKS_S else 0.0
    return share, f"temps du cœur volé par l'hyperviseur : {percent(share)}"


def preempted(e: Evidence) -> Found:
    if (times := e.rise("preemptions")) is None:
        return None
    lost = max(0.0, 1 - e.rise("thread_s") / e.wall_s) if times >= PREEMPTIONS else 0.0
    return lost, f"processus interrompu {times} fois, {percent(lost)} du temps hors du CPU"


SAMPLES, CLOCKS = "échantillons de l'horloge GPU", "horloges du GPU"
GPU_RULES = {
    "foreign_gpu_process": Rule(
        TOUCHED, "processus étranger", "processus du GPU", foreign_gpu_process
    ),
    "gpu_clock_drop": Rule(SLOWER, "horloge GPU abaissée", CLOCKS, gpu_clock_drop),
    "throttle": Rule(TOUCHED, "GPU bridé", "bridage du GPU", throttle),
    "gpu_disturbed": Rule(TOUCHED, "GPU perturbé", SAMPLES, gpu_disturbed),
    "gpu_shift": Rule(SLOWER, "bloc GPU plus lent", SAMPLES, gpu_shift),
}
HOST_RULES = {
    "cpu_load": Rule(BUSY_CPUS, "CPU occupé", "charge du CPU", cpu_load),
    "steal": Rule(TOUCHED, "CPU volé", "temps volé par l'hyperviseur", steal),
    "preempted": Rule(TOUCHED, "processus interrompu", "interruptions du processus", preempted),
}
TAG_LABELS = {code: rule.label for code, rule in (GPU_RULES | HOST_RULES).items()}
HOST_ONLY = frozenset(HOST_RULES)  # nothing there slows the GPU clock, behind its full queue

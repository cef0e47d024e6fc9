"""What counts as interference: one rule per code, each with its threshold and the reason for it.

The thresholds follow from what they protect, not from trials. The criterion is a p95 that moves by
at most 10 %. Half of that, 5 %, is the most that one known cause may contribute unnoticed; and a
p95 moves once 5 % of the samples are touched, whatever happens to each of them.
"""

import numpy as np

from helpers.clocks.warmup import WARMUP_WINDOW
from helpers.display.french import number, percent
from helpers.environment.readings import HARMFUL_REASONS
from helpers.validation.interference.evidence import Evidence, Found, Rule, foreign_shares

TOUCHED = 0.05  # share of samples, or of time, beyond which a p95 moves
SLOWER = 0.05  # half of the 10 % criterion; the GPU clock repeats to 0.1 %, NVML's steps are 1 %
CPU_SLOWER = 0.10  # a core's own clock wanders by a few percent; the host clock's criterion is 10 %
BUSY_CPUS = 0.5  # beyond half of the logical CPUs, two of them share a physical core (SMT)
NEAR_SLOWDOWN = 0.95  # of the temperature at which the GPU slows itself down: a few °C below
PREEMPTIONS = 5  # a block has 100 samples of each clock: 5 % of them
MAJOR_FAULTS = 5  # likewise
ONE = 1  # what never happens in an undisturbed measurement: GC is off, memory is already cached
# A sample of the GPU clock is dispersed when it exceeds its block's lower quartile by 10 %, five
# times what the largest of a clean run does (1.02), and by more than the clock's own 0.004 ms.
DISPERSED, DISPERSED_MS = 1.10, 0.02
STEAL_TICKS_S = 0.03  # the kernel counts stolen time in ticks of 0.01 s: fewer than 3 say nothing

# How the reader's tables and figures call what a rule found.
TAG_LABELS = {
    "foreign_gpu_process": "processus étranger",
    "gpu_clock_drop": "horloge GPU abaissée",
    "throttle": "GPU bridé",
    "hot": "GPU trop chaud",
    "ecc": "erreurs ECC",
    "cold_gpu": "GPU froid au départ",
    "gpu_disturbed": "GPU perturbé",
    "gpu_shift": "bloc GPU plus lent",
    "allocator_retry": "mémoire GPU saturée",
    "warmup_short": "échauffement court",
    "cpu_load": "CPU occupé",
    "steal": "CPU volé",
    "cpu_clock": "CPU ralenti",
    "gc": "ramasse-miettes",
    "preempted": "processus interrompu",
    "page_faults": "défauts de page",
}

# Nothing on the host slows the GPU clock, which runs behind a full queue.
HOST_ONLY = frozenset({"cpu_load", "steal", "cpu_clock", "gc", "preempted", "page_faults"})


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
    before, after = e.before.gpu, e.after.gpu
    if before is None or after is None or (after.reasons is None and after.limited_s is None):
        return None
    names = [name for bit, name in HARMFUL_REASONS.items() if (after.reasons or 0) & bit]
    why = ", ".join(names) or "limite de puissance ou de température"
    if before.limited_s is None or after.limited_s is None:
        return float(bool(names)), f"horloge GPU bridée ({why})"
    share = min(1.0, max(0.0, (after.limited_s - before.limited_s) / e.wall_s))
    return max(share, float(bool(names))), f"horloge GPU bridée ({why}), {percent(share)} du temps"


def hot(e: Evidence) -> Found:
    gpu = e.after.gpu
    if gpu is None or gpu.temperature_c is None or not gpu.slowdown_c:
        return None
    return gpu.temperature_c / gpu.slowdown_c, (
        f"GPU à {gpu.temperature_c} °C, ralentissement à {gpu.slowdown_c} °C"
    )


def ecc(e: Evidence) -> Found:
    before, after = e.before.gpu, e.after.gpu
    if before is None or after is None or before.ecc_errors is None or after.ecc_errors is None:
        return None
    errors = after.ecc_errors - before.ecc_errors
    return errors, f"erreurs de mémoire ECC : {errors}"


def cold_gpu(e: Evidence) -> Found:
    gpu = e.before.gpu
    if gpu is None or not gpu.sm_mhz or not e.levels.sm_mhz:
        return None
    missing = 1 - gpu.sm_mhz / e.levels.sm_mhz if e.first else 0.0
    return missing, f"GPU au repos au départ : SM à {gpu.sm_mhz} MHz, puis {e.levels.sm_mhz}"


def warmup_short(e: Evidence) -> Found:
    if e.warmup_used is None:
        return None
    # Two windows must agree for a warm-up to be steady; an unsteady one is the run's own flag.
    short = e.first and e.warmup_used < 2 * WARMUP_WINDOW
    return float(short), f"chauffe de {e.warmup_used} itérations seulement"


def allocator_retry(e: Evidence) -> Found:
    retries = e.rise("allocator_retries")
    return retries, f"mémoire du GPU saturée : {retries} nouvelles tentatives d'allocation"


def cpu_load(e: Evidence) -> Found:
    busy = e.rise("busy_s")
    if busy <= 0:  # we were computing: a sandbox that says nothing of its CPUs
        return None
    load = min(1.0, max(0.0, (busy - e.rise("own_s")) / (e.cpus * e.wall_s)))
    return load, f"CPU occupé par d'autres : {percent(load)} des {e.cpus} cœurs logiques"


def steal(e: Evidence) -> Found:
    before, after = e.before.host, e.after.host
    cores = {before.core, after.core}
    if before.steal_s is None or after.steal_s is None or None in cores:
        return None
    # The measuring thread was on one of these cores; what other cores lost has not delayed it.
    stolen = max(after.steal_s[core] - before.steal_s[core] for core in cores)
    share = stolen / e.wall_s if stolen >= STEAL_TICKS_S else 0.0
    return share, f"temps du cœur volé par l'hyperviseur : {percent(share)}"


def cpu_clock(e: Evidence) -> Found:
    mhz = e.after.host.cpu_mhz
    if mhz is None or not e.levels.cpu_mhz:
        return None
    lost = 1 - mhz / e.levels.cpu_mhz
    return lost, f"cœur à {mhz:.0f} MHz au lieu de {e.levels.cpu_mhz:.0f} (−{percent(lost)})"


def gc_runs(e: Evidence) -> Found:
    runs = e.rise("gc_runs")
    return runs, f"ramasse-miettes de Python lancé {runs} fois"


def preempted(e: Evidence) -> Found:
    times = e.rise("preemptions")
    lost = max(0.0, 1 - e.rise("thread_s") / e.wall_s) if times >= PREEMPTIONS else 0.0
    return lost, f"processus interrompu {times} fois, {percent(lost)} du temps hors du CPU"


def page_faults(e: Evidence) -> Found:
    faults = e.rise("major_faults")
    return faults, f"pages lues sur le disque : {faults}"


GPU_RULES = {
    "foreign_gpu_process": Rule(TOUCHED, "processus du GPU", foreign_gpu_process),
    "gpu_clock_drop": Rule(SLOWER, "horloges du GPU", gpu_clock_drop),
    "throttle": Rule(TOUCHED, "bridage du GPU", throttle),
    "hot": Rule(NEAR_SLOWDOWN, "température du GPU", hot),
    "ecc": Rule(ONE, "erreurs ECC", ecc),
    "cold_gpu": Rule(SLOWER, "horloges du GPU", cold_gpu),
    "gpu_disturbed": Rule(TOUCHED, "échantillons de l'horloge GPU", gpu_disturbed),
    "gpu_shift": Rule(SLOWER, "échantillons de l'horloge GPU", gpu_shift),
    "allocator_retry": Rule(ONE, "allocateur du GPU", allocator_retry),
}
HOST_RULES = {
    "warmup_short": Rule(ONE, "chauffe", warmup_short),
    "cpu_load": Rule(BUSY_CPUS, "charge du CPU", cpu_load),
    "steal": Rule(TOUCHED, "temps volé par l'hyperviseur", steal),
    "cpu_clock": Rule(CPU_SLOWER, "fréquence du cœur", cpu_clock),
    "gc": Rule(ONE, "ramasse-miettes", gc_runs),
    "preempted": Rule(TOUCHED, "interruptions du processus", preempted),
    "page_faults": Rule(MAJOR_FAULTS, "défauts de page", page_faults),
}

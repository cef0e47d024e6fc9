"""What README.md, README_PROTOCOLE.md and benchmarks/*/README.md quote from the evidence.

    python -m benchmarks.quoted     # writes it anew between <!-- evidence: NAME --> and its end

Every number measured on a GPU that these documents show stands between such marks, and is read here
from its file: tests/benchmarks/test_quoted.py compares them.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common import load, share
from benchmarks.comparison import agree
from benchmarks.host_clock import factorial
from benchmarks.pauses import measure
from benchmarks.repeatability import coverage
from helpers.display import words
from helpers.display.french import number, percent
from helpers.stats import replicate_interval, spread

ROOT = Path(__file__).resolve().parents[1]
HERE, SESSION = ROOT / "benchmarks", ROOT / "results" / "reference_h100"
DOCUMENTS = [ROOT / "README.md", ROOT / "README_PROTOCOLE.md", *sorted(HERE.glob("*/README.md"))]
MARKED = re.compile(r"(<!-- evidence: (\w+) -->\n)(.*?)(<!-- /evidence -->)", re.DOTALL)
NAMES = {"gpu": "GPU", "host": "hôte", "graph": "GPU, graphe CUDA"}
GPU_TAGS = "foreign_gpu_process gpu_disturbed"
FAULTS = {  # kind: French, and the tags that detect it
    "gpu_full": ("processus GPU à pleine charge", GPU_TAGS),
    "gpu_bursts": ("rafales GPU, 20 % du temps", GPU_TAGS),
    "gpu_copies": ("copies en mémoire GPU", GPU_TAGS),
    "gpu_power": ("voisin gourmand en puissance", f"{GPU_TAGS} gpu_clock_drop throttle"),
    "cpu_all_cores": ("un processus CPU par cœur", "cpu_load"),
    "cpu_same_core": ("un processus CPU sur le cœur de la mesure", "preempted cpu_load"),
}
TAGS = {"steal", "gpu_shift"}.union(*(codes.split() for _, codes in FAULTS.values()))  # today's
SHOWN_VARIANTS = ("fp32", "cudagraph", "tf32")


def files(pattern: str) -> list[Path]:
    """Files of the evidence, at least one."""
    if not (found := sorted(HERE.glob(pattern))):
        raise FileNotFoundError(pattern)
    return found


def table(header: list[str], rows: list) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def english(text: str) -> str:
    """« 1,285 ms » → "1.285 ms"."""
    return re.sub(r"(?<=\d),(?=\d)", ".", text)


# The accepted session


def label() -> str:
    """README.md's lines about the accepted session."""
    rows = pd.read_csv(SESSION / "results.csv")
    middle = rows.sort_values("gpu_p95").iloc[len(rows) // 2]
    host = rows.sort_values("host_p95").iloc[len(rows) // 2]
    low, high = load(SESSION / "verdict.json")["clocks"]["gpu"]["further"]
    interval = f"measured again, the session would give {number(low)} – {number(high)} ms"
    text = (
        f"> **{middle.gpu_name}**, PyTorch {middle.torch_version}, ResNet-18, strict FP32, batch "
        f"{middle.batch_size}, {len(rows)} runs of {middle.measure_iters} forwards per clock.\n"
        f"> **GPU clock**, median run: mean {number(middle.gpu_mean)} ms, p95 "
        f"{number(middle.gpu_p95)} ms ({interval}); spread of the p95 over the runs "
        f"**{percent(spread(rows.gpu_p95))}**: accepted.\n"
        f"> **Host clock**, median run: mean {number(host.host_mean)} ms, p95 "
        f"{number(host.host_p95)} ms; spread **{percent(spread(rows.host_p95))}**: not accepted, "
        "and the notebook says why.\n"
    )
    return english(text)


def accepted() -> str:
    row = pd.read_csv(SESSION / "results.csv").iloc[0]
    clocks = load(SESSION / "verdict.json")["clocks"]
    header = ["horloge", "trois processus (ms)", "écart", "session refaite (ms)"]
    machine = f"{row.gpu_name}, PyTorch {row.torch_version}, CUDA {row.cuda_version}.\n\n"
    lines = []
    for name, found in clocks.items():
        read, further = " · ".join(map(number, found["p95_ms"])), map(number, found["further"])
        lines.append(
            [f"p95 {NAMES[name]}", read, percent(found["p95_spread"]), " – ".join(further)]
        )
    return machine + table(header, lines)


def to_do() -> str:
    """What to do, by what was seen: the table that the verdict's « À faire » is chosen from."""
    names = (", ".join(f"{words.LABELS[c]} (`{c}`)" for c in codes) for codes in words.TO_DO)
    rows = list(zip(names, words.TO_DO.values(), strict=True))
    return table(["constaté", "à faire, puis relancer"], rows)


# Repeatability


def sessions() -> str:
    """Whether the next session lands where the interval of the one before says."""
    header = ["sessions", "p95", "niveau (ms)", "écart type entre processus"]
    header += ["session la plus éloignée", "session suivante dans l'intervalle"]
    lines = []
    for row in coverage.rows(files("repeatability/*/sessions_of_*.json")):
        name = f"{row['file'].split('/')[0]} : {row['sessions']} de {row['processes']} processus"
        line = [name, NAMES[row["clock"]], number(row["level_ms"]), percent(row["sd"])]
        line += [percent(row["furthest"]), share(row["covered"], row["pairs"], "sur")]
        lines += [line] * (row["clock"] != "graph")
    return table(header, lines)


def repeatability_answer() -> str:
    found = files("repeatability/*/sessions_of_*.json")
    told = [
        f"\n- {row['file']}: the interval for a further session's GPU p95 held the other's in "
        f"{share(row['covered'], row['pairs'])} ordered pairs (by the session's own spread alone "
        f"in {row['alone']}); Welch's interval tells {row['told_apart']} of {row['pairs'] // 2} "
        f"pairs apart; no session is further than {percent(row['furthest'])} from their mean; a "
        f"run takes {number(row['run_s'], 2)} s."
        for row in coverage.rows(found)
        if row["clock"] == "gpu"
    ]
    return english(f"{''.join(told)}\n\n{coverage.launching(found)}.\n")


def fresh_machine() -> str:
    told = " ; ".join(f"{share(*held, 'sur')} par {size}" for size, held, _ in further())
    return f"Deux autres machines, intervalle choisi avant, processus groupés : {told}.\n"


def fresh_machine_answer() -> str:
    told = [f"in groups of {n}, {share(*held)} pairs, and {alone}" for n, held, alone in further()]
    return f"{'; '.join(told)}.\n"


def further() -> Iterator[tuple[int, tuple[int, int], int]]:
    """The interval on machines measured after it was chosen: fp32 of the comparisons, by size."""
    run = load(HERE / "repeatability/h100_c/sessions_of_3.json")["sessions"][0]["runs"][0]
    for size in (3, 8):
        found = []
        for machine in ("h100_d", "h100_e"):
            sittings = agree.read(files(f"comparison/{machine}/*.json"))
            p95 = [one["p95_ms"]["gpu"]["fp32"] for sitting in sittings for one in sitting]
            groups = [p95[i : i + size] for i in range(0, len(p95) - size + 1, size)]
            held = coverage.covered(groups, [run["launches"]])  # of the same model
            found.append((*held, coverage.covered(groups)[0]))
        *held, alone = np.sum(found, axis=0)
        yield size, held, alone


def host_clock_answer() -> str:
    return "\n" + factorial.table(load(HERE / "host_clock/processes.json")["processes"])


# Interference


def disturbed() -> tuple[dict[str, list[dict]], dict[str, int]]:
    """Completed runs of each kind, and how many of each were seen; only by rules of today."""
    runs, seen = {}, dict.fromkeys([*FAULTS, "clean"], 0)
    for run in load(HERE / "interference/interference.json")["runs"]:
        if (kind := run["kind"]) in seen and not run["error"]:
            runs.setdefault(kind, []).append(run)
            expected = FAULTS[kind][1].split() if kind in FAULTS else TAGS
            seen[kind] += bool(set(run["tags"]) & set(expected))
    return runs, seen


def interference() -> str:
    runs, seen = disturbed()
    lines = []
    for kind, hits in seen.items():
        both = ([[r[c]["p95"] for c in ("host", "gpu")] for r in runs[k]] for k in (kind, "clean"))
        effects = np.divide(*(np.median(of, axis=0) for of in both))
        cells = [f"× {number(effect, 3)}" for effect in effects] if kind in FAULTS else ["–", "–"]
        name = FAULTS[kind][0] if kind in FAULTS else "aucune (fausses alarmes)"
        lines.append([name, share(hits, len(runs[kind]), "sur"), *cells])
    return table(["faute injectée", "signalée", "p95 hôte", "p95 GPU"], lines)


def interference_answer() -> str:
    runs, seen = disturbed()
    clean, alarms = len(runs["clean"]), seen.pop("clean")
    return (
        f"{sum(seen.values())} of {sum(len(runs[kind]) for kind in seen)} disturbed runs are "
        f"tagged, and {share(alarms, clean)} clean ones.\n"
    )


# Variants, comparison, training, campaign


def compared(model: str) -> pd.DataFrame:
    """By variant, the fastest first: median of its processes' p95 (ms) and the accuracy."""
    rows = pd.read_csv(HERE / "variants" / model / "results.csv").query("schedule == 'randomised'")
    found = rows.groupby("variant")[["gpu_p95", "host_p95", "accuracy"]].median()
    return found[~found.index.str.contains("A/A")].sort_values("gpu_p95")


def variants() -> str:
    dummy, trained = compared("resnet18"), compared("resnet18_cifar")
    fastest = list(dummy.index[:3])
    names = fastest + [n for n in dummy.index if n in SHOWN_VARIANTS and n not in fastest]
    header = ["variante", "`resnet18` : p95 GPU (ms)", "p95 hôte (ms)"]
    header += ["entraîné : p95 GPU (ms)", "p95 hôte (ms)", "exactitude"]
    lines = []
    for name in names:
        cells = [
            number(of.loc[name, c]) for of in (dummy, trained) for c in ("gpu_p95", "host_p95")
        ]
        lines.append([f"`{name}`", *cells, percent(trained.loc[name, "accuracy"], 4)])
    return table(header, lines)


def variants_answer() -> str:
    told = ""
    for model in ("resnet18", "resnet18_cifar"):
        found, cells = compared(model), load(HERE / "variants" / model / "cells_s.json")
        steps = [cells[f"annex-{step}"] for step in ("variants", "accuracy", "measure")]
        told += (
            f"  - `{model}`, the fastest: {number(found.gpu_p95.iloc[0])} ms GPU p95 and "
            f"{number(found.host_p95.iloc[0])} ms host p95 (fp32: {number(found.gpu_p95['fp32'])} "
            f"ms GPU). Guard, accuracy and processes: {' + '.join(f'{s:.0f}' for s in steps)} s of "
            f"the session's {sum(cells.values()):.0f} s.\n"
        )
    return english(told)


def comparison_answer() -> str:
    """Of each machine that has several sittings, then of all sittings, on whatever machine."""
    told = ""
    for folder in ("h100_c", "h100_d", "h100_e", "*"):
        found = files(f"comparison/{folder}/sitting_*.json")
        where = {"*": "all machines"}.get(folder, folder)
        told += f"{where}, {len(found)} sittings:\n\n"
        for clock in ("gpu", "host"):
            judged = agree.judge(agree.read(found), clock)
            answers = [f"{what}: {share(sum(held), len(held))}" for what, held in judged.items()]
            told += f"- {clock} clock: {'; '.join(answers)}.\n"
        told += "\n"
    return told


def plain_accuracy(file: Path) -> np.ndarray:
    return np.array([run["evaluation"]["plain"]["accuracy"] for run in load(file)["runs"]])


def held_out_answer() -> str:
    told = []
    for file in files("training/held*"):
        run, found = load(file)["runs"][0], plain_accuracy(file)
        of = f"{len(run['losses'])} epochs, {run['recipe']['upright']:.0%}"
        told.append(f"{of}: {' and '.join(f'{100 * a:.2f} %' for a in found)}")
    return f"  {'; '.join(told)}.\n"


def training_answer() -> str:
    found, notebook = files("training/*_seeds.json"), compared("resnet18_cifar").accuracy["fp32"]
    plain = np.array([notebook, *np.concatenate([*map(plain_accuracy, found)])])
    seconds = [[run["wall_s"] for run in load(file)["runs"]] for file in found]
    return english(
        f"  {len(plain)} trainings, that in ../variants too: {percent(plain.mean(), 4)} "
        f"({percent(plain.min(), 4)} to {percent(plain.max(), 4)}, sd "
        f"{number(100 * plain.std(ddof=1), 2)}); {number(max(s[0] for s in seconds), 3)} s at most "
        f"for the first on a machine, {number(max(max(s[1:]) for s in seconds), 3)} s for others.\n"
    )


def campaign_answer() -> str:
    found = load(HERE / "campaign/campaign.json")
    moved = [percent(np.median(g["both_ms"]) / np.median(g["alone_ms"]) - 1) for g in found["gpus"]]
    both, alone = found["wall_s"]
    return english(
        f"The GPU-clock p95 moves by {' and '.join(moved)} when both GPUs measure at once; both "
        f"were in a session {found['overlap']:.0%} of the time. Wall time over that of one GPU "
        f"doing all: {both / alone:.2f} ({both:.1f} s against {alone:.1f} s).\n"
    )


def after_pauses(record: dict, condition: str, variant: str, pause: int, column: str) -> np.ndarray:
    """Median of one column after one pause, by process; NaN where it was not observable."""
    runs = [process[condition]["runs"].get(variant, []) for process in record["processes"]]
    columns = ([f[column] for f in run if f["pause_ms"] == pause] for run in runs)
    return np.array([np.median(of) if of and None not in of else np.nan for of in columns])


def ratio(values: np.ndarray) -> str:
    """Geometric mean, with the 95 % interval over the processes."""
    found = [np.exp(np.log(values).mean()), *replicate_interval(values)]
    return "{} ({} – {})".format(*(number(value, 3) for value in found))


def pauses_answer() -> str:
    record, lines = load(HERE / "pauses/pauses.json"), []
    for variant, (name, (pauses, *_)) in product(record["variants"], measure.CONDITIONS.items()):
        for pause in pauses:
            at, line = (record, name, variant, pause), [f"`{variant}`", name, f"{pause}"]
            none = record, name if 0 in pauses else "asleep", variant, 0
            for column in ("host_ms", "gpu_ms"):
                p50 = after_pauses(*at, column)
                line += [number(np.median(p50)), ratio(p50 / after_pauses(*none, column))]
            mhz, state = (np.median(after_pauses(*at, of)) for of in ("sm_mhz", "p_state"))
            lines.append([*line, f"{mhz:.0f}", f"P{state:.0f}"])
    header = "variant|condition|pause (ms)|host p50 (ms)|over pause 0|GPU p50 (ms)|over pause 0"
    found = table([*header.split("|"), "SM (MHz)", "state"], lines)
    at = record, "asleep", record["variants"][0], 0
    host, before = (after_pauses(*at, column) for column in ("host_ms", "before_ms"))
    day = np.array([np.median(process["day"]["host_ms"]) for process in record["processes"]])
    told = f"Pause 0 over the day's host clock: {ratio(host / day)}, over the forward before it: "
    return english(f"{told}{ratio(host / before)}.\n\n{found}")


def rises() -> list[str]:
    """p50 after a pause over that of pause 0: eager, as a graph; with a CPU or a GPU kept awake."""
    record, host, gpu = load(HERE / "pauses/pauses.json"), "host_ms", "gpu_ms"
    after = ("asleep", "fp32", 100, host), ("asleep", "cudagraph", 100, host)
    after += ("busy_wait", "cudagraph", 1000, gpu), ("neighbour", "cudagraph", 1000, gpu)
    p50 = [[after_pauses(record, *at, p, of) for p in (pause, 0)] for *at, pause, of in after]
    return [ratio(paused / none) for paused, none in p50]


def pauses() -> str:
    told = "  p50 hôte après 100 ms : `fp32` × {0}, graphe CUDA × {1}. C'est le repos\n"
    return (told + "  du GPU : tenu éveillé, p50 GPU × {3} après 1 s.\n").format(*rises())


def pauses_limit() -> str:
    told = "  after 100 ms the host's p50 is {} times as long in FP32, {} times as a CUDA graph. "
    told += "It\n  is the GPU's idleness: after a second the graph's GPU p50 is {} times as long "
    told += "where\n  the CPU spins meanwhile, {} times where a neighbour keeps the GPU awake.\n"
    return english(told.format(*rises()))


MADE = label, accepted, to_do, sessions, fresh_machine, interference, variants, pauses, pauses_limit
MADE += repeatability_answer, fresh_machine_answer, host_clock_answer, interference_answer
MADE += variants_answer, comparison_answer, training_answer, held_out_answer, campaign_answer
MADE += (pauses_answer,)
BLOCKS = {made.__name__: made for made in MADE}


def rewritten(text: str) -> str:
    """The document with every marked block made anew."""
    return MARKED.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[4], text)


def quoted() -> Counter:
    """How often each block stands in the documents."""
    return Counter(m[2] for d in DOCUMENTS for m in MARKED.finditer(d.read_text(encoding="utf8")))


def main() -> None:
    """Rewrite the documents."""
    for document in DOCUMENTS:
        document.write_text(rewritten(document.read_text(encoding="utf8")), encoding="utf8")


if __name__ == "__main__":
    main()

"""The French tables of README_PROTOCOLE.md, made from the committed reference measurements.

python -m tests.gpu.protocol        # rewrites the sections between the markers
"""

import json
from pathlib import Path

import numpy as np

from helpers.display.french import number, percent
from helpers.results import load_samples, read_results
from helpers.stats import chance_of_failing, spread, summarise
from helpers.validation.causes import interval
from tests.gpu import annex

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference_h100"
PROTOCOL = ROOT / "README_PROTOCOLE.md"
BEGIN, END = "<!-- mesures : début -->", "<!-- mesures : fin -->"
NOTES = {
    "sitting_1": "15 processus : le script d'alors (commit 381e436) a atteint la limite de 600 s. "
    "Son reçu d'étalonnage dit `uncalibrated` : l'horloge hôte y dépassait de 26 % la tolérance "
    "d'alors (30 µs ou 1 %), portée depuis à 100 µs ou 1 %.",
    "sitting_2": "20 processus, autre machine du même type (commit 20ab5c0), 484 s en tout.",
    "sitting_3": "20 processus, troisième machine du même type, 317 s, sans les autres méthodes. "
    "Le code est celui du commit 6a053cb ; le relevé nomme à tort 4879290, dont la copie gardait "
    "le `.git` (corrigé depuis). Le second reçu d'étalonnage dit `uncalibrated` : un réveil tardif "
    "de l'hôte, 1 ms sur 1 s, y passe pour une dérive du compteur du GPU ; un tel écart est depuis "
    "mesuré deux fois de plus.",
}
NAMES = {
    "p95, GPU clock": "p95, horloge GPU",
    "p95, host clock, consecutive": "p95, horloge hôte, runs consécutifs",
    "p95, host clock, interleaved": "p95, horloge hôte, runs entrelacés",
    "p95, plain protocol": "p95, protocole naïf (500 × horloge hôte + synchronize)",
    "p95, Triton do_bench": "p95, `triton.testing.do_bench` (700 ms, L2 vidé)",
    "median, torch Timer (block means)": "médiane, `torch.utils.benchmark.Timer.blocked_autorange`",
    "p95, J1 host clock": "p95, J1, horloge hôte",
    "p95, J1 GPU clock": "p95, J1, horloge GPU",
    "p95, J1 GPU clock, L2 flushed": "p95, J1, horloge GPU, L2 vidé avant chaque passage",
}


def label(folder: Path = REFERENCE / "session") -> str:
    """The reference session in three French lines, as on a laboratory's label."""
    rows = read_results(folder / "results.csv")
    lines = []
    for clock, name in (("gpu", "horloge GPU"), ("host", "horloge hôte")):
        runs = [
            summarise(load_samples(folder / f"run_{k}.npz")[f"{clock}_ms"]) for k in rows["run"]
        ]
        middle = sorted(runs, key=lambda run: run.p95)[len(runs) // 2]
        bounds = interval(middle)
        between = " – ".join(map(number, bounds)) if bounds else "non estimable"
        lines.append(
            f"- **{name}**, run médian : moyenne {number(middle.mean)} ms, p95 "
            f"{number(middle.p95)} ms (intervalle à 95 % : {between}) ; écart du p95 sur les "
            f"{len(runs)} runs "
            f"{percent(spread([run.p95 for run in runs]))}"
        )
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf8"))["sentences"][0]
    machine = rows.iloc[0]
    return "\n".join(
        [
            f"**{machine['gpu_name']}**, PyTorch {machine['torch_version']}, ResNet-18, FP32 "
            f"strict, lot de 1, {len(rows)} runs de {machine['measure_iters']} passages par "
            "horloge :",
            "",
            *lines,
            f"- **{verdict}**",
        ]
    )


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def accepted_session(folder: Path, default: dict) -> list[str]:
    """The accepted day: runs and spreads, and what PyTorch's default switches would have read."""
    rows = read_results(folder / "results.csv")
    header = ["précision", "p95 GPU des trois runs (ms)", "écart", "p95 hôte (ms)", "écart"]

    def line(name, gpu, host):
        return [
            name,
            *(" · ".join(map(number, gpu)), percent(spread(gpu))),
            *(" · ".join(map(number, host)), percent(spread(host))),
        ]

    lines = [line("FP32 strict (session de référence)", rows["gpu_p95"], rows["host_p95"])]
    if default:
        name = "réglages par défaut de PyTorch (TF32 dans les convolutions)"
        lines.append(line(name, default["gpu"], default["host"]))
    return table(header, lines)


def spreads(rows: list[dict]) -> list[str]:
    """Spread of a statistic over three repeats in each fresh process."""
    header = ["ce qui est répété trois fois", "médiane (ms)", "écart, médiane", "écart, pire"]
    header += ["< 10 %", "étendue des médianes entre processus"]
    return table(
        header,
        [
            [
                NAMES[row["name"]],
                number(row["median_ms"]),
                percent(row["spread_median"]),
                percent(row["spread_worst"]),
                f"{row['met']} sur {row['processes']}",
                percent(row["range_of_medians"]),
            ]
            for row in rows
        ],
    )


def known_durations(figures: dict) -> list[str]:
    """Held-out durations, read in another process than the fit."""
    header = ["durée vraie (µs)", "erreur (µs)", "tolérance (µs)"]
    return table(
        header,
        [
            [
                number(1e3 * row["true_ms"]),
                number(1e3 * row["error_ms"], 2),
                number(1e3 * row["limit_ms"], 2),
            ]
            for row in figures["calibration"]
        ],
    )


def chances(samples: dict, processes: int) -> dict[str, float]:
    """Median over processes of the chance that identical runs fail the 10 % rule."""
    found = {}
    for clock, prefix in (("hôte", "host_consecutive"), ("GPU", "gpu")):
        per_process = [
            chance_of_failing(
                np.concatenate([samples[f"repeat/{i}/{prefix}_{run}"] for run in range(3)]),
                run_length=500,
                draws=200,
            )
            for i in range(processes)
        ]
        found[clock] = float(np.median(per_process))
    return found


def sitting(label: str, folder: Path) -> list[str]:
    """Everything one sitting on the GPU found."""
    figures = json.loads((folder / "reference.json").read_text(encoding="utf8"))["figures"]
    with np.load(folder / "samples.npz") as stored:
        samples = {name: stored[name] for name in stored.files if name.startswith("repeat")}
    lines = [f"#### {label}", "", NOTES[folder.name], "", "Répétabilité, processus neufs :", ""]
    lines += spreads(figures["repeatability"])
    if figures["side_by_side"]:
        lines += ["Le même travail, méthodes en ordre aléatoire dans chaque processus :", ""]
        lines += spreads(figures["side_by_side"])
    if figures["calibration"]:
        lines += ["Durées connues, ajustement fait dans un autre processus :", ""]
        lines += known_durations(figures)
    chance = chances(samples, figures["repeatability"][0]["processes"])
    cost, moved = figures["cost"], figures.get("layout")
    facts = [
        f"Chance que trois runs identiques échouent au critère de 10 % par simple tirage, médiane "
        f"des processus : {percent(chance['hôte'])} (hôte), {percent(chance['GPU'])} (GPU).",
        f"Coût, au pire : {number(cost['host'], 3)} fois la durée d'un échantillon hôte, "
        f"{number(cost['gpu'], 3)} fois (lancement + temps GPU) pour un échantillon GPU.",
        f"Lots repris : {figures['retried_batches']}.",
    ]
    if moved:
        facts.append(
            f"Le même modèle déplacé {len(moved['moved'])} fois en mémoire dans un seul processus "
            f": p95 GPU étalé sur {percent(spread(moved['moved']))} ; remesuré sans bouger, il "
            f"diffère d'au plus {percent(_largest_gap(moved))}."
        )
    return [*lines, *(f"- {fact}" for fact in facts), ""]


def _largest_gap(moved: dict) -> float:
    one, two = np.array(moved["moved"]), np.array(moved["same"])
    return float((np.abs(two - one) / one).max())


def section() -> str:
    """The whole section, between the markers."""
    sittings = sorted(folder for folder in REFERENCE.glob("sitting_*") if folder.is_dir())
    default = {}
    for folder in sittings:
        figures = json.loads((folder / "reference.json").read_text(encoding="utf8"))["figures"]
        default = figures.get("pytorch_default", default)
    lines = [BEGIN, "", "#### La journée acceptée", ""]
    lines += accepted_session(REFERENCE / "session", default)
    for index, folder in enumerate(sittings, start=1):
        lines += sitting(f"Séance {index}", folder)
    return "\n".join([*lines, END])


def rewritten(text: str) -> str:
    """README_PROTOCOLE.md with its sections of measured tables made anew."""
    for begin, end, made in (
        (BEGIN, END, section()),
        (annex.BEGIN, annex.END, annex.section(REFERENCE)),
    ):
        before, rest = text.split(begin)
        text = before + made + rest.split(end)[1]
    return text


def main() -> None:
    """Rewrite the sections of README_PROTOCOLE.md."""
    text = PROTOCOL.read_text(encoding="utf8")
    PROTOCOL.write_text(rewritten(text), encoding="utf8")


if __name__ == "__main__":
    main()

"""Tables for the notebook's reader, in French: pandas appears here, at the edge."""

import hashlib
import html
import re
from collections.abc import Iterable, Sequence

import pandas as pd
from IPython.display import HTML

from helpers.bench_latency import Run
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.conditions import ConditionsSeen
from helpers.display.colours import ALARM
from helpers.display.french import fill, number, percent
from helpers.display.machine import MACHINE_CHECKS
from helpers.display.words import CHECKS, CLOCK_NAMES, SWITCHES, labels
from helpers.environment.facts import Check
from helpers.stats import MIN_SAMPLES_FOR_P95, LatencySummary, percentile
from helpers.validation import ClockVerdict, Verdict
from helpers.validation.causes import interval
from helpers.validation.interference import RunTags, untagged

FIGURES = {"moyenne": "mean", "p50": "p50", "p95": "p95", "écart type": "std"}
FIGURES |= {"min": "min", "max": "max"}
FAILED, NOT_ESTIMABLE = ("✗", "non tenu", "dépassée"), "non estimable"
_BREAKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_MARKUP = re.compile(r"[\\`*\[\]|~$#!@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)")


def styled(frame: pd.DataFrame, caption: str = "") -> HTML:
    """A table for the notebook: nothing cut, only what failed coloured, the same HTML each time."""
    left = {"text-align": "left", "white-space": "normal"}
    style = _one_header(frame).style.hide(axis="index").set_properties(**left)
    style.set_table_styles([{"selector": "th, caption", "props": list(left.items())}])
    style.set_uuid(hashlib.sha256(f"{caption}\n{frame.to_csv()}".encode()).hexdigest()[:10])
    style.map(lambda value: f"color: {ALARM}; font-weight: bold" if value in FAILED else "")
    style.format(escape="html").format_index(escape="html", axis="columns")
    if "Variante" in style.columns:  # a name may be broken after its parts, and is copied whole
        style.format(lambda name: html.escape(name).replace("+", "+<wbr>"), subset=["Variante"])
    return HTML((style.set_caption(caption) if caption else style).to_html())


def markdown_text(text: object) -> str:
    """One line of foreign text that neither Markdown nor HTML takes for markup."""
    line = html.escape(_BREAKS.sub(" ", str(text)).strip(" "), quote=False)
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a table as Markdown, its index as first columns; foreign text cannot break out."""
    frame = _one_header(frame)
    head, *body = (map(markdown_text, r) for r in (frame.columns, *frame.itertuples(index=False)))
    rows = (head, ["---"] * frame.shape[1], *body)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _one_header(frame: pd.DataFrame) -> pd.DataFrame:
    """The index as ordinary columns: pandas would give its names a second header row."""
    names = [name or "" for name in frame.index.names]
    numbered = isinstance(frame.index, pd.RangeIndex)
    return frame if numbered else frame.rename_axis(names).reset_index()


def checks_table(checks: Iterable[Check]) -> pd.DataFrame:
    """Checks, one row each: whether it passed, and what was found."""
    rows = []
    for check in checks:
        label, *told = (CHECKS | MACHINE_CHECKS)[check.code]
        mark, sentence = ("✓", told[0]) if check.ok else ("✗", told[-1])
        rows.append([label, {"gpu_none": "–"}.get(check.code, mark), fill(sentence, check.values)])
    return pd.DataFrame(rows, columns=["Vérification", "", "Constat"]).set_index("Vérification")


def latency_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Every run on every clock, in ms; the interval is that of the run's own samples."""
    columns = ["Horloge", "Run", *FIGURES, "p95, intervalle à 95 %", "n"]
    rows = []
    for clock, summaries in summaries_of(runs).items():
        for run, found in summaries.items():
            figures = {label: number(getattr(found, name)) for label, name in FIGURES.items()}
            figures["p95"] = _p95(found.samples_ms)
            bounds = " – ".join(map(number, interval(found) or ())) or NOT_ESTIMABLE
            rows.append([CLOCK_NAMES[clock], run, *figures.values(), bounds, str(found.n)])
    return pd.DataFrame(rows, columns=columns).set_index(["Horloge", "Run"])


def spread_table(verdict: Verdict) -> pd.DataFrame:
    """The criterion on each clock; the spread of the mean stands beside that of the p95."""
    columns = ["Horloge", "Écart du p95 et limite", "Critère", "Écart de la moyenne"]
    columns.append("p95 d'une session refaite (ms)")
    rows = []
    for name, clock in verdict.clocks.items():
        label = CLOCK_NAMES[name] + (" (décide)" if name == verdict.deciding else "")
        told = [against_limit(clock, verdict.max_p95_spread), "tenu" if clock.met else "non tenu"]
        further = " – ".join(map(number, clock.further or ())) or "inconnu"
        rows.append([label, *told, percent(clock.mean_spread), further])
    return pd.DataFrame(rows, columns=columns).set_index("Horloge")


def against_limit(clock: ClockVerdict, limit: float) -> str:
    """« 0,13 % < 10 % »: the spread of the p95 and its limit, in digits that tell them apart."""
    shown = [(percent(clock.p95_spread, n), percent(limit, n)) for n in range(2, 13)]
    found, allowed = next((pair for pair in shown if pair[0] != pair[1]), shown[0])
    return f"{found} {'<' if clock.met else '≥'} {allowed}"


def calibration_table(receipt: CalibrationReceipt) -> pd.DataFrame:
    """The receipt, one row per clock; durations in µs."""
    columns = ["Horloge", "Résolution (µs)", "Mesure à vide (µs)", "Surcoût fixe (µs)"]
    columns += ["Facteur d'échelle", "Erreur de contrôle (µs)", "Tolérance"]
    rows = []
    for c in receipt.clocks:
        resolution = number(1e3 * c.resolution_ms, 2) if c.resolution_ms else "inconnue"
        fit = [number(1e3 * c.empty_ms, 3), number(1e3 * c.intercept_ms, 3), number(c.slope, 6)]
        held = [number(1e3 * c.held_out_error_ms, 2), "tenue" if c.within_limits else "dépassée"]
        rows.append([CLOCK_NAMES[c.clock], resolution, *fit, *held])
    return pd.DataFrame(rows, columns=columns).set_index("Horloge")


def conditions_table(seen: ConditionsSeen) -> pd.DataFrame:
    """What was in force inside the measurement, read there."""
    rows = {"Modules en mode eval": f"{seen.modules_in_eval} sur {seen.modules}"}
    rows |= {name: "oui" if getattr(seen, switch) else "non" for switch, name in SWITCHES.items()}
    return pd.DataFrame({"Constaté pendant la mesure": rows}).rename_axis("Condition")


def untagged_table(runs: Sequence[Run], seen: Sequence[RunTags]) -> pd.DataFrame:
    """The p95 of all samples beside that of the untagged ones (ms): a diagnosis, no replacement."""
    columns = ["Horloge", "Run", "p95, tous les blocs", "n", "p95, sans bloc signalé"]
    columns += ["n sans bloc signalé", "Signalements"]
    rows = []
    for clock, summaries in summaries_of(runs).items():
        for run, found in summaries.items():
            tags, samples = seen[run - 1], found.samples_ms
            kept = samples[untagged(runs[run - 1], tags, clock)]
            row = [cell for one in (samples, kept) for cell in (_p95(one), str(one.size))]
            rows.append([CLOCK_NAMES[clock], run, *row, labels(tags.codes) or "aucun"])
    return pd.DataFrame(rows, columns=columns).set_index(["Horloge", "Run"])


def _p95(samples_ms) -> str:
    enough = samples_ms.size >= MIN_SAMPLES_FOR_P95
    return number(percentile(samples_ms, 0.95)) if enough else NOT_ESTIMABLE


def summaries_of(runs: Sequence[Run]) -> dict[str, dict[int, LatencySummary]]:
    """{clock: {run from 1: its summary}}, the GPU's first; a run may lack a clock."""
    found = {c: {n: getattr(r, c) for n, r in enumerate(runs, 1)} for c in CLOCK_NAMES}
    found = {c: {n: s for n, s in of.items() if s is not None} for c, of in found.items()}
    return {clock: of for clock, of in found.items() if of}

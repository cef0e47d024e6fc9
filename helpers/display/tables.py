"""Tables for the notebook's reader, in French: pandas appears here, at the edge."""

import hashlib
import html
from collections.abc import Iterable, Sequence

import pandas as pd
from IPython.display import HTML

from helpers.bench_latency import LatencyResult
from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.conditions import ConditionsSeen
from helpers.display.french import number, percent, percents_apart
from helpers.display.verdict import CLOCK_NAMES
from helpers.stats import LatencySummary, percentile
from helpers.validation import Validation
from helpers.validation.causes import interval
from helpers.validation.interference import Observation, flags, untagged
from helpers.validation.interference.rules import TAG_LABELS

NOT_ESTIMABLE = "non estimable"
FAILED, ALARM = ("✗", "non tenu", "dépassée"), "color: #D55E00; font-weight: bold"


def show(frame: pd.DataFrame, caption: str = "") -> HTML:
    """Lay a table out for the notebook: nothing cut, texts to the left, only what failed coloured.

    The same table gives the same HTML each time, so that stored outputs can be compared; two
    tables never share an id, or one's colours would show in the other.
    """
    identity = hashlib.sha256(f"{caption}\n{frame.to_csv()}".encode()).hexdigest()[:10]
    left = {"text-align": "left", "white-space": "normal"}
    styles = [{"selector": "th, caption", "props": list(left.items())}]
    style = (
        _one_header(frame)
        .style.hide(axis="index")
        .set_properties(**left)
        .set_table_styles(styles)
        .set_uuid(identity)
    )
    style = style.map(lambda value: ALARM if value in FAILED else "")
    style = style.format(escape="html").format_index(escape="html", axis="columns")
    if "Variante" in style.columns:  # a name may be broken after its parts, and is copied whole
        style = style.format(
            lambda name: html.escape(name).replace("+", "+<wbr>"), subset=["Variante"]
        )
    return HTML((style.set_caption(caption) if caption else style).to_html())


def markdown_text(text: object) -> str:
    """Foreign text for Markdown: one line that makes no cell, link, image, code or HTML tag."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\|[]`" else sign for sign in line)


def markdown_table(frame: pd.DataFrame) -> str:
    """Write a table as Markdown, its index as first columns; foreign text cannot break out."""
    frame = _one_header(frame)
    lines = [frame.columns, *frame.itertuples(index=False)]
    head, *body = (" | ".join(map(markdown_text, line)) for line in lines)
    rows = [head, " | ".join(["---"] * frame.shape[1]), *body]
    return "".join(f"| {row} |\n" for row in rows)


def _one_header(frame: pd.DataFrame) -> pd.DataFrame:
    """The index as ordinary columns: pandas would give its names a second header row."""
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    return frame.rename_axis([name or "" for name in frame.index.names]).reset_index()


def checks_table(checks: Iterable) -> pd.DataFrame:
    """Checks (name, ok, detail), one row each."""
    rows = [{"Vérification": c.name, "": "✓" if c.ok else "✗", "Constat": c.detail} for c in checks]
    return pd.DataFrame(rows).set_index("Vérification")


def _summary(summary: LatencySummary) -> dict[str, str]:
    bounds = interval(summary)
    return {
        "moyenne": number(summary.mean),
        "p50": number(summary.p50),
        "p95": number(summary.p95),
        "p95, intervalle à 95 %": " – ".join(map(number, bounds)) if bounds else NOT_ESTIMABLE,
        "écart type": number(summary.std, 3),
        "min": number(summary.min),
        "max": number(summary.max),
        "n": str(summary.n),
    }


def latency_table(results: Sequence[LatencyResult]) -> pd.DataFrame:
    """Every run on every clock, in ms."""
    rows = [
        {"Run": run, "Horloge": CLOCK_NAMES[clock], **_summary(getattr(result, clock))}
        for clock in ("gpu", "host")
        for run, result in enumerate(results, start=1)
        if getattr(result, clock) is not None
    ]
    return pd.DataFrame(rows).set_index(["Horloge", "Run"])


def spread_table(validation: Validation) -> pd.DataFrame:
    """The criterion on each clock; the spread of the mean stands beside that of the p95."""
    limit = validation.max_p95_spread
    apart = {n: percents_apart(clock.p95_spread, limit) for n, clock in validation.clocks.items()}
    rows = [
        {
            "Horloge": CLOCK_NAMES[name] + (" (décide)" if name == validation.deciding else ""),
            "Écart du p95": apart[name][0],
            "Écart de la moyenne": percent(clock.mean_spread),
            "Limite": apart[name][1],
            "Critère": "tenu" if clock.met else "non tenu",
        }
        for name, clock in validation.clocks.items()
    ]
    return pd.DataFrame(rows).set_index("Horloge")


def calibration_table(receipt: CalibrationReceipt) -> pd.DataFrame:
    """The receipt, one row per clock; durations in µs."""
    rows = [
        {
            "Horloge": CLOCK_NAMES[c.clock],
            "Résolution (µs)": _resolution(c.resolution_ms),
            "Appel vide (µs)": number(1e3 * c.empty_ms, 3),
            "Ordonnée : surcoût (µs)": number(1e3 * c.intercept_ms, 3),
            "Pente : biais": number(c.slope, 6),
            "Erreur hors ajustement (µs)": number(1e3 * c.held_out_error_ms, 2),
            "Tolérance": "tenue" if c.within_limits else "dépassée",
        }
        for c in receipt.clocks
    ]
    columns = ["Horloge"] if not rows else None
    return pd.DataFrame(rows, columns=columns).set_index("Horloge")


def _resolution(resolution_ms: float | None) -> str:
    return "inconnue" if resolution_ms is None else number(1e3 * resolution_ms, 2)


def conditions_table(seen: ConditionsSeen) -> pd.DataFrame:
    """What was in force inside the measurement, read there."""
    yes = {True: "oui", False: "non"}
    rows = {
        "Modules en mode eval": f"{seen.modules_in_eval} sur {seen.modules}",
        "Gradient calculé": yes[seen.grad_enabled],
        "Mode inférence": yes[seen.inference_mode],
        "TF32 dans les convolutions": yes[seen.tf32_convolutions],
        "TF32 dans les produits matriciels": yes[seen.tf32_matmul],
        "Ramasse-miettes actif": yes[seen.gc_enabled],
    }
    return pd.DataFrame({"Constaté pendant la mesure": rows}).rename_axis("Condition")


def untagged_table(
    results: Sequence[LatencyResult], observed: Sequence[Sequence[Observation]]
) -> pd.DataFrame:
    """The p95 of all samples beside that of the untagged ones (ms): a diagnosis, no replacement."""
    rows = []
    for run, (result, seen) in enumerate(zip(results, observed, strict=True), start=1):
        named = ", ".join(TAG_LABELS[code] for code in flags(seen))
        for clock in ("gpu", "host"):
            if (summary := getattr(result, clock)) is not None:
                kept = summary.samples_ms[untagged(summary.samples_ms, seen, clock)]
                rows.append(
                    {
                        "Run": run,
                        "Horloge": CLOCK_NAMES[clock],
                        "p95, tous": number(summary.p95),
                        "n": str(summary.n),
                        "p95, sans étiquette": number(percentile(kept, 0.95)) if kept.size else "–",
                        "n sans étiquette": str(kept.size),
                        "Étiquettes": named or "aucune",
                    }
                )
    return pd.DataFrame(rows).set_index(["Run", "Horloge"])

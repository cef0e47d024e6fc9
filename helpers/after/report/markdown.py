"""A session's summary in Markdown (French), to be pasted into an issue or a wiki.

Every text of the session is escaped, for Markdown and for the HTML that becomes of it.
"""

import html
import math
import re
from collections.abc import Iterable
from pathlib import Path

from helpers.annex.training import CPU_IMAGES
from helpers.display.french import number, percent
from helpers.environment import fixed_conditions
from helpers.results import StoredSession
from helpers.validation.interference.rules import TAG_LABELS

PRECISIONS = {"fp32": "FP32 strict (sans TF32)"}
DATASETS = {"cifar10": "CIFAR-10", "synthetic": "synthétique (dessiné, pas CIFAR-10)"}
CLOCKS = {"gpu": "GPU", "host": "hôte"}
TRAIN_IMAGES = 50_000
HEAD = ("Run", "Horloge", "Moyenne", "p50", "p95", "p95, intervalle à 95 %", "Écart type")
HEAD += ("p95 hôte", "p95 GPU", "Exactitude", "Signalements")


# How the column `flags` calls what a run or its calibration says against its figures.
FLAG_LABELS = {
    "unsteady_warmup": "échauffement non stabilisé",
    "conditions_not_met": "conditions non tenues",
    "gpu_clock_unavailable": "horloge GPU absente",
    "retried_batches": "lots repris",
    "gpu_clock_contradicted": "horloge GPU contredite par les noyaux",
    "gpu_clock_unproven": "horloge GPU non recoupée",
    "uncalibrated": "horloge hors tolérance",
    "not_calibrated": "non étalonnée",
}
_BREAKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_MARKUP = re.compile(r"[\\`*\[\]|~$#!@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)")


def session_markdown(session: StoredSession) -> str:
    """Lay out verdict, runs, fixed conditions and files; names no folder of the machine."""
    headline, *sentences = session.sentences
    runs = [_run(row) for row in session.validation_rows.to_dict("records")]
    files = (escaped(n) for n in session.files if n not in ("report.html", "report.md"))
    return "\n".join(
        [
            f"# J1, session {escaped(session.name)}",
            "",
            f"**{escaped(headline)}**",
            "",
            *(f"- {_sentence(sentence)}" for sentence in sentences),
            "",
            f"Latences en ms. Jeu de données : **{DATASETS[session.dataset]}**.",
            "",
            *_table(HEAD, runs),
            "",
            *_comparison(session.comparison),
            "**Conditions fixes**",
            "",
            *_table(("Condition", "Valeur"), _conditions(session).items()),
            "",
            f"**Fichiers de la session** : {', '.join(files)}",
            "",
        ]
    )


def escaped(text: str) -> str:
    """One line of text that neither Markdown nor HTML takes for markup."""
    line = html.escape(_BREAKS.sub(" ", str(text)).strip(" "), quote=False)
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)


def _sentence(sentence: str) -> str:
    """A sentence of the verdict; the causes it lists stay a list."""
    return "\n  - ".join(map(escaped, sentence.split("\n  - ")))


def _comparison(written: str) -> list[str]:
    """The annex's table, laid out again from its cells, and the lines below it."""
    if not written.strip():
        return []
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    rows = [_cells(line) for line in lines if line.startswith("|")]
    head, *body = rows or [["Variante"]]
    body = [row[: len(head)] for row in body if set("".join(row)) - set(" :-")]
    rest = [f"- {escaped(line.removeprefix('- '))}" for line in lines if not line.startswith("|")]
    title = "**Variantes, mesurées à tour de rôle**"
    return [title, "", *_table(head, body), "", *rest, *([""] if rest else [])]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _run(row: dict) -> tuple[str, ...]:
    bounds = (row["lat_p95_low"], row["lat_p95_high"])
    estimable = not any(map(math.isnan, bounds))
    return (
        str(row["run"]),
        CLOCKS[row["clock"]],
        *(_ms(row[name]) for name in ("lat_mean", "lat_p50", "lat_p95")),
        " – ".join(map(_ms, bounds)) if estimable else "non estimable",
        *(_ms(row[name]) for name in ("lat_std", "host_p95", "gpu_p95")),
        "-" if math.isnan(row["accuracy"]) else percent(row["accuracy"], 4),
        _flags(row["flags"]),
    )


def _flags(codes: str) -> str:
    """The column `flags` in words."""
    labels = TAG_LABELS | FLAG_LABELS
    return ", ".join(labels.get(code, code) for code in filter(None, codes.split(";"))) or "aucun"


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else number(value)


def _conditions(session: StoredSession) -> dict[str, str]:
    row, model = session.rows.iloc[0], session.parameters.get("model")
    table = fixed_conditions(
        session.environment,
        model=model and Path(model).name,  # a checkpoint's folder is the machine's affair
        train_epochs=session.parameters.get("train_epochs"),
        train_images=TRAIN_IMAGES if session.environment["gpu"] else CPU_IMAGES,
        precision=PRECISIONS.get(row["precision"], row["precision"]),
        batch_size=row["batch_size"],
        input_shape=tuple(row["input_shape"].split("x")),
        warmup_iters=row["warmup_iters"],
        measure_iters=row["measure_iters"],
        runs=len(session.validation_rows),
    )
    images = f"{row['eval_images']} images pour l'exactitude"
    return {**table["Valeur"], "Jeu de données": f"{DATASETS[session.dataset]}, {images}"}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Lines of a Markdown table."""
    head = [escaped(cell) for cell in head]
    lines = [[escaped(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]

"""A session's summary in Markdown (French), to be pasted into an issue or a wiki."""

import math
from collections.abc import Iterable
from pathlib import Path

from helpers.after.report.session import FinishedSession
from helpers.annex.training import CPU_IMAGES
from helpers.display.french import number, percent
from helpers.environment import fixed_conditions
from helpers.results.rows import FLAG_LABELS
from helpers.validation.interference.rules import TAG_LABELS

PRECISIONS = {"fp32": "FP32 strict (sans TF32)"}
DATASETS = {"cifar10": "CIFAR-10", "synthetic": "synthétique (dessiné, pas CIFAR-10)"}
CLOCKS = {"gpu": "GPU", "host": "hôte"}
TRAIN_IMAGES = 50_000
HEAD = ("Run", "Horloge", "Moyenne", "p50", "p95", "p95, intervalle à 95 %", "Écart type")
HEAD += ("p95 hôte", "p95 GPU", "Exactitude", "Signalements")


def session_markdown(session: FinishedSession) -> str:
    """Lay out verdict, runs, fixed conditions and files; names no folder of the machine."""
    headline, *sentences = session.sentences
    runs = [_run(row) for row in session.validation_rows.to_dict("records")]
    conditions = _conditions(session)
    reports = ("report.html", "report.md")
    return "\n".join(
        [
            f"# J1, session `{session.name}`",
            "",
            f"**{headline}**",
            "",
            *(f"- {sentence}" for sentence in sentences),
            "",
            f"Latences en ms. Jeu de données : **{DATASETS[session.dataset]}**.",
            "",
            *_table(HEAD, runs),
            "",
            *_comparison(session.comparison),
            "**Conditions fixes**",
            "",
            *_table(("Condition", "Valeur"), conditions.items()),
            "",
            "**Fichiers de la session** : "
            + ", ".join(f"`{name}`" for name in session.files if name not in reports),
            "",
        ]
    )


def _comparison(table: str) -> list[str]:
    """The annex's table, as the notebook wrote it."""
    return ["**Variantes, mesurées à tour de rôle**", "", table] if table else []


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


def _conditions(session: FinishedSession) -> dict[str, str]:
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
    """Lines of a Markdown table; a bar inside a cell would end it."""
    head = list(head)
    lines = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]

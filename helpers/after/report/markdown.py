"""A session's summary in Markdown (French), to be pasted into an issue or a wiki.

The session may come from a stranger: of its texts no link, image, code or HTML is left.
"""

import math
import re
from pathlib import Path

import pandas as pd

from helpers.display.french import number, percent
from helpers.display.tables import markdown_table
from helpers.display.words import CLOCK_NAMES, FLAG_LABELS
from helpers.results import StoredSession

DATASETS = {"cifar10": "CIFAR-10", "synthetic": "synthétique (dessiné, pas CIFAR-10)"}


def session_markdown(session: StoredSession) -> str:
    """Lay out verdict, runs, fixed conditions and files; names no folder of the machine."""
    headline, *sentences = map(harmless, session.sentences)
    files = (harmless(name) for name in session.files if not name.startswith("report."))
    variants = harmless(session.comparison)
    parts = [
        f"# J1, session {harmless(session.name)}",
        f"**{headline}**",
        "\n".join(f"- {sentence}" for sentence in sentences),
        f"Latences en ms. Jeu de données : **{DATASETS[session.dataset]}**.",
        _table(pd.DataFrame(map(_run, session.validation_rows.to_dict("records")))),
        *(["**Variantes, mesurées à tour de rôle**", variants] if variants.strip() else []),
        "**Conditions fixes**",
        _table(pd.DataFrame(_conditions(session).items(), columns=["Condition", "Valeur"])),
        f"**Fichiers de la session** : {', '.join(files)}",
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def harmless(text: str) -> str:
    """Markdown with its tables and lists, without links, images, code or HTML."""
    live = r"\\(\W)|:(?=//)|[`\[\]\x00-\x09\x0b-\x1f]|<(?=\S)"
    return re.sub(live, lambda found: f"&#{ord(found[1] or found[0])};", text)


def _table(frame: pd.DataFrame) -> str:
    return harmless(markdown_table(frame))


def _run(row: dict) -> dict[str, str]:
    codes = filter(None, row["flags"].split(";"))
    bounds = [row["lat_p95_low"], row["lat_p95_high"]]
    interval = "non estimable" if any(map(math.isnan, bounds)) else " – ".join(map(number, bounds))
    return {
        "Run": str(row["run"]),
        "Horloge": CLOCK_NAMES[row["clock"]],
        "Moyenne": number(row["lat_mean"]),
        "p50": number(row["lat_p50"]),
        "p95": number(row["lat_p95"]),
        "p95, intervalle à 95 %": interval,
        "Écart type": number(row["lat_std"]),
        "p95 hôte": _or_dash(row["host_p95"], number),
        "p95 GPU": _or_dash(row["gpu_p95"], number),
        "Exactitude": _or_dash(row["accuracy"], lambda value: percent(value, 4)),
        "Signalements": ", ".join(FLAG_LABELS.get(code, code) for code in codes) or "aucun",
    }


def _or_dash(value: float, write) -> str:
    return "-" if math.isnan(value) else write(value)


def _conditions(session: StoredSession) -> dict[str, str]:
    row, machine, given = session.rows.iloc[0], session.environment, session.parameters
    model = Path(given.get("model") or "").name  # a checkpoint's folder is the machine's affair
    epochs = f", entraîné {given['train_epochs']} époques" if given.get("train_epochs") else ""
    software, cuda = machine["software"], machine["cuda"]
    return {
        "Modèle": f"{model or 'non noté'}{epochs}",
        "GPU": f"{row['gpu_name'] or 'aucun'}, pilote {cuda['driver'] or 'aucun'}",
        "CPU": machine["cpu"]["model"],
        "PyTorch": f"{software['torch']}, CUDA {cuda['torch_cuda'] or 'aucun'}",
        "Précision": row["precision"],
        "Entrée (B×C×H×W)": row["input_shape"].replace("x", "×"),
        "Échauffement, mesure par run": f"≥ {row['warmup_iters']}, {row['measure_iters']}",
        "Runs": len(session.validation_rows),
        "Jeu de données": f"{DATASETS[session.dataset]}, {row['eval_images']} images notées",
    }

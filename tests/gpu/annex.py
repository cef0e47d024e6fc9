"""README_PROTOCOLE.md's tables of variants, trainings and A/A pairs, from the evidence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.annex.comparison.tables import markdown_table
from helpers.display.french import number, percent

BEGIN, END = "<!-- variantes : début -->", "<!-- variantes : fin -->"
MODELS = {"dummy": "`resnet18` de J1", "trained": "`resnet18_cifar` entraîné"}
TRAININGS = {
    "first_recipe": "première recette (taux 0,4), sans compilation",
    "without_cutout": "la même, compilée",
    "cutout": "taux 0,2 et cutout 12, compilée",
    "five_seeds": "la même, autre machine du même type",
}
MISSING = "–"


def comparison(folder: Path) -> pd.DataFrame:
    """The table that a session's annex wrote, by variant."""
    table, *_ = (folder / "comparaison.md").read_text(encoding="utf8").split("\n\n")
    lines = table.splitlines()
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return pd.DataFrame(rows, columns=head).set_index("Variante")


def variants(reference: Path) -> str:
    """Both models, p95 by both clocks; the order is that of the trained model's GPU clock."""
    found = {name: comparison(reference / "variants" / name) for name in MODELS}
    rows = []
    for variant in dict.fromkeys([*found["trained"].index, *found["dummy"].index]):
        row = {"variante": f"`{variant}`"}
        for name, model in MODELS.items():
            for clock in ("GPU", "hôte"):
                row[f"{model}, p95 {clock} (ms)"] = found[name]["p95 (ms), " + clock].get(
                    variant, MISSING
                )
        accuracy = found["trained"]["Exactitude"].get(variant, MISSING)
        row["exactitude (entraîné)"] = accuracy.split(" (")[0]
        rows.append(row)
    return markdown_table(pd.DataFrame(rows).set_index("variante"))


def trainings(reference: Path) -> str:
    """One row for each recipe: mean ± sd over its seeds, on the whole test set."""
    rows = []
    for name, what in TRAININGS.items():
        path = reference / "training" / f"{name}.json"
        runs = json.loads(path.read_text(encoding="utf8"))["runs"]
        values = {
            "exactitude sans TTA": [run["evaluation"]["plain"]["accuracy"] for run in runs],
            "avec TTA (miroir)": [run["evaluation"]["flip_tta"]["accuracy"] for run in runs],
        }
        rows.append(
            {
                "recette": f"[{what}](results/reference_h100/training/{name}.json)",
                "époques": str(runs[0]["epochs"]),
                "graines": str(len(runs)),
                **{key: _mean_sd(found) for key, found in values.items()},
                "pas, au plus (s)": number(max(run["train_s"] for run in runs), 3),
                "pas et points de reprise, au plus (s)": number(
                    max(run["train_s"] + run["checkpoint_s"] for run in runs), 3
                ),
            }
        )
    return markdown_table(pd.DataFrame(rows).set_index("recette"))


def _mean_sd(fractions: list[float]) -> str:
    spread = number(100 * np.std(fractions, ddof=1), 2)
    return f"{percent(float(np.mean(fractions)), 4)} ± {spread}"


def pairs(reference: Path) -> str:
    """The table of false alarms and power, as the script wrote it."""
    text = (reference / "comparison" / "comparison.md").read_text(encoding="utf8")
    return text.split("\n\n")[0] + "\n"


def section(reference: Path) -> str:
    """The whole section, between the markers."""
    return "\n".join(
        [
            *(BEGIN, "", "Variantes :", "", variants(reference)),
            *("Entraînement :", "", trainings(reference)),
            *("Fausses alarmes et puissance :", "", pairs(reference), END),
        ]
    )

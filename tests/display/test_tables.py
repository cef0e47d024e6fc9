import re

import numpy as np
import pandas as pd
import pytest
from displayed import CPU_LOAD, THROTTLE, run, tagged
from fakes import AS_REQUIRED, make_run

from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.calibration import judge as judge_clock
from helpers.display import tables
from helpers.environment import Check
from helpers.validation import judge

RUNS = [run(seed) for seed in range(3)]


def test_both_clocks_of_every_run():
    table = tables.latency_table([*RUNS, run(3, gpu=None)])
    assert table.index.tolist() == [
        *(("horloge GPU", number) for number in (1, 2, 3)),
        *(("horloge hôte", number) for number in (1, 2, 3, 4)),
    ]
    assert table.loc[("horloge GPU", 1), "n"] == "500"
    assert table.loc[("horloge hôte", 2), "p95"] == f"{RUNS[1].host.p95:.3f}".replace(".", ",")


def test_an_interval_that_cannot_be_had_is_said_so():
    walk = 5 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.01
    table = tables.latency_table([make_run(walk)])
    assert table["p95, intervalle à 95 %"].tolist() == ["non estimable"]


def test_the_criterion_and_a_further_session_on_each_clock():
    table = tables.spread_table(judge(RUNS))
    assert "horloge GPU (décide)" in table.index
    assert set(table["Critère"]) == {"tenu"}
    further = "p95 d'une session refaite (ms)"
    assert all(" – " in value for value in table[further])
    assert set(tables.spread_table(judge(RUNS[:2]))[further]) == {"inconnu"}


def test_a_receipt_without_clocks_is_an_empty_table():
    assert tables.calibration_table(CalibrationReceipt((), None, "none")).empty
    points = [(d, d + 0.004, d < 0.02 or d > 5) for d in (0.01, 0.03, 0.3, 10.0)]
    receipt = CalibrationReceipt((judge_clock("gpu", 3e-5, 1e-3, points),), 1.0, "")
    row = tables.calibration_table(receipt).loc["horloge GPU"]
    assert row["Surcoût fixe (µs)"] == "4,00"
    assert row["Tolérance"] == "tenue"


def test_checks_say_what_was_found():
    sizes = {"train": 50_000, "test": 9_999}
    table = tables.checks_table([Check("sizes", False, sizes), Check("assertions", True)])
    assert table[""].tolist() == ["✗", "✓"]
    assert "50\N{NO-BREAK SPACE}000" in table["Constat"].iloc[0]


def test_conditions_are_what_was_seen():
    column = tables.conditions_table(AS_REQUIRED)["Constaté pendant la mesure"]
    assert column["Modules en mode eval"] == "3 sur 3"
    assert column["TF32 dans les convolutions"] == "non"


def test_samples_without_tagged_blocks_stand_beside_all_of_them():
    seen = [tagged(), tagged((CPU_LOAD,), (THROTTLE,)), tagged(*[(THROTTLE,)] * 5)]
    table = tables.untagged_table(RUNS, seen)
    kept = table["n sans bloc signalé"].unstack("Horloge")
    assert kept["horloge GPU"].tolist() == ["500", "400", "0"]
    assert kept["horloge hôte"].tolist() == ["500", "300", "0"]
    assert table.loc[(3, "horloge GPU"), "p95, sans bloc signalé"] == "–"
    assert table["Signalements"].unique().tolist() == [
        "aucun",
        "CPU occupé, GPU bridé",
        "GPU bridé",
    ]


def test_nothing_is_cut_and_the_html_is_the_same_each_time():
    frame = pd.DataFrame({"Constat": ["long " * 50]}, index=["x marks"])
    first, second = (tables.styled(frame).data for _ in range(2))
    assert first == second
    assert ("long " * 50).strip() in first
    assert "x marks" in first


def test_one_row_of_headers_and_no_row_label_lost():
    html = tables.styled(tables.latency_table(RUNS)).data
    assert html.count("<tr>") == 1 + 6
    assert html.index("Horloge") < html.index("Run") < html.index("moyenne")


def test_colour_means_failure_and_never_shows_in_another_table():
    frames = [pd.DataFrame({"x": [word]}, index=["y"]) for word in ("tenu", "non tenu")]
    good, bad = (tables.styled(frame, "Latences en ms").data for frame in frames)
    assert tables.ALARM.split(";")[0] not in good
    assert tables.ALARM.split(";")[0] in bad
    assert "Latences en ms" in bad
    assert not set(re.findall(r'id="([^"]+)"', good)) & set(re.findall(r'id="([^"]+)"', bad))


def test_a_variants_long_name_may_be_broken_after_its_parts():
    table = pd.DataFrame({"Variante": ["fp16+fused"], "x": ["1+1"]}).set_index("Variante")
    html = tables.styled(table).data
    assert "fp16+<wbr>fused" in html
    assert "1+1" in html


@pytest.mark.parametrize(
    "evil",
    ["a|b", "a\nb", "a\\|b", "<img src=x onerror=alert(1)>", "[x](javascript:1)", "``", "*_x_*"],
)
def test_foreign_text_cannot_break_out(evil):
    """Attack A3, in a cell, in the index, in a column's name, and in the notebook's HTML."""
    frame = pd.DataFrame({evil: [evil, "b"]}, index=pd.Index([evil, "x"], name="Variante"))
    lines = tables.markdown_table(frame).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.count("|") == 3
        assert not set("<[\\`*") & set(line)
    assert "<img" not in tables.styled(frame, "Avant").data

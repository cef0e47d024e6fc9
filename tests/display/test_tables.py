import numpy as np
import pandas as pd
import pytest
from displayed import CPU_LOAD, RUNS, THROTTLE, run, tagged
from fakes import AS_REQUIRED, make_run

from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.calibration import judge as judge_clock
from helpers.display import tables
from helpers.display.colours import ALARM
from helpers.environment import Check
from helpers.validation import judge


def test_both_clocks_of_every_run_in_a_table_with_one_row_of_headers():
    walk = make_run(5 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.01)
    table = tables.latency_table([*RUNS, walk, make_run(np.full(19, 2.0))])
    gpu, host = [[(f"horloge {c}", n + 1) for n in range(k)] for c, k in (("GPU", 3), ("hôte", 5))]
    assert table.index.tolist() == gpu + host
    assert table.loc[host[1], "p95"] == f"{RUNS[1].host.p95:.3f}".replace(".", ",")
    assert (table.iloc[-2:] == "non estimable").filter(like="p95").sum().tolist() == [1, 2]
    assert tables.styled(table).data.count("<tr>") == 1 + 8


def test_the_criterion_of_each_clock_and_what_failed_is_coloured():
    table = tables.spread_table(judge([run(1), run(2, host=2.8)]))
    assert table["Critère"].tolist() == ["tenu", "non tenu"]
    assert tables.styled(table).data.count(ALARM) == 1


def test_a_receipt_its_checks_and_conditions_say_what_was_found():
    assert tables.calibration_table(CalibrationReceipt((), "none")).empty
    points = [(d, d + 0.004, d < 0.02 or d > 5) for d in (0.01, 0.03, 0.3, 10.0)]
    receipt = CalibrationReceipt((judge_clock("gpu", 3e-5, 1e-3, points),), "")
    row = tables.calibration_table(receipt).loc["horloge GPU"]
    assert (row["Surcoût fixe (µs)"], row["Tolérance"]) == ("4,00", "tenue")
    sizes = Check("sizes", False, {"train": 50_000, "test": 9_999})
    table = tables.checks_table([sizes, Check("assertions", True), Check("gpu_none", True)])
    assert table[""].tolist() == ["✗", "✓", "–"]
    assert "9\N{NO-BREAK SPACE}999" in table["Constat"].iloc[0]
    assert tables.conditions_table(AS_REQUIRED).iloc[:, 0]["Modules en mode eval"] == "3 sur 3"


def test_samples_without_tagged_blocks_stand_beside_all_of_them():
    seen = [tagged(), tagged((CPU_LOAD,), (THROTTLE,)), tagged(*[(THROTTLE,)] * 5)]
    table = tables.untagged_table(RUNS, seen)
    assert table["n sans bloc signalé"].tolist() == ["500", "400", "0", "500", "300", "0"]
    assert table.loc[("horloge GPU", 3), "p95, sans bloc signalé"] == "non estimable"
    assert table["Signalements"].tolist() == ["aucun", "CPU occupé, GPU bridé", "GPU bridé"] * 2


@pytest.mark.parametrize(
    "evil", ["a|b", "a\nb", "a\\|b", "<img src=x onerror=alert(1)>", "[x](javascript:1)", "`*_x_*`"]
)
def test_foreign_text_cannot_break_out(evil):
    """Attack A3, in a cell, in the index, in a column's name, and in the notebook's HTML."""
    frame = pd.DataFrame({evil: [evil, "b"]}, index=pd.Index([evil, "x"], name="Variante"))
    lines = tables.markdown_table(frame).splitlines()
    assert [line.count("|") for line in lines] == [3] * 4
    assert not set("<[\\`*") & set("".join(lines))
    assert "<img" not in tables.styled(frame, "Avant").data

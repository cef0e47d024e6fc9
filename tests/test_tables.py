import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
from fakes import AS_REQUIRED, make_result

from helpers.clocks.calibration import CalibrationReceipt
from helpers.clocks.calibration import judge as judge_clock
from helpers.display import tables
from helpers.environment import Check
from helpers.validation import judge


def samples(level, seed=0):
    return level * (1 + 0.01 * np.random.default_rng(seed).standard_normal(500))


RESULTS = [make_result(samples(2.0, i), samples(1.3, i)) for i in range(2)]


def test_both_clocks_of_every_run_with_units_left_to_the_caption():
    table = tables.latency_table(RESULTS)
    assert len(table) == 4
    assert table.loc[("horloge GPU", 1), "n"] == "500"
    assert "," in table.loc[("horloge hôte", 2), "p95"]


def test_an_interval_that_cannot_be_had_is_said_so():
    walk = 5 + np.cumsum(np.random.default_rng(0).standard_normal(500)) * 0.01
    table = tables.latency_table([make_result(walk)])
    assert table["p95, intervalle à 95 %"].tolist() == ["non estimable"]


def test_the_deciding_clock_is_marked():
    table = tables.spread_table(judge(RESULTS))
    assert "horloge GPU (décide)" in table.index
    assert set(table["Critère"]) == {"tenu"}


def test_a_receipt_without_clocks_is_an_empty_table():
    assert tables.calibration_table(CalibrationReceipt((), None, "none")).empty
    points = [(d, d + 0.004, d < 0.02 or d > 5) for d in (0.01, 0.03, 0.3, 10.0)]
    receipt = CalibrationReceipt((judge_clock("gpu", 3e-5, 1e-3, points),), 1.0, "")
    row = tables.calibration_table(receipt).loc["horloge GPU"]
    assert row["Ordonnée : surcoût (µs)"] == "4,00"
    assert row["Tolérance"] == "tenue"


def test_failed_checks_are_visible():
    table = tables.checks_table([Check("a", True, "bien"), Check("b", False, "mal")])
    assert table[""].tolist() == ["✓", "✗"]


def test_conditions_are_what_was_seen():
    column = tables.conditions_table(AS_REQUIRED)["Constaté pendant la mesure"]
    assert column["Modules en mode eval"] == "3 sur 3"
    assert column["TF32 dans les convolutions"] == "non"


def test_nothing_is_cut_and_the_html_is_the_same_each_time():
    frame = pd.DataFrame({"Constat": ["long " * 50]}, index=["x"])
    first, second = (tables.show(frame).data for _ in range(2))
    assert first == second
    assert ("long " * 50).strip() in first


def test_one_row_of_headers_and_no_row_label_lost():
    html = tables.show(tables.latency_table(RESULTS)).data
    assert html.count("<tr>") == 1 + 4
    assert html.index("Horloge") < html.index("Run") < html.index("moyenne")
    assert "x marks" in tables.show(pd.DataFrame({"Constat": ["y"]}, index=["x marks"])).data


def test_tags_are_named_in_french():
    seen = [[SimpleNamespace(tags=[SimpleNamespace(code="gpu_clock_drop")])] * 5] * 2
    labels = tables.untagged_table(RESULTS, seen)["Étiquettes"]
    assert set(labels) == {"horloge GPU abaissée"}


def test_colour_means_failure_and_nothing_else():
    good, bad = (pd.DataFrame({"Critère": [word]}, index=["x"]) for word in ("tenu", "non tenu"))
    assert "#D55E00" not in tables.show(good).data
    assert "#D55E00" in tables.show(bad, "Latences en ms").data
    assert "Latences en ms" in tables.show(bad, "Latences en ms").data


def test_one_tables_colours_never_show_in_another():
    bad, other = (pd.DataFrame({"x": [word]}, index=["y"]) for word in ("non tenu", "500"))
    ids = [set(re.findall(r'id="([^"]+)"', tables.show(frame).data)) for frame in (bad, other)]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]


def test_a_variants_long_name_may_be_broken_after_its_parts():
    table = pd.DataFrame({"Variante": ["fp16+fused"], "x": ["1+1"]}).set_index("Variante")
    html = tables.show(table).data
    assert "fp16+<wbr>fused" in html
    assert "1+1" in html

"""The annex on a CPU: variants admitted or named, scored, and laid out as rows and tables."""

import json

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result
from torch.utils.data import DataLoader, TensorDataset

from helpers.annex import entries as annex
from helpers.annex.comparison import Interleaved
from helpers.annex.variants import PARTS, Part, parse
from helpers.models.accuracy import measure_accuracy
from helpers.parameters import validate
from helpers.results.table import check_row

CPU = torch.device("cpu")
IMAGES = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
FACTS = {
    "parameters": validate(),
    "environment": {"gpu": None, "software": {"torch": "2"}, "cuda": {"torch_cuda": None}},
    "dataset": "cifar10",
    "accuracy": 0.5,
    "eval_images": 8,
    "session": "s",
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TinyNet().eval()


@pytest.fixture
def admitted(model):
    return annex.admit_all([parse("fp32"), parse("channels_last")], model, IMAGES, CPU)[0]


def interleaved(names):
    series = 2 + 0.01 * np.random.default_rng(0).standard_normal(50)
    runs = {name: (make_result(series), make_result(series)) for name in names}
    return Interleaved(runs, "fp32", "fp32 (A/A)", annex.COPIES, 1, (), ((), ()), {})


def test_a_variant_that_fails_is_named_and_the_others_go_on(model, monkeypatch):
    def broken(network, example):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(PARTS, "fused", Part("network", "x", broken))
    chosen = [parse("fp32"), parse("fused"), parse("channels_last")]
    admitted, refused = annex.admit_all(chosen, model, IMAGES, CPU)
    assert list(admitted) == ["fp32", "channels_last"]
    assert "no such operator" in refused["fused"]
    table = annex.guard_table(admitted, refused | {"tf32": "tf32 demande un GPU NVIDIA"})
    assert table["Mesurée"]["fp32"] == "oui"
    assert table["Mesurée"]["fused"].startswith("non : ")
    assert table["Mesurée"]["tf32"] == "non : tf32 demande un GPU NVIDIA"


def test_what_the_guard_saw_can_be_kept(admitted):
    record = annex.guard_record(admitted, {"tf32": "tf32 demande un GPU NVIDIA"})
    kept = json.loads(json.dumps(record, allow_nan=False))
    assert list(kept["measured"]) == ["fp32", "channels_last"]
    assert kept["measured"]["fp32"]["drift"] == 0
    assert kept["measured"]["channels_last"]["build_s"] > 0
    assert kept["not_measured"] == {"tf32": "tf32 demande un GPU NVIDIA"}
    assert annex.refused_lines(kept["not_measured"]) == (
        "- `tf32` : non mesurée, tf32 demande un GPU NVIDIA\n"
    )


def test_without_the_reference_nothing_is_compared(model, monkeypatch):
    found = annex.admit

    def no_reference(variant, *others):
        if variant.name == "fp32":
            raise annex.VariantFailed("fp32", "mémoire insuffisante sur cpu")
        return found(variant, *others)

    monkeypatch.setattr(annex, "admit", no_reference)
    chosen = [parse("fp32"), parse("channels_last")]
    admitted, refused = annex.admit_all(chosen, model, IMAGES, CPU)
    assert admitted == {}
    assert refused["fp32"] == "mémoire insuffisante sur cpu"
    assert "sans la référence fp32" in refused["channels_last"]
    assert list(annex.guard_table(admitted, refused).index) == ["fp32", "channels_last"]


def test_where_nothing_is_compared_the_reasons_are_still_told():
    table = annex.guard_table({}, {"tf32": "tf32 demande un GPU NVIDIA"})
    assert table["Mesurée"].to_dict() == {"tf32": "non : tf32 demande un GPU NVIDIA"}
    assert annex.guard_table({}, {}).empty


def test_each_accuracy_stands_beside_its_change_against_the_reference(admitted):
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    batches = list(DataLoader(data, batch_size=4))
    scored = {name: measure_accuracy(found.call, batches, CPU) for name, found in admitted.items()}
    table = annex.accuracy_table(scored)
    assert table["Images"].tolist() == ["8", "8"]
    assert table["Perdues / gagnées"]["fp32"] == "0 / 0"
    assert table["p (McNemar)"]["fp32"] == "1,0"
    assert table["Écart à fp32 (points)"]["fp32"] == "0,0"


def test_the_reference_is_measured_elsewhere_in_memory_too(admitted, model):
    entries = annex.callables(admitted, model)
    assert list(entries) == ["fp32", "channels_last", *annex.COPIES]
    places = {next(entries[name][0].parameters()).data_ptr() for name in annex.COPIES}
    assert len(places) == len(annex.COPIES)


def test_rows_carry_their_own_variant_precision_and_schedule(admitted):
    compared = interleaved(["fp32", "fp32 (A/A)", "channels_last", "fp16"])
    admitted = admitted | {"fp16": annex.Admitted(parse("fp16"), None, None, 0.0)}
    accuracies = {"fp32": type("Scored", (), {"fraction": 0.25, "images": 8})}
    made = list(annex.comparison_rows(compared, admitted, accuracies, ["uncalibrated"], FACTS))
    rows = [check_row(row) for row, _ in made]
    assert len(rows) == 8
    assert {(r["variant"], r["run"]) for r in rows} >= {("fp32", 1), ("fp32", 2), ("fp16", 2)}
    by_name = {row["variant"]: row for row in rows}
    assert by_name["fp16"]["precision"] == "fp16"
    assert by_name["fp32 (A/A)"]["precision"] == "fp32"
    assert by_name["fp32"]["accuracy"] == 0.25
    assert by_name["channels_last"]["accuracy"] is None  # it was not scored: no figure of another
    assert by_name["channels_last"]["eval_images"] == 0
    assert {row["schedule"] for row in rows} == {"randomised"}
    assert all("uncalibrated" in row["flags"] for row in rows)
    assert all("host_ms" in samples for _, samples in made)


def test_a_variant_without_gpu_clock_keeps_its_row_and_says_which_clock(admitted):
    facts = FACTS | {"parameters": validate(clock="gpu")}
    made = annex.comparison_rows(interleaved(["fp32"]), admitted, {}, (), facts)
    assert {row["clock"] for row, _ in made} == {"host"}

"""The annex on a CPU: variants admitted or named, measured once, laid out as rows and tables."""

import json

import numpy as np
import pytest
import torch
from fakes import TinyNet, make_result
from torch.utils.data import DataLoader, TensorDataset

from helpers.annex import entries as annex
from helpers.annex.comparison import Interleaved
from helpers.annex.display import accuracy_table, guard_table
from helpers.annex.variants import PARTS, Part, parse
from helpers.models.accuracy import measure_accuracy
from helpers.results import open_session
from helpers.results.table import check_row

CPU = torch.device("cpu")
IMAGES = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]


class Asked:
    runs, warmup_iters, measure_iters, seed, clock = 2, 2, 20, 0, "auto"


FACTS = {
    "parameters": Asked(),
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
    admitted, refused = annex.admit_all(chosen, model, IMAGES, CPU, {"tf32": "sans GPU"})
    assert list(admitted) == ["fp32", "channels_last"]
    assert list(refused) == ["fused", "tf32"]
    table = guard_table(admitted, refused)
    assert table["Mesurée"]["fp32"] == "oui"
    assert "no such operator" in table["Mesurée"]["fused"]
    assert table["Mesurée"]["tf32"] == "non : sans GPU"
    record = json.loads(json.dumps(annex.guard_record(admitted, refused), allow_nan=False))
    assert list(record["measured"]) == ["fp32", "channels_last"]
    assert record["measured"]["fp32"]["drift"] == 0
    assert record["not_measured"]["tf32"] == "sans GPU"


def test_the_reference_alone_is_not_built_again(model):
    assert annex.admit_all([parse("fp32")], model, IMAGES, CPU) == ({}, {})
    assert guard_table({}, {}).empty


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
    assert list(guard_table(admitted, refused).index) == ["fp32", "channels_last"]


def test_each_accuracy_stands_beside_its_change_against_the_reference(admitted):
    data = TensorDataset(torch.randn(8, 3, 32, 32), torch.arange(8))
    batches = list(DataLoader(data, batch_size=4))
    scored = {name: measure_accuracy(found.call, batches, CPU) for name, found in admitted.items()}
    table = accuracy_table(scored)
    assert table["Images"].tolist() == ["8", "8"]
    assert table["Perdues / gagnées"]["fp32"] == "0 / 0"
    assert table["p (McNemar)"]["fp32"] == "1,0"


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
    by_name = {row["variant"]: row for row in rows}
    assert by_name["fp16"]["precision"] == "fp16"
    assert by_name["fp32 (A/A)"]["precision"] == "fp32"
    assert by_name["fp32"]["accuracy"] == 0.25
    assert by_name["channels_last"]["accuracy"] is None  # it was not scored: no figure of another
    assert {row["schedule"] for row in rows} == {"randomised"}
    assert all("uncalibrated" in row["flags"] for row in rows)
    assert all("host_ms" in samples for _, samples in made)


def test_a_variant_without_gpu_clock_keeps_its_row_and_says_which_clock(admitted):
    class Gpu(Asked):
        clock = "gpu"

    facts = FACTS | {"parameters": Gpu()}
    made = annex.comparison_rows(interleaved(["fp32"]), admitted, {}, (), facts)
    assert {row["clock"] for row, _ in made} == {"host"}


# --- the measuring cell, run in odd orders (issue 17.2)


class Recording:
    """As much of a session as the annex uses."""

    def __init__(self, tmp_path, days_runs):
        self._session = open_session(tmp_path, "s")
        self.fail_at, self.add_run = None, self._add
        result = make_result(2 + 0.01 * np.arange(50) % 7)
        for run in range(1, days_runs + 1):
            facts = FACTS | {"run": run}
            self._session.add_run(annex.run_row(result, **facts), annex.run_samples(result))

    @property
    def rows(self):
        return self._session.rows

    def _add(self, row, samples):
        if self.fail_at == len(self.rows):
            raise KeyboardInterrupt
        self._session.add_run(row, samples)


def record(recording, admitted, model):
    return annex.measure_and_record(recording, admitted, {}, model, IMAGES, FACTS, device=CPU)


def test_what_is_recorded_is_never_measured_again(admitted, model, tmp_path):
    recording = Recording(tmp_path, Asked.runs)
    first = record(recording, admitted, model)
    assert len(recording.rows) == Asked.runs * (1 + 2 + 1 + len(annex.COPIES))
    again = record(recording, {}, model)  # the cell before was run again, and admitted nothing
    assert again is first
    assert len(recording.rows) == Asked.runs * (1 + 2 + 1 + len(annex.COPIES))


def test_an_interrupted_recording_goes_on_where_it_stopped(admitted, model, tmp_path):
    recording = Recording(tmp_path, Asked.runs)
    recording.fail_at = 5
    with pytest.raises(KeyboardInterrupt):
        record(recording, admitted, model)
    recording.fail_at = None
    assert record(recording, admitted, model) is not None
    assert not recording.rows.duplicated(["variant", "run", "schedule"]).any()
    assert len(recording.rows) == Asked.runs * (1 + 2 + 1 + len(annex.COPIES))


@pytest.mark.parametrize(("days_runs", "variants"), [(1, True), (2, False)])
def test_before_its_time_or_with_nothing_to_compare_nothing_is_measured(
    admitted, model, tmp_path, days_runs, variants
):
    recording = Recording(tmp_path, days_runs)
    assert record(recording, admitted if variants else {}, model) is None
    assert len(recording.rows) == days_runs

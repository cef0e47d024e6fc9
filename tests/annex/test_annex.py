"""The annex's doors on a CPU: variants admitted or named, scored, measured once, kept as rows."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from comparison_fakes import make_measured
from fakes import TinyNet

from helpers.annex import display
from helpers.annex import entries as annex
from helpers.annex.comparison import CONTROL, REFERENCE, Contribution, compare
from helpers.annex.variants import PARTS
from helpers.validation.processes import FreshProcessError, in_fresh_process

CPU = torch.device("cpu")
IMAGES = [torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(i)) for i in range(3)]
ENTRIES = [REFERENCE, CONTROL, "channels_last"]
ASKED = {"runs": 2, "warmup_iters": 2, "measure_iters": 20, "batch_size": 1, "seed": 0}
ASKED |= {"compare_processes": 3, "clock": "auto"}
NOTHING = annex.Candidates(SimpleNamespace(**ASKED), TinyNet(), IMAGES, CPU, {}, {})


def admit(variants):
    torch.manual_seed(0)
    asked = SimpleNamespace(**ASKED, variants=variants)
    return annex.admit(asked, TinyNet().eval(), IMAGES, CPU)


@pytest.fixture(scope="module")
def candidates():
    return admit("channels_last,tf32")


class Recording:
    """As much of a session as the annex uses."""

    def __init__(self, runs=2):
        self.folder, self.runs, self.added, self.fail_at = Path("s"), (None,) * runs, [], None
        self.check_open = lambda: None

    @property
    def rows(self):
        rows = [{**row, "run": row["number"]} for row in self.added]
        return pd.DataFrame(rows, columns=["variant", "schedule", "run"])

    def add_run(self, run, **told):
        if len(self.added) == self.fail_at:
            self.fail_at = None
            raise KeyboardInterrupt
        self.added.append({"run": run, **told})


@pytest.fixture(autouse=True)
def processes(monkeypatch):
    """Numbers of the processes that were started; none really is, and the `fail_at`-th fails."""
    started, found = type("Started", (list,), {"fail_at": None})(), make_measured(processes=3)

    def answer(function, *args):
        started.append(args[-1])
        if args[-1] == started.fail_at:
            raise FreshProcessError("it was killed")
        runs = found.processes[args[-1] - 1].runs
        return Contribution(dict(zip(ENTRIES, runs.values(), strict=False)))

    monkeypatch.setattr(annex, "in_fresh_process", answer)
    monkeypatch.setattr(annex, "_MEASURED", {})
    return started


def measure(candidates, recording):
    return annex.measure(candidates, recording, dataset="cifar10", accuracies={REFERENCE: "scored"})


def test_a_variant_that_fails_is_named_and_the_others_go_on(monkeypatch):
    def broken(network, example):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(PARTS, "fused", replace(PARTS["fused"], apply=broken))
    candidates = admit("fused,channels_last,tf32")
    table = display.guard_table(candidates)
    assert list(table.index) == [REFERENCE, "channels_last", "tf32", "fused"]
    assert "no such operator" in table["Mesurée"]["fused"]
    record = candidates.record()
    assert record["measured"][REFERENCE].drift == 0
    assert set(record["not_measured"]) == {"fused", "tf32"}


def test_the_reference_is_not_built_alone_and_nothing_is_compared_without_it(monkeypatch):
    assert display.guard_table(admit("fp32")) == display.NOTHING

    def only_others(variant, *given):
        if variant.name == REFERENCE:
            raise annex.VariantFailed("not_finite")

    monkeypatch.setattr(annex.guard, "admit", only_others)
    without = admit("channels_last")
    assert without.admitted == {}
    assert set(without.refused) == {REFERENCE, "channels_last"}


def test_each_accuracy_stands_beside_its_change_against_the_reference(candidates):
    batches = 2 * [(torch.randn(4, 3, 32, 32), torch.arange(4))]
    table = display.accuracy_table(annex.score(candidates, batches))
    assert list(table.index) == [REFERENCE, "channels_last"]
    assert table["Images perdues / gagnées"][REFERENCE] == "0 / 0"


def test_without_labels_there_is_no_accuracy(candidates):
    scores, measured = annex.score(candidates, []), make_measured()
    assert scores == dict.fromkeys(candidates.admitted)
    assert isinstance(display.accuracy_table(scores), str)
    table = display.ratio_table(measured, compare(measured), "gpu", scores)
    assert set(table["Exactitude"]) == {"–"}


def test_a_real_process_measures_and_its_rows_are_added(candidates, monkeypatch):
    one = SimpleNamespace(**ASKED | {"compare_processes": 1})
    monkeypatch.setattr(annex, "in_fresh_process", in_fresh_process)
    recording = Recording()
    assert measure(replace(candidates, parameters=one), recording).stopped == ""
    assert [row["variant"] for row in recording.added] == ENTRIES
    assert recording.added[0]["run"].process.spawned


# --- the measuring cell, run in odd orders


@pytest.mark.parametrize("interrupted_at", [None, 0, 4])
def test_what_is_recorded_is_never_measured_again(candidates, processes, interrupted_at):
    recording = Recording()
    recording.fail_at = interrupted_at
    if interrupted_at is not None:
        with pytest.raises(KeyboardInterrupt):
            measure(candidates, recording)
    first = measure(candidates, recording)
    assert measure(NOTHING, recording) is first  # the cell before was run again, admitting nothing
    assert measure(candidates, recording) is first
    assert processes == [1, 2, 3]
    told = [(r["variant"], r["schedule"], r["precision"], r["accuracy"]) for r in recording.added]
    scores = zip(ENTRIES, ("scored", None, None), strict=True)
    assert told == 3 * [(name, "randomised", "fp32", scored) for name, scored in scores]


def test_a_process_that_fails_is_named_and_may_be_tried_again(candidates, processes):
    recording, processes.fail_at = Recording(), 3
    assert "killed" in measure(candidates, recording).stopped
    assert len(recording.added) == 2 * len(ENTRIES)
    processes.fail_at = None
    assert measure(candidates, recording).stopped == ""
    assert processes == [1, 2, 3, 3]


def test_what_cannot_be_compared_yet_or_elsewhere_is_not_measured(candidates, processes):
    complete = Recording()
    complete.check_open = lambda: {}["complete"]
    with pytest.raises(KeyError, match="complete"):
        measure(candidates, complete)
    assert measure(candidates, Recording(runs=1)) is None
    assert measure(NOTHING, Recording()) is None
    function = replace(candidates, model=lambda x: x)
    assert "function" in measure(function, Recording()).stopped
    assert processes == []

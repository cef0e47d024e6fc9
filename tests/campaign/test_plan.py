"""A plan is crossed, named and fingerprinted; a wrong one is refused and its entry named."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.plan import PlanError, make_plan, read_plan
from helpers.after.campaign.session import NOTEBOOK, ROOT, code_hash, first_lines, visible_gpus


def names(plan):
    return [task.session for task, _ in plan.tasks()]


def test_lists_are_crossed_and_each_crossing_is_repeated():
    plan = make_plan({"parameters": {"seed": [0, 1], "batch_size": [1, 8]}, "repetitions": 2})
    crossed = [(p["seed"], p["batch_size"]) for p in plan.parameters]
    assert crossed == [(0, 1), (0, 8), (1, 1), (1, 8)]
    assert len(set(names(plan))) == 8
    repetitions = [task.repetition for task, _ in plan.tasks()]
    assert repetitions == [1] * 4 + [2] * 4  # all sets, then all again
    assert not {"session", "results_dir", "strict"} & set(plan.parameters[0])
    assert plan.parameters[0]["runs"] == 3


def test_several_sets_and_several_kinds_of_workers():
    kinds = [{"GPU": 1, "H100": 1}, {"GPU": 1, "L4": 1}]
    plan = make_plan({"parameters": [{"seed": 0}, {"seed": [1, 2]}], "resources": kinds})
    assert [p["seed"] for p in plan.parameters] == [0, 1, 2]
    assert names(plan)[:2] == ["s0001-r0001-H100", "s0001-r0001-L4"]
    assert [kind for _, kind in plan.tasks()] == kinds * 3


def test_the_id_is_the_contents_however_it_is_written(tmp_path):
    one, two = tmp_path / "one.yml", tmp_path / "two.yml"
    one.write_text("parameters: {seed: [0, 1], runs: 3}\nrepetitions: 2\n")
    two.write_text("# the same\nrepetitions: 2\nparameters:\n  seed: [0, 1]\nresources: {GPU: 1}\n")
    assert read_plan(one).id == read_plan(two).id
    two.write_text("repetitions: 3\nparameters:\n  seed: [0, 1]\n")
    assert read_plan(one).id != read_plan(two).id


def test_the_code_is_what_measures(tmp_path, monkeypatch):
    own, clocks = "helpers/after/campaign/plan.py", "helpers/clocks/clocks.py"
    for name in (own, clocks):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("tick = 1")
    shutil.copy(ROOT / NOTEBOOK, tmp_path)
    monkeypatch.setattr(campaign_session, "ROOT", tmp_path)
    before = code_hash()
    (tmp_path / own).write_text("# measures nothing")
    notebook = json.loads((tmp_path / NOTEBOOK).read_text())
    for cell in notebook["cells"]:
        cell["outputs"] = []
    notebook["cells"][0]["source"] = "prose"
    (tmp_path / NOTEBOOK).write_text(json.dumps(notebook))
    assert code_hash() == before
    (tmp_path / clocks).write_text("tick = 2")
    assert code_hash() != before


WRONG = [
    *[("seed: 0", "seed"), ("- seed", "Plan"), ("parameters: {seeed: 0}", "did you mean 'seed'")],
    *[("parameters: {seed: [0, -1]}", "seed"), ("parameters: [{seed: 0}, {runs: 1}]", "entry 2")],
    *[("parameters: {seed: []}", "seed"), ("parameters: [{seed: 0}, {seed: 0, runs: 3}]", "twice")],
    *[("parameters: {session: s}", "'session' cannot"), ("parameters: {strict: true}", "'strict'")],
    *[("parameters: {1: 2}", "parameters"), ("parameters: []", "parameters")],
    *[("parameters: 3", "parameters"), ("repetitions: 0", "repetitions")],
    *[("repetitions: true", "repetitions"), ("exclusive_host: 1", "exclusive_host")],
    *[("resources: {CPU: 1}", "GPU"), ("resources: {GPU: 0}", "resources.*GPU")],
    *[("resources: {GPU: .nan}", "resources.*GPU"), ("resources: {GPU: 1, 'a/b': 1}", "a/b")],
    *[("resources: [{GPU: 1}, {GPU: 2}]", "no two the same"), ("code: x", "code")],
    *[("parameters: {seed: 0", "line 1"), ("!!python/object/apply:os.getcwd []", "python/object")],
]
LISTS = "".join(f"  {n}: {list(range(1, 1001))}\n" for n in ("seed", "runs", "warmup_iters"))
LAUGHS = "a: &a [x]\n" + "".join(
    f"{n}: &{n} [*{o}, *{o}]\n" for o, n in zip("abcde", "bcdef", strict=True)
)
EXPANDING = [  # attack A11: counted or refused before it is built
    (f"parameters:\n{LISTS}  eval_images: {list(range(1, 1001))}", "1000000000000 sessions"),
    ("repetitions: 1000000", "1000000 sessions"),
    (f"parameters: {{seed: 0x{'f' * 9000}}}", "."),
    *[(LAUGHS, "alias"), ("parameters: &a {seed: 0}\nresources: *a", "alias")],
    ("parameters: " + "[" * 20_000, "nested too deeply"),
    ("parameters:\n" + "".join(f"{' ' * n}- \n" for n in range(1, 300)) + "x", "nested"),
    ("repetitions: 1\nrepetitions: 2", "'repetitions' is there twice"),
    ("parameters: {seed: 0, 'seed': 1}", "'seed' is there twice"),
    ("parameters: {<<: {seed: 1}, seed: 0}", "<<"),
    *[("notebook: elsewhere/anything.ipynb", "notebook"), ("#" * 200_000, "100,000 bytes")],
]


@pytest.mark.parametrize(("content", "told"), WRONG + EXPANDING, ids=lambda text: text[:30])
def test_a_wrong_plan_is_refused_and_its_entry_named(tmp_path, content, told):
    path, begun = tmp_path / "plan.yml", time.monotonic()
    path.write_text(content)
    with pytest.raises(PlanError, match=rf"(?s)plan\.yml.*{told}"):
        read_plan(path)
    assert time.monotonic() - begun < 5


def test_a_plan_that_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.yml")
    for path in ("nowhere.yml", tmp_path, tmp_path / "fifo.yml"):
        with pytest.raises(PlanError, match="no file"):
            read_plan(path)


def test_the_example_is_a_plan():
    assert len(names(read_plan(ROOT / "examples" / "campaign.yml"))) == 10


@pytest.mark.parametrize(
    ("named", "seen"), [("", []), ("-1", []), ("1", ["1"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_visible_gpus_are_those_that_cuda_would_show(monkeypatch, named, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == seen


def test_an_error_is_listed_by_its_first_lines():
    assert first_lines("----\n\n a \nb\n") == "a | b"
    assert len(first_lines("x" * 10_000)) <= 500


def test_plans_and_tables_need_no_dask():
    code = "import helpers.after.campaign.plan, helpers.after.campaign.merge, sys; "
    code += "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

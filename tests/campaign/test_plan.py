"""A plan is crossed, named and fingerprinted; a wrong one is refused and its entry named."""

import json
import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.plan import read_plan
from helpers.after.campaign.session import NOTEBOOK, ROOT, code_hash, visible_gpus


@pytest.fixture
def plan_of(tmp_path):
    def plan(text):
        (tmp_path / "plan.yml").write_text(text)
        return read_plan(tmp_path / "plan.yml")

    return plan


def test_lists_are_crossed_and_each_crossing_is_repeated(plan_of):
    plan = plan_of("parameters: {seed: [0, 1], batch_size: [1, 8]}\nrepetitions: 2")
    crossed = [(p["seed"], p["batch_size"]) for p in plan.parameters]
    assert crossed == [(0, 1), (0, 8), (1, 1), (1, 8)]
    tasks = plan.tasks()
    assert [(task.repetition, task.set) for task in tasks[:4]] == [(1, n) for n in (1, 2, 3, 4)]
    assert [(task.repetition, task.set) for task in tasks[4:]] == [(2, n) for n in (2, 3, 4, 1)]
    assert len({task.session for task in tasks}) == 8
    assert not {"session", "results_dir", "strict"} & plan.parameters[0].keys()
    assert plan.parameters[0]["runs"] == 3
    assert plan.resources == {"GPU": 1}


def test_the_id_is_the_contents_however_it_is_written(plan_of):
    one = plan_of("parameters: {seed: [0, 1], runs: 3}\nrepetitions: 2\n").id
    same = "# the same\nrepetitions: 2\nparameters:\n  seed: [0, 1]\nresources: {GPU: 1}\n"
    assert plan_of(same).id == one
    assert plan_of(same.replace("2", "3")).id != one


def test_the_code_is_what_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(campaign_session, "ROOT", tmp_path)
    folder = tmp_path / "helpers/after/campaign"
    folder.mkdir(parents=True)

    def hash_of(module="", clocks="tick = 1", prose="", code="look()"):
        (folder / "plan.py").write_text(module)
        (tmp_path / "helpers/clocks.py").write_text(clocks)
        cells = [new_markdown_cell(prose), new_code_cell(code)]
        (tmp_path / NOTEBOOK).write_text(json.dumps(new_notebook(cells=cells)))
        return code_hash()

    assert hash_of() == hash_of(module="# measures nothing", prose="more")
    assert len({hash_of(), hash_of(clocks="tick = 2"), hash_of(code="measure()")}) == 3


LISTS = "".join(f"  {n}: {list(range(1, 101))}\n" for n in ("seed", "runs", "warmup_iters"))
WRONG = [
    *[("- seed", "Plan"), ("parameters: {seeed: 0}", "did you mean 'seed'")],
    *[("parameters: {seed: [0, -1]}", "seed"), ("parameters: {seed: []}", "0 sets")],
    *[("parameters: {strict: true}", "strict"), ("parameters: 3", "parameters")],
    *[("repetitions: true", "repetitions"), ("resources: {GPU: .nan}", "resources.*GPU")],
    *[("code: x", "code"), ("notebook: elsewhere/anything.ipynb", "notebook")],
    *[("parameters: {seed: 0", "line 1"), ("!!python/object/apply:os.getcwd []", "python/object")],
    # attack A11: counted before it is built
    *[(f"parameters:\n{LISTS}", "1000000 sets"), ("repetitions: 1000000", "repetitions")],
    ("parameters: {seed: 0, 'seed': 1}", "'seed' is there twice"),
]


@pytest.mark.parametrize(("content", "told"), WRONG, ids=lambda text: text[:30])
def test_a_wrong_plan_is_refused_and_its_entry_named(plan_of, content, told):
    with pytest.raises(ValueError, match=rf"(?s)plan\.yml.*{told}"):
        plan_of(content)


def test_a_plan_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"nowhere\.yml"):
        read_plan("nowhere.yml")


@pytest.mark.parametrize(
    ("named", "seen"), [("", []), ("-1", []), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_visible_gpus_are_those_that_cuda_would_show(monkeypatch, named, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == seen


def test_the_example_is_a_plan_and_needs_no_dask():
    code = "import helpers.after.campaign.merge as m, helpers.after.campaign.plan as p, sys; "
    code += "assert len(p.read_plan('examples/campaign.yml').tasks()) == 10; "
    code += "sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

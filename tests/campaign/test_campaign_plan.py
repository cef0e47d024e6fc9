"""A plan is crossed, named and fingerprinted; a wrong one is refused and its entry named."""

import json
import shutil
import subprocess
import sys

import pytest

from helpers.after.campaign import session as campaign_session
from helpers.after.campaign.plan import PlanError, make_plan, read_plan
from helpers.after.campaign.session import NOTEBOOK, ROOT, code_hash, first_lines, visible_gpus

EXAMPLE = ROOT / "examples" / "campaign.yml"


def names(plan):
    return [task.session for task, _ in plan.tasks()]


def test_lists_are_crossed_and_each_crossing_is_repeated():
    plan = make_plan({"parameters": {"seed": [0, 1], "batch_size": [1, 8]}, "repetitions": 2})
    crossed = [(p["seed"], p["batch_size"]) for p in plan.sets]
    assert crossed == [(0, 1), (0, 8), (1, 1), (1, 8)]
    assert len(set(names(plan))) == 8
    repetitions = [task.repetition for task, _ in plan.tasks()]
    assert repetitions == [1] * 4 + [2] * 4  # all sets, then all again


def test_several_sets_and_several_kinds_of_workers():
    kinds = [{"GPU": 1, "H100": 1}, {"GPU": 1, "L4": 1}]
    plan = make_plan({"parameters": [{"seed": 0}, {"seed": [1, 2]}], "resources": kinds})
    assert [p["seed"] for p in plan.sets] == [0, 1, 2]
    assert names(plan)[:2] == ["s0001-r0001-H100", "s0001-r0001-L4"]
    assert [kind for _, kind in plan.tasks()] == kinds * 3


def test_every_parameter_goes_to_the_notebook_but_those_that_are_the_campaigns():
    (parameters,) = make_plan({"parameters": {"measure_iters": 20}}).sets
    assert (parameters["measure_iters"], parameters["runs"]) == (20, 3)
    assert not {"session", "results_dir", "strict"} & set(parameters)


def test_the_id_is_the_contents_however_it_is_written(tmp_path):
    one, two = tmp_path / "one.yml", tmp_path / "two.yml"
    one.write_text("parameters: {seed: [0, 1], runs: 3}\nrepetitions: 2\n")
    two.write_text("# the same\nrepetitions: 2\nparameters:\n  seed: [0, 1]\nresources: {GPU: 1}\n")
    assert read_plan(one).id == read_plan(two).id
    two.write_text("repetitions: 3\nparameters:\n  seed: [0, 1]\n")
    assert read_plan(one).id != read_plan(two).id


def test_the_code_is_what_measures(tmp_path, monkeypatch):
    helpers = tmp_path / "helpers"
    (helpers / "campaign").mkdir(parents=True)
    (helpers / "plots").mkdir()
    clocks = helpers / "results" / "clocks.py"
    clocks.parent.mkdir()
    clocks.write_text("tick = 1")
    apart = (helpers / "campaign" / "plan.py", helpers / "plots" / "campaign.py")
    for path in apart:
        path.write_text("")
    shutil.copy(ROOT / NOTEBOOK, tmp_path)
    monkeypatch.setattr(campaign_session, "ROOT", tmp_path)
    before = code_hash()
    for path in apart:
        path.write_text("# measures nothing")
    notebook = json.loads((tmp_path / NOTEBOOK).read_text())
    for cell in notebook["cells"]:
        cell["outputs"] = []
    notebook["cells"][0]["source"] = "prose"
    (tmp_path / NOTEBOOK).write_text(json.dumps(notebook))
    assert code_hash() == before
    clocks.write_text("tick = 2")
    assert code_hash() != before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("seed: 0", "unknown entry 'seed': the entries are parameters,"),
        ("- seed", "a mapping with parameters"),
        ("parameters: {seeed: 0}", "parameters: unknown parameter 'seeed'; did you mean 'seed'"),
        ("parameters: {seed: [0, -1]}", "parameters: parameter 'seed': got -1"),
        ("parameters: [{seed: 0}, {runs: 1}]", "parameters, entry 2: parameter 'runs': got 1"),
        ("parameters: {seed: []}", "'seed' is an empty list"),
        ("parameters: [{seed: 0}, {seed: 0, runs: 3}]", "entry 2: .*planned twice.*entry 1"),
        ("parameters: {session: s}", "'session' cannot be planned: a campaign names"),
        ("parameters: {strict: true}", "'strict' cannot be planned"),
        ("parameters: {1: 2}", "unknown parameter '1'"),
        ("parameters: []", "parameters: the list is empty"),
        ("parameters: 3", "parameters: got 3"),
        ("repetitions: 0", "repetitions: got 0 .int., an integer >= 1"),
        ("repetitions: true", "repetitions: got True .bool."),
        ("exclusive_host: 1", "exclusive_host: got 1 .int., true or false"),
        ("resources: {CPU: 1}", "resources: GPU is missing"),
        ("resources: {GPU: 0}", "resources: GPU: got 0 .int., a number > 0"),
        ("resources: {GPU: 1, 'a/b': 1}", "'a/b' .str. is no name of a resource"),
        ("resources: [{GPU: 1}, {GPU: 1}]", "entry 2: .* twice"),
        ("repetitions: 1000000", "1000000 sessions are planned, at most"),
        ("notebook: J2.ipynb", "notebook: 'J2.ipynb' .str. is no notebook"),
        ("notebook: Makefile", "notebook: 'Makefile' .str. is no notebook"),
        ("parameters: {seed: 0", "cannot be read as a plan"),
        ("!!python/object/apply:os.getcwd []", "cannot be read as a plan"),  # nothing is run
    ],
)
def test_a_wrong_plan_is_refused_and_its_entry_named(tmp_path, content, told):
    path = tmp_path / "plan.yml"
    path.write_text(content)
    with pytest.raises(PlanError, match=rf"(?s)plan\.yml.*{told}"):
        read_plan(path)


def test_a_plan_that_is_not_there_is_refused():
    with pytest.raises(PlanError, match=r"nowhere\.yml cannot be read"):
        read_plan("nowhere.yml")


def test_the_example_is_a_plan():
    assert len(names(read_plan(EXAMPLE))) == 10


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
    modules = ("plan", "session", "merge", "comparison")
    code = "import helpers.after.campaign.plot; "
    code += "".join(f"import helpers.after.campaign.{name}; " for name in modules)
    code += "import sys; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

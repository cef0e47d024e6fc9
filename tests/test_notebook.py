"""The notebook as its users run it: papermill, nbval, verbatim from the root."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from result_rows import a_run, opened

from helpers.annex.variants import PARTS
from helpers.parameters import Parameters
from helpers.results import PUBLISHED, ResultsError, read_results
from helpers.validation import judge

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "J1_benchmark.ipynb"
CHECKED = "nbval-check-output"
SMALL = "-p device cpu -p runs 2 -p warmup_iters 10 -p measure_iters 60 -p eval_images 200"


def run(*command, folder=ROOT):
    """Run a command of this environment in a folder; returns what it said and its exit code."""
    tool, how = Path(sys.executable).parent / command[0], {"capture_output": True, "text": True}
    environment = os.environ | {"PWD": str(folder)}  # as a shell has it
    return subprocess.run([tool, *command[1:]], cwd=folder, env=environment, timeout=600, **how)


def papermill(out, *arguments, folder=ROOT):
    return run("papermill", NOTEBOOK, out, "--no-progress-bar", *arguments, folder=folder)


def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [c for c in code_cells(notebook) if tag in c.metadata.get("tags", [])]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One small session through papermill: its folder and the executed notebook."""
    folder = tmp_path_factory.mktemp("papermill")
    given = f"{SMALL} -p dataset synthetic -p session small -p results_dir".split()
    done = papermill(folder / "out.ipynb", *given, str(folder / "results"))
    assert done.returncode == 0, done.stderr
    return folder / "results" / "small", nbformat.read(folder / "out.ipynb", as_version=4)


def test_a_session_leaves_everything_in_its_folder(session):
    folder, _ = session
    names = {path.name for path in folder.iterdir()}
    assert {"results.csv", "run_1.npz", "run_2.npz", "environment.json", "session.json"} <= names
    assert sum(name.endswith(".png") for name in names) >= 4
    assert json.loads((folder / "session.json").read_text())["state"] == "complete"
    assert not (folder.parent / PUBLISHED).exists()  # J1's own sessions are
    rows = read_results(folder / "results.csv")
    assert list(rows.columns[:5]) == ["variant", "accuracy", "lat_mean", "lat_p95", "timestamp"]
    assert rows["run"].tolist() == [1, 2]
    assert set(rows["clock"]) == {"host"}
    assert set(rows["dataset"]) == {"synthetic"}


def test_the_executed_notebook_is_clean(session):
    _, notebook = session
    assert "widgets" not in notebook.metadata
    outputs = [o for c in code_cells(notebook) for o in c.outputs]
    for output in outputs:
        assert output.get("name") != "stderr", output
        assert "<Figure size" not in str(output)
    assert sum("<img alt=" in o.get("data", {}).get("text/html", "") for o in outputs) >= 4
    assert "synthétique" in json.dumps(notebook.cells, ensure_ascii=False)


OWN = """
import torch
from torch import nn

def make():
    mixer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.Embedding(100, 16), mixer)
    model.example_inputs = torch.randint(100, (8, 12))
    return model
"""


def test_strict_fails_and_keeps_the_results_of_a_model_of_ones_own_started_elsewhere(tmp_path):
    (tmp_path / "tokens.py").write_text(OWN)
    given = f"{SMALL} -p model tokens:make -p variants fp32,bf16 -p session own".split()
    given += ["-p", "compare_processes", "3", "-p", "dataset", "synthetic", "-p", "strict", "True"]
    given += ["-p", "max_p95_spread", "1e-9", "-p", "results_dir", str(tmp_path)]
    done = papermill(tmp_path / "out.ipynb", "--cwd", str(ROOT), *given, folder=tmp_path)
    assert (done.returncode, "NON ACCEPTÉ" in done.stderr) == (1, True), done.stderr
    rows = read_results(tmp_path / "own" / "results.csv")
    assert set(rows["accepted"]) == {"no"}
    assert set(rows["variant"]) == {"fp32", "fp32 (A/A)", "bf16"}
    assert rows["accuracy"].isna().all()
    told = rows[["dataset", "input_shape", "eval_images"]].drop_duplicates().to_numpy().tolist()
    assert told == [["example", "1x12", 0]]


def test_bad_parameters_stop_before_anything_is_touched(tmp_path):
    bad = ["-p", "strict", "true", "-p", "runs", "1", "-p", "device", "gpu"]
    done = papermill(tmp_path / "out.ipynb", *bad, "-p", "results_dir", str(tmp_path / "results"))
    assert done.returncode == 1
    last = "\n".join(done.stderr.strip().splitlines()[-4:])
    assert all(told in last for told in ("strict", "'true'", "runs", "got 1 ", "device", "'gpu'"))
    assert not (tmp_path / "results").exists()


def test_cells_may_be_run_again_and_refuse_changed_parameters_and_runs_of_before(tmp_path):
    cells = {cell.id: cell.source for cell in code_cells(stored())}
    nodes = [n for key in cells.keys() - {"parameters"} for n in ast.walk(ast.parse(cells[key]))]
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not names & Parameters.__dataclass_fields__.keys()
    exec("\n".join(cells[key] for key in ("parameters", "imports", "validate")), space := {})
    kept = SimpleNamespace(parameters=space["parameters"], runs=(), done=int)
    space |= {"network": 0, "batches": 0, "machine": SimpleNamespace(device=0), "recording": kept}
    space |= {"measure_runs": lambda *_: (), "show": lambda *_: None, "first": 1}
    exec(f"{cells['validate']}\n{cells['runs']}", space)
    with pytest.raises(AssertionError):  # a session whose own first run is yet to come
        exec(f"first = None\n{cells['runs']}", space)
    space |= {"first": 1, "measure_iters": 60}
    for again in ("", cells["validate"], "measure_iters = 500"):
        with pytest.raises(AssertionError):
            exec(f"{again}\n{cells['runs']}", space)
    space |= {"verdict": judge([a_run(), a_run()]), "recording": opened(tmp_path), "used": "random"}
    receipt = SimpleNamespace(status="calibrated", reason="")
    space |= {"receipt": receipt, "profile": None, "unseen": ""}
    for key in ("fig-time", "fig-distribution", "fig-p95", "verdict"):
        with pytest.raises(ResultsError, match="other runs"):
            exec(cells[key], space)
    assert {p.stem for p in tmp_path.rglob("*.*")} == {"session", "environment", "parameters"}


def test_help_lists_every_parameter_with_type_and_help():
    done = run("papermill", "J1_benchmark.ipynb", "--help-notebook")
    assert done.returncode == 0
    for name, field in Parameters.__dataclass_fields__.items():
        pattern = rf"^\s+{name}: {type(field.default).__name__} \(default .+\)\s*\S+"
        assert re.search(pattern, done.stdout, re.MULTILINE), name


def test_the_notebook_is_fit_to_be_committed():
    notebook = stored()
    (variants,) = (cell.source for cell in notebook.cells if cell.id == "h-annex")
    assert PARTS.keys() - set(re.findall(r"`(\w+)`", variants)) == set()
    assert notebook.metadata.kernelspec.name == "python3"
    assert not tagged(notebook, "injected-parameters")
    cells = [cell.source.splitlines() for cell in code_cells(notebook) if cell.id != "parameters"]
    assert max(map(len, cells)) <= 8
    assert len(cells) < 34
    assert sum(map(len, cells)) + len(Parameters.__dataclass_fields__) <= 120
    assert all("def " not in cell.source for cell in code_cells(notebook))
    assert NOTEBOOK.stat().st_size < 1_000_000
    text = NOTEBOOK.read_text(encoding="utf8")
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_checked_cells_exist_and_the_others_are_silent_or_ignored():
    checked = tagged(stored(), CHECKED)
    assert len(checked) >= 5
    text = " ".join(str(cell.outputs) for cell in checked)
    for constant in ("airplane", "(50000, 32, 32, 3)", "lat_p95", "respectée : True"):
        assert constant in text
    for cell in code_cells(stored()):
        tags = cell.metadata.get("tags", [])
        assert CHECKED in tags or "nbval-ignore-output" in tags or not cell.outputs, cell.source
        assert cell.outputs or CHECKED not in tags, cell.source

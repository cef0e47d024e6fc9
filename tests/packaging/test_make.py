"""The Makefile's own recipes in a folder with spaces and accents; what they call is stubbed.

`stubs/` stands for venv, pip, papermill, jupyterlab and the report. Where papermill matters (its
parameters, its end by a signal) it is the real one, on a notebook of two cells.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "J1_benchmark.ipynb"
# what a `make test` above would hand down
MAKES_OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SESSION", "RESULTS", "RUNS", "ARGS", "PYTHON")
PARAMETERS = 'session: str = ""\nresults_dir: str = ""\nmodel: str = ""\nruns: int = 3'
MEASURES = """import time
print("measuring")
while True:
    with open(f"{results_dir}/{session}/samples", "a") as file:
        file.write("1.0\\n")
    time.sleep(0.05)"""


class Project:
    """A fresh clone without a .venv; `real` names the stubs that are left out."""

    def __init__(self, tmp_path: Path, *real: str):
        self.folder, self.stubs = tmp_path / "clé d'été (copie)", tmp_path / "stubs"
        without = shutil.ignore_patterns("__pycache__", *real)
        shutil.copytree(Path(__file__).with_name("stubs"), self.stubs, ignore=without)
        self.folder.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        for name in ("requirements.txt", "constraints.txt", NOTEBOOK):
            (self.folder / name).touch()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start make in a process group of its own, both outputs readable."""
        kept = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
        return subprocess.Popen(
            ["make", *arguments],
            cwd=self.folder,
            env=kept | {"PYTHON": sys.executable, "PYTHONPATH": str(self.stubs)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
            # ignored where the tests themselves run in the background of a shell
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def made(self, *arguments: str, fails: bool = False, **environment: str) -> list[str]:
        """Run make, which must succeed (or `fails`); returns what it prints, or its errors."""
        process = self.start(*arguments, **environment)
        said, complained = process.communicate(timeout=120)
        assert bool(process.returncode) == fails, complained
        return (complained if fails else said).splitlines()

    def installs(self) -> bool:
        """Does `make benchmark` install what the lists say?"""
        lists = "-c constraints.txt -r requirements.txt"
        return any(line.startswith("pip") and lists in line for line in self.made("benchmark"))


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def notebook(tmp_path) -> Project:
    """A project with the real papermill and a notebook that measures until it is stopped."""
    project = Project(tmp_path, "papermill")
    parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [parameters, nbformat.v4.new_code_cell(MEASURES)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    made = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(made, project.folder / NOTEBOOK)
    return project


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"waited 60 s for {path}"
        time.sleep(0.05)


def test_first_command_in_a_fresh_clone_and_four_of_one_second(project):
    """cases 1 and 21: an install of 3 s between the session's name and its report."""
    said = project.made("benchmark", "-j4", INSTALL_S="3")
    (folder,) = project.folder.glob("results/*")
    assert said[-1] == f"table of runs|results/{folder.name}"
    given = json.loads((folder / "session.json").read_text("utf-8"))
    assert (given["session"], given["runs"]) == (folder.name, "3")
    assert (folder / NOTEBOOK).is_file()
    assert not any(p.wait() for p in [project.start("benchmark") for _ in range(4)])
    assert len(list(project.folder.glob("results/*"))) == 5


NAMED = [
    (("SESSION=mine", "RESULTS=mes résultats"), {}, "mes résultats/mine"),
    ((), {"SESSION": "mine", "RESULTS": "ailleurs"}, "ailleurs/mine"),
    (("SESSION=mine", "RESULTS=~/l'été"), {"HOME": "../chez moi"}, "../chez moi/l'été/mine"),
]


@pytest.mark.parametrize(("arguments", "environment", "folder"), NAMED)
def test_a_named_session_is_written_where_it_is_named_and_once(
    project, arguments, environment, folder
):
    """cases 1 and 17"""
    said = project.made("benchmark", *arguments, **environment)
    assert said[-1] == f"table of runs|{folder}"
    assert (project.folder / folder / "session.json").is_file()
    assert folder in "".join(project.made("benchmark", *arguments, fails=True, **environment))


MISNAMED = ["ARGS=-r results_dir y", "ARGS=-psession x", "ARGS=-f session.yml", "SESSION=../x"]


@pytest.mark.parametrize("argument", MISNAMED)
def test_a_session_misnamed_or_named_by_args_leaves_no_folder(notebook, argument):
    """case 6"""
    (notebook.folder / "session.yml").write_text("session: x", encoding="utf-8")
    (complained,) = notebook.made("benchmark", argument, fails=True)[:1]
    assert ("use SESSION=, RESULTS=" if "ARGS" in argument else "use letters") in complained
    assert not {"results", "x"} & {path.name for path in notebook.folder.iterdir()}


ENDS = {
    "TERM to make": lambda pid: os.kill(pid, signal.SIGTERM),
    "TERM to its group": lambda pid: os.killpg(pid, signal.SIGTERM),
    "INT to its group": lambda pid: os.killpg(pid, signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_signal_ends_the_measurement_in_order(notebook, end):
    folder = notebook.folder / "results" / "ended"
    args = "ARGS=-p model 'session results_dir'"  # as a value they are no names
    process = notebook.start("benchmark", "SESSION=ended", args)
    wait_for(folder / "samples")
    time.sleep(2)  # what it printed before is on its way to papermill
    end(process.pid)
    assert "table of runs" not in process.communicate(timeout=30)[0]
    assert process.returncode != 0
    executed = nbformat.read(folder / NOTEBOOK, as_version=4)
    assert "measuring" in executed.cells[-1].outputs[0].text
    size = (folder / "samples").stat().st_size
    time.sleep(1.5)
    assert (folder / "samples").stat().st_size == size


@pytest.mark.parametrize(("moment", "number"), [("venv", signal.SIGINT), ("pip", signal.SIGKILL)])
def test_an_interrupted_install_is_made_again(project, moment, number):
    """No half-made .venv is taken for whole, whenever it was left."""
    process = project.start("benchmark", HANG_AT=moment)
    wait_for(project.folder / "reached")
    os.killpg(process.pid, number)
    process.communicate(timeout=30)
    assert not (project.folder / ".venv" / "installed").exists()
    assert project.installs()
    assert len(list(project.folder.glob(".venv/made-*"))) == 1  # nothing of the first is left
    assert not project.installs()


def test_the_environment_follows_its_lists_and_its_python(project):
    constraints, python = project.folder / "constraints.txt", project.folder / ".venv/bin/python"
    project.made("benchmark")
    os.utime(constraints, (time.time() + 5,) * 2)
    assert project.installs()
    os.utime(constraints, (1, 1))
    python.unlink()
    python.symlink_to("/nowhere/python3.11")  # its Python was removed by an upgrade
    assert project.installs()


def test_lab_and_report_take_options_and_folders_with_spaces(project):
    """case 24"""
    said = project.made("lab", "ARGS=--allow-root --notebook-dir='mes cahiers'")
    assert said[-1] == f"--allow-root|--notebook-dir=mes cahiers|{NOTEBOOK}"
    assert "mes resultats" in "".join(project.made("report", "RESULTS=mes resultats", fails=True))
    for age, session in ((100, "an old one"), (10, "latest")):
        folder = project.folder / "mes resultats" / session
        folder.mkdir(parents=True)
        (folder / "verdict.json").touch()
        os.utime(folder / "verdict.json", (time.time() - age,) * 2)
    for arguments, session in (((), "latest"), (("SESSION=an old one",), "an old one")):
        said = project.made("report", "RESULTS=mes resultats", *arguments)
        told = [f"table of runs|{form}|mes resultats/{session}" for form in ("markdown", "html")]
        assert said[-2:] == told

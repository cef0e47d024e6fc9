"""JupyterLab on a copy of the project, and a notebook open in it as a person sees it."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "J1_benchmark.ipynb"
START_S, RUN_S = 60, 240
SETTINGS = {
    # No windowing: every cell is in the page, so that every figure can be looked at.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
_WIDGET = "window.jupyterapp.shell.currentWidget"


def copy_project(folder: Path, **parameters) -> Path:
    """Copy the notebook and its modules, with other values at the end of the parameters cell."""
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pyc*"))
    notebook = nbformat.read(ROOT / NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.id == "parameters")
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    nbformat.write(notebook, folder / NOTEBOOK)
    return folder


@contextmanager
def serving(folder: Path, private: Path):
    """Run JupyterLab on a free loopback port, with none of the user's settings; yields its URL."""
    for name, content in SETTINGS.items():
        file = private / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    options = [f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    options += ["--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True"]
    options += ["--LabApp.extension_manager=readonly"]
    places = [f"JUPYTER{name}_DIR" for name in ("_CONFIG", "LAB_WORKSPACES", "_RUNTIME")]
    environment = os.environ | {name: str(private / name) for name in (*places, "IPYTHONDIR")}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(private / "settings")
    command = [sys.executable, "-m", "jupyterlab", *options]
    with (private / "lab.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{port}/api?token={token}", server, private / "lab.log")
        yield lambda path: f"http://127.0.0.1:{port}/lab/tree/{path}?token={token}&reset"
    finally:
        server.terminate()
        server.wait(30)


def _await(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start: {log.read_text(encoding='utf-8')[-2000:]}")


class OpenNotebook:
    """One notebook open in a page; what is in it is asked of JupyterLab's own model."""

    def __init__(self, page, url: str):
        self.page = page
        page.set_default_timeout(1000 * START_S)
        page.goto(url)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_function(f"({_WIDGET})?.sessionContext.session?.kernel?.status === 'idle'")

    def cells(self) -> dict[str, dict]:
        """The cells as they would be saved, by identifier."""
        cells = self.page.evaluate(f"{_WIDGET}.content.model.toJSON().cells")
        return {cell["id"]: cell for cell in cells}

    def menu(self, menu: str, entry: str) -> None:
        """Choose an entry of the menu bar."""
        self.page.get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=entry).first.click()

    def run(self, name: str) -> None:
        """Select a cell and press Ctrl+Enter."""
        cell = self.page.locator(".jp-Notebook .jp-Cell").nth(list(self.cells()).index(name))
        cell.locator(".jp-InputArea-prompt").click()
        self.page.keyboard.press("Control+Enter")

    def wait(self) -> None:
        """Until the kernel has been idle for a moment and no cell waits for it."""
        waiting = "prompt => prompt.textContent.includes('[*]')"
        self.page.wait_for_timeout(500)
        self.page.wait_for_function(
            f"""{_WIDGET}.sessionContext.session.kernel.status === 'idle' &&
            ![...document.querySelectorAll('.jp-InputArea-prompt')].some({waiting})""",
            timeout=1000 * RUN_S,
        )

    def write(self, name: str, old: str, new: str) -> None:
        """Edit a cell's code."""
        cells = self.cells()
        source = "".join(cells[name]["source"])
        assert old in source
        shared = f"{_WIDGET}.content.model.cells.get({list(cells).index(name)}).sharedModel"
        self.page.evaluate(f"source => {shared}.setSource(source)", source.replace(old, new))


def failures(cells: dict[str, dict]) -> list[str]:
    """Errors and warnings among the outputs, each with its cell."""
    return [
        f"{name}: {output.get('evalue') or output.get('text')}"
        for name, cell in cells.items()
        for output in cell.get("outputs", [])
        if output["output_type"] == "error" or output.get("name") == "stderr"
    ]


def text(cell: dict) -> str:
    """All text of a cell's outputs."""
    contents = [(out.get("text", ""), *out.get("data", {}).values()) for out in cell["outputs"]]
    return "\n".join("".join(c) if isinstance(c, list) else str(c) for out in contents for c in out)

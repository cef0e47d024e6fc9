import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.after.report import session_html, session_markdown, write_report
from helpers.results import ResultsError, read_session
from tests.disk_session import MACHINE, row_of, write_session

ROOT = Path(__file__).parents[2]
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
)
SAMPLES = {"host_ms": [1.0, 1.1, 1.2] * 7}
GIVEN = {"model": "/home/somebody/secret/run.pt", "train_epochs": 2}
RESERVED = "ACCEPTÉ SOUS RÉSERVE — horloge GPU ; mesures perturbées : CPU occupé"
SCRIPT = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
HOSTILE = (
    f"{SCRIPT} [click](javascript:alert(1)) `{SCRIPT}` | **bold** ![x](http://h.invalid/x.png)"
)


def written(folder, name, texts, notebook, sentences, machine=MACHINE, **changes):
    """A session of two runs, with its executed notebook and the annex's table."""
    rows = [(row_of(SAMPLES["host_ms"], run=k, **changes), SAMPLES) for k in (1, 2)]
    path = write_session(folder, name, rows, machine, GIVEN, sentences)
    said = new_output("stream", text=f"session {name}\n")
    notebook.cells.append(new_code_cell(outputs=[said]))
    (path / "J1_benchmark.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (path / "comparaison.md").write_text(texts, encoding="utf-8")
    return read_session(path)


@pytest.fixture
def session(tmp_path):
    alt = {"image/png": {"alt": "p95 < 2 ms"}}
    figure = new_output("display_data", {"image/png": PIXEL}, metadata=alt)
    table = new_output("display_data", {"text/html": "<table><tr><td>1,31</td></tr></table>"})
    folded = "<details ontoggle=x>\n<summary>Plus</summary>\n\n- cause\n\n</details>"
    cells = [
        new_markdown_cell("# Carnet\n\nVoir [le protocole](README_PROTOCOLE.md)."),
        new_markdown_cell("## 1. L'étape & la mesure"),
        new_code_cell("secret_code()", outputs=[figure, table], execution_count=1),
        new_code_cell(outputs=[new_output("display_data", {"text/markdown": folded})]),
    ]
    sentences = [RESERVED, "Perturbations :\n  - aucune, `fp32`"]
    texts = "| Variante |\n| --- |\n| fp16 |\n"
    return written(tmp_path / "results", "mine", texts, new_notebook(cells=cells), sentences)


@pytest.fixture
def hostile(tmp_path):
    """Attack A3: a session's folder in which every text is an attack."""
    machine = json.loads(json.dumps(MACHINE).replace('"A CPU"', json.dumps(HOSTILE)))
    machine["gpu"] = {"name": HOSTILE, "uuid": HOSTILE}
    machine["software"] |= {"torch": HOSTILE}
    data = {"image/png": f'"><script>{SCRIPT}', "text/html": SCRIPT}
    metadata = {"image/png": {"alt": f'"{SCRIPT}', "width": f'1"{SCRIPT}'}}
    kinds = {"text/html": SCRIPT, "text/markdown": HOSTILE, "image/svg+xml": SCRIPT, "x/y": SCRIPT}
    kinds |= {"application/javascript": "document.title='owned'", "image/png": PIXEL}
    outputs = [new_output("display_data", {k: v}, metadata=metadata) for k, v in kinds.items()]
    outputs += [new_output("stream", text=SCRIPT), new_output("error", traceback=[SCRIPT])]
    outputs += [new_output("display_data", data, metadata=metadata)]
    cells = [new_markdown_cell(f"## {HOSTILE}"), new_code_cell(SCRIPT, outputs=outputs)]
    notebook = new_notebook(cells=cells, metadata={"title": SCRIPT})
    notebook.metadata["language_info"] = {"name": SCRIPT, "mimetype": SCRIPT}
    table = f"| {HOSTILE} |\n| --- |\n| {HOSTILE} |\n{HOSTILE}\n"
    sentences = [HOSTILE, f"{HOSTILE}\n  - {HOSTILE}"]
    changes = dict.fromkeys(("variant", "precision", "flags", "gpu_name"), HOSTILE)
    made = written(tmp_path, "hostile", table, notebook, sentences, machine, **changes)
    (made.folder / f"{HOSTILE.replace('/', '')}.txt").touch()
    return read_session(made.folder)


def test_the_markdown_summary_has_all_that_matters_and_no_path(session):
    text = session_markdown(session)
    assert text.startswith(f"# J1, session mine\n\n**{RESERVED}**\n")
    told = ("synthétique", "non estimable", "1×3×32×32", "1,100", "| fp16 |", "| run.pt, 2 ")
    assert all(expected in text for expected in (*told, "`fp32`"))
    assert "somebody" not in text
    assert str(session.folder.parent) not in text


def test_the_page_is_one_file_that_loads_nothing_and_shows_no_code(session):
    page = session_html(session)
    tags = BeautifulSoup(page, "html.parser")
    assert not tags.find_all(["script", "link", "iframe"])
    assert not re.search(r"@import|url\(|secret_code|README_PROTOCOLE", page)
    assert all(element in page for element in ("<td>1,31</td>", "<code>fp32</code>"))
    assert "<details>\n<summary>Plus</summary>\n<ul>\n<li>cause</li>" in page
    assert [image["alt"] for image in tags.find_all("img")] == ["p95 < 2 ms"]
    assert page.index(RESERVED) < page.index("Carnet")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "no notebook"),
        (None, "0 executed notebooks"),
        (json.dumps(new_notebook()), "another session"),
    ],
)
def test_a_folder_without_one_readable_notebook_is_named(session, content, told):
    notebook = session.folder / "J1_benchmark.ipynb"
    notebook.write_text(content) if content else notebook.unlink()
    with pytest.raises(ResultsError, match=told):
        session_html(session)


def print_report(*arguments, stdout=subprocess.PIPE):
    command = [sys.executable, "-m", "helpers.after.report", *arguments]
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}  # case 11: a machine set to Latin-1
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=stdout, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_command_prints_whatever_the_terminal_can_show(session):
    """Case 11, also `make benchmark | head -1`, whose pipe is closed."""
    assert b"ACCEPT\xc9 SOUS R\xc9SERVE ? horloge" in print_report(session.folder)
    read, write = os.pipe()
    os.close(read)
    print_report("text", session.folder, stdout=write)
    os.close(write)


def test_a_hostile_session_leaves_no_live_markup(hostile):
    """Attack A3: nothing of it becomes an element, a handler, an address, code or an image."""
    assert not re.search(r"<\w|\]\(|!\[|(?<!\\)`|https?://", session_markdown(hostile))
    tags = BeautifulSoup(write_report(hostile, "html").read_bytes(), "html.parser")
    assert "default-src 'none'" in tags.find_all("meta")[-1]["content"]
    assert not tags.find_all("script")
    for tag in tags.find_all(True):
        assert not [name for name in tag.attrs if name.startswith("on")], tag
        for name in ("href", "src"):
            assert tag.get(name, "#").startswith(("#", "data:image/png;base64,"))

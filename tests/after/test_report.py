import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from fakes import make_result
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.after.report import session_text, write_report
from helpers.after.report.html import session_html
from helpers.after.report.markdown import session_markdown
from helpers.parameters import validate
from helpers.results import ResultsError, open_session, read_session
from helpers.results.rows import run_row, run_samples

ROOT = Path(__file__).parents[2]
MACHINE = {
    "gpu": None,
    "cpu": {"model": "A CPU"},
    "software": {"torch": "2.14.1"},
    "cuda": {"torch_cuda": None, "driver": None},
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
)


@pytest.fixture
def recording(tmp_path):
    """A session with all but its end."""
    recording = open_session(tmp_path / "results", "mine")
    recording.save_environment(MACHINE)
    recording.save_json("parameters", {"model": "resnet18_cifar", "train_epochs": 2})
    for run in (1, 2):
        result = make_result([1.0, 1.1, 1.2])
        row = run_row(
            result,
            run=run,
            parameters=validate(),
            environment=MACHINE,
            dataset="synthetic",
            accuracy=0.1,
            eval_images=100,
            session="mine",
            flags=("a|b", "preempted", "uncalibrated") if run == 2 else (),
        )
        recording.add_run(row, run_samples(result))
    recording.save_json("verdict", {"sentences": ["ACCEPTÉ — tout va bien", "Étalonnage : oui."]})
    return recording


@pytest.fixture
def session(recording):
    recording.complete()
    return read_session(recording.folder)


def executed_notebook():
    figure = new_output(
        "display_data", {"image/png": PIXEL}, metadata={"image/png": {"alt": 'p95 < "2" ms'}}
    )
    return new_notebook(
        cells=[
            new_markdown_cell("# Carnet\n\nVoir [le protocole](README_PROTOCOLE.md)."),
            new_markdown_cell("## 1. L'étape & la mesure"),
            new_code_cell("secret_code()", outputs=[figure], execution_count=1),
        ],
        metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}},
    )


@pytest.fixture
def page(session):
    nbformat.write(executed_notebook(), session.folder / "J1_benchmark.ipynb")
    return session_html(session)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def test_runs_verdict_and_files_are_printed(session):
    text = session_text(session)
    assert text.splitlines()[0] == session.sentences[0]
    assert "gpu_p95" in text.splitlines()[-1 - len(session.rows)]  # the table comes last
    for expected in ("synthetic", "lat_p95", "ACCEPTÉ — tout va bien", "run_1.npz"):
        assert expected in text
    assert str(session.folder) in text


def test_an_unfinished_session_is_never_reported_as_finished(recording):
    with pytest.raises(ResultsError, match="'running', not complete"):
        read_session(recording.folder)


def test_a_folder_without_session_is_named(tmp_path):
    with pytest.raises(ResultsError, match="nothing"):
        read_session(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["session.json", "verdict.json"])
def test_a_damaged_state_is_named(session, name):
    (session.folder / name).write_text(json.dumps([]))
    with pytest.raises(ResultsError, match=rf"{name}: an object is needed"):
        read_session(session.folder)


def test_the_markdown_summary_has_all_that_matters_and_no_path(session):
    text = session_markdown(session)
    assert text.startswith("# J1, session mine\n\n**ACCEPTÉ — tout va bien**\n")
    for expected in ("synthétique", "non estimable", "CPU A CPU", "2.14.1", "1×3×32×32", "1,100"):
        assert expected in text
    assert "run_2.npz" in text
    assert str(session.folder.parent) not in text


def test_the_annexes_table_is_in_the_summary(recording):
    recording.save_text("comparaison.md", "| Variante |\n| --- |\n| fp16 |\n")
    recording.complete()
    text = session_markdown(read_session(recording.folder))
    assert "**Variantes, mesurées à tour de rôle**\n\n| Variante |\n" in text
    assert "| fp16 |\n\n**Conditions fixes**" in text


def test_model_and_accuracy_read_as_people_write_them(session):
    text = session_markdown(session)
    assert "| Modèle | resnet18_cifar, 2 époques sur 500 images |" in text
    assert "| 10,00\u00a0% |" in text


def test_every_row_of_a_markdown_table_has_all_its_cells(session):
    rows = [line for line in session_markdown(session).splitlines() if line.startswith("| ")]
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert set(widths[:4]) == {12}
    assert set(widths[4:]) == {3}
    assert r"a&#124;b, processus interrompu, horloge hors tolérance |" in rows[3]


def test_a_checkpoints_folder_is_not_told(recording):
    recording.save_json("parameters", {"model": "/home/somebody/secret/run.pt"})
    recording.complete()
    text = session_markdown(read_session(recording.folder))
    assert "| Modèle | run.pt |" in text
    assert "somebody" not in text


def test_the_page_is_one_file_that_loads_nothing(page):
    tags = Tags(page)
    for name, attribute in (("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src")):
        for attributes in tags.named(name):
            assert attributes.get(attribute, "data:").startswith("data:"), (name, attributes)
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", page)
    assert "import " not in "".join(re.findall(r"<script.*?</script>", page, re.DOTALL))


def test_figures_keep_their_alternative_text(page):
    assert [image["alt"] for image in Tags(page).named("img")] == ['p95 < "2" ms']


def test_code_is_folded_and_the_result_comes_first(page):
    tags = Tags(page)
    assert len(tags.named("details")) == 1
    assert "open" not in tags.named("details")[0]
    assert page.index("ACCEPTÉ — tout va bien") < page.index("Carnet")
    assert tags.named("html")[0]["lang"] == "fr"
    assert "<title>J1, session mine</title>" in page


def test_the_outline_leads_to_the_headings(page):
    tags = Tags(page)
    # Browsers compare a fragment as they encode it, which is how nbconvert writes identifiers.
    targets = {unquote(attributes.get("id") or "") for _, attributes in tags.found}
    (link,) = [a["href"] for a in tags.named("a") if a.get("class") != "anchor-link"]
    assert link.removeprefix("#") in targets


def test_links_to_files_that_do_not_travel_along_are_plain_text(page):
    assert "Voir le protocole." in page


def test_without_an_executed_notebook_the_remedy_is_said(session):
    with pytest.raises(ResultsError, match=r"0 executed notebooks.*make benchmark"):
        session_html(session)


def test_a_damaged_notebook_is_named(session):
    (session.folder / "J1_benchmark.ipynb").write_text("{")
    with pytest.raises(ResultsError, match="is no notebook"):
        session_html(session)


def test_a_report_written_twice_is_the_same(session):
    path = write_report(session, "markdown")
    first = path.read_text(encoding="utf8")
    assert write_report(read_session(session.folder), "markdown") == path
    assert path.read_text(encoding="utf8") == first


@pytest.mark.parametrize("form", [[], ["text"], ["html"], ["markdown"]])
def test_the_command_line(session, form):
    nbformat.write(executed_notebook(), session.folder / "J1_benchmark.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "helpers.after.report", *form, session.folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if form in (["html"], ["markdown"]):
        assert Path(done.stdout.strip()).parent == session.folder
    else:
        assert "ACCEPTÉ" in done.stdout


def test_a_locale_that_cannot_write_it_ends_nothing(session):
    """Case 11: the last line of `make benchmark`, on a machine set to Latin-1."""
    code = (
        "import sys; sys.stdout.reconfigure(encoding='latin-1'); import helpers.after.report as r; "
    )
    code += f"sys.argv[1:] = [{str(session.folder)!r}]; r.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ACCEPT\xc9 ? tout va bien" in done.stdout


def test_a_closed_pipe_ends_nothing(session):
    """Case 11: `make benchmark | head -1`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "helpers.after.report", session.folder]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


SCRIPT = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
HOSTILE = (
    f"{SCRIPT} [click](javascript:alert(1)) `{SCRIPT}` | **bold** ![x](http://h.invalid/x.png)"
)


@pytest.fixture
def hostile(tmp_path):
    """Attack A3: a session's folder in which every text is an attack."""
    machine = {
        "gpu": {"name": HOSTILE, "uuid": HOSTILE},
        "cpu": {"model": HOSTILE},
        "software": {"torch": HOSTILE},
        "cuda": {"torch_cuda": HOSTILE, "driver": HOSTILE},
    }
    recording = open_session(tmp_path, "hostile")
    recording.save_environment(machine)
    recording.save_json("parameters", {"model": HOSTILE.replace("/", "\N{DIVISION SLASH}")})
    settings = {"parameters": validate(), "environment": machine, "dataset": "synthetic"}
    settings |= {"accuracy": 0.1, "eval_images": 100, "session": "hostile", "flags": (HOSTILE,)}
    for run in (1, 2):
        result = make_result([1.0, 1.1, 1.2])
        row = run_row(result, run=run, variant=HOSTILE, precision=HOSTILE, **settings)
        recording.add_run(row, run_samples(result))
    recording.save_json("verdict", {"sentences": [HOSTILE, f"{HOSTILE}\n  - {HOSTILE}"]})
    recording.save_text("comparaison.md", f"| {HOSTILE} |\n| --- |\n| {HOSTILE} |\n{HOSTILE}\n")
    (recording.folder / f"{HOSTILE.replace('/', '')}.txt").touch()
    data = {"image/png": f'"><script>{SCRIPT}', "text/html": SCRIPT}
    metadata = {"image/png": {"alt": f'"{SCRIPT}', "width": f'1"{SCRIPT}'}}
    outputs = [
        new_output("display_data", {kind: text}, metadata=metadata)
        for kind, text in {
            "text/html": SCRIPT,
            "text/markdown": HOSTILE,
            "image/png": PIXEL,
        }.items()
    ]
    outputs += [new_output("display_data", {kind: SCRIPT}) for kind in ("image/svg+xml", "x/y")]
    outputs += [new_output("display_data", {"application/javascript": "document.title='owned'"})]
    outputs += [new_output("stream", text=SCRIPT), new_output("error", traceback=[SCRIPT])]
    outputs += [new_output("display_data", data | {"image/png": PIXEL}, metadata=metadata)]
    cells = [new_markdown_cell(f"## {HOSTILE}"), new_code_cell(SCRIPT, outputs=outputs)]
    cells[0]["metadata"]["tags"] = [SCRIPT]
    notebook = new_notebook(cells=cells, metadata={"title": SCRIPT})
    notebook.metadata["language_info"] = {"name": SCRIPT, "mimetype": SCRIPT}
    text = json.dumps(notebook)
    (recording.folder / "J1_benchmark.ipynb").write_text(text, encoding="utf8")
    recording.complete()
    return read_session(recording.folder)


def test_a_hostile_sessions_page_has_no_live_markup(hostile):
    """Attack A3: nothing of the session becomes an element, a handler or an address."""
    page = session_html(hostile)
    tags = Tags(page)
    assert "default-src 'none'" in tags.named("meta")[-1]["content"]
    assert not tags.named("script")
    for _, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on")], attributes
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))


def test_a_hostile_sessions_markdown_is_text(hostile):
    """Attack A3: neither Markdown nor HTML is left of what is not ours."""
    text = session_markdown(hostile)
    assert not re.search(r"<\w|\]\(|!\[|`|https?://", text)
    assert all(line.count("|") in (0, 2, 3, 12) for line in text.splitlines())


@pytest.mark.browser
def test_a_hostile_session_in_chromium(hostile, tmp_path):
    """Attack A3: the browser runs nothing and asks for nothing; a picture is kept."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here")
    page = write_report(hostile, "html")
    flags = "--headless --no-sandbox --disable-gpu --disable-background-networking "
    flags += "--disable-component-update --disable-sync --window-size=1200,2400"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    picture = tmp_path / "report_hostile.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], check=True, timeout=120)
    assert picture.stat().st_size > 10_000
    shown = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], check=True, capture_output=True, timeout=120
    ).stdout.decode()
    assert "<title>J1, session hostile</title>" in shown
    assert not Tags(shown).named("script")

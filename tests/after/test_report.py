import json
import re
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
from helpers.after.report.session import read_session
from helpers.parameters import validate
from helpers.results import ResultsError, open_session
from helpers.results.rows import run_row, run_samples

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
    with pytest.raises(ResultsError, match="no finished session"):
        read_session(session.folder)


def test_the_markdown_summary_has_all_that_matters_and_no_path(session):
    text = session_markdown(session)
    assert text.startswith("# J1, session `mine`\n\n**ACCEPTÉ — tout va bien**\n")
    for expected in ("synthétique", "non estimable", "CPU A CPU", "2.14.1", "1×3×32×32", "1,100"):
        assert expected in text
    assert "`run_2.npz`" in text
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
    assert r"a\|b, processus interrompu, horloge hors tolérance |" in rows[3]


def test_a_checkpoints_folder_is_not_told(recording):
    recording.save_json("parameters", {"model": "/home/somebody/secret/run.pt"})
    recording.complete()
    text = session_markdown(read_session(recording.folder))
    assert "| Modèle | run.pt |" in text
    assert "somebody" not in text


@pytest.mark.parametrize("content", [None, [1], {"train_epochs": None}, {"train_epochs": "many"}])
def test_damaged_parameters_are_named(recording, content):
    recording.save_json("parameters", content)
    recording.complete()
    with pytest.raises(ResultsError, match="holds no finished session"):
        read_session(recording.folder)


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
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    if form in (["html"], ["markdown"]):
        assert Path(done.stdout.strip()).parent == session.folder
    else:
        assert "ACCEPTÉ" in done.stdout

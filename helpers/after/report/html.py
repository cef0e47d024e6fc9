"""A session's executed notebook as one HTML file that needs nothing else, code folded."""

import re
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from helpers.after.report.markdown import session_markdown
from helpers.after.report.session import FinishedSession
from helpers.results import ResultsError

TEMPLATES = Path(__file__).parent / "templates"
_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|attachment:)[^)]+\)")


def session_html(session: FinishedSession) -> str:
    """Render the summary of the session, then its executed notebook.

    Raises
    ------
    ResultsError
        There is no executed notebook in the session's folder.
    """
    notebook = _executed_notebook(session)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # the files linked to do not travel with the report
            cell.source = _RELATIVE_LINK.sub(r"\1", cell.source)
    notebook.cells.insert(0, new_markdown_cell(session_markdown(session)))
    notebook.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        language_code="fr",
    )
    title = {"metadata": {"name": f"J1, session {session.name}"}}
    html, _ = exporter.from_notebook_node(notebook, resources=title)
    return html


def _executed_notebook(session: FinishedSession) -> NotebookNode:
    found = sorted(session.folder.glob("*.ipynb"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ResultsError(
            f"session {session.name} has {len(found)} executed notebooks in {session.folder} "
            f"({names}), one is needed: `make benchmark` leaves it there; after papermill, run "
            f"`cp out.ipynb {session.folder}/`; from JupyterLab, save the notebook there with "
            "File > Save Notebook As"
        )
    try:
        return nbformat.read(found[0], as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise ResultsError(f"{found[0]} is no notebook ({error}): run the session again") from None

"""A session's executed notebook as one HTML file that needs nothing else, code folded.

Everything in a session's folder may come from a stranger: the notebook is laid out again from the
parts that a report shows, its HTML keeps only harmless elements, and the page itself forbids the
browser all that it does not need (content security policy, in the template).
"""

import base64
import re
from pathlib import Path

import bleach
import nbformat
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.after.report.markdown import session_markdown
from helpers.results import ResultsError, StoredSession
from helpers.results.files import read_file

TEMPLATES = Path(__file__).parent / "templates"
TAGS = set(bleach.ALLOWED_TAGS) | {"br", "caption", "div", "h1", "h2", "h3", "h4", "hr", "p", "pre"}
TAGS |= {"span", "style", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "wbr"}
ATTRIBUTES = {"*": ["id", "class", "align", "scope", "colspan", "rowspan"], "a": ["href"]}
_RELATIVE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|attachment:)[^)]+\)")


class _Exporter(HTMLExporter):
    """HTMLExporter whose Markdown keeps only harmless elements."""

    @pass_context
    def markdown2html(self, context, source: str) -> str:
        return _harmless(super().markdown2html(context, source))


def _harmless(markup: str) -> str:
    return bleach.clean(markup, TAGS, ATTRIBUTES, {"http", "https"}, strip=True)


def session_html(session: StoredSession) -> str:
    """Render the summary of the session, then its executed notebook.

    Raises
    ------
    ResultsError
        There is no executed notebook in the session's folder.
    """
    shown = [new_markdown_cell(session_markdown(session)), *_executed_cells(session)]
    exporter = _Exporter(
        template_name="report",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=False,  # the figures are in the outputs; a path elsewhere is not followed
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        language_code="fr",
    )
    title = {"metadata": {"name": f"J1, session {session.name}"}}
    page, _ = exporter.from_notebook_node(new_notebook(cells=shown), resources=title)
    return page


def _executed_cells(session: StoredSession) -> list[NotebookNode]:
    found = sorted(session.folder.glob("*.ipynb"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ResultsError(
            f"session {session.name} has {len(found)} executed notebooks in {session.folder} "
            f"({names}), one is needed: `make benchmark` leaves it there; after papermill, run "
            f"`cp out.ipynb {session.folder}/`; from JupyterLab, save the notebook there with "
            "File > Save Notebook As"
        )
    content = read_file(found[0])
    try:
        notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
        return [_shown(cell) for cell in notebook.cells if cell.cell_type in ("markdown", "code")]
    except Exception as error:  # nbformat raises what it meets in a file that is no notebook
        raise ResultsError(f"{found[0]} is no notebook ({error}): run the session again") from None


def _shown(cell: NotebookNode) -> NotebookNode:
    """A cell made again from what is shown of it: no metadata, no identifier of its own."""
    if cell.cell_type == "markdown":  # the files linked to do not travel with the report
        return new_markdown_cell(_RELATIVE_LINK.sub(r"\1", cell.source))
    outputs = [shown for output in cell.outputs if (shown := _shown_output(output))]
    return new_code_cell(str(cell.source), outputs=outputs)


def _shown_output(output: NotebookNode) -> NotebookNode | None:
    if output.output_type == "stream":
        return new_output("stream", name="stdout", text=str(output.text))
    if output.output_type == "error":
        return new_output("error", ename="", evalue="", traceback=[*map(str, output.traceback)])
    data, metadata = {}, {}
    if "image/png" in output.data:
        png = base64.b64decode(output.data["image/png"])
        data["image/png"] = base64.b64encode(png).decode()
        metadata["image/png"] = {"alt": str(output.metadata.get("image/png", {}).get("alt", ""))}
    elif "text/html" in output.data:
        data["text/html"] = _harmless(output.data["text/html"])
    else:
        kept = ("text/markdown", "text/plain")
        data = {kind: str(output.data[kind]) for kind in kept if kind in output.data}
    return new_output("display_data", data, metadata=metadata) if data else None

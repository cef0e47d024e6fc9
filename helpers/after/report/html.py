"""A session's executed notebook, without its code, as one HTML file that needs nothing else.

Everything in a session's folder may come from a stranger: whatever nbconvert makes of it, only
harmless elements are kept of the whole, and the page forbids the browser all that it does not need.
"""

import html
import re
from string import Template

import bleach
import nbformat
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_notebook

from helpers.after.report.markdown import session_markdown
from helpers.results import ResultsError, StoredSession
from helpers.results.files import read_file

TAGS = set(bleach.ALLOWED_TAGS) | {"br", "caption", "div", "h1", "h2", "h3", "h4", "hr", "img", "p"}
TAGS |= {"pre", "span", "style", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "wbr"}
ATTRIBUTES = {"id", "class", "align", "scope", "colspan", "rowspan", "alt", "src", "href"}
ADDRESSES = {"href": ("#", "https://", "http://"), "src": ("data:image/png;base64,",)}
PAGE = Template("""<!doctype html>
<html lang="fr"><head><meta charset="utf-8"><title>$title</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'">
<style>
  body { max-width: 64rem; margin: 1rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }
  img { max-width: 100%; height: auto; }
  pre, .output_html { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .9rem; }
  td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }
  nav a { margin-right: 1.2em; white-space: nowrap; }
</style></head><body>
<nav aria-label="Sommaire">$outline</nav>
<main>$body</main>
</body></html>
""")


def session_html(session: StoredSession) -> str:
    """Render the session's summary, then its one executed notebook (ResultsError without it)."""
    found = sorted(session.folder.glob("*.ipynb"))
    if len(found) != 1:
        raise ResultsError(
            f"{session.folder} holds {len(found)} executed notebooks, one is needed: `make "
            f"benchmark` leaves it there; after papermill, `cp out.ipynb {session.folder}/`"
        )
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    kinds = ["image/png", "text/html", "text/markdown", "text/plain"]
    exporter.config.NbConvertBase.display_data_priority = kinds
    try:
        notebook = nbformat.reads(read_file(found[0]).decode("utf-8"), as_version=4)
        summary = new_markdown_cell(session_markdown(session))
        shown = new_notebook(cells=[summary, *notebook.cells])
        rendered, _ = exporter.from_notebook_node(shown)
    except Exception as error:  # nbformat raises what it meets in a file that is no notebook
        raise ResultsError(f"{found[0]} is no notebook ({error}): run the session again") from None
    body = bleach.clean(rendered, TAGS, _allowed, {"http", "https", "data"}, strip=True)
    headings = re.findall(r"<h2>(.*?)</h2>", body)
    for number, heading in enumerate(headings):
        body = body.replace(f"<h2>{heading}</h2>", f'<h2 id="h{number}">{heading}</h2>', 1)
    outline = "\n".join(f'<a href="#h{n}">{heading}</a>' for n, heading in enumerate(headings))
    title = html.escape(f"J1, session {session.name}")
    return PAGE.substitute(title=title, outline=outline, body=body)


def _allowed(tag: str, name: str, value: str) -> bool:
    return name in ATTRIBUTES and value.startswith(ADDRESSES.get(name, ""))

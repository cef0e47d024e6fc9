"""The documents say what the committed measurements say, and link to what exists."""

import re

import pandas as pd
import pytest

from benchmarks import quoted
from helpers.display.words import TAGS

RULES = {"0,1 %"}  # the calibration's tolerance


@pytest.mark.parametrize(
    "document", quoted.DOCUMENTS, ids=lambda d: str(d.relative_to(quoted.ROOT))
)
def test_every_quoted_number_is_that_of_its_file(document):
    text = document.read_text(encoding="utf8")
    assert quoted.rewritten(text) == text, "run `python -m benchmarks.quoted`"


def test_every_block_is_shown_once_and_every_tag_has_its_row():
    assert quoted.quoted() == dict.fromkeys(quoted.BLOCKS, 1)
    protocol = (quoted.ROOT / "README_PROTOCOLE.md").read_text(encoding="utf8")
    assert [tag for tag in TAGS if f"\n| `{tag}` |" not in protocol] == []


@pytest.mark.parametrize("name", ["README.md", "README_PROTOCOLE.md"])
def test_no_measured_number_stands_outside_the_blocks(name):
    text = quoted.MARKED.sub("", (quoted.ROOT / name).read_text(encoding="utf8"))
    assert set(re.findall(r"\d+[.,]\d+[\s\xa0](?:ms|s|%)(?!\w)", text)) <= RULES


@pytest.mark.parametrize(
    "document", quoted.DOCUMENTS, ids=lambda d: str(d.relative_to(quoted.ROOT))
)
def test_every_link_leads_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf8"))
    assert [t for t in targets if "://" not in t and not (document.parent / t).exists()] == []


def test_the_snippet_of_the_readme_names_what_exists():
    readme = (quoted.ROOT / "README.md").read_text(encoding="utf8")
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    code = snippet.replace("measure_iters=500", "measure_iters=2")
    exec(compile(code, "README.md", "exec"), {})


def test_the_accepted_session_is_real_cifar10_and_complete():
    rows = pd.read_csv(quoted.SESSION / "results.csv")
    assert set(rows["dataset"]) == {"cifar10"}
    assert set(rows["eval_images"]) == {10_000}
    names = {path.name for path in quoted.SESSION.iterdir()}
    assert {"environment.json", "verdict.json", "results_j1_validation.csv"} <= names
    assert {f"run_{k}.npz" for k in rows["run"]} <= names

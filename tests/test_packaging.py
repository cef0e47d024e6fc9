"""One pinned list of dependencies, each with its reason, used by both ways of installing."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[0-9][A-Za-z0-9.]*)\s+# (?P<why>\S.+)")


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


REQUIREMENTS = lines_of("requirements.txt")
CAMPAIGN = lines_of("requirements-campaign.txt")  # for helpers/campaign/ alone
# What an import is called where it differs from the package's name.
PACKAGE_OF = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "IPython": "ipython", "yaml": "pyyaml"}


def names(lines: list[str] = REQUIREMENTS) -> set[str]:
    return {PINNED.fullmatch(line)["name"] for line in lines}


@pytest.mark.parametrize("line", [*REQUIREMENTS, *CAMPAIGN])
def test_requirement_is_pinned_and_says_why(line):
    assert PINNED.fullmatch(line), "expected: name==version  # reason"


def test_no_requirement_twice():
    assert len(names()) == len(REQUIREMENTS)


def test_conda_environment_installs_the_pinned_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    dependencies = environment["dependencies"]
    pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert "python=3.12" in dependencies
    assert "pip" in dependencies
    # pip reads the path from the folder of environment.yml, where conda runs it
    assert pip == ["-r requirements.txt"]
    assert (ROOT / pip[0].removeprefix("-r ")).is_file()


def test_conda_environment_pins_nothing_a_second_time():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert plain == ["python=3.12", "pip"]


def imported_packages(path: Path) -> set[str]:
    """Top-level names of the third-party packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    own = {"helpers", "tests"} | {path.stem for path in (ROOT / "tests").glob("*.py")}
    return found - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "helpers").rglob("*.py")),
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_what_a_module_imports_is_in_the_list(path):
    needed = {PACKAGE_OF.get(name, name) for name in imported_packages(path)}
    # Triton comes with torch's CUDA builds and is imported only where it is there.
    listed = names() | (names(CAMPAIGN) if path.parent.name == "campaign" else set())
    assert needed - {"triton"} <= listed

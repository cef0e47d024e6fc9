"""The pinned lists and constraints.txt say the same, and every way of installing uses them."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LISTS = sorted(path.name for path in ROOT.glob("requirements*.txt"))
# What an import is called where it differs from the package's name.
PACKAGE_OF = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "IPython": "ipython", "yaml": "pyyaml"}
PACKAGE_OF |= {"cuda": "cuda-core", "triton": "torch"}  # torch's CUDA builds bring Triton


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def read(name: str) -> dict[str, Requirement]:
    """Requirements of one list by canonical name; none is there twice."""
    found = [Requirement(re.sub(r"\s+#.*", "", line)) for line in lines_of(name)]
    by_name = {canonicalize_name(requirement.name): requirement for requirement in found}
    assert len(by_name) == len(found), f"{name} names a package twice"
    return by_name


@pytest.mark.parametrize("name", LISTS)
def test_requirements_are_pinned_as_their_constraints_and_say_why(name):
    """issue 15 B; `uv pip compile requirements*.txt -o constraints.txt` mends it."""
    for line in lines_of(name):
        assert re.fullmatch(r"[\w.-]+==[0-9][\w.]*(; [^#]+)?\s+# \S.+", line), line
    constraints = read("constraints.txt")
    for package, requirement in read(name).items():
        assert constraints[package].specifier == requirement.specifier, package


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_torch_brings_is_constrained_on_linux(python, machine):
    """issue 15 B: markers parse and hold where PyTorch's CUDA wheels exist."""
    platform = {"sys_platform": "linux", "platform_machine": machine, "python_version": python}
    platform |= {"python_full_version": f"{python}.6", "platform_system": "Linux"}
    held = {
        name
        for name, found in read("constraints.txt").items()
        if found.marker is None or found.marker.evaluate(platform | {"os_name": "posix"})
    }
    assert {"torch", "triton", "cuda-bindings", "nvidia-cublas", "nvidia-cudnn-cu13"} <= held
    assert all(str(found.specifier).startswith("==") for found in read("constraints.txt").values())


def test_constraints_name_no_machine_and_break_no_platform():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--hash|index|(?<=\s)/\w", text)


def test_conda_environment_installs_the_pinned_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, last = environment["dependencies"]
    assert plain == ["python=3.12", "pip"]  # nothing is pinned a second time
    # pip reads the paths from the folder of environment.yml, where conda runs it
    assert last == {"pip": ["-r requirements.txt", "-c constraints.txt"]}


def imported(path: Path) -> set[str]:
    """Packages that a file imports, by the name to install them with."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.split(".")[0] for name in found} - sys.stdlib_module_names - {"helpers"}
    return {PACKAGE_OF.get(name, name) for name in tops}


def test_what_a_module_imports_is_in_the_list():
    listed, more = set(read("requirements.txt")), set(read("requirements-campaign.txt"))
    for path in (ROOT / "helpers").rglob("*.py"):
        assert imported(path) <= listed | (more if "campaign" in path.parts else set()), path

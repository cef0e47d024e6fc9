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


def read(name: str) -> dict[str, Requirement]:
    """Requirements of one list by canonical name; none is there twice, and none without a pin."""
    lines = re.findall(r"^(?!#)\S.*?(?=\s+#|$)", (ROOT / name).read_text("utf-8"), re.MULTILINE)
    by_name = {canonicalize_name(found.name): found for found in map(Requirement, lines)}
    assert len(by_name) == len(lines), f"{name} names a package twice"
    assert all(re.fullmatch(r"==[\w.]+", str(found.specifier)) for found in by_name.values())
    return by_name


@pytest.mark.parametrize("name", LISTS)
def test_requirements_are_pinned_as_their_constraints_and_say_why(name):
    """issue 15 B; `uv pip compile requirements*.txt -o constraints.txt` mends it."""
    for line in (ROOT / name).read_text("utf-8").splitlines():
        assert not line or line.startswith("#") or re.search(r"\S\s+# \S", line), line
    constraints = read("constraints.txt")
    for package, requirement in read(name).items():
        assert constraints[package].specifier == requirement.specifier, package


@pytest.mark.parametrize("python", ["3.11", "3.14"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_torch_brings_is_constrained_on_linux_and_no_machine_is_named(python, machine):
    """issue 15 B: markers parse and hold where PyTorch's CUDA wheels exist."""
    platform = {"sys_platform": "linux", "platform_machine": machine, "python_version": python}
    platform |= {"python_full_version": f"{python}.6", "platform_system": "Linux"}
    found = read("constraints.txt").items()
    held = {name for name, one in found if not one.marker or one.marker.evaluate(platform)}
    assert {"torch", "triton", "cuda-bindings", "nvidia-cublas", "nvidia-cudnn-cu13"} <= held
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert not re.search(r"https?:|file:|--hash|index|(?<=\s)/\w", text)


def test_conda_environment_installs_the_pinned_list():
    *plain, last = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    assert plain == ["python=3.12", "pip"]  # nothing is pinned a second time
    # pip reads the paths from the folder of environment.yml, where conda runs it
    assert last == {"pip": ["-r requirements.txt", "-c constraints.txt"]}


def test_what_a_module_imports_is_in_the_list():
    listed, more = set(read("requirements.txt")), set(read("requirements-campaign.txt"))
    for path in (ROOT / "helpers").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
        names |= {one.module for one in nodes if isinstance(one, ast.ImportFrom) and not one.level}
        tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"helpers"}
        packages = {PACKAGE_OF.get(name, name) for name in tops}
        assert packages <= listed | (more if "campaign" in path.parts else set()), path

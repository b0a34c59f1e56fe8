"""What no other test runs: the conda environment, which cannot be built here, and the public names."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import diffae_core as core

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli", reason="Python 3.10 has no TOML reader: the newer versions check this")

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}


def split_bound(requirement: str) -> tuple[str, str]:
    name, bound = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name), bound


def test_environment_yml_has_the_packages_and_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["test"].pop(0) == "diffae-core[lab,uncertainty]"
    wanted = dict(map(split_bound, project["dependencies"] + extras["lab"] + extras["test"]))
    wanted["python"] = project["requires-python"]
    lines = (ROOT / "environment.yml").read_text().split("dependencies:\n")[1].splitlines()
    entries = [line.strip().removeprefix("- ") for line in lines]
    assert entries[-1].split("  #")[0] == 'pip: ["-e .[uncertainty]"]'
    found = dict(split_bound(entry.split("  #")[0]) for entry in entries[:-1])
    assert found.pop("pip") == ""
    assert found == wanted
    assert all("  # " in entry for entry in entries[1:-1]), "each package says what it is for"


def test_public_names_exist_and_are_documented():
    for name in core.__all__:
        assert getattr(core, name).__doc__, name


@pytest.mark.parametrize(
    ("section", "results", "at_least"),
    [
        ("What comes back", "RESULTS.md", 15),
        ("How fast", "benchmarks/RESULTS.md", 5),
        ("How it doubts", "benchmarks/UNCERTAINTY.md", 5),
    ],
)
def test_the_readmes_tables_are_those_of_the_results(section, results, at_least):
    text = (ROOT / "README.md").read_text().split(f"## {section}")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) >= at_least
    assert set(rows) <= set((ROOT / results).read_text().splitlines())


def test_jupyterlab_listens_on_this_machine_alone_and_keeps_its_token():
    (command,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "/jupyter lab " in line]
    assert "--ip=127.0.0.1" in command and "token" not in command and "password" not in command


def test_importing_the_package_imports_nothing_that_is_slow_and_not_needed_yet():
    slow = {"torchvision", "matplotlib", "ipywidgets", "sklearn", "torchmetrics", "torch._dynamo"}
    code = f"import sys, diffae_core; print(*{slow} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []

"""What no other test runs: the README's code, the conda environment, the public names, what an import costs."""

import re
import subprocess
import sys
import tomllib

from conftest import ROOT

import diffae_core as core

CONDA_NAMES = {"torch": "pytorch", "playwright": "playwright-python"}


def test_the_documents_code_runs_as_pasted(tmp_path, monkeypatch):
    """Every block after the one before it, in one session, in an empty folder: the README's, then docs/use.md's."""
    monkeypatch.chdir(tmp_path)
    session = {}
    for name in ("README.md", "docs/use.md"):
        blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
        assert blocks
        for number, block in enumerate(blocks, start=1):
            exec(compile(block, f"<block {number} of {name}>", "exec"), session)


def split_bound(requirement: str) -> tuple[str, str]:
    name, bound = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name), bound


def test_environment_yml_has_the_packages_and_bounds_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    listed = [requirement for requirement in extras["test"] if not requirement.startswith("diffae-core")]
    wanted = dict(map(split_bound, project["dependencies"] + extras["lab"] + listed))
    wanted["python"] = project["requires-python"]
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").split("dependencies:\n")[1].splitlines()
    entries = [line.strip().removeprefix("- ").split("  #")[0] for line in lines]
    assert entries[-1] == 'pip: ["-e .[uncertainty,onnx,docs]"]'
    found = dict(map(split_bound, entries[:-1]))
    assert found.pop("pip") == "" and found == wanted


def test_the_version_is_the_same_everywhere_and_stands_in_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "diffae_core.__version__"}
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {core.__version__}\n" in citation and f"## {core.__version__}" in changes


def test_public_names_exist_once_and_are_documented():
    assert sorted(set(core.__all__)) == sorted(core.__all__)
    assert [name for name in core.__all__ if not getattr(core, name).__doc__] == []


def test_jupyterlab_listens_on_this_machine_alone_and_keeps_its_token():
    commands = [
        line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if "/jupyter lab " in line
    ]
    assert commands
    for command in commands:
        assert "--ip=127.0.0.1" in command and "token" not in command and "password" not in command


FIRST_DIGIT = """
import socket, sys
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
import diffae_core as core
slow = {"torchvision", "matplotlib", "ipywidgets", "sklearn", "scipy.ndimage", "torchmetrics", "torch._dynamo"}
print(*slow & set(sys.modules))
z = core.SimpleAutoencoder.from_pretrained().encode(core.load_sample("test").images[:1]).detach()
assert core.DiffusionModel.from_pretrained().generate(z, 2).shape == (1, 1, 28, 28)
"""


def test_an_import_brings_nothing_slow_and_a_digit_needs_no_network():
    found = subprocess.run([sys.executable, "-c", FIRST_DIGIT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == []

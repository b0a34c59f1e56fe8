"""Sections of benchmarks/RESULTS.md: each benchmark writes its own anew and leaves the others as they are."""

import platform
import re
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import diffae_core as core

RESULTS = Path(__file__).parent / "RESULTS.md"
TITLE = "# Speed, measured beside what a user would pick instead\n"


def cpu_name() -> str:
    """The processor's name where Linux tells it, else the machine's."""
    described = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", described.read_text()) if described.exists() else None
    return found.group(1) if found else platform.processor() or platform.machine()


def machine(*packages: str) -> str:
    """What a figure was measured with: processor, threads, and versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    return (
        f"{cpu_name()} with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, Python "
        f"{sys.version_info.major}.{sys.version_info.minor}, {versions}"
    )


def peak_memory_mb() -> float:
    """The most that this process has had in memory. (On Linux getrusage would count what it was forked from.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def forget_peak_memory() -> float:
    """Let the peak begin anew where it can (on Linux), and return it."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return peak_memory_mb()


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def write_section(
    name: str, command: str, text: str, packages: tuple[str, ...] = (), path: Path = RESULTS, title: str = TITLE
) -> None:
    """Put a section into the file, in place of an earlier one of this name."""
    section = f"\n## {name}\n\n`{command}` on {machine(*packages)}.\n\n{text.strip()}\n"
    contents = path.read_text() if path.exists() else title
    found = re.search(rf"\n## {re.escape(name)}\n.*?(?=\n## |\Z)", contents, re.DOTALL)
    contents = contents[: found.start()] + section + contents[found.end() :] if found else contents + section
    with core.write_whole(path) as temporary:
        temporary.write_text(contents)
    print(section)

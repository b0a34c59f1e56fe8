"""What the experiments share: a run in a child process, the memory in use, and what they found, for the document."""

import atexit
import os

import measure
import psutil

COLUMNS, FORMATS = ["experiment", "tries", "what came of them"], ["", "{:,}", ""]
found: dict[str, dict[str, list]] = {}  # table -> experiment -> its row; a long edition overwrites the short one


def report(table: str, experiment: str, tries: int, outcome: str) -> None:
    """Print what came of an experiment; `make faults` also writes it to docs/results/reliability.json."""
    found.setdefault(table, {})[experiment] = [experiment, tries, outcome]
    print(experiment, tries, outcome, sep=": ")


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 2**20


@atexit.register
def write() -> None:
    if os.environ.get("WRITE_FAULTS") and found:
        tables = {name: measure.table(COLUMNS, [*rows.values()], FORMATS) for name, rows in found.items()}
        measure.write("reliability", "make faults", tables)

"""What the measurements share: samples and their metrics, seconds, and results written as JSON.

Each measurement writes docs/results/<name>.json; benchmarks/render.py puts its tables into the documents.
"""

import hashlib
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

import diffae_core as core

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results"


def weights(folder: Path | None = None) -> str:
    """A fingerprint of the weights in a folder; by default of the shipped ones."""
    joined = hashlib.sha256()
    for path in sorted((folder or Path(core.__file__).parent / "pretrained").glob("*.pt")):
        joined.update(path.read_bytes())
    return joined.hexdigest()[:12]


def commit() -> str:
    """The commit of the code, with "+" if files have been changed since."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"


def machine(*packages: str) -> str:
    """What a value was measured with: processor, threads and versions."""
    described = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", described.read_text()) if described.exists() else None
    name = found.group(1) if found else platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", *packages))
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    name = f"{name} with {torch.backends.cpu.get_cpu_capability()}"
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}, {python}, {versions}"


def table(columns: list[str], rows: list[list], formats: list[str], **facts) -> dict:
    """A table for a result: ``formats`` has one for each column, e.g. "{:.2f}", or "{:.3f} ({:.1f})" for a pair.

    ``facts`` are printed above it by name: counts of digits, the reference Frechet distance, seconds.
    """
    return {"columns": columns, "formats": formats, "rows": rows, "facts": facts}


def write(name: str, command: str, tables: dict[str, dict], packages: tuple[str, ...] = (), **more) -> None:
    """Write docs/results/<name>.json: the tables, and what they were measured with."""
    made_with = {"command": command, "machine": machine(*packages), "commit": commit(), "weights": weights(), **more}
    RESULTS.mkdir(parents=True, exist_ok=True)
    with core.checkpoints.atomic_write(RESULTS / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(made_with | {"tables": tables}, indent=1) + "\n")
    print(f"written: docs/results/{name}.json")


def kept(path: Path, compute: Callable):
    """What ``compute`` gives, computed once and kept in a JSON file, so that a killed measurement can continue."""
    if not path.exists():
        found = json.dumps(compute())
        print(path.stem, found, flush=True)
        with core.checkpoints.atomic_write(path) as temporary:
            temporary.write_text(found)
    return json.loads(path.read_text())


def generate(model, latents: Tensor, num_steps: int = core.diffusion.NUM_STEPS, seed: int = 0, **options) -> Tensor:
    """Digits from latents and random x_T, 250 at a time."""
    generator = core.seeded(seed)
    return core.in_batches(lambda z: model.generate(z, num_steps, generator=generator, **options), latents, 250)


def inverted(
    model, images: Tensor, z: Tensor, num_steps: int, spacing: str, corrections=core.diffusion.CORRECTIONS, other=None
) -> Tensor:
    """Images inverted to their x_T with latents z, and generated again from it: with z, or with other latents."""

    def again(rows: Tensor) -> Tensor:
        x_T = model.invert(images[rows], z[rows], num_steps, corrections=corrections, spacing=spacing)
        return model.generate((z if other is None else other)[rows], num_steps, x_T=x_T, spacing=spacing)

    return core.in_batches(again, torch.arange(len(images)), 250)


def partners(labels: Tensor) -> Tensor:
    """For each digit, the index of the next digit of another class, in the order of the file."""
    shift = torch.stack([labels.roll(-k) != labels for k in range(1, 100)]).float().argmax(dim=0) + 1
    return (torch.arange(len(labels)) + shift) % len(labels)


class Reference:
    """Real digits that generated ones are compared with, in the classifier's features.

    Frechet distances are divided by that of as many training digits from the same real digits: the FD ratio.
    """

    def __init__(self, classifier: core.DigitClassifier, real: core.Digits, train: core.Digits):
        self.classifier, self.real = classifier, real
        self.features = classifier.classify(real.images)[0]
        others = classifier.classify(train.subset(slice(0, len(real))).images)[0]
        self.distance = core.metrics.frechet_distance(others, self.features)

    def measure(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """FD ratio, precision, recall; and the share classified as ``labels``, in percent, if these are given."""
        features, found = self.classifier.classify(images)
        precision, recall = core.metrics.precision_recall(self.features, features)
        values = {"FD ratio": core.metrics.frechet_distance(features, self.features) / self.distance}
        values |= {"precision": precision, "recall": recall}
        return values if labels is None else values | {"accuracy": 100 * float((found == labels).float().mean())}


def seconds_of(work: Callable, count: int) -> list[float]:
    """Seconds of each of ``count`` calls."""
    spent = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return spent

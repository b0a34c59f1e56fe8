"""Attempts to break what has been built: kills, damaged files, odd pictures, storms of events.

make faults                                       an hour on 2 cores; writes benchmarks/RELIABILITY.md
python benchmarks/faults.py "Kills" "Notebooks"   only these sections of it
pytest tests/test_faults.py                       the same experiments with smaller counts
"""

import argparse
import asyncio
import io
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import report
import torch
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from PIL import Image

import diffae_core as core
from diffae_core import checkpoints, data, widgets

SMALL = {"widths": (8, 16), "block_depth": 1, "latent_dim": 16, "device": "cpu"}
TRAIN = f"""
import os, sys, torch, diffae_core as core
torch.manual_seed(0)
model = core.DiffusionModel(**{SMALL})
digits = core.load_sample("train").subset(slice(0, 64))
latents = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
run = core.train_diffusion(model, digits, latents, core.TrainingConfig(epochs=50, batch_size=16))
if os.path.exists(sys.argv[1]):
    run.resume(sys.argv[1])
print("ready", flush=True)
for record in run:
    run.save(sys.argv[1])
model.save_checkpoint(sys.argv[2])
"""


def kills(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Kill a training that saves at every step, again and again, until it has been killed so often.

    Returns:
        What was counted, and how often.
    """
    dice, found = random.Random(seed), Counter(killed=0, ended=0, saving=0, stuck=0, other=0)
    program = folder / "train.py"
    program.write_text(TRAIN)

    def start(name: str) -> subprocess.Popen:
        command = [sys.executable, program, folder / f"{name}_run.pt", folder / f"{name}.pt"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start("whole")
    assert whole.communicate()[1] == "" and whole.returncode == 0
    expected = core.DiffusionModel.from_pretrained(folder / "whole.pt", device="cpu").state_dict()
    number = 0
    while found["killed"] < count or found["ended"] == 0:
        process = start(f"run{number}")
        ready = process.stdout.readline() == "ready\n"
        if not ready:
            found["stuck"] += 1
            number += 1
            continue
        try:
            process.wait(timeout=dice.uniform(0.0, 0.8) if found["killed"] < count else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            found["killed"] += 1
            found["saving"] += len(list(folder.glob(f".run{number}_run-*")))
            for left in folder.glob(f".run{number}_run-*"):
                left.unlink()
            continue
        weights = core.DiffusionModel.from_pretrained(folder / f"run{number}.pt", device="cpu").state_dict()
        found["ended"] += 1
        found["other"] += any(not torch.equal(weights[name], weight) for name, weight in expected.items())
        number += 1
    return {
        "killed": found["killed"],
        "of these while saving": found["saving"],
        "could not be resumed": found["stuck"],
        "runs that came to their end": found["ended"],
        "of these with other weights than the uninterrupted run": found["other"],
    }


ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SCRIPT = [sys.executable, ROOT / "train_ddim_mnist.py", "--device", "cpu", "--train-digits", "640"]
SCRIPT += ["--widths", "8", "16", "--block-depth", "1", "--latent-dim", "16", "--batch-size", "16", "--epochs", "15"]
SCRIPT += ["--autoencoder-epochs", "60", "--train-prior", "--prior-epochs", "300", "--train-judge"]
SCRIPT += ["--quality-digits", "10", "--num-steps", "2", "--resume"]


def kills_of_the_script(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Kill the whole recipe, which trains four models one after another, and start it again with ``--resume``.

    Autoencoder, DDIM and prior have 600 steps each, saved every 200; the judge has 30 and begins anew after a kill.

    Returns:
        What was counted, and how often.
    """
    dice, found = random.Random(seed), Counter(killed=0, saved=0, stuck=0, ended=0, other=0, files=0)

    def start(name: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*SCRIPT, "--output-dir", folder / name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def files(name: str) -> set[str]:
        return {path.relative_to(folder / name).as_posix() for path in (folder / name).rglob("*")}

    def weights(name: str) -> dict[str, torch.Tensor]:
        states = {
            path.stem: torch.load(path, weights_only=True)["weights"] for path in (folder / name).glob("[!.]*.pt")
        }
        return {f"{model} {weight}": state[weight] for model, state in states.items() for weight in state}

    began = time.perf_counter()
    if start("whole").wait() != 0:
        raise RuntimeError("the run that nobody kills did not come to its end")
    seconds, expected, number = time.perf_counter() - began, weights("whole"), 0
    while found["killed"] < count or found["ended"] == 0:
        process = start(f"run{number}")
        try:
            process.wait(timeout=dice.uniform(0, seconds) if found["killed"] < count else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            found["killed"] += 1
            found["saved"] += any((folder / f"run{number}").glob("[!.]*_training.pt"))
            continue
        if process.returncode != 0:
            found["stuck"] += 1
        else:
            mine = weights(f"run{number}")
            found["ended"] += 1
            found["other"] += any(not torch.equal(mine[name], weight) for name, weight in expected.items())
            found["files"] += files(f"run{number}") != files("whole")
        number += 1
    return {
        "killed": found["killed"],
        "of these with a half-trained model to go on with": found["saved"],
        "could not be resumed": found["stuck"],
        "runs that came to their end": found["ended"],
        "of these with other weights than the uninterrupted run": found["other"],
        "of these with other files, or files left over": found["files"],
    }


class RunsCode:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def damage(kind: str, whole: bytes, path: Path, dice: random.Random, witness: Path) -> None:
    """Write a checkpoint to ``path`` that is damaged in this way."""
    contents = torch.load(io.BytesIO(whole), weights_only=True)
    name = dice.choice([name for name, weight in contents["weights"].items() if weight.is_floating_point()])
    if kind == "truncated":
        path.write_bytes(whole[: dice.randrange(len(whole))])
    elif kind == "bit flipped":
        place, bits = dice.randrange(len(whole)), bytearray(whole)
        bits[place] ^= 1 << dice.randrange(8)
        path.write_bytes(bits)
    elif kind == "another model's":
        core.SimpleAutoencoder(16, "cpu").save_checkpoint(path)
    elif kind == "other sizes":
        weight = contents["weights"][name]
        contents["weights"][name] = torch.zeros(*weight.shape, dice.randrange(1, 4)).squeeze(-1)[..., None]
        checkpoints.save(contents, path)
    elif kind == "NaN":
        weight = contents["weights"][name] = contents["weights"][name].clone(memory_format=torch.contiguous_format)
        weight.view(-1)[dice.randrange(weight.numel())] = dice.choice([float("nan"), float("inf")])
        checkpoints.save(contents, path)
    elif kind == "runs code":
        contents["config"] = RunsCode(f"touch {witness}")
        dice.choice([torch.save, lambda evil, file: file.write_bytes(pickle.dumps(evil))])(contents, path)
    elif kind == "huge sizes":
        if dice.random() < 0.5:
            contents["config"] |= {"widths": (10 ** dice.randrange(5, 12), 16)}
        else:
            contents["weights"][name] = torch.zeros(1).expand(10**9)
            contents["config"] |= {"time_embedding_dim": 10**9, "block_depth": 10**6}
        checkpoints.save(contents, path)
    elif kind == "zip bomb":
        source = zipfile.ZipFile(io.BytesIO(whole))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
            for member in source.infolist():
                large = member.filename.endswith("data/0")
                bomb.writestr(member.filename, bytes(2**28) if large else source.read(member))


DAMAGES = {
    "truncated": 70,
    "bit flipped": 100,
    "another model's": 10,
    "other sizes": 40,
    "NaN": 40,
    "runs code": 20,
    "huge sizes": 16,
    "zip bomb": 4,
}


def damaged_checkpoints(counts: dict[str, int], folder: Path, seed: int = 0) -> tuple[list[list[str]], float]:
    """Load damaged checkpoints.

    Returns:
        Rows of kind, files, refused, loaded and equal, and wrong (another error, an error that does not name the file,
        other weights); and by how many MB the process has grown.
    """
    torch.manual_seed(0)
    model, dice, rows = core.DiffusionModel(**SMALL), random.Random(seed), []
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_checkpoint(folder / "whole.pt")
    whole, before, witness = (folder / "whole.pt").read_bytes(), report.forget_peak_memory(), folder / "ran"
    for kind, count in counts.items():
        found = Counter()
        for number in range(count):
            path = folder / f"damaged_{number}.pt"
            damage(kind, whole, path, dice, witness)
            try:
                weights = core.DiffusionModel.from_pretrained(path, device="cpu").state_dict()
            except ValueError as error:
                found["refused" if path.name in str(error) else "wrong"] += 1
            except Exception:
                found["wrong"] += 1
            else:
                equal = all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())
                found["equal" if equal else "wrong"] += 1
            path.unlink()
        found["wrong"] += witness.exists()
        rows.append([kind, str(count), str(found["refused"]), str(found["equal"]), str(found["wrong"])])
    return rows, report.peak_memory_mb() - before


def damaged_mnist(count: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """Damage MNIST's own files, which must be in the folder that DIFFAE_DATA_DIR names, one at a time."""
    dice, found, good = random.Random(seed), Counter(refused=0, wrong=0), os.environ["DIFFAE_DATA_DIR"]
    raw = folder / "MNIST" / "raw"
    shutil.copytree(Path(good) / "MNIST" / "raw", raw, ignore=shutil.ignore_patterns("*.gz"))
    os.environ["DIFFAE_DATA_DIR"] = str(folder)
    data._mnist_folder.cache_clear()
    try:
        for number in range(count):
            path = raw / list(data.MNIST_MD5)[number % 4]
            whole = path.read_bytes()
            place = dice.randrange(len(whole))
            flipped = whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]
            path.write_bytes(dice.choice([whole[:place], flipped]))
            try:
                core.load_mnist("train" if path.name.startswith("train") else "test")
                found["wrong"] += 1
            except ValueError as error:
                found["refused" if path.name in str(error) else "wrong"] += 1
            path.write_bytes(whole)
    finally:
        os.environ["DIFFAE_DATA_DIR"] = good
        data._mnist_folder.cache_clear()
    return dict(found)


def pictures() -> dict[str, tuple[bytes, bool]]:
    """Pictures that someone might upload, and whether a digit can be read from each."""

    def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        return buffer.getvalue()

    paper = Image.new("L", (120, 160), 255)
    paper.paste(0, (50, 30, 66, 130))
    clear = Image.new("RGBA", (120, 160), (255, 255, 255, 0))
    clear.paste((0, 0, 90, 255), (50, 30, 66, 130))
    deep = Image.new("I;16", (120, 160), 65535)
    deep.paste(0, (50, 30, 66, 130))
    frames = {"save_all": True, "append_images": [paper.rotate(90), paper.rotate(45)]}
    return {
        "grey PNG": (encoded(paper), True),
        "colour JPEG": (encoded(paper.convert("RGB"), "JPEG"), True),
        "palette": (encoded(paper.convert("P")), True),
        "palette with transparency": (encoded(clear.convert("P"), transparency=0), True),
        "alpha": (encoded(clear), True),
        "grey with alpha": (encoded(clear.convert("LA")), True),
        "one bit": (encoded(paper.convert("1")), True),
        "16 bit": (encoded(deep), True),
        "CMYK JPEG": (encoded(paper.convert("CMYK"), "JPEG"), True),
        "animated GIF": (encoded(paper, "GIF", **frames), True),
        "one row of pixels": (encoded(paper.crop((0, 60, 120, 61))), True),
        "one pixel": (encoded(Image.new("L", (1, 1))), False),
        "empty paper": (encoded(Image.new("L", (120, 160), 255)), False),
        "50 megapixels": (encoded(Image.new("1", (10_000, 5_000), 1)), False),
        "a PNG cut short": (encoded(paper)[:120], False),
        "text": (b"not a picture at all", False),
        "nothing": (b"", False),
        "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0 L9 9'/></svg>", False),
        "a checkpoint": ((checkpoints.PRETRAINED / "judge.pt").read_bytes(), False),
    }


def uploads() -> list[list[str]]:
    """Rows of picture, what came of it, and whether that is right."""
    rows = []
    for name, (content, readable) in pictures().items():
        before = report.forget_peak_memory()
        try:
            digit = core.read_digit(content)
            good = readable and digit.shape == (1, 1, 28, 28) and digit.min() >= 0 and 0.9 < digit.max() <= 1
            outcome = "a digit"
        except ValueError as error:
            good, outcome = not readable and str(error).startswith("expected a"), "refused"
        rows.append([name, outcome, "yes" if good and report.peak_memory_mb() - before < 100 else "no"])
    return rows


def storm(panel, events: int, dice: random.Random) -> tuple[float, float, bool]:
    """Random events in bursts: (MB grown after the first quarter, seconds until the panel rests, all is well)."""
    controls = list(panel.controls.values())

    def resident() -> float:
        return psutil.Process().memory_info().rss / 2**20

    def change() -> None:
        control = dice.choice(controls)
        if hasattr(control, "options"):
            control.index = dice.randrange(len(control.options))
        elif hasattr(control, "min"):
            low, high = control.min, min(control.max, 20) if isinstance(control.min, int) else control.max
            control.value = dice.randint(low, high) if isinstance(low, int) else dice.uniform(low, high)
        else:
            control.value = not control.value

    async def run() -> tuple[float, float]:
        warm = 0.0
        for number in range(events):
            change()
            if number % 20 == 19:
                await asyncio.sleep(0)
            if number == events // 4:
                warm = resident()
        grown, began = resident() - warm, time.perf_counter()
        await asyncio.sleep(widgets.REST_SECONDS + 0.01)  # the full picture is drawn within this
        return grown, time.perf_counter() - began

    grown, rest = asyncio.run(run())
    well = panel.error is None and panel.image.value == panel.render(preview=False, **panel.state)
    return grown, rest, well


def storms(events: int) -> list[list[str]]:
    import panels

    dice, rows = random.Random(0), []
    for name, panel in panels.make_panels().items():
        grown, rest, well = storm(panel, events, dice)
        rows.append([name, str(events), f"{grown:.1f}", f"{rest:.2f}", "yes" if well else "no"])
    return rows


PEAK = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import report; print(report.peak_memory_mb())"
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2 * 2**30, 2 * 2**30))"  # Linux keeps to it


class Restart:
    """In place of a cell: the kernel is restarted, and forgets everything."""


def run_cells(path: Path, folder: Path, order: list) -> tuple[str, list[str]]:
    """Run cells of a notebook in one kernel, in ``folder``, in any order.

    Args:
        path: the notebook.
        folder: where the kernel starts.
        order: numbers of code cells, lines of code, and :class:`Restart`.

    Returns:
        What went wrong, empty if nothing; and what each of the lines of code printed.
    """
    notebook, printed = nbformat.read(path, as_version=4), []
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = []
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for what in order:
            if what is Restart:
                client.kc.stop_channels()
                run_sync(client.km.restart_kernel)(now=True)
                client.start_new_kernel_client()
                continue
            cell = nbformat.v4.new_code_cell(what if isinstance(what, str) else sources[what])
            notebook.cells.append(cell)
            try:
                client.execute_cell(cell, len(notebook.cells) - 1)
            except (CellControlSignal, DeadKernelError) as error:  # an error in a cell, a cell without end, a crash
                reason = getattr(error, "evalue", "") or str(error)
                return f"{getattr(error, 'ename', type(error).__name__)} in cell {what}: {reason}"[:200], printed
            if isinstance(what, str):
                printed += [output.text for output in cell.outputs if output.output_type == "stream"]
    return "", printed


def sections(path: Path) -> list[list[int]]:
    """The numbers of the code cells in each section of a notebook."""
    parts, number = [[]], 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            parts[-1].append(number)
            number += 1
        elif "\n## " in f"\n{cell.source}":
            parts.append([])
    return parts


def notebook_runs(paths: list[Path]) -> list[list[str]]:
    """Each notebook, on one thread: from the root in 2 GB; elsewhere, each cell twice; and as people jump about.

    That is: half of it, then the kernel is restarted, then all of it, then its sections from the last to the first.
    """
    rows = []
    for path in paths:
        parts = sections(path)
        cells = [number for part in parts for number in part]
        limited, printed = run_cells(path, ROOT, [LIMIT, *cells, PEAK])
        with tempfile.TemporaryDirectory() as folder:
            twice, _ = run_cells(path, Path(folder), [number for number in cells for _ in range(2)])
        backwards = [number for part in reversed(parts) for number in part]
        jumps, _ = run_cells(path, path.parent, [*cells[: len(cells) // 2], Restart, *cells, *backwards])
        peak = f"{float(printed[-1]):.0f}" if printed else ""
        rows.append([path.stem, limited or "runs", peak, twice or "runs", jumps or "runs"])
    return rows


def notebook_pairs(paths: list[Path]) -> list[list[str]]:
    """Two notebooks at the same time, one of them twice, in a folder that nobody can write to (Linux has one, /sys)."""
    rows = []
    for pair in zip(paths[: (len(paths) + 1) // 2], reversed(paths)):
        with ThreadPoolExecutor(2) as pool:
            everything = [[number for part in sections(path) for number in part] for path in pair]
            outcomes = pool.map(lambda path, order: run_cells(path, Path("/sys"), order)[0] or "runs", pair, everything)
        rows.append([" and ".join(path.stem for path in pair), ", ".join(outcomes)])
    return rows


def counted(found: dict[str, int]) -> str:
    return report.table(["what", "how many"], [[name, str(count)] for name, count in found.items()])


def in_folder(experiment: Callable, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        return experiment(*arguments, Path(folder))


def checkpoints_text() -> str:
    rows, grown = in_folder(damaged_checkpoints, DAMAGES)
    header = ["damage", "files", "refused, by name", "loaded, all weights equal", "wrong"]
    text = "A bit that is flipped where nothing is stored (padding, time stamps) leaves all weights as they were."
    return f"{text}\n\n{report.table(header, rows)}\nThe process grew by {grown:.0f} MB, at most."


def mnist_text() -> str:
    if not (Path(os.environ.get("DIFFAE_DATA_DIR", "")) / "MNIST").is_dir():
        return "Not tried: DIFFAE_DATA_DIR names no folder with MNIST."
    return "Of 60 damaged files, {refused} were refused by name, {wrong} were not.".format(
        **in_folder(damaged_mnist, 60)
    )


def storms_text() -> str:
    header = ["panel", "events", "MB grown after a quarter of them", "seconds until it rests"]
    return report.table([*header, "last state shown, no error"], storms(2000))


def notebooks_text() -> str:
    header = ["notebook", "from the root, in 2 GB", "kernel's peak MB", "elsewhere, each cell twice"]
    text = "On one thread. 2 GB is a limit that Linux holds the kernel's own memory to (RLIMIT_DATA); its peak counts "
    table = report.table([*header, "half, restarted, all, sections backwards"], notebook_runs(NOTEBOOKS))
    return f"{text}libraries too.\n\n{table}"


KILLED = "SIGKILL at random moments of a training that saves after every step, then resumed:\n\n"
KILLED_SCRIPT = "SIGKILL at random moments of `train_ddim_mnist.py`, which trains four models, then `--resume`:\n\n"
SECTIONS = {
    "Kills": lambda: KILLED + counted(in_folder(kills, 50)),
    "Kills of the script": lambda: KILLED_SCRIPT + counted(in_folder(kills_of_the_script, 50)),
    "Damaged checkpoints": checkpoints_text,
    "Damaged MNIST files": mnist_text,
    "Uploaded pictures": lambda: report.table(["picture", "what came of it", "right"], uploads()),
    "Storms of events": storms_text,
    "Notebooks": notebooks_text,
    "Notebooks, two at once, where nothing can be written": lambda: report.table(
        ["notebooks", "outcome"], notebook_pairs(NOTEBOOKS)
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"only these, of {', '.join(map(repr, SECTIONS))}")
    names = parser.parse_args().sections or list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"expected sections from {list(SECTIONS)}, got {sorted(unknown)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # for the kernels and scripts that are started
    path, title = Path(__file__).parent / "RELIABILITY.md", "# Attempts to break it\n"
    for name in names:
        report.write_section(name, "make faults", SECTIONS[name](), path=path, title=title)


if __name__ == "__main__":
    main()

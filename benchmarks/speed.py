"""How fast: each of these measures one thing, in a few minutes, and writes its section of benchmarks/RESULTS.md.

python benchmarks/speed.py throughput       beside diffusers and denoising-diffusion-pytorch
python benchmarks/speed.py limit            a training step's share of what the processor can do
python benchmarks/speed.py growth           with width, threads, batch and steps
python benchmarks/speed.py first-picture    from a fresh process to the first digit; the panels' answers

The first needs ``pip install -e '.[bench]'``. Run them on a machine that does nothing else.
"""

import argparse
import asyncio
import functools
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import contest
import report
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import diffae_core as core

BATCHES = (1, 8, 64, 256)
STEPS = 20  # of sampling
MATMUL_SIZE = 2048
GROUPS = {  # parts of the names that the profiler gives, first match wins
    "convolutions, backwards": ("convolution_backward",),
    "convolutions, forwards": ("convolution",),
    "group norms": ("group_norm",),
    "linear layers": ("addmm", "::mm", "matmul", "linear"),
    "optimiser, gradient clipping, EMA": ("AdamW", "_fused_adamw", "lerp", "foreach", "linalg_vector_norm"),
    "activations, sums, products, copies": ("aten::",),
}


def digits_and_latents(count: int) -> tuple[core.Digits, torch.Tensor]:
    digits = core.load_sample("train").subset(slice(0, count))
    return digits, core.encode_all(core.SimpleAutoencoder.from_pretrained(device="cpu"), digits)


def median_ms(work: Callable, repeats: int) -> float:
    """Milliseconds of a call, the median of so many after one."""
    return 1000 * statistics.median(contest.seconds_of(work, repeats + 1)[1:])


def builders() -> dict[str, Callable]:
    import peers

    return {
        "ours": contest.build_ours,
        "diffusers": peers.Diffusers,
        "denoising-diffusion-pytorch": peers.DenoisingDiffusionPytorch,
    }


def measure_one(name: str, batch: int, bfloat16: bool, channels_last: bool) -> dict:
    """Training and sampling of one contender at one batch size; for a process of its own, whose peak memory counts."""
    setting = contest.Setting(bfloat16, channels_last)
    digits, latents = digits_and_latents(max(batch, 64))
    run = contest.start(builders()[name], digits, latents, 100, setting, {"batch_size": batch})
    count = 10 if batch <= 64 else 5
    training = batch / statistics.median(contest.step_times(run, setting, count))
    model, codes = run.ema_model, latents[:batch]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        sampling = batch / median_ms(lambda: model.generate(codes, STEPS), 2) * 1000
    return {"training": training, "sampling": sampling, "memory": report.peak_memory_mb()}


def throughput(command: str) -> None:
    digits, latents = digits_and_latents(640)
    settings = {name: contest.fastest(build, digits, latents) for name, build in builders().items()}
    settings["ours"] = contest.OURS
    rows = []
    for batch in BATCHES:
        figures = {}
        for name, setting in settings.items():
            arguments = ["one", name, str(batch), str(int(setting.bfloat16)), str(int(setting.channels_last))]
            done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
            figures[name] = json.loads(done.stdout.splitlines()[-1])
        for name, found in figures.items():
            ratios = [figures["ours"][what] / found[what] for what in ("training", "sampling")]
            rows.append(
                [str(batch), name, f"{found['training']:.0f}", f"{found['sampling']:.2f}", f"{found['memory']:.0f}"]
                + [f"{ratio:.1f}" for ratio in ratios]
            )
    header = ["batch", "contender", "trained a second", f"drawn a second, {STEPS} steps", "peak memory, MB"]
    header += ["ours / this, training", "ours / this, sampling"]
    types = "; ".join(f"{name}: {setting.name}" for name, setting in settings.items())
    text = f"""Images a second; each row is a process of its own. U-Nets of widths 32, 64, 128 at 28x28
(ours folded 2x2); denoising-diffusion-pytorch's has attention, and takes no latent. Each in the type and layout in
which its training steps were fastest (ours: as the package trains): {types}. Peak memory of the process, torch and
all.

{report.table(header, rows)}"""
    report.write_section("Throughput", command, text, ("diffusers", "denoising-diffusion-pytorch"))


def matmul_rate(dtype: torch.dtype, repeats: int = 20) -> float:
    """The best rate of a large matrix product on these threads, in operations a second."""
    a, b = torch.randn(2, MATMUL_SIZE, MATMUL_SIZE).to(dtype)
    return 2 * MATMUL_SIZE**3 / min(contest.seconds_of(lambda: a @ b, repeats))


def limit(command: str) -> None:
    digits, latents = digits_and_latents(3840)
    run = contest.start(contest.build_ours, digits, latents, 1000, contest.OURS, {})
    steps = iter(run)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    operations, rows = counter.get_total_flops(), []
    for _ in range(3):
        seconds, rate = median_ms(lambda: next(steps), 40) / 1000, matmul_rate(torch.float32)
        row = [f"{operations / 1e9:.1f}", f"{1000 * seconds:.0f}", f"{operations / seconds / 1e9:.0f}"]
        rows.append([*row, f"{rate / 1e9:.0f}", f"{operations / seconds / rate:.0%}"])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(20):
            next(steps)
    groups: dict[str, float] = defaultdict(float)
    for entry in profiler.key_averages():
        found = (group for group, parts in GROUPS.items() if any(part in entry.key for part in parts))
        groups[next(found, "the rest: autograd, Python")] += entry.self_cpu_time_total
    total = sum(groups.values())
    shares = [[name, f"{spent / total:.0%}"] for name, spent in sorted(groups.items(), key=lambda item: -item[1])]
    header = ["10^9 operations a step", "ms a step", "10^9 a second", "matrix product, 10^9 a second", "share"]
    text = f"""One training step of 64 digits in float32, its operations counted by torch's FlopCounterMode
(products and sums of convolutions and linear layers, forwards and backwards), beside the best of twenty products of
two {MATMUL_SIZE}x{MATMUL_SIZE} matrices of the same type on the same threads. Three rounds:

{report.table(header, rows)}
Where the time of a step goes, by torch's profiler:

{report.table(["part", "share of the time"], shares)}
The same product in bfloat16 runs at {matmul_rate(torch.bfloat16) / 1e9:.0f} * 10^9 a second here."""
    report.write_section("Share of the physical limit", command, text)


def growth(command: str) -> None:
    digits, latents = digits_and_latents(3840)
    all_threads, rows = torch.get_num_threads(), []
    for factor in (1, 2, 4):
        widths = tuple(width * factor for width in (32, 64, 128))
        row = [" ".join(map(str, widths))]
        for threads in sorted({1, all_threads}):
            torch.set_num_threads(threads)
            build = functools.partial(core.DiffusionModel, widths=widths, device="cpu")
            run = contest.start(build, digits, latents, 100, contest.OURS, {})
            row.append(54000 // 64 * statistics.median(contest.step_times(run, contest.OURS, 12)))
        parameters = sum(weight.numel() for weight in run.model.parameters())
        rows.append([row[0], f"{parameters:,}", *(f"{seconds:.0f}" for seconds in row[1:])])
        rows[-1].append(f"{row[1] / row[-1]:.2f}")
    torch.set_num_threads(all_threads)
    threads = [f"seconds an epoch, {count} threads" for count in sorted({1, all_threads})]
    widths_table = report.table(["widths", "parameters", *threads, "1 thread / all"], rows)

    model, rows = core.DiffusionModel.from_pretrained(device="cpu"), []
    for batch in (1, 8, 64):
        row = [median_ms(lambda: model.generate(latents[:batch], steps), 15) for steps in (5, 10, 20, 50, 100)]  # noqa: B023
        rows.append([str(batch), *(f"{spent:.0f}" for spent in row)])
    sampling_table = report.table(["digits", *(f"{steps} steps, ms" for steps in (5, 10, 20, 50, 100))], rows)
    text = f"""Training, float32, batches of 64, from the median of ten steps:

{widths_table}
Sampling with the shipped weights, median of 15 (the row of 8 digits at 20 steps is what a panel draws on release):

{sampling_table}
Memory against batch size is in the table of throughput."""
    report.write_section("Growth", command, text)


FRESH = """
import time
began = time.perf_counter()
import torch
torch_there = time.perf_counter()
import diffae_core as core
imported = time.perf_counter()
autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
model = core.DiffusionModel.from_pretrained(device="cpu")
digit = core.load_sample("test").subset(slice(0, 1)).images
picture = model.generate(autoencoder.encode(digit).detach(), 20)
print(torch_there - began, imported - torch_there, time.perf_counter() - torch_there)
"""


def first_picture(command: str) -> None:
    import panels

    found = []
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
        found.append([float(seconds) for seconds in done.stdout.split()])
    names = ["import torch", "import diffae_core, after that", "from torch's import to the first digit, 20 steps"]
    rows = [
        [name, f"{statistics.median(column):.2f}", f"{max(column):.2f}"] for name, column in zip(names, zip(*found))
    ]
    answers = []
    for name, panel in panels.make_panels().items():
        timed = [torch.tensor(row) for row in asyncio.run(panels.answers(panel, 100))]
        answers.append([name] + [f"{row.quantile(share):.0f}" for row in timed for share in (0.5, 0.95)])
    header = ["panel", "answer, median ms", "answer, p95 ms", "full picture, median ms", "p95 ms"]
    text = f"""Seconds in ten fresh processes, files already in the system's cache:

{report.table(["", "median", "most"], rows)}
The panels, 100 random changes of each at its default settings (a median of 0 is a picture that was drawn before):

{report.table(header, answers)}"""
    report.write_section("First picture", command, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"throughput": throughput, "limit": limit, "growth": growth, "first-picture": first_picture}
    parser.add_argument("what", choices=[*measures, "one"], metavar="what", help=", ".join(measures))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "one":
        name, batch, bfloat16, channels_last = options.arguments
        print(json.dumps(measure_one(name, int(batch), bfloat16 == "1", channels_last == "1")))
        return
    measures[options.what](f"python benchmarks/{Path(__file__).name} {options.what}")


if __name__ == "__main__":
    main()

"""How fast: each of these measures one thing, in a few minutes, and writes docs/results/<what>.json.

python benchmarks/speed.py throughput       beside diffusers; needs pip install -e '.[bench]'
python benchmarks/speed.py growth           with width, threads, batch and steps
python benchmarks/speed.py first-picture    from a fresh process to the first digit

Run them on a machine that does nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys

import measure
import torch

import diffae_core as core

BATCHES, STEPS = (1, 8, 64, 256), (5, 10, 20, 50, 100)
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


def median_ms(work, repeats: int) -> float:
    """Milliseconds of a call, the median of so many after one."""
    return 1000 * statistics.median(measure.seconds_of(work, repeats + 1)[1:])


def sample(count: int) -> tuple[core.Digits, core.SimpleAutoencoder, torch.Tensor]:
    digits, autoencoder = (
        core.load_sample("train").subset(slice(0, count)),
        core.SimpleAutoencoder.from_pretrained(device="cpu"),
    )
    return digits, autoencoder, autoencoder.encode_dataset(digits).tensors[0]


def measure_one(name: str, batch: int, place: int) -> dict:
    """Training and sampling of one contender at one batch size; for a process of its own, whose peak memory counts."""
    import peers

    setting = peers.LAYOUTS[place]
    digits, autoencoder, latents = sample(max(batch, 64))
    run = peers.start(name, digits, autoencoder, 100, setting, batch_size=batch)
    training = batch / measure.step_seconds(run, 10 if batch <= 64 else 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=setting[0]):
        sampling = batch / median_ms(lambda: run.ema_model.generate(latents[:batch], 20), 2) * 1000
    return {"training": training, "sampling": sampling, "memory": measure.peak_memory_mb()}


def throughput() -> dict[str, dict]:
    import peers

    digits, autoencoder, _ = sample(640)
    places = {"ours": 1}  # float32, channels_last: as the package trains on a CPU
    timed = [measure.step_seconds(peers.start("diffusers", digits, autoencoder, 9, one)) for one in peers.LAYOUTS]
    places["diffusers"] = min(range(len(timed)), key=timed.__getitem__)
    rows = []
    for batch in BATCHES:
        found = {}
        for name, place in places.items():
            command = [sys.executable, __file__, "one", name, str(batch), str(place)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
        for name, values in found.items():
            ratios = [found["ours"][what] / values[what] for what in ("training", "sampling")]
            rows.append(
                [batch, f"{name} ({peers.setting_name(peers.LAYOUTS[places[name]])})", *values.values(), *ratios]
            )
    columns = ["batch", "contender", "trained a second", "generated a second, 20 steps", "peak memory, MB"]
    columns += ["ours / this, training", "ours / this, sampling"]
    formats = ["{}", "", "{:.0f}", "{:.2f}", "{:.0f}", "{:.1f}", "{:.1f}"]
    return {"throughput": measure.table(columns, rows, formats)}


def growth() -> dict[str, dict]:
    digits, autoencoder, latents = sample(3840)
    all_threads, rows = torch.get_num_threads(), []
    for factor in (1, 2, 4):
        widths, seconds = tuple(width * factor for width in (32, 64, 128)), []
        for threads in (1, all_threads):
            torch.set_num_threads(threads)
            run = core.train_diffusion(core.DiffusionModel(widths=widths, device="cpu"), digits, autoencoder)
            seconds.append(54_000 // 64 * measure.step_seconds(run))
        parameters = sum(weight.numel() for weight in run.model.parameters())
        rows.append([" ".join(map(str, widths)), parameters, *seconds, seconds[0] / seconds[1]])
    model = core.DiffusionModel.from_pretrained(device="cpu")
    sampling = [
        [batch, *(median_ms(lambda: model.generate(latents[:batch], steps), 15) for steps in STEPS)]  # noqa: B023
        for batch in BATCHES[:3]
    ]
    columns = ["widths", "parameters", "seconds an epoch, 1 thread", f"{all_threads} threads", "1 thread / all"]
    return {
        "growth": measure.table(columns, rows, ["", "{:,}", "{:.0f}", "{:.0f}", "{:.2f}"], **{"batch size": 64}),
        "sampling": measure.table(
            ["digits", *(f"{steps} steps, ms" for steps in STEPS)], sampling, ["{}"] + ["{:.0f}"] * 5
        ),
    }


def first_picture() -> dict[str, dict]:
    runs = [
        subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True) for _ in range(10)
    ]
    times = zip(*([float(seconds) for seconds in run.stdout.split()] for run in runs))
    names = ["import torch", "import diffae_core, after that", "from torch's import to the first digit, 20 steps"]
    rows = [[name, statistics.median(column), max(column)] for name, column in zip(names, times)]
    facts = {"fresh processes": len(runs)}
    return {"first picture": measure.table(["seconds", "median", "most"], rows, ["", "{:.2f}", "{:.2f}"], **facts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"throughput": throughput, "growth": growth, "first-picture": first_picture}
    parser.add_argument("what", choices=[*measures, "one"], metavar="what", help=", ".join(measures))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "one":
        name, batch, place = options.arguments
        print(json.dumps(measure_one(name, int(batch), int(place))))
        return
    packages = ("diffusers",) if options.what == "throughput" else ()
    command = f"python benchmarks/speed.py {options.what}"
    measure.write(options.what, command, measures[options.what](), packages, weights="none")


if __name__ == "__main__":
    main()

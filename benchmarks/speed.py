"""How fast: each of these measures one thing and writes docs/results/<what>.json.

pip install -e '.[bench,onnx]'
python benchmarks/speed.py throughput       ours and diffusers; eager torch and ONNX Runtime
python benchmarks/speed.py growth           with width, threads, number type, batch and steps
python benchmarks/speed.py first-picture    from a fresh process to the first digit
python benchmarks/speed.py all              all three: three minutes on 2 cores that do nothing else
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial

import measure
import torch
from torch.utils.flop_counter import FlopCounterMode

import diffae_core as core

MATRIX = 2048
BATCHES, STEPS, WIDTHS = (1, 8, 64), (5, 10, 20, 50), (32, 64, 128)
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


def in_turn(works: list[Callable], rounds: int = 7) -> list[float]:
    """Milliseconds of each call, all in turn: the median of ``rounds`` rounds after a first one, not counted."""
    spent = [[measure.seconds_of(work, 1)[0] for work in works] for _ in range(rounds + 1)]
    return [1000 * statistics.median(column) for column in zip(*spent[1:])]


def throughput() -> dict[str, dict]:
    import peers

    digits, autoencoder = core.load_sample("train"), core.SimpleAutoencoder.from_pretrained(device="cpu")
    latents, rows = autoencoder.encode_dataset(digits).tensors[0], []
    for batch in BATCHES:
        runs = [peers.start(name, digits, autoencoder, 100, batch_size=batch) for name in ("ours", "diffusers")]
        training = in_turn([partial(next, iter(run)) for run in runs])
        sampling = in_turn([partial(run.ema_model.generate, latents[:batch], 20) for run in runs])
        pairs = [[*(1000 * batch / ms for ms in pair), pair[1] / pair[0]] for pair in (training, sampling)]
        rows.append([batch, *pairs[0], *pairs[1]])
    columns = [f"{what} a second, {who}" for what in ("trained", "generated") for who in ("ours", "diffusers", "ratio")]
    formats = ["{}", "{:.0f}", "{:.0f}", "{:.1f}", "{:.1f}", "{:.1f}", "{:.1f}"]
    found = measure.table(["batch", *columns], rows, formats, steps=20)
    return {"throughput": found, "onnx": onnx(autoencoder, latents)}


@torch.no_grad()
def onnx(autoencoder: core.SimpleAutoencoder, latents: torch.Tensor) -> dict:
    """One evaluation of the U-Net, in eager torch and by ONNX Runtime on as many threads."""
    import onnxruntime

    model, options = core.DiffusionModel.from_pretrained(device="cpu"), onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = core.export_onnx(autoencoder, model, None, folder)[-1]
        session, rows = onnxruntime.InferenceSession(path, options), []
    for batch in BATCHES:
        inputs = {"x": torch.randn(batch, 1, 28, 28, generator=core.seeded(0)), "noise_rate": torch.full((batch,), 0.7)}
        inputs |= {"latents": latents[:batch], "latent_noise": torch.full((batch,), core.unet.UNKNOWN)}
        arrays = {name: value.numpy() for name, value in inputs.items()}
        works = [partial(model.network, **inputs), partial(session.run, None, arrays)]
        milliseconds = in_turn(works, 50)
        difference = float((works[0]() - torch.from_numpy(works[1]()[0])).abs().max())
        rows.append([batch, *milliseconds, milliseconds[0] / milliseconds[1], difference])
    columns = ["batch", "eager torch, ms", "ONNX Runtime, ms", "torch / ONNX Runtime", "largest difference"]
    return measure.table(columns, rows, ["{}", "{:.1f}", "{:.1f}", "{:.1f}", "{:.0e}"])


def precision() -> dict:
    """A training step in either number type, beside a product of two large matrices of that type."""
    digits, autoencoder = core.load_sample("train"), core.SimpleAutoencoder.from_pretrained(device="cpu")
    types, steps, products = (torch.float32, torch.bfloat16), [], []
    for dtype in types:
        config = core.TrainingConfig(bfloat16=dtype is torch.bfloat16)
        run = core.train_diffusion(core.DiffusionModel(device="cpu"), digits, autoencoder, config)
        steps.append(partial(next, iter(run)))
        products.append(partial(torch.mm, *torch.randn(2, MATRIX, MATRIX, dtype=dtype)))
    with FlopCounterMode(display=False) as counted:
        steps[0]()
    times, rows = in_turn([*steps, *products], 20), []
    for dtype, step, product in zip(types, times[:2], times[2:]):
        rates = counted.get_total_flops() / step / 1e6, 2 * MATRIX**3 / product / 1e6
        rows.append([str(dtype).removeprefix("torch."), step, times[0] / step, *rates, 100 * rates[0] / rates[1]])
    columns = ["type", "ms a step of 64", "float32 / this", "GFLOP/s", "GFLOP/s of a matrix product", "share, %"]
    return measure.table(columns, rows, ["", "{:.0f}", "{:.2f}", "{:.0f}", "{:.0f}", "{:.0f}"])


def growth() -> dict[str, dict]:
    digits, autoencoder = core.load_sample("train"), core.SimpleAutoencoder.from_pretrained(device="cpu")
    all_threads, rows = torch.get_num_threads(), []
    for factor in (1, 2, 4):
        widths, seconds = tuple(width * factor for width in WIDTHS), []
        model, in_full = core.DiffusionModel(widths=widths, device="cpu"), core.TrainingConfig(bfloat16=False)
        run = core.train_diffusion(model, digits, autoencoder, in_full)
        for threads in (1, all_threads):
            torch.set_num_threads(threads)
            seconds.append(54_000 / 64 * in_turn([partial(next, iter(run))])[0] / 1000)
        parameters = sum(weight.numel() for weight in run.model.parameters())
        rows.append([" ".join(map(str, widths)), parameters, *seconds, seconds[0] / seconds[1]])
    model, latents = core.DiffusionModel.from_pretrained(device="cpu"), autoencoder.encode_dataset(digits).tensors[0]
    works = [[partial(model.generate, latents[:batch], steps) for steps in STEPS] for batch in BATCHES]
    sampling = [[batch, *in_turn(of_batch)] for batch, of_batch in zip(BATCHES, works)]
    columns = ["widths", "parameters", "seconds an epoch, 1 thread", f"{all_threads} threads", "1 thread / all"]
    found = measure.table(columns, rows, ["", "{:,}", "{:.0f}", "{:.0f}", "{:.2f}"], **{"batch size": 64})
    columns, formats = ["digits", *(f"{steps} steps, ms" for steps in STEPS)], ["{}", *["{:.0f}"] * len(STEPS)]
    return {"growth": found, "sampling": measure.table(columns, sampling, formats), "precision": precision()}


def first_picture() -> dict[str, dict]:
    fresh = partial(subprocess.run, [sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    runs = [[float(seconds) for seconds in fresh().stdout.split()] for _ in range(10)]
    names = ["import torch", "import diffae_core, after that", "from torch's import to the first digit, 20 steps"]
    rows = [[name, statistics.median(column), max(column)] for name, column in zip(names, zip(*runs))]
    facts = {"fresh processes": len(runs)}
    return {"first picture": measure.table(["seconds", "median", "most"], rows, ["", "{:.2f}", "{:.2f}"], **facts)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"throughput": throughput, "growth": growth, "first-picture": first_picture}
    parser.add_argument("what", choices=[*measures, "all"])
    wanted = parser.parse_args().what
    for what in measures if wanted == "all" else [wanted]:
        packages = ("diffusers", "onnxruntime") if what == "throughput" else ()
        measure.write(what, f"python benchmarks/speed.py {what}", measures[what](), packages, weights="none")


if __name__ == "__main__":
    main()

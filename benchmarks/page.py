"""How fast the page docs/play answers in Chromium, compared with the same networks in torch and in ONNX Runtime.

python benchmarks/page.py        a minute; writes docs/results/page.json; needs npm, Chromium and the extra "test"
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import measure
import onnxruntime
import torch
from playwright.sync_api import sync_playwright

import diffae_core as core

BATCHES, ROUNDS = (1, 10), 20
LOAD = """async () => {
    const models_file = await import("./models.js");
    window.models = await models_file.load_models();
}"""
# Milliseconds of ``steps`` steps from x_T to the digits of latents; one step is one evaluation of the U-Net.
DECODE = """async ([latents, x_T, steps]) => {
    [latents, x_T] = [latents, x_T].map((values) => Float32Array.from(values));
    const began = performance.now();
    for await (const _ of models.decode(latents, x_T, steps));
    return performance.now() - began;
}"""


def in_onnx_runtime(session: onnxruntime.InferenceSession, schedule: core.CosineSchedule) -> Callable:
    """``generate`` with the U-Net in ONNX Runtime."""

    def denoiser(x_t: torch.Tensor, times: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rates = schedule.rates(times, ndim=4)
        unknown = torch.full((len(x_t),), core.unet.UNKNOWN)
        inputs = {"x": x_t, "noise_rate": rates[1].flatten(), "latents": latents, "latent_noise": unknown}
        (v,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        return core.schedule.from_velocity(x_t, torch.from_numpy(v), *rates)

    return lambda latents, steps, x_T: core.ddim_sample(denoiser, x_T, core.step_times(steps, "quadratic"), latents)


def rows(page, generate: Callable, with_onnx_runtime: Callable, latents: torch.Tensor) -> list[list]:
    """For each batch and number of steps, the medians of all three, measured in turn."""
    found = []
    for count, steps in [(count, steps) for steps in (1, 5) for count in BATCHES]:
        x_T = torch.randn(1, 1, 28, 28, generator=core.seeded(0)).expand(count, -1, -1, -1).contiguous()
        few = latents[:count]
        numbers = [few.flatten().tolist(), x_T[0].flatten().tolist(), steps]
        in_torch = [partial(generate, few, steps, x_T=x_T), partial(with_onnx_runtime, few, steps, x_T)]
        rounds = []
        for _ in range(ROUNDS + 1):
            seconds = [measure.seconds_of(work, 1)[0] for work in in_torch]
            rounds.append([page.evaluate(DECODE, numbers), *(1000 * s for s in seconds)])
        medians = [statistics.median(column) for column in zip(*rounds[1:])]
        found.append([count, steps, *medians, medians[0] / medians[1], medians[0] / medians[2]])
    return found


def main() -> None:
    torch.set_num_threads(1)
    autoencoder, model = (k.from_pretrained(device="cpu") for k in (core.SimpleAutoencoder, core.DiffusionModel))
    latents = autoencoder.encode_dataset(core.load_sample("test").subset(slice(0, 10))).tensors[0]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(core.export_onnx(autoencoder, model, None, folder)[-1], options)
        command = [sys.executable, measure.ROOT / "docs" / "play" / "build.py", Path(folder) / "site", "--serve"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            size, address = (server.stdout.readline() for _ in range(2))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
                page = browser.new_page()
                page.goto(re.search(r"http:\S+", address)[0] + "sizes.json")  # beside the page, which would work, too
                page.evaluate(LOAD)
                found = rows(page, model.generate, in_onnx_runtime(session, model.schedule), latents)
                chromium = browser.version
        finally:
            server.terminate()
            server.wait()
    columns = ["digits", "steps", "the page, ms", "eager torch, ms", "ONNX Runtime, ms"]
    columns += ["page / torch", "page / ONNX Runtime"]
    formats = ["{}", "{}", "{:.0f}", "{:.0f}", "{:.0f}", "{:.1f}", "{:.1f}"]
    facts = {"one thread each": f"Chromium {chromium}", "all that the page loads": f"{size.split(', ')[1].strip()}"}
    tables = {"page": measure.table(columns, found, formats, **facts)}
    measure.write("page", "python benchmarks/page.py", tables, ("onnxruntime",), weights="none")


if __name__ == "__main__":
    main()

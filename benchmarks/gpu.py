"""Seconds of sampling (on CPU and accelerator) and training (accelerator only); does one seed give the same picture?

python benchmarks/gpu.py    prints tables in Markdown; tests/gpu.sh calls it on a machine with a GPU
"""

import statistics
from dataclasses import replace

import measure
import torch

import diffae_core as core

SIZES = (1, 64, 4096)


def training_row(device: torch.device, digits: core.Digits, bfloat16: bool | None) -> str:
    """Seconds for an epoch of 54,000 digits in steps of 64, estimated from 100 steps after 20 of warm-up."""
    autoencoder = core.SimpleAutoencoder.from_pretrained(device=device)
    model = core.DiffusionModel(device=device)
    run = core.train_diffusion(model, digits, autoencoder, replace(core.DIFFUSION, bfloat16=bfloat16))
    steps = iter(run)

    def train(count: int) -> None:
        for _ in range(count):
            record = next(steps)
        _ = record.loss  # waits for the accelerator

    train(20)
    seconds = measure.seconds_of(lambda: train(100), 1)[0]
    return f"| {device} | {'bfloat16' if run.bfloat16 else 'float32'} | {seconds / 100 * 54_000 / 64:.1f} |"


def main() -> None:
    cpu, best = torch.device("cpu"), core.choose_device()
    digits = core.load_mnist("test")
    latents = core.SimpleAutoencoder.from_pretrained(device="cpu").encode_dataset(digits).tensors[0]
    latents = latents.repeat(5, 1)[: max(SIZES)]  # repeated, because the embedded sample has too few test digits
    models = {device: core.DiffusionModel.from_pretrained(device=device) for device in (cpu, best)}

    print("| device | digits | seconds for 5 steps (median of 5) |\n| --- | --- | --- |")
    for device, model in models.items():
        for count in SIZES if device != cpu else SIZES[:2]:
            # .cpu() waits for the accelerator; the first call is not counted
            spent = measure.seconds_of(lambda: model.generate(latents[:count]).cpu(), 6)[1:]  # noqa: B023
            print(f"| {device} | {count} | {statistics.median(spent):.4f} |")

    print("\n| device | number type | seconds an epoch of 54,000 digits |\n| --- | --- | --- |")
    train_digits = core.load_mnist("train")
    for bfloat16 in (False, None):  # None: the default on this device
        print(training_row(best, train_digits, bfloat16), flush=True)

    print()
    for tf32 in (True, False):
        torch.backends.cudnn.allow_tf32 = tf32  # True is torch's default: CUDA convolutions round to 10 bits
        pictures = [model.generate(latents[:64], generator=core.seeded(0)).cpu() for model in models.values()]
        difference = (pictures[0] - pictures[-1]).abs().max().item()
        print(f"The same seed at eta 0, TF32 {'on' if tf32 else 'off'}: a pixel differs by {difference:.1e} at most.\n")
    print(f"*{measure.machine()}; {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}.*")


if __name__ == "__main__":
    main()

"""Sampling on the accelerator and on the CPU: seconds, and whether the same seed gives the same picture.

python benchmarks/gpu.py    prints a table in Markdown; tests/gpu.sh calls it on a machine with a GPU
"""

import measure
import torch

import diffae_core as core

SIZES = (1, 64, 4096)


def main() -> None:
    digits = core.load_mnist("test").subset(slice(0, max(SIZES)))
    models = {}
    for device in ("cpu", core.choose_device()):
        autoencoder = core.SimpleAutoencoder.from_pretrained(device=device)
        model = core.DiffusionModel.from_pretrained(device=device)
        models[str(device)] = model, autoencoder.encode_dataset(digits).tensors[0].to(model.device)
    print("| device | digits | seconds for 5 steps (median of 5) |\n| --- | --- | --- |")
    for device, (model, latents) in models.items():
        for count in SIZES if device != "cpu" else SIZES[:2]:
            if count > len(latents):
                continue
            # .cpu() waits for the accelerator
            spent = measure.seconds_of(lambda: model.generate(latents[:count]).cpu(), 6)[1:]  # noqa: B023
            print(f"| {device} | {count} | {sorted(spent)[2]:.4f} |")
    pictures = [model.generate(z[:64], generator=core.seeded(0)).cpu() for model, z in models.values()]
    difference = (pictures[0] - pictures[-1]).abs().max().item()
    print(f"\nThe same seed at eta 0, on both devices: the largest difference of a pixel is {difference:.1e}.")
    print(f"\n*{measure.machine()}; {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}.*")


if __name__ == "__main__":
    main()

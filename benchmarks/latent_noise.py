"""How much noise on the latents, and who is told: the experiment that settled the recipe, at equal wall-clock.

python benchmarks/latent_noise.py               all variants, about an hour on one core; goes on after a kill
python benchmarks/latent_noise.py --only base "told always"

Each variant is the base with one thing changed: an autoencoder trained for two epochs with noise sigma on its latent,
and a diffusion model trained on its latents with noise. Measured on validation digits, 10 steps, random x_T, eta 0.
Writes docs/results/latent_noise.json; what was measured is kept in output/latent_noise.
"""

import argparse
import json
import re
from dataclasses import dataclass

import measure
import torch
import torch.nn.functional as F
from measure import generate
from sklearn.linear_model import LogisticRegression

import diffae_core as core


@dataclass(frozen=True)
class Variant:
    """The base, and what one may change of it."""

    latent_noise: float = 2.0  # most noise on a latent in the diffusion model's training, s
    told: float = 0.5  # share of the examples in which the network is told s
    crowding: float = 1.0  # s = latent_noise * u^crowding with u uniform: above 1, more of them near 0
    sigma: float = 1.0  # noise on the autoencoder's own latent in its training
    latent_dim: int = 256
    joint: bool = False  # the encoder learns along, by the diffusion's loss alone


VARIANTS = {
    "**base**: latent_noise 2, uniform, half told, sigma 1, 256 numbers, frozen": Variant(),
    "latent_noise 0": Variant(latent_noise=0.0),
    "latent_noise 1": Variant(latent_noise=1.0),
    "latent_noise 1.5": Variant(latent_noise=1.5),
    "latent_noise 3": Variant(latent_noise=3.0),
    "s mostly near 0": Variant(crowding=2.0),
    "never told": Variant(told=0.0),
    "always told": Variant(told=1.0),
    "sigma 0": Variant(sigma=0.0),
    "sigma 0.5": Variant(sigma=0.5),
    "sigma 2": Variant(sigma=2.0),
    "joint encoder": Variant(joint=True),
    "32 numbers": Variant(latent_dim=32),
    "64 numbers": Variant(latent_dim=64),
    "128 numbers": Variant(latent_dim=128),
}
COLUMNS = {  # metric -> its format
    "epochs": "{:.2f}",
    "as they are: accuracy, %": "{:.1f}",
    "MSE": "{:.4f}",
    "told 0: MSE": "{:.4f}",
    "+ 1 std: FD ratio": "{:.2f}",
    "+ 2 std: FD ratio": "{:.2f}",
    "precision": "{:.2f}",
    "half-way: FD ratio": "{:.1f}",
    "half-way, told 1: FD ratio": "{:.1f}",
    "inverted: MSE": "{:.1e}",
    "probe: accuracy, %": "{:.1f}",
}


def train_told(model: core.DiffusionModel, digits: core.Digits, latents, variant: Variant, config) -> core.Training:
    """As ``core.train_diffusion`` on encoded digits, with the share that is told, and the crowding of s, free."""

    def batch_loss(index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        images, count = core.as_images(digits.pixels[index]), len(index)
        noise = torch.randn(images.shape, generator=generator)
        times = torch.rand(count, generator=generator)
        s = variant.latent_noise * torch.rand(count, generator=generator) ** variant.crowding
        z = latents[index] + s[:, None] * torch.randn(latents[index].shape, generator=generator)
        told = torch.where(torch.rand(count, generator=generator) < variant.told, s, -1.0)  # -1: not told
        return model.loss(images, z, times, noise, told).mean()

    return core.Training(model, batch_loss, len(digits), config)


def trained(variant: Variant, train: core.Digits, seconds: float):
    """The variant's autoencoder and diffusion model, and what the latter's training spent."""
    folder = measure.ROOT / "output" / "latent_noise"
    path = folder / f"autoencoder_{variant.latent_dim}_{variant.sigma:g}.pt"
    torch.manual_seed(0)
    autoencoder = core.SimpleAutoencoder(variant.latent_dim, device="cpu")
    if not variant.joint:
        if not path.exists():
            for _ in core.train_autoencoder(autoencoder, train, core.TrainingConfig(epochs=2), variant.sigma):
                pass
            autoencoder.save_checkpoint(path)
        autoencoder = core.SimpleAutoencoder.from_pretrained(path, device="cpu")
        latents = autoencoder.encode_dataset(train).tensors[0]

    def start(epochs: float) -> core.Training:
        torch.manual_seed(0)
        model, config = (
            core.DiffusionModel(latent_dim=variant.latent_dim, device="cpu"),
            core.TrainingConfig(epochs=epochs),
        )
        if not variant.joint:
            return train_told(model, train, latents, variant, config)
        autoencoder.load_state_dict(core.SimpleAutoencoder(variant.latent_dim, device="cpu").state_dict())  # anew
        return core.train_jointly(model, train, autoencoder, config, variant.latent_noise)

    run, spent = measure.train_for(seconds, start)
    return autoencoder.eval(), (run.model.diffusion if variant.joint else run.model), spent


def metrics(variant: Variant, train: core.Digits, validation: core.Digits, count: int, seconds: float) -> dict:
    autoencoder, model, spent = trained(variant, train, seconds)
    real = validation.subset(slice(0, count))
    reference = measure.Reference(core.DigitClassifier.from_pretrained(device="cpu"), real, train)
    z = autoencoder.encode_dataset(real).tensors[0]
    noise = torch.randn(z.shape, generator=core.seeded(5))
    shift = torch.stack([real.labels.roll(-k) != real.labels for k in range(1, 30)]).float().argmax(dim=0) + 1
    middle = core.lerp(z, z[(torch.arange(count) + shift) % count], 0.5)

    def at(latents: torch.Tensor, told: float | None = None) -> tuple[torch.Tensor, dict]:
        images = generate(model, latents, 10, seed=1, latent_noise=told)
        return images, reference.measure(images, real.labels)

    (copies, as_is), (literal, _) = at(z), at(z, 0.0)
    far, few = at(z + 2 * noise)[1], real.images[:50]
    x_T = model.invert(few, z[:50], 20, corrections=1, spacing="quadratic")
    known, labels = autoencoder.encode_dataset(train.subset(slice(0, 10_000))).tensors
    probe = LogisticRegression(C=0.01, max_iter=200).fit(known.numpy(), labels.numpy())
    seen = autoencoder.encode_dataset(validation, as_numpy=True)
    values = [spent["epochs"], as_is["accuracy"], F.mse_loss(copies, real.images).item()]
    values += [F.mse_loss(literal, real.images).item(), at(z + noise)[1]["FD ratio"], far["FD ratio"], far["precision"]]
    values += [at(middle)[1]["FD ratio"], at(middle, 1.0)[1]["FD ratio"]]
    values += [
        F.mse_loss(model.generate(z[:50], 20, x_T=x_T, spacing="quadratic"), few).item(),
        100 * probe.score(*seen),
    ]
    return dict(zip(COLUMNS, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=150, help="of training for each variant (%(default)s)")
    parser.add_argument("--digits", type=int, default=500, help="validation digits to measure on (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="VARIANT", help="measure these, write no result")
    options = parser.parse_args()
    train, validation, rows = core.load_mnist("train"), core.load_mnist("validation"), []
    for name in options.only or VARIANTS:
        cell = re.sub(r"\W+", "_", f"{name} {options.seconds:g} {options.digits}").strip("_")
        path = measure.ROOT / "output" / "latent_noise" / f"{cell}.json"
        if not path.exists():
            found = metrics(VARIANTS[name], train, validation, options.digits, options.seconds)
            with core.checkpoints.atomic_write(path) as temporary:
                temporary.write_text(json.dumps(found))
        rows.append([name, *json.loads(path.read_text()).values()])
        print(*rows[-1], flush=True)
    if not options.only:
        result = measure.table(
            ["variant", *COLUMNS], rows, ["", *COLUMNS.values()], **{"validation digits": options.digits}
        )
        command = f"python benchmarks/latent_noise.py --seconds {options.seconds:g} --digits {options.digits}"
        measure.write("latent_noise", command, {"latent noise": result}, weights="none")


if __name__ == "__main__":
    main()

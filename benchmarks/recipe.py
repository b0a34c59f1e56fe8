"""How a minute of CPU is best spent: variants of the training recipe, each given the same wall-clock.

python benchmarks/recipe.py        about half an hour on 2 cores; writes docs/results/recipe.json

All variants are measured on validation digits (never the test set), generated from their latents and random noise in 10
DDIM steps with eta 0. Run it on a machine that does nothing else.
"""

import argparse
from collections.abc import Callable
from functools import partial

import measure
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import diffae_core as core


class PredictsNoise(nn.Module):
    """The U-Net's output is read as the noise, as in DDPM, and passed on as the velocity; sampling clips x_0."""

    def __init__(self):
        super().__init__()
        self.network = core.ConditionalUNet()

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        level = noise_rate[:, None, None, None]
        rates = (1 - level**2).clamp(min=0).sqrt(), level
        clean, noise = core.schedule.from_noise(x, self.network(x, noise_rate, latents, latent_noise), *rates)
        if not self.training:
            clean, noise = core.schedule.from_clean(x, clean.clamp(-1, 1), *rates)
        return core.schedule.velocity(clean, noise, *rates)


class WeightedAsNoise(core.DiffusionModel):
    """The velocity's error weighted by signal_rate^2, which makes it the error of the noise."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        return super().loss(images, latents, times, noise, latent_noise) * self.schedule.rates(times)[0] ** 2


class AbsoluteError(core.DiffusionModel):
    """Mean absolute error of the velocity, as in the Keras DDIM example."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        clean, rates = 2 * images - 1, self.schedule.rates(times, ndim=4)
        predicted = self.network(
            core.schedule.noisy_image(clean, noise, *rates), rates[1].flatten(), latents, latent_noise
        )
        return (predicted.float() - core.schedule.velocity(clean, noise, *rates)).abs().mean(dim=(1, 2, 3))


class StratifiedTimes(core.DiffusionModel):
    """One time from each of N equal slices of [0, 1], instead of N independent ones."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        times = (torch.arange(len(times), device=times.device) + times) / len(times)
        return super().loss(images, latents, times, noise, latent_noise)


class MiddleTimes(core.DiffusionModel):
    """More times around the middle: the logistic function of normal numbers."""

    def loss(self, images, latents, times, noise, latent_noise=None) -> Tensor:
        times = torch.special.ndtri(times.clamp(1e-4, 1 - 1e-4)).sigmoid()
        return super().loss(images, latents, times, noise, latent_noise)


class Zeros(nn.Module):
    """Stands where the latent would have entered."""

    def __init__(self, *shape: int):
        super().__init__()
        self.shape = shape

    def forward(self, latents: Tensor) -> Tensor:
        return latents.new_zeros(len(latents), *self.shape)


class ShiftOnly(nn.Module):
    """Additive conditioning: the scale is 0, the shift is learnt."""

    def __init__(self, condition_dim: int, channels: int):
        super().__init__()
        self.shift = nn.Linear(condition_dim, channels)

    def forward(self, condition: Tensor) -> Tensor:
        shift = self.shift(condition)
        return torch.cat([torch.zeros_like(shift), shift], dim=1)


class FullResolution(nn.Module):
    """The same U-Net with its finest level at 28x28: each pixel is given four times, and the outputs are averaged."""

    def __init__(self):
        super().__init__()
        self.network = core.ConditionalUNet(image_size=56)

    def forward(self, x: Tensor, noise_rate: Tensor, latents: Tensor, latent_noise: Tensor) -> Tensor:
        return F.avg_pool2d(self.network(F.interpolate(x, scale_factor=2), noise_rate, latents, latent_noise), 2)


def changed(change: Callable[[core.ConditionalUNet], object]) -> core.ConditionalUNet:
    network = core.ConditionalUNet()
    change(network)
    return network.to(memory_format=torch.channels_last)


def blocks(network: nn.Module) -> list[core.unet.ResidualBlock]:
    return [module for module in network.modules() if isinstance(module, core.unet.ResidualBlock)]


def additive(network: core.ConditionalUNet) -> None:
    for block in blocks(network):
        block.scale_and_shift = ShiftOnly(block.scale_and_shift.in_features, block.conv1.out_channels)


def two_3x3(network: core.ConditionalUNet) -> None:
    for block in blocks(network):
        block.conv2 = nn.Conv2d(block.conv1.out_channels, block.conv1.out_channels, 3, padding=1)
        nn.init.zeros_(block.conv2.weight)


def contiguous() -> core.ConditionalUNet:
    return core.ConditionalUNet().to(memory_format=torch.contiguous_format)


def no_map() -> core.ConditionalUNet:
    return changed(lambda network: setattr(network, "latent_map", Zeros(16, 14, 14)))


def map_only() -> core.ConditionalUNet:
    return changed(lambda network: setattr(network, "feature_embedding", Zeros(64)))


# name -> (kind of model, its network, changes of the training's configuration)
BASE = "**base**: space-to-depth, scale and shift, latent map, velocity, MSE, float32"
VARIANTS: dict[str, tuple[type, Callable, dict]] = {
    BASE: (core.DiffusionModel, core.ConditionalUNet, {}),
    "finest level at 28x28": (core.DiffusionModel, FullResolution, {}),
    "blocks of two 3x3 convolutions": (core.DiffusionModel, partial(changed, two_3x3), {}),
    "weights not channels_last": (core.DiffusionModel, contiguous, {}),
    "bfloat16 autocast": (core.DiffusionModel, core.ConditionalUNet, {"bfloat16": True}),
    "bfloat16 autocast, weights not channels_last": (core.DiffusionModel, contiguous, {"bfloat16": True}),
    "additive conditioning": (core.DiffusionModel, partial(changed, additive), {}),
    "latent without its map, by scale and shift alone": (core.DiffusionModel, no_map, {}),
    "latent by its map alone": (core.DiffusionModel, map_only, {}),
    "predicts the noise": (WeightedAsNoise, PredictsNoise, {}),
    "mean absolute error": (AbsoluteError, core.ConditionalUNet, {}),
    "loss weighted as the noise's": (WeightedAsNoise, core.ConditionalUNet, {}),
    "stratified times": (StratifiedTimes, core.ConditionalUNet, {}),
    "more times in the middle": (MiddleTimes, core.ConditionalUNet, {}),
    "batch of 128": (core.DiffusionModel, core.ConditionalUNet, {"batch_size": 128}),
    "batch of 256": (core.DiffusionModel, core.ConditionalUNet, {"batch_size": 256}),
    "peak learning rate 1e-3": (core.DiffusionModel, core.ConditionalUNet, {"learning_rate": 1e-3}),
    "peak learning rate 8e-3": (core.DiffusionModel, core.ConditionalUNet, {"learning_rate": 8e-3}),
    "constant learning rate": (core.DiffusionModel, core.ConditionalUNet, {"learning_rate_schedule": "constant"}),
    "EMA 0.99": (core.DiffusionModel, core.ConditionalUNet, {"ema_decay": 0.99}),
    "no EMA": (core.DiffusionModel, core.ConditionalUNet, {"ema_decay": 0.0}),
}
ABLATIONS = (BASE, "mean absolute error", "loss weighted as the noise's", "predicts the noise")
ABLATIONS += ("latent by its map alone", "latent without its map, by scale and shift alone")  # table G


def train_variant(name: str, train: core.Digits, autoencoder: core.SimpleAutoencoder, seconds: float, seed: int = 0):
    """Train one variant for about so many seconds: its finished run, and what it spent."""
    kind, network, changes = VARIANTS[name]

    def start(epochs: float) -> core.Training:
        torch.manual_seed(seed)
        model = kind(network=network(), device="cpu")
        return core.train_diffusion(model, train, autoencoder, core.TrainingConfig(epochs=epochs, seed=seed, **changes))

    return measure.train_for(seconds, start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of training for each variant (%(default)s)")
    parser.add_argument("--digits", type=int, default=1000, help="validation digits to measure on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    autoencoder = core.SimpleAutoencoder.from_pretrained(device="cpu")
    train, real = core.load_mnist("train"), core.load_mnist("validation").subset(slice(0, options.digits))
    reference = measure.Reference(core.DigitClassifier.from_pretrained(device="cpu"), real, train)
    latents, rows = autoencoder.encode_dataset(real).tensors[0], []
    for name in tqdm(VARIANTS):
        run, spent = train_variant(name, train, autoencoder, options.seconds, options.seed)
        images = measure.generate(run.model, latents, 10, options.seed)
        found = reference.measure(images, real.labels)
        rows.append(
            [name, *spent.values(), found["accuracy"], F.mse_loss(images, real.images).item(), found["FD ratio"]]
        )
    columns = ["variant", "seconds", "ms a step", "epochs", "accuracy, %", "MSE", "FD ratio"]
    formats = ["", "{:.0f}", "{:.0f}", "{:.2f}", "{:.1f}", "{:.5f}", "{:.2f}"]
    facts = {"validation digits": len(real), "reference FD": reference.distance, "seed": options.seed}
    command = (
        f"python benchmarks/recipe.py --seconds {options.seconds:g} --digits {options.digits} --seed {options.seed}"
    )
    measure.write("recipe", command, {"recipe": measure.table(columns, rows, formats, **facts)})


if __name__ == "__main__":
    main()

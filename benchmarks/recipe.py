"""How a minute of CPU is best spent: variants of the training recipe, each given the same wall-clock.

python benchmarks/recipe.py        about half an hour on 2 cores; writes benchmarks/RECIPE.md

All variants are judged on validation digits (never the test set), drawn from their latents and random noise in 10
DDIM steps with eta 0. Run it on a machine that does nothing else.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import contest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import diffae_core as core

HEAD = """# The recipe, settled at equal wall-clock

Each variant is the base with one thing changed, trained for about the same seconds from the same seed (the rate of
steps is measured first, so that the learning rate falls to 0 just at the end; the seconds it then took are in the
table), and judged on validation digits drawn from their latents and random noise, 10 steps, eta 0. Frechet distances
are in the judge's penultimate features, over the distance of as many real training digits from the same validation
digits. Without gradient clipping. One seed, one short budget, and a machine whose speed wanders by a tenth or more:
small differences mean nothing, and what wins here need not win a run of an hour.

The base clips its guess of x_0 nowhere. "Predicts the noise" has to: at t = 1 there is no signal to divide by.

"""
TAIL = """
## What the default became

- Folding 2x2, the latent map, blocks of 3x3 and 1x1, channels_last in float32, velocity and mean squared error, as in
  the base. bfloat16 on this CPU (one of few that have it built in) is faster only without channels_last, and then by a
  quarter; on others it is far slower. So CPUs train in float32, and CUDA in bfloat16.
- Batches of 64: more steps in the same seconds.
- A peak learning rate of 3e-3, with gradients clipped to length 1. The winner of the second round, 8e-3, did not
  survive a long run: at 30 epochs its loss fell to 0.054 in the second, jumped to 0.63 in the third, and stayed high.
- The loss weighted as the noise's has lower Frechet distances in a short run, at the same agreement and error. It is
  not the default: it does not train the first step, from pure noise, at all, and the plain loss is simpler to teach.
- Scale and shift is kept for the latent too, although the map alone does as well: it is what the papers do.
"""
BASE_SETTINGS = {"batch_size": 128, "learning_rate": 2e-3, "gradient_clip": 1e9}


class PredictsNoise(core.DiffusionModel):
    """The U-Net's output is read as the noise, as in DDPM; x_0 is clipped and the noise taken anew from it."""

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        rates = self.schedule.rates(times)
        noisy = core.noisy_image(2 * images - 1, noise, *rates)
        return (self.network(noisy, rates[1].flatten(), latents).float() - noise).square().mean(dim=(1, 2, 3))

    def _denoise(self, x_t: Tensor, times: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        rates = self.schedule.rates(times)
        clean, _ = core.from_noise(x_t, self.network(x_t, rates[1].flatten(), latents), *rates)
        return core.from_clean(x_t, clean.clamp(-1, 1), *rates)


class AbsoluteError(core.DiffusionModel):
    """Mean absolute error of the velocity, as in the Keras DDIM example."""

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        clean, rates = 2 * images - 1, self.schedule.rates(times)
        predicted = self.network(core.noisy_image(clean, noise, *rates), rates[1].flatten(), latents)
        return (predicted.float() - core.velocity(clean, noise, *rates)).abs().mean(dim=(1, 2, 3))


class WeightedAsNoise(core.DiffusionModel):
    """The velocity's error weighted by signal_rate^2, which makes it the error of the noise."""

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        return super().loss(images, latents, times, noise) * self.schedule.rates(times)[0].flatten() ** 2


class StratifiedTimes(core.DiffusionModel):
    """One time from each of N equal slices of [0, 1], instead of N independent ones."""

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        count = len(times)
        return super().loss(images, latents, (torch.arange(count, device=times.device) + times) / count, noise)


class MiddleTimes(core.DiffusionModel):
    """Times crowded around the middle: the logistic function of normal numbers."""

    def loss(self, images: Tensor, latents: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        return super().loss(images, latents, torch.special.ndtri(times.clamp(1e-4, 1 - 1e-4)).sigmoid(), noise)


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


class Unfolded(nn.Module):
    """The same U-Net with its finest level at 28x28: each pixel is given four times, and the answers are averaged."""

    def __init__(self):
        super().__init__()
        self.network = core.ConditionalUNet(image_size=56)

    def forward(self, x: Tensor, noise_level: Tensor, latents: Tensor) -> Tensor:
        return F.avg_pool2d(self.network(F.interpolate(x, scale_factor=2), noise_level, latents), 2)


def residual_blocks(model: core.DiffusionModel) -> list[core.ResidualBlock]:
    return [module for module in model.modules() if isinstance(module, core.ResidualBlock)]


def additive(model: core.DiffusionModel) -> None:
    for block in residual_blocks(model):
        block.scale_and_shift = ShiftOnly(block.scale_and_shift.in_features, block.conv1.out_channels)


def two_3x3(model: core.DiffusionModel) -> None:
    for block in residual_blocks(model):
        block.conv2 = nn.Conv2d(block.conv1.out_channels, block.conv1.out_channels, 3, padding=1)
        nn.init.zeros_(block.conv2.weight)
    model.network.to(memory_format=torch.channels_last)


def no_map(model: core.DiffusionModel) -> None:
    model.network.latent_map = Zeros(16, 14, 14)


def map_only(model: core.DiffusionModel) -> None:
    model.network.feature_embedding = Zeros(64)


def unfolded(model: core.DiffusionModel) -> None:
    model.network = Unfolded().to(model.device)


def contiguous(model: core.DiffusionModel) -> None:
    model.network.to(memory_format=torch.contiguous_format)


def unchanged(model: core.DiffusionModel) -> None:
    pass


# name -> (kind of model, change made to a new one, changes of the training's configuration)
VARIANTS = {
    "**base**: folded 2x2, scale and shift, latent map, velocity, MSE, float32": (core.DiffusionModel, unchanged, {}),
    "not folded: finest level at 28x28": (core.DiffusionModel, unfolded, {}),
    "blocks of two 3x3 convolutions": (core.DiffusionModel, two_3x3, {}),
    "weights not channels_last": (core.DiffusionModel, contiguous, {}),
    "bfloat16 autocast": (core.DiffusionModel, unchanged, {"bfloat16": True}),
    "bfloat16 autocast, weights not channels_last": (core.DiffusionModel, contiguous, {"bfloat16": True}),
    "additive conditioning": (core.DiffusionModel, additive, {}),
    "latent without its map, by scale and shift alone": (core.DiffusionModel, no_map, {}),
    "latent by its map alone": (core.DiffusionModel, map_only, {}),
    "predicts the noise": (PredictsNoise, unchanged, {}),
    "mean absolute error": (AbsoluteError, unchanged, {}),
    "loss weighted as the noise's": (WeightedAsNoise, unchanged, {}),
    "stratified times": (StratifiedTimes, unchanged, {}),
    "times crowded in the middle": (MiddleTimes, unchanged, {}),
    "batch of 64": (core.DiffusionModel, unchanged, {"batch_size": 64}),
    "batch of 256": (core.DiffusionModel, unchanged, {"batch_size": 256}),
    "peak learning rate 1e-3": (core.DiffusionModel, unchanged, {"learning_rate": 1e-3}),
    "peak learning rate 4e-3": (core.DiffusionModel, unchanged, {"learning_rate": 4e-3}),
    "EMA 0.99": (core.DiffusionModel, unchanged, {"ema_decay": 0.99}),
    "no EMA": (core.DiffusionModel, unchanged, {"ema_decay": 0.0}),
}
SECOND_ROUND = {  # what did well in the first, together
    "batch of 64, peak 4e-3": (core.DiffusionModel, unchanged, {"batch_size": 64, "learning_rate": 4e-3}),
    "batch of 64, peak 8e-3": (core.DiffusionModel, unchanged, {"batch_size": 64, "learning_rate": 8e-3}),
    "batch of 128, peak 8e-3": (core.DiffusionModel, unchanged, {"learning_rate": 8e-3}),
    "batch of 64, peak 4e-3, loss as the noise's": (
        WeightedAsNoise,
        unchanged,
        {"batch_size": 64, "learning_rate": 4e-3},
    ),
    "batch of 64, peak 4e-3, mean absolute error": (
        AbsoluteError,
        unchanged,
        {"batch_size": 64, "learning_rate": 4e-3},
    ),
}


def train_variant(variant: tuple, digits: core.Digits, latents: Tensor, seconds: float, seed: int):
    """Train one variant for so many seconds; returns the model, milliseconds a step, and epochs done."""
    kind, change, changes = variant
    settings = BASE_SETTINGS | {key: value for key, value in changes.items() if key != "bfloat16"}
    setting = contest.Setting(changes.get("bfloat16", False), channels_last=True)  # a change may set another layout

    def start(epochs: float) -> core.Training:
        torch.manual_seed(seed)
        model = kind(device="cpu")
        change(model)
        config = core.TrainingConfig(epochs=epochs, seed=seed, **settings)
        return core.train_diffusion(model, digits, latents, config)

    trial = start(epochs=1)
    step_seconds = statistics.mean(contest.step_times(trial, setting, 12))
    run = start(epochs=seconds / step_seconds / trial.steps_per_epoch)
    began = time.perf_counter()
    with setting.precision():
        for _ in run:
            pass
    spent = time.perf_counter() - began
    return run.model, 1000 * spent / len(run), len(run) / run.steps_per_epoch, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of training for each variant (%(default)s)")
    parser.add_argument("--digits", type=int, default=1000, help="validation digits to judge on (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="folder with autoencoder_weights.pt and judge.pt (the shipped)")
    parser.add_argument("--second-round", action="store_true", help="combinations; appended to the first round's file")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "RECIPE.md")
    options = parser.parse_args()

    names = ("autoencoder_weights.pt", "judge.pt")
    paths = [options.weights / name if options.weights else None for name in names]
    autoencoder, judge = core.SimpleAutoencoder.from_pretrained(paths[0]), core.Judge.from_pretrained(paths[1])
    referee = contest.Referee(autoencoder, judge, options.digits)
    training, latents = referee.training, core.encode_all(autoencoder, referee.training)

    lines = []
    for name, variant in tqdm((SECOND_ROUND if options.second_round else VARIANTS).items()):
        model, step_ms, epochs, spent = train_variant(variant, training, latents, options.seconds, options.seed)
        drawn = contest.draw_digits(model, referee.latents, 10, options.seed)
        agreement, share = referee(drawn)
        error = F.mse_loss(drawn, referee.real.images)
        figures = f"{spent:.0f} | {step_ms:.0f} | {epochs:.2f} | {agreement:.1f} | {error:.5f} | {share:.2f}"
        lines.append(f"| {name} | {figures} |")
        tqdm.write(lines[-1])

    earlier = (
        options.output.read_text() + "\n## Second round: what did well, together\n\n" if options.second_round else HEAD
    )
    text = (
        f"{earlier}`python benchmarks/recipe.py --seconds {options.seconds:g} --digits {options.digits} --seed "
        f"{options.seed}{' --second-round' * options.second_round}` on {platform.machine()} with "
        f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads, torch {torch.__version__}:\n\n"
        "| variant | seconds | ms a step | epochs | agreement, % | MSE | Frechet, share of the floor |\n"
        "|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    ) + (TAIL if options.second_round else "")
    with core.write_whole(options.output) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()

"""What the comparisons share: timing, drawing, judging, and a run of any contender by the package's own loop."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch import Tensor

import diffae_core as core


@dataclass(frozen=True)
class Setting:
    """The type and layout in which a contender computes, and what a step of 64 digits takes in it."""

    bfloat16: bool
    channels_last: bool
    step_seconds: float = float("nan")

    @property
    def name(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (", channels_last" if self.channels_last else "")

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def precision(self):
        """Within this, training steps compute in the setting's type."""
        return patch("diffae_core.training.has_fast_bfloat16", return_value=self.bfloat16)


OURS = Setting(bfloat16=False, channels_last=True)  # as the package trains on a CPU


def build_ours() -> core.DiffusionModel:
    return core.DiffusionModel(device="cpu")


def start(
    build: Callable, digits: core.Digits, latents: Tensor, total_steps: int, setting: Setting, settings: dict
) -> core.Training:
    """A run of so many steps; ``settings`` are those of TrainingConfig, and "constant": the rate never falls."""
    settings = dict(settings)
    constant = settings.pop("constant", False)
    torch.manual_seed(0)
    model = build().to(memory_format=setting.layout)
    batch_size = settings.get("batch_size", core.TrainingConfig.batch_size)
    epochs = total_steps / max(1, len(digits) // batch_size)
    run = core.train_diffusion(model, digits, latents, core.TrainingConfig(epochs=epochs, **settings))
    if constant:
        run._set_learning_rate = lambda: run.config.learning_rate  # AdamW was built with it
    return run


def seconds_of(work: Callable, count: int) -> list[float]:
    """Seconds of each of so many calls."""
    spent = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return spent


def step_times(run: core.Training, setting: Setting, count: int = 10) -> list[float]:
    """Seconds of each step after the first two."""
    steps = iter(run)
    with setting.precision():
        return seconds_of(lambda: next(steps), count)[2:]


def time_steps(build: Callable, digits: core.Digits, latents: Tensor, setting: Setting) -> Setting:
    """The setting, with the median of eight steps put in."""
    spent = step_times(start(build, digits, latents, 10, setting, {}), setting)
    return replace(setting, step_seconds=statistics.median(spent))


def fastest(build: Callable, digits: core.Digits, latents: Tensor) -> Setting:
    """Of float32 and bfloat16, channels_last or not, the one with the quickest steps."""
    settings = [Setting(bfloat16, channels_last) for bfloat16 in (False, True) for channels_last in (False, True)]
    return min((time_steps(build, digits, latents, setting) for setting in settings), key=lambda s: s.step_seconds)


def draw_digits(model, latents: Tensor, num_steps: int, seed: int = 0, **options) -> Tensor:
    """Digits from latents and a random x_T, 250 at a time."""
    generator = torch.Generator().manual_seed(seed)
    return core.in_batches(lambda z: model.generate(z, num_steps, generator=generator, **options), latents, 250)


class Referee:
    """Judges drawn validation digits; all contenders draw the same ones."""

    def __init__(self, autoencoder: core.SimpleAutoencoder, judge: core.Judge, count: int):
        self.training, validation = core.split_training(core.load_mnist("train"))
        self.judge, self.real = judge, validation.subset(slice(0, count))
        self.latents = core.encode_all(autoencoder, self.real)
        self.features, _ = judge.read(self.real.images)
        self.floor = core.frechet_distance(judge.read(self.training.subset(slice(0, count)).images)[0], self.features)

    def __call__(self, drawn: Tensor) -> tuple[float, float]:
        """Label agreement in %, and Frechet distance as a share of that of as many training digits."""
        features, labels = self.judge.read(drawn)
        share = core.frechet_distance(features, self.features) / self.floor
        return core.percent_equal(labels, self.real.labels), share

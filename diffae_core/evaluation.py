"""How good are the digits? A classifier of its own, the judge, reads them; Frechet distances compare crowds of them."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae_core import checkpoints
from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.checks import check_count, check_images, check_latents, check_tensor, check_time
from diffae_core.data import Digits, as_images, check_digits
from diffae_core.devices import choose_device, random_normal
from diffae_core.diffusion import DiffusionModel
from diffae_core.measures import frechet_distance, percent_equal
from diffae_core.training import Training, TrainingConfig, fingerprint


class Judge(nn.Module):
    """A small convolutional classifier of digits that neither model is trained with.

    Args:
        device: where to live; None chooses CUDA, MPS or the CPU.
    """

    shipped_weights = "judge.pt"
    feature_dim = 128

    def __init__(self, device: str | torch.device | None = None):
        super().__init__()
        self.config = {}
        self.features = nn.Sequential(  # (N, 1, 28, 28)
            *self._layer(1, 32, stride=1),
            *self._layer(32, 32, stride=2),  # (N, 32, 14, 14)
            *self._layer(32, 64, stride=1),
            *self._layer(64, 64, stride=2),  # (N, 64, 7, 7)
            *self._layer(64, self.feature_dim, stride=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),  # (N, 128): the penultimate features
        )
        self.classifier = nn.Linear(self.feature_dim, 10)
        self.to(choose_device(device))

    @staticmethod
    def _layer(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(N, 1, 28, 28)`` in [0, 1] -> logits ``(N, 10)``."""
        return self.classifier(self.features(check_images(images).to(self.device)))

    @torch.no_grad()
    def read(self, images: Tensor, batch_size: int = 500) -> tuple[Tensor, Tensor]:
        """Penultimate features ``(N, 128)`` and labels ``(N,)`` of images in [0, 1], on the CPU."""
        parts = check_images(images).split(check_count(batch_size, "batch_size"))
        features = torch.cat([self.features(part.to(self.device)) for part in parts])
        return features.cpu(), self.classifier(features).argmax(dim=1).cpu()

    def save_checkpoint(self, path: str | Path) -> None:
        """Write the weights to ``path``, whole or not at all."""
        checkpoints.save_model(self, path)

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, device: str | torch.device | None = None) -> "Judge":
        """The shipped judge, or the one saved at ``path``, in eval mode."""
        return checkpoints.build_model(cls, path, device)


def train_judge(
    judge: Judge,
    digits: Digits,
    config: TrainingConfig = TrainingConfig(
        epochs=6, batch_size=128, learning_rate=4e-3, warmup=0.2, weight_decay=0.02
    ),
) -> Training:
    """A run that teaches the judge to read digits, each batch moved by up to 3 pixels; labels smoothed by 0.05.

    Raises:
        TypeError: no Digits.
    """
    check_digits(digits)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        right, down = torch.randint(0, 7, (2,), generator=generator).tolist()
        images = F.pad(as_images(digits.pixels[index]), (3, 3, 3, 3))[:, :, down : down + 28, right : right + 28]
        logits = judge(images)
        return F.cross_entropy(logits.float(), digits.labels[index].to(judge.device), label_smoothing=0.05)

    return Training(judge, batch_loss, len(digits), config, fingerprint(digits.pixels))


@torch.no_grad()
def in_batches(draw: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int = 500) -> Tensor:
    """``draw`` called on ``batch_size`` rows at a time, without gradients, put together on the CPU.

    Raises:
        TypeError, ValueError: rows that are no tensor, or a ``batch_size`` below 1; ``draw``'s errors are its own.
    """
    check_tensor(rows, "expected rows as a tensor, got")
    if rows.ndim == 0:
        raise ValueError("expected rows as a tensor (N, ...), got a single number: add a dimension with rows[None]")
    check_count(batch_size, "batch_size")
    return torch.cat([draw(part).cpu() for part in rows.split(batch_size)])


def quality(
    autoencoder: SimpleAutoencoder,
    model: DiffusionModel,
    judge: Judge,
    real: Digits,
    train: Digits,
    frechet_steps: tuple[int, ...] = (10, 20, 100),
    seed: int = 0,
    progress: Callable = iter,
) -> dict[str, float]:
    """Measure how well digits come back from their latents and a random x_T, at eta 0 and 20 steps.

    Args:
        autoencoder, model, judge: trained.
        real: held-out digits to draw again, N of them.
        train: N or more training digits, for the floor: how far real digits are from real digits.
        frechet_steps: numbers of steps to give a Frechet distance for, beside 20.
        seed: of x_T.
        progress: wraps the list of samplings, as ``tqdm`` does.

    Returns:
        The name of each figure, and its value.

    Raises:
        TypeError, ValueError: no Digits, or fewer of ``train`` than of ``real``.
    """
    images, count = check_digits(real).images, len(real)
    if len(check_digits(train)) < count:
        raise ValueError(f"expected {count} or more training digits for the floor, got {len(train)}: take more")
    latents = in_batches(autoencoder.encode, images)
    decoded = in_batches(autoencoder.decode, latents)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    real_features, read_labels = judge.read(images)
    floor = frechet_distance(judge.read(train.subset(slice(0, count)).images)[0], real_features)

    def draw(codes: Tensor, steps: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return in_batches(lambda part: model.generate(part, steps, generator=generator), codes)

    drawn = {steps: draw(latents, steps) for steps in progress(sorted({20, *frechet_steps}))}
    shuffled_labels = judge.read(draw(latents[order], 20))[1]
    figures = {
        "real digits read right by the judge, %": percent_equal(read_labels, real.labels),
        "label agreement at 20 steps, %": percent_equal(judge.read(drawn[20])[1], real.labels),
        "label agreement of the autoencoder's own decoder, %": percent_equal(judge.read(decoded)[1], real.labels),
        "mean squared error at 20 steps": float(F.mse_loss(drawn[20], images)),
        "mean squared error of the autoencoder's own decoder": float(F.mse_loss(decoded, images)),
        "Frechet distance of real training digits (the floor)": floor,
    }
    for steps, pictures in drawn.items():
        share = frechet_distance(judge.read(pictures)[0], real_features) / floor
        figures[f"Frechet distance at {steps} steps, share of the floor"] = share
    figures["shuffled latents: agreement with the place's own label, %"] = percent_equal(shuffled_labels, real.labels)
    new_labels = real.labels[order]
    figures["shuffled latents: agreement with the latent's label, %"] = percent_equal(shuffled_labels, new_labels)
    return figures


@torch.no_grad()
def loss_by_time(
    model: DiffusionModel, images: Tensor, latents: Tensor, times: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """The model's loss at each diffusion time, averaged over digits: whether it uses its latents shows in others'.

    Args:
        model: trained.
        images: ``(N, 1, 28, 28)`` in [0, 1].
        latents: ``(N, latent_dim)``: their own; or shuffled, or zeros, for comparison.
        times: ``(T,)`` in [0, 1].
        generator: where the noise comes from; the same for each time.

    Returns:
        ``(T,)``, on the CPU.

    Raises:
        TypeError, ValueError: not such images, latents or times.
    """
    images = check_images(images, model.image_size).to(model.device)
    latents = check_latents(latents, model.latent_dim, len(images)).to(model.device)
    if not isinstance(times, Tensor) or times.ndim != 1 or len(times) == 0 or len(images) == 0:
        raise ValueError("expected one or more images and times as a tensor (T,), T of 1 or more")
    noise = random_normal(tuple(images.shape), model.device, generator)
    return torch.stack(
        [model.loss(images, latents, check_time(time, len(images), model.device), noise).mean() for time in times]
    ).cpu()


def quality_table(figures: dict[str, float], count: int) -> str:
    """The figures of :func:`quality` on ``count`` digits as a Markdown table."""
    lines = [f"| figure, on {count:,} test digits, random x_T, eta 0 | value |", "|---|---|"]
    for name, value in figures.items():
        lines.append(f"| {name} | {value:.4g} |" if "%" not in name else f"| {name} | {value:.2f} |")
    return "\n".join(lines) + "\n"

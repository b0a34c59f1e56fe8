"""Notebooks 01 and 04: one training loop for every model, with EMA, and with resuming after a kill."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffae_core import checkpoints
from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.checks import check_count, check_latents
from diffae_core.data import Digits, as_images, check_digits
from diffae_core.devices import has_fast_bfloat16, random_normal
from diffae_core.diffusion import DiffusionModel
from diffae_core.processes import average_over_processes, my_share, process_count

# (numbers of the digits in this batch, where its randomness comes from) -> the batch's mean loss
BatchLoss = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; benchmarks/RECIPE.md has what was measured to settle the defaults."""

    epochs: float = 30  # passes over the digits; a fraction stops within a pass
    batch_size: int = 64  # digits a step
    learning_rate: float = 3e-3  # falls from there to 0 along a cosine, after a rise from 0
    warmup: float = 0.05  # share of the steps in which it rises
    weight_decay: float = 0.01  # AdamW's
    gradient_clip: float = 1.0  # a longer gradient is shortened to this: a rare bad batch cannot undo the run
    ema_decay: float = 0.998  # share of the averaged weights kept at each step
    seed: int = 0  # of the order of the digits, the times and the noise

    def __post_init__(self) -> None:
        check_count(self.batch_size, "batch_size")
        check_count(self.seed, "seed", at_least=0)
        for name, value in asdict(self).items():
            number = isinstance(value, int | float) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and name in ("epochs", "learning_rate", "gradient_clip")):
                raise ValueError(f"expected {name} above 0 (warmup and decays: 0 or more), got {value!r}")
        if self.warmup >= 1 or self.ema_decay >= 1:
            raise ValueError(f"expected warmup and ema_decay below 1, got {self.warmup} and {self.ema_decay}")


@dataclass(frozen=True)
class Record:
    """What a training loop yields after each step."""

    step: int  # steps done, from 1
    epoch: float  # passes done
    loss: float  # the mean over this step's batch
    learning_rate: float


class Training:
    """A training run that can be stopped after any step, saved, and gone on with.

    Iterate over it: each step yields a :class:`Record`. What a step draws depends on the seed and its number alone,
    so a run that was killed and resumed ends with the weights of one that was not. After the last step the model
    holds the averaged (EMA) weights; until then they are in ``ema_model``.

    Args:
        model: what is trained.
        batch_loss: the loss of a batch, from the numbers of its digits and a generator for its randomness.
        num_examples: how many digits there are.
        config: how to train.
        data: their fingerprint; a run is resumed only on the data it was started on.
    """

    def __init__(
        self, model: nn.Module, batch_loss: BatchLoss, num_examples: int, config: TrainingConfig, data: str = ""
    ):
        self.model, self.batch_loss, self.config, self.data = model, batch_loss, config, data
        self.num_examples = check_count(num_examples, "the number of training examples")
        if min(num_examples, config.batch_size) % process_count():
            raise ValueError(
                f"expected batches that {process_count()} processes can share evenly, got batches of "
                f"{min(num_examples, config.batch_size)}: choose a batch_size that is a multiple"
            )
        self.steps_per_epoch = max(1, num_examples // config.batch_size)
        self.total_steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.step = 0
        self.optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
        self.ema.requires_grad_(False)

    @property
    def ema_model(self) -> nn.Module:
        """The model with averaged weights: the one to draw samples with (of a joint run, its ``.diffusion``)."""
        return self.ema.module.eval()

    def __len__(self) -> int:
        return self.total_steps

    def __iter__(self) -> Iterator[Record]:
        self.model.train()
        while self.step < self.total_steps:
            learning_rate = self._set_learning_rate()
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.model.device)):
                loss = self.batch_loss(self._batch(), generator)
            self.optimizer.zero_grad()
            loss.backward()
            loss = loss.detach()
            average_over_processes([loss, *(p.grad for p in self.model.parameters() if p.grad is not None)])
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            self.optimizer.step()
            self._update_ema()
            self.step += 1
            yield Record(self.step, self.step / self.steps_per_epoch, loss.item(), learning_rate)
        self.model.load_state_dict(self.ema.module.state_dict())
        self.model.eval()

    def _set_learning_rate(self) -> float:
        """A straight rise, then half a cosine down: a function of the step alone, so that resuming needs no state."""
        done = self.step / self.total_steps
        rise = min(1.0, (self.step + 1) / (self.config.warmup * self.total_steps + 1))
        learning_rate = self.config.learning_rate * rise * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        return learning_rate

    def _batch(self) -> Tensor:
        """The numbers of this step's digits: each epoch shuffles anew, with a seed of its own."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(self.config.seed + 7_368_787 * (epoch + 1))
        order = torch.randperm(self.num_examples, generator=generator)
        return order[place * self.config.batch_size :][: self.config.batch_size]

    def _update_ema(self) -> None:
        """Average the weights; early on over fewer steps, so that the first, untrained ones are soon forgotten."""
        decay = min(self.config.ema_decay, (self.step + 1) / (self.step + 10))
        self.ema.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self.ema.update_parameters(self.model)

    def save(self, path: str | Path) -> None:
        """Write all that the run needs to go on, whole or not at all."""
        checkpoints.save(
            {
                "kind": "training",
                "model": {"class": type(self.model).__name__, **self.model.config},
                "config": asdict(self.config),
                "num_examples": self.num_examples,
                "data": self.data,
                "step": self.step,
                "weights": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            path,
        )

    def resume(self, path: str | Path) -> None:
        """Go on from what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of a run with another model, other settings or other data.
        """
        contents = checkpoints.load(path, "training")
        wanted = {
            "model": {"class": type(self.model).__name__, **self.model.config},
            "config": asdict(self.config),
            "num_examples": self.num_examples,
            "data": self.data,
        }
        for name, value in wanted.items():
            if contents.get(name) != value:
                raise ValueError(
                    f"expected the run in {path} to have {name} {value}, got {contents.get(name)}: "
                    "resume with the options it was started with, or start anew in another folder"
                )
        checkpoints.check_state(self.model, contents.get("weights"), path)
        checkpoints.check_state(self.ema, contents.get("ema"), path)
        try:
            step = check_count(contents["step"], "step", 0)
            self.optimizer.load_state_dict(contents["optimizer"])
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"expected a whole training run in {path}, got a damaged one: {error}") from error
        self.model.load_state_dict(contents["weights"])
        self.ema.load_state_dict(contents["ema"])
        self.step = step


def train_autoencoder(
    model: SimpleAutoencoder,
    digits: Digits,
    config: TrainingConfig = TrainingConfig(epochs=5, learning_rate=3e-3),
) -> Training:
    """A run that teaches the autoencoder to copy digits: mean squared error between image and reconstruction.

    When it is done, call :func:`normalise_latents`.

    Raises:
        TypeError: no Digits.
    """
    pixels = check_digits(digits).pixels.to(model.device)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        (index,) = my_share(index.to(pixels.device))
        images = as_images(pixels[index])
        return F.mse_loss(model.decoder(model.encoder(images)).float(), images)

    return Training(model, batch_loss, len(digits), config, fingerprint(digits.pixels))


def train_diffusion(
    model: DiffusionModel,
    digits: Digits,
    latents: Tensor | SimpleAutoencoder,
    config: TrainingConfig = TrainingConfig(),
    joint: bool = False,
) -> Training:
    """A run that teaches the diffusion model to take noise out of digits, given their latents.

    Each digit gets a random time and random noise; the loss is :meth:`DiffusionModel.loss`.

    Args:
        model: the model to train.
        digits: the training digits, N of them.
        latents: ``(N, latent_dim)``, from :func:`encode_all`: computed once, since the autoencoder is frozen. With
            ``joint``, the autoencoder itself, whose encoder is to learn.
        config: how to train.
        joint: train the encoder too, by this loss alone, as the Diffusion Autoencoders paper does (arXiv 2111.15640,
            equation 6). When the run is done, call :func:`normalise_latents` with the model; the autoencoder's decoder
            has learnt nothing.

    Raises:
        TypeError: ``joint`` without an autoencoder, or an autoencoder without ``joint``; or no Digits.
        ValueError: not one latent for each digit.
    """
    if joint != isinstance(latents, SimpleAutoencoder):
        wanted = "the autoencoder itself with joint=True, and latents (N, latent_dim) without"
        raise TypeError(f"expected {wanted}; got joint={joint} and a {type(latents).__name__}")
    pixels = check_digits(digits).pixels.to(model.device)
    if joint:
        trained = EncoderAndDiffusion(latents, model)
        data = fingerprint(digits.pixels)
    else:
        trained, codes = model, check_latents(latents, model.latent_dim, len(digits)).detach().to(model.device)
        data = fingerprint(digits.pixels, codes)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        noise = random_normal((len(index), *pixels.shape[1:]), pixels.device, generator)
        times = torch.rand(len(index), generator=generator).to(pixels.device)
        index, noise, times = my_share(index.to(pixels.device), noise, times)
        images = as_images(pixels[index])
        return model.loss(images, trained.encoder(images) if joint else codes[index], times, noise).mean()

    return Training(trained, batch_loss, len(digits), config, data)


class EncoderAndDiffusion(nn.Module):
    """An autoencoder's encoder and a diffusion model, put together to be trained as one, in place."""

    def __init__(self, autoencoder: SimpleAutoencoder, diffusion: DiffusionModel):
        super().__init__()
        if autoencoder.latent_dim != diffusion.latent_dim:
            raise ValueError(
                f"expected an autoencoder and a model of one latent_dim, got {autoencoder.latent_dim} and "
                f"{diffusion.latent_dim}: build both with the same"
            )
        if autoencoder.device != diffusion.device:
            raise ValueError(
                f"expected an autoencoder and a model on one device, got {autoencoder.device} and {diffusion.device}: "
                "build both with the same"
            )
        self.config = {"autoencoder": autoencoder.config, "diffusion": diffusion.config}
        self.encoder, self.diffusion = autoencoder.encoder, diffusion

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.diffusion.device


def fingerprint(*tensors: Tensor) -> str:
    """A short name that other data would not have."""
    joined = hashlib.sha256()
    for tensor in tensors:
        joined.update(tensor.cpu().contiguous().numpy())
    return joined.hexdigest()[:16]


@torch.no_grad()
def encode_all(model: SimpleAutoencoder, digits: Digits, batch_size: int = 1000) -> Tensor:
    """The latents of all digits, ``(N, latent_dim)`` float32 on the CPU, in the digits' order.

    Raises:
        TypeError, ValueError: no Digits, or a ``batch_size`` below 1.
    """
    batches = check_digits(digits).pixels.split(check_count(batch_size, "batch_size"))
    return torch.cat([model.encode(as_images(pixels)).cpu() for pixels in batches])


def normalise_latents(model: SimpleAutoencoder, digits: Digits, diffusion: DiffusionModel | None = None) -> None:
    """Give the latents mean 0 and standard deviation 1 over ``digits``, folded into the autoencoder's own layers.

    A ``diffusion`` model that was trained on the latents as they were (``joint=True``) is told, and draws the same.
    """
    if diffusion is not None and diffusion.latent_dim != model.latent_dim:
        raise ValueError(f"expected a diffusion model of latent_dim {model.latent_dim}, got {diffusion.latent_dim}")
    latents = encode_all(model, digits)
    mean, std = latents.mean(0), latents.std(0).clamp(min=1e-6)
    model.normalise_latents(mean, std)
    if diffusion is not None:
        diffusion.normalise_latents(mean, std)

"""How good are the digits? The script's table, and whether a model uses its latents."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import random_normal, seeded
from diffae_core.base.validation import check_count, check_generator, check_images, check_latents, check_times
from diffae_core.data.digits import Digits, check_digits
from diffae_core.diffusion import DiffusionModel
from diffae_core.evaluation.classifier import DigitClassifier
from diffae_core.evaluation.metrics import frechet_distance, precision_recall

NOISES = (0.5, 1.0, 2.0)  # added to the latents, in standard deviations


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], rows: Tensor, batch_size: int = 500) -> Tensor:
    """``function`` called on ``batch_size`` rows at a time, without gradients; the results are joined on the CPU."""
    check_count(batch_size, "batch_size")
    return torch.cat([function(part).cpu() for part in rows.split(batch_size)])


def quality(
    autoencoder: SimpleAutoencoder,
    model: DiffusionModel,
    classifier: DigitClassifier,
    train: Digits,
    test: Digits,
    seed: int = 0,
    progress: Callable = iter,
) -> dict[str, float]:
    """Measure how well digits are decoded from their latents, exact and noisy, with random x_T at eta 0.

    Args:
        autoencoder, model, classifier: trained.
        train: N or more training digits, for the reference: how far real digits are from real digits.
        test: N held-out digits to encode and decode, 6 or more.
        seed: of x_T and the noise on the latents.
        progress: wraps the list of samplings, as ``tqdm`` does.

    Returns:
        The value of each metric, by name.

    Raises:
        TypeError, ValueError: a model that was trained with another autoencoder; no Digits of its size, too few, or
            fewer of ``train`` than of ``test``.
    """
    model.check_latents_from(autoencoder)
    for digits in (train, test):
        check_digits(digits, autoencoder.image_size)
    images = test.images
    count = check_count(len(test), "the number of test digits", at_least=6)  # precision looks at five neighbours
    if len(train) < count:
        raise ValueError(f"expected {count} or more training digits for the reference, got {len(train)}: take more")
    latents = in_batches(autoencoder.encode, images)
    decoded = in_batches(autoencoder.decode, latents)
    real_features, predicted = classifier.classify(images)
    other_features, _ = classifier.classify(train.subset(slice(0, count)).images)
    reference = frechet_distance(other_features, real_features)
    if reference <= 1e-6:
        raise ValueError(
            "expected training digits other than the test digits, and not all alike, got the same features"
        )
    direction = random_normal(latents.shape, latents.device, seeded(seed + 1))

    metrics = {
        "real test digits: accuracy of the classifier, %": float((predicted == test.labels).float().mean() * 100),
        "real training digits: Frechet distance (the reference)": reference,
        "real training digits: precision": precision_recall(real_features, other_features)[0],
        "autoencoder's own decoder: accuracy, %": classifier.accuracy(decoded, test.labels),
        "autoencoder's own decoder: mean squared error": float(F.mse_loss(decoded, images)),
    }
    for strength in progress((0.0, *NOISES)):
        generator = seeded(seed)
        noisy = latents + strength * direction
        generated = in_batches(lambda z: model.generate(z, generator=generator), noisy)  # noqa: B023 (called at once)
        features, labels = classifier.classify(generated)
        name = f"latent + {strength:g} std" if strength else "latent as it is"
        metrics[f"{name}: accuracy, %"] = float((labels == test.labels).float().mean() * 100)
        if strength == 0:
            metrics[f"{name}: mean squared error"] = float(F.mse_loss(generated, images))
        metrics[f"{name}: FD ratio"] = frechet_distance(features, real_features) / reference
        metrics[f"{name}: precision"] = precision_recall(real_features, features)[0]
    return metrics


@torch.no_grad()
def loss_by_time(
    model: DiffusionModel, images: Tensor, latents: Tensor, times: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """The model's loss at each diffusion time, averaged over digits; other latents show whether it uses its own.

    Args:
        model: trained.
        images: ``(N, 1, 28, 28)`` in [0, 1].
        latents: ``(N, latent_dim)``: the images' own; or shuffled, or zeros, for comparison.
        times: ``(T,)`` in [0, 1].
        generator: of the noise, which is the same for each time.

    Returns:
        ``(T,)``, on the CPU.

    Raises:
        TypeError, ValueError: not such images, latents or times.
    """
    images = check_images(images, model.image_size).to(model.device)
    latents = check_latents(latents, model.latent_dim, len(images)).to(model.device)
    noise = random_normal(images.shape, model.device, check_generator(generator))
    return torch.stack(
        [model.loss(images, latents, check_times(time, len(images), model.device), noise).mean() for time in times]
    ).cpu()

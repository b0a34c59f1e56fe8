"""Appendix A2: how sure is a classifier on latents, and how must a digit change for it to become sure?"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from diffae_core.base.devices import random_normal, seeded
from diffae_core.base.model import Model, fingerprint, in_eval_mode
from diffae_core.base.training import Training, TrainingConfig
from diffae_core.base.validation import (
    check_choice,
    check_count,
    check_generator,
    check_labels,
    check_latents,
    check_number,
    check_tensor,
    check_values,
)

# The recipe of a last layer, without weight decay: the ELBO's KL term already pulls the weights towards their prior.
HEAD = TrainingConfig(epochs=15, batch_size=256, learning_rate=1e-2, weight_decay=0)


class BayesianLastLayer(Model):
    """A linear classifier of latents that knows its weights only roughly: each is a Gaussian, N(mean, std^2).

    Mean-field variational inference (Blundell et al. 2015, arXiv 1505.05424). The prior of each weight is
    N(0, prior_sigma^2); training keeps a weight's Gaussian as near to the prior as the data allow.

    Args:
        backbone: images -> latents, such as ``autoencoder.encoder``. It gets no gradient here, and so stays as it is.
            The head is on the backbone's device, and ``head.to()`` moves both.
        latent_dim: numbers in a latent.
        num_classes: classes to tell apart.
        prior_sigma: standard deviation of the prior, above 0.
    """

    def __init__(self, backbone: nn.Module, latent_dim: int, num_classes: int = 10, prior_sigma: float = 0.1):
        super().__init__()
        self.latent_dim = check_count(latent_dim, "latent_dim")
        self.num_classes = check_count(num_classes, "num_classes", at_least=2)
        self.prior_sigma = check_number(prior_sigma, "prior_sigma", 1e-6, 1e6)
        self.config = {name: getattr(self, name) for name in ("latent_dim", "num_classes", "prior_sigma")}
        self.backbone = backbone
        self.mean = nn.Parameter(torch.zeros(self.num_classes, self.latent_dim + 1))  # the last column is the bias
        self.raw_std = nn.Parameter(torch.full_like(self.mean, -4.0))  # its softplus is the std, 0.018 to begin with
        self.to(next((parameter.device for parameter in backbone.parameters()), None))

    def train(self, mode: bool = True) -> Self:
        """Set the head's own mode; the backbone keeps its mode."""
        self.training = mode
        return self

    def check_weights(self, weights: dict[str, Tensor], path: str | Path) -> None:
        """As :meth:`Model.check_weights`; a head that was saved on another backbone is refused, too."""
        super().check_weights(weights, path)
        backbone = self.backbone.state_dict()
        saved = [weights[f"backbone.{name}"] for name in backbone]
        if fingerprint(*saved) != fingerprint(*backbone.values()):
            raise ValueError(
                f"expected a head of this backbone at {path}, got one of another backbone: use the right encoder"
            )

    @classmethod
    def from_pretrained(cls, *args, **settings) -> NoReturn:
        """Always a TypeError: no head is shipped, and a file does not say how to build its backbone."""
        raise TypeError("expected a head made on its backbone: call BayesianLastLayer(...), then load_checkpoint(path)")

    def kl(self) -> Tensor:
        """Kullback-Leibler divergence of the weights' Gaussians from the prior, summed over all weights, in nats.

        ``log(prior_sigma / std) + (std^2 + mean^2) / (2 prior_sigma^2) - 1/2`` for each.
        """
        std, prior = F.softplus(self.raw_std), self.prior_sigma
        return ((prior / std).log() + (std**2 + self.mean**2) / (2 * prior**2) - 0.5).sum()

    def sample_logits(self, z: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Logits ``(S, N, num_classes)`` of latents under S samples of the weights, the same for all N."""
        noise = random_normal((num_samples, *self.mean.shape), self.device, generator)
        weights = self.mean + F.softplus(self.raw_std) * noise  # (S, C, D + 1): reparameterised, so differentiable
        return z @ weights[..., :-1].mT + weights[:, None, :, -1]  # (N, D) @ (S, D, C) + the biases (S, 1, C)

    def loss(self, z: Tensor, labels: Tensor, num_examples: int, generator: torch.Generator | None = None) -> Tensor:
        """The negative ELBO for one example: cross-entropy under one sample of the weights, plus KL / num_examples."""
        return F.cross_entropy(self.sample_logits(z, 1, generator)[0], labels) + self.kl() / num_examples

    def sample_predict_z(self, z: Tensor, num_samples: int = 100, generator: torch.Generator | None = None) -> Tensor:
        """Class probabilities ``(S, N, num_classes)`` of latents ``(N, latent_dim)`` under S samples of the weights.

        The result is differentiable. Generators with the same seed give the same weights.

        Raises:
            TypeError, ValueError: unsuitable latents, or an invalid ``num_samples``.
        """
        z = check_latents(z, self.latent_dim).to(self.device)
        count = check_count(num_samples, "num_samples")
        return self.sample_logits(z, count, check_generator(generator)).softmax(dim=-1)

    def forward(self, z: Tensor) -> Tensor:
        """Class probabilities ``(100, N, num_classes)`` of latents, under the same 100 samples at each call."""
        return self.sample_predict_z(z, 100, seeded(0))

    def sample_predict(
        self, images: Tensor, num_samples: int = 100, generator: torch.Generator | None = None
    ) -> Tensor:
        """Class probabilities ``(S, N, num_classes)`` of images ``(N, 1, 28, 28)`` in [0, 1], through the backbone.

        Raises:
            TypeError, ValueError: not a tensor, images that the backbone does not take, or an invalid ``num_samples``.
        """
        check_tensor(images, "expected images (N, 1, 28, 28) as a tensor, got")
        try:
            with torch.no_grad(), in_eval_mode(self.backbone):
                z = self.backbone(images.to(self.device)).float()
        except torch.OutOfMemoryError:  # a RuntimeError, too, but not the images' fault
            raise
        except RuntimeError as error:
            raise ValueError(f"expected images that the backbone takes, got {tuple(images.shape)}: {error}") from error
        return self.sample_predict_z(z, num_samples, generator)


def train_last_layer(
    head: BayesianLastLayer,
    features: TensorDataset,
    config: TrainingConfig = HEAD,
) -> Training:
    """A run that fits the weights' Gaussians to ``autoencoder.encode_dataset(digits)`` by maximising the ELBO.

    A saved run resumes with the same features, so keep them: encoded again, they can differ in the last digits.

    Raises:
        TypeError, ValueError: another kind of head, or features that are not latents ``(N, latent_dim)`` and labels.
    """
    if not isinstance(head, BayesianLastLayer):
        hint = "train another head in a loop of your own, on encode_dataset's tensors"
        raise TypeError(f"expected a BayesianLastLayer, got {type(head).__name__}: {hint}")
    if not isinstance(features, TensorDataset) or len(features.tensors) != 2:
        wanted = "expected a TensorDataset of latents and labels, as encode_dataset gives"
        raise TypeError(f"{wanted}, got another {type(features).__name__}")
    z, labels = features.tensors
    check_labels(labels, len(check_latents(z, head.latent_dim)), head.num_classes)
    z, labels = z.detach().to(head.device), labels.long().to(head.device)

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        index = index.to(z.device)
        return head.loss(z[index], labels[index], len(labels), generator)

    data = fingerprint(z, labels, *head.backbone.state_dict().values())
    return Training(head, batch_loss, len(labels), config, data)


class Entropies(NamedTuple):
    """What makes a prediction uncertain, each ``(N,)`` in nats; total = aleatoric + epistemic."""

    total: Tensor  # entropy of the mean prediction
    aleatoric: Tensor  # mean entropy of the individual predictions: what every sample of the weights leaves open
    epistemic: Tensor  # the rest, their disagreement: 0, up to rounding, where all samples predict the same


def decompose_entropy(probabilities: Tensor) -> Entropies:
    """Split the uncertainty of sampled predictions (Depeweg et al. 2018, arXiv 1710.07283).

    ``H[mean_s p_s] = mean_s H[p_s] + the rest``: total = aleatoric + epistemic. The rest is the mutual
    information between prediction and weights.

    Args:
        probabilities: ``(S, N, C)``, each row summing to 1.

    Raises:
        ValueError: another shape, or rows that are not probabilities.
    """
    check_tensor(probabilities, "expected probabilities (S, N, C), got")
    if probabilities.ndim != 3 or len(probabilities) == 0:
        raise ValueError(f"expected probabilities (S, N, C), with S of 1 or more, got {tuple(probabilities.shape)}")
    has_few_digits = probabilities.element_size() < 4  # float16 or bfloat16
    if not _are_probabilities(probabilities, 1e-2 if has_few_digits else 1e-3):
        raise ValueError("expected probabilities that are 0 or more and sum to 1: apply a softmax to logits first")
    if has_few_digits:  # too few for the difference of two entropies
        probabilities = probabilities.float()

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)

    total, aleatoric = entropy(probabilities.mean(dim=0)), entropy(probabilities).mean(dim=0)
    return Entropies(total, aleatoric, total - aleatoric)


def _are_probabilities(values: Tensor, tolerance: float = 1e-2) -> bool:  # by default as near as bfloat16 gets
    sums = values.detach().float().sum(dim=-1)
    return bool(((sums - 1).abs() < tolerance).all() and (values >= 0).all())


def clue(
    z0: Tensor,
    predict: Callable[[Tensor], Tensor],
    *,
    distance: str = "l2",
    distance_weight: float | Tensor = 0.005,
    num_steps: int = 200,
    learning_rate: float = 0.05,
    decoder: Callable[[Tensor], Tensor] | None = None,
    keep_path: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Change latents just enough for the classifier to become certain of them.

    Counterfactual Latent Uncertainty Explanations (Antoran et al. 2021, arXiv 2006.06848): Adam on z lowers

    ``total entropy of the prediction + distance_weight * distance from z0``

    for each latent by itself, in one batch. Predictions must not vary randomly between calls, or the target would move.

    Args:
        z0: ``(N, latent_dim)``, the latents to start from.
        predict: latents -> probabilities or logits (those of z0 show which), ``(N, C)`` or of S samples ``(S, N, C)``:
            a :class:`BayesianLastLayer`, or any other. In the paper it classifies the decoded image; for that, pass
            ``lambda z: head(autoencoder.encode(autoencoder.decode(z)))``.
        distance: "l2" or "l1", between latents.
        distance_weight: nats that one unit of distance must save, 0 or more: a number or ``(N,)``, one for each latent.
        num_steps, learning_rate: of Adam.
        decoder: latents -> images, such as ``autoencoder.decode``. With one, the distance is L1 between images,
            summed over pixels, instead of a distance between latents.
        keep_path: whether the history holds the latents too: 800 bytes for each of ``latent_dim`` numbers at 200 steps.

    Returns:
        The new latents ``(N, latent_dim)``; and the history, S + 1 rows from z0 on for S steps: "entropy" and
        "distance", each ``(S + 1, N)``, and "latents" ``(S + 1, N, latent_dim)``.

    Raises:
        TypeError, ValueError: unsuitable latents, settings or predictions, or a function that stops gradients.
    """
    check_choice(distance, "distance", ("l1", "l2"))
    check_number(learning_rate, "learning_rate", 1e-9, 1e3)
    weights = check_values(distance_weight, len(check_latents(z0)), z0.device, "distance_weight", 0, 1e6)
    norm = 2 if decoder is None and distance == "l2" else 1
    view = nn.Identity() if decoder is None else decoder  # the distance is between latents, or between images
    history: dict[str, list[Tensor]] = {"entropy": [], "distance": []}
    if keep_path:
        history["latents"] = []
    with torch.inference_mode(False), torch.enable_grad():  # also for a caller under no_grad
        z = z0.detach().clone().requires_grad_()
        weights = weights.clone()
        optimizer = torch.optim.Adam([z], learning_rate)
        start = view(z)
        _check_gradient(start, z, "decoder")
        start = start.detach().clone()
        for step in range(check_count(num_steps, "num_steps") + 1):
            predictions = _check_predictions(predict(z), len(z))
            if step == 0:
                _check_gradient(predictions, z, "classifier")
                are_logits = not _are_probabilities(predictions)
            probabilities = predictions.softmax(-1) if are_logits else predictions / predictions.sum(-1, keepdim=True)
            entropy = decompose_entropy(probabilities).total.to(z.device)
            away = torch.linalg.vector_norm((view(z) - start).flatten(1), ord=norm, dim=1).to(z.device)
            history["entropy"].append(entropy.detach())
            history["distance"].append(away.detach())
            if keep_path:
                history["latents"].append(z.detach().clone())
            if step < num_steps:  # not backward(): classifier and decoder are to keep no gradients
                (z.grad,) = torch.autograd.grad((entropy + weights * away).sum(), z)
                optimizer.step()
    return z.detach(), {name: torch.stack(values) for name, values in history.items()}


def _check_predictions(predictions: Tensor, count: int) -> Tensor:
    """Predictions ``(N, C)`` or ``(S, N, C)``, probabilities or logits, as float32 ``(S, N, C)``."""
    wanted = f"expected predictions ({count}, C) or (S, {count}, C), probabilities or logits, got"
    check_tensor(predictions, wanted)
    if predictions.ndim not in (2, 3) or predictions.shape[-2] != count:
        raise ValueError(f"{wanted} {tuple(predictions.shape)}")
    if predictions.shape[-1] < 2:
        hint = "instead of one probability p, give both, torch.cat([1 - p, p], dim=-1)"
        raise ValueError(f"{wanted} {tuple(predictions.shape)}: {hint}")
    return (predictions[None] if predictions.ndim == 2 else predictions).float()


def _check_gradient(values: Tensor, z: Tensor, name: str) -> None:
    """Refuse values from which no gradient reaches the latents."""
    if len(z) == 0:
        return
    gradient = None
    if values.requires_grad:
        (gradient,) = torch.autograd.grad(values.sum().to(z.device), z, retain_graph=True, allow_unused=True)
    if gradient is None:
        hint = "do not use no_grad, detach or methods that stop gradients, such as denoise_with_latent"
        raise ValueError(f"expected a {name} through which gradients reach the latents, got none: {hint}")

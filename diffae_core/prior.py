"""Appendix A1: digits from scratch. A prior samples a latent; the diffusion model decodes it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import choose_device, random_normal, random_uniform
from diffae_core.base.model import Model, encoder_fingerprint, fingerprint
from diffae_core.base.training import Training, TrainingConfig
from diffae_core.base.validation import check_count, check_generator, check_labels, check_latents, check_number
from diffae_core.data.digits import Digits, check_digits
from diffae_core.ddim import Denoiser, ddim_invert, ddim_sample, step_times
from diffae_core.schedule import CosineSchedule, from_velocity, noisy_image, velocity
from diffae_core.unet import TimeEmbedding

# The recipe of the shipped prior; docs/recipe.md shows what more and fewer epochs do.
PRIOR = TrainingConfig(epochs=20, batch_size=256, learning_rate=2e-3, ema_decay=0.999)
DROPPED_LABELS = 0.15  # share of the training labels that are hidden, so that one network is also unconditional


class LatentPrior(Model):
    """A DDIM over latents: noise z_T ``(N, latent_dim)`` <-> latents of digits, of a wanted class or of any.

    The Diffusion Autoencoders paper (arXiv 2111.15640) calls it the latent DDIM. The network is a stack of linear
    layers; each sees the noisy input again beside the previous layer's output, and time and label scale its output.
    For a Gaussian with the latents' covariance and the mean 0 (:meth:`fit_gaussian`), the best prediction is a formula.
    The network learns only how the latents differ from this Gaussian.

    At eta 0 the prior is a map that can be run backwards. ``invert`` finds the noise z_T that, with the label, leads to
    a latent, and z_T holds what the label leaves open: the handwriting. So ``generate(z_T, other_labels)`` is another
    digit in the same handwriting, and ``generate(turn(z_T, angle), labels)`` is the same digit in another.

    The methods share these arguments:

    - ``labels``: one number for all, or ``(N,)``; None hides the label.
    - ``guidance``: 1 follows the labels as trained, 0 ignores them; values above 1 exaggerate their effect, at the
      cost of variety (classifier-free guidance, arXiv 2207.12598).
    - ``num_steps``: DDIM steps, uniform; each is cheap here.
    - ``eta``: 0 is deterministic. The fresh noise of eta 1 lets later steps correct what earlier ones got wrong.
    - ``generator``: where all noise comes from.

    The methods raise a TypeError or ValueError for a wrong shape, label or value, and say what was wanted.

    Args:
        latent_dim: numbers in a latent.
        width: how many numbers each layer outputs.
        depth: the number of such layers.
        time_embedding_dim: how many sines and cosines describe the noise rate; even.
        num_classes: how many labels there are; 0 for a prior without labels.
        device: where the model lives; None chooses CUDA, MPS or the CPU.
    """

    pretrained_file = "latent_prior.pt"
    components: Tensor  # (latent_dim, latent_dim): the principal directions of the latents, one per column
    variances: Tensor  # (latent_dim,): of the latents along each

    def __init__(
        self,
        latent_dim: int = 256,
        width: int = 512,
        depth: int = 4,
        time_embedding_dim: int = 32,
        num_classes: int = 10,
        device: str | torch.device | None = None,
    ):
        super().__init__()
        self.config = {
            "latent_dim": check_count(latent_dim, "latent_dim"),
            "width": check_count(width, "width"),
            "depth": check_count(depth, "depth"),
            "time_embedding_dim": check_count(time_embedding_dim, "time_embedding_dim", multiple_of=2),
            "num_classes": check_count(num_classes, "num_classes", at_least=0),
        }
        self.latent_dim, self.num_classes, self.schedule = latent_dim, num_classes, CosineSchedule()
        self.time_embedding = TimeEmbedding(time_embedding_dim)
        self.label_embedding = nn.Embedding(num_classes + 1, time_embedding_dim)  # the last one: no label
        inputs = [latent_dim, *[width + latent_dim] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(size, width) for size in inputs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in inputs)
        self.scales = nn.ModuleList(nn.Linear(time_embedding_dim, width) for _ in inputs)
        self.head = nn.Linear(width + latent_dim, latent_dim)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("components", torch.eye(latent_dim))
        self.register_buffer("variances", torch.ones(latent_dim))
        self.to(choose_device(device))

    @torch.no_grad()
    def fit_gaussian(self, latents: Tensor) -> None:
        """Keep the covariance of latents with mean 0, ``(N, latent_dim)``, as principal components and variances.

        Few latents do not show along which components digits hardly vary, so no variance is below
        ``min(1, (latent_dim / N)^2)``. What the network has learnt so far is kept.
        """
        check_count(len(check_latents(latents, self.latent_dim)), "the number of latents")
        latents = latents.cpu()  # MPS has no eigh
        variances, components = torch.linalg.eigh(latents.T @ latents / len(latents))
        self.variances.copy_(variances.clamp(min=min(1.0, (self.latent_dim / len(latents)) ** 2)))
        rotation = components.to(self.device).T @ self.components  # the network's output is along the components
        self.head.weight.copy_(rotation @ self.head.weight)
        self.head.bias.copy_(rotation @ self.head.bias)
        self.components.copy_(components)

    def forward(self, x: Tensor, noise_rate: Tensor, labels: Tensor) -> Tensor:
        """Noisy latents ``(N, latent_dim)``, their noise rates and labels ``(N,)`` -> the velocity, of x's shape.

        The label ``num_classes`` stands for none. Along a component on which latents have variance V, x_t has the
        variance ``signal^2 V + noise^2``, and for a Gaussian the best prediction of the velocity is

        ``signal * noise * (1 - V) / (signal^2 V + noise^2) * x_t``, with the error ``sqrt(V / (signal^2 V + noise^2))``

        The layers' output, times this error, is added to that prediction, as in EDM (arXiv 2206.00364, equation 7).
        """
        condition = self.time_embedding(noise_rate) + self.label_embedding(labels)  # (N, 32)
        inputs = x
        for layer, norm, scale in zip(self.layers, self.norms, self.scales):
            h = F.silu(norm(layer(inputs)) * (1 + scale(condition)))  # (N, width)
            inputs = torch.cat([h, x], dim=1)
        noise = noise_rate[:, None]
        signal = (1 - noise**2).clamp(min=0).sqrt()
        spread = signal**2 * self.variances + noise**2  # (N, latent_dim): the variance of x_t along each component
        gaussian = signal * noise * (1 - self.variances) / spread * (x @ self.components)
        rest = (self.variances / spread).sqrt() * self.head(inputs)
        return (gaussian + rest) @ self.components.T

    def loss(self, latents: Tensor, times: Tensor, noise: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error of the velocity, ``(N,)``, as in :meth:`DiffusionModel.loss`, but on latents.

        Args:
            latents: ``(N, latent_dim)``.
            times: ``(N,)`` in [0, 1].
            noise: standard normal, of the latents' shape.
            labels: ``(N,)``; ``num_classes`` for none.
        """
        rates = self.schedule.rates(times, ndim=2)  # (N, 1) each
        predicted = self(noisy_image(latents, noise, *rates), rates[1].flatten(), labels)
        return (predicted.float() - velocity(latents, noise, *rates)).square().mean(dim=1)

    @torch.no_grad()
    def generate(
        self,
        z_T: Tensor,
        labels: int | Tensor | None = None,
        *,
        guidance: float = 1.0,
        num_steps: int = 20,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The latents ``(N, latent_dim)`` to which the noise z_T ``(N, latent_dim)`` and the labels lead.

        Hand them to :meth:`DiffusionModel.generate`. For the other arguments see the class.
        """
        z_T = check_latents(z_T, self.latent_dim).to(self.device)
        return self._sample(z_T, step_times(num_steps), labels, guidance, eta, generator)

    @torch.no_grad()
    def invert(
        self, latents: Tensor, labels: int | Tensor | None = None, *, num_steps: int = 20, corrections: int = 1
    ) -> Tensor:
        """The noise z_T from which ``generate`` with these labels gives these latents again (:func:`ddim_invert`).

        Args:
            latents: ``(N, latent_dim)``.
            labels: those of the latents; z_T does not hold what the label says.
            num_steps: that of the later ``generate``, at guidance 1.
            corrections: fixed-point iterations for each step.

        Returns:
            z_T, ``(N, latent_dim)``.
        """
        latents = check_latents(latents, self.latent_dim).to(self.device)
        check_count(corrections, "corrections", at_least=0)
        denoiser = self._denoiser(len(latents), labels)
        times = step_times(num_steps)
        return ddim_invert(denoiser, latents, times, corrections=corrections, schedule=self.schedule)

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        labels: int | Tensor | None = None,
        *,
        guidance: float = 1.0,
        num_steps: int = 200,
        eta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample ``n`` latents, ``(n, latent_dim)``: ``generate`` from random z_T, by default at eta 1.

        Here ``labels=None`` picks a random class for each latent, all equally likely, which gives better digits than a
        hidden label (guidance 0; docs/results.md has both). For the other arguments see the class.
        """
        check_count(n, "n")
        z_T = random_normal((n, self.latent_dim), self.device, check_generator(generator))
        if labels is None and self.num_classes:
            source = self.device if generator is None else generator.device
            labels = torch.randint(self.num_classes, (n,), generator=generator, device=source)
        return self._sample(z_T, step_times(num_steps), labels, guidance, eta, generator)

    @torch.no_grad()
    def refine(
        self,
        latents: Tensor,
        diffusion_time: float = 0.5,
        *,
        labels: int | Tensor | None = None,
        guidance: float = 1.0,
        num_steps: int = 50,
        eta: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Bring latents back among those of real digits: add noise up to ``diffusion_time`` and denoise with the prior.

        This is SDEdit (arXiv 2108.01073) on latents: for a half-way point, an edit, or a latent from elsewhere. What
        the noise covers is generated again, so the later the time, the more of the digit itself is lost.

        Args:
            latents: ``(N, latent_dim)``.
            diffusion_time: 0 changes nothing, 1 forgets the latents.
            labels, guidance, num_steps, eta, generator: see the class.

        Returns:
            Latents ``(N, latent_dim)``.
        """
        latents = check_latents(latents, self.latent_dim).to(self.device)
        time = check_number(diffusion_time, "diffusion_time", 0, 1)
        noise = random_normal(latents.shape, self.device, check_generator(generator))
        rates = self.schedule.rates(torch.full((1,), time, device=self.device), ndim=2)
        noisy = noisy_image(latents, noise, *rates)
        return self._sample(noisy, step_times(num_steps, start=time), labels, guidance, eta, generator)

    def _denoiser(self, count: int, labels: int | Tensor | None, guidance: float = 1.0) -> Denoiser:
        """A denoiser that follows ``labels``, for the sampler."""
        guidance = check_number(guidance, "guidance", 0, 100)
        if labels is not None and not self.num_classes:
            raise ValueError("expected no labels for a prior without classes: leave them out")
        hidden = torch.full((count,), self.num_classes, device=self.device)
        if labels is None:
            labels = hidden
        else:
            labels = _as_labels(labels)
            labels = labels.expand(count) if labels.ndim == 0 else labels
            labels = check_labels(labels, count, self.num_classes).to(self.device)

        def denoiser(x_t: Tensor, times: Tensor, _: None) -> tuple[Tensor, Tensor]:
            rates = self.schedule.rates(times, ndim=2)
            if labels is hidden or guidance == 1:
                return from_velocity(x_t, self(x_t, rates[1].flatten(), labels), *rates)
            # classifier-free guidance, arXiv 2207.12598: with the labels and without, as one batch
            both = self(x_t.repeat(2, 1), rates[1].flatten().repeat(2), torch.cat([labels, hidden]))
            conditional, unconditional = both.chunk(2)
            return from_velocity(x_t, unconditional + guidance * (conditional - unconditional), *rates)

        return denoiser

    def _sample(self, x, times, labels, guidance, eta, generator) -> Tensor:
        denoiser = self._denoiser(len(x), labels, guidance)
        eta = check_number(eta, "eta", 0, 1)
        generator = check_generator(generator)
        return ddim_sample(denoiser, x, times, eta=eta, generator=generator, schedule=self.schedule)


def train_latent_prior(
    prior: LatentPrior,
    digits: Digits,
    autoencoder: SimpleAutoencoder,
    config: TrainingConfig = PRIOR,
) -> Training:
    """A run that teaches the prior which latents digits have, and which of these belong to each class.

    Args:
        prior: the prior to train. With ``num_classes`` above 0 it learns the labels, 15% of which are hidden.
        digits: the training digits.
        autoencoder: trained; it encodes the digits once.
        config: how to train.

    Raises:
        TypeError, ValueError: anything but digits, latents that the prior does not take, or labels outside its classes.
    """
    latents, labels = autoencoder.encode_dataset(check_digits(digits, autoencoder.image_size)).tensors
    latents = check_latents(latents, prior.latent_dim).to(prior.device)
    if prior.num_classes:
        check_labels(labels, len(labels), prior.num_classes)
    else:
        labels = torch.zeros_like(labels)  # a prior without classes has one label, 0: none
    latents_from = encoder_fingerprint(autoencoder)
    data = f"{fingerprint(digits.pixels, digits.labels)}, encoder {latents_from}"

    def batch_loss(index: Tensor, generator: torch.Generator) -> Tensor:
        batch = latents[index.to(latents.device)]
        noise = random_normal(batch.shape, batch.device, generator)
        times = random_uniform(len(batch), batch.device, generator)
        is_hidden = random_uniform(len(batch), batch.device, generator) < DROPPED_LABELS
        shown = torch.where(is_hidden, prior.num_classes, labels[index].to(batch.device))
        return prior.loss(batch, times, noise, shown).mean()

    def finish() -> None:
        prior.latents_from = latents_from

    run = Training(prior, batch_loss, len(latents), config, data, finish)
    prior.fit_gaussian(latents)
    run.ema_model.load_state_dict(prior.state_dict())
    run.model.latents_from = run.ema_model.latents_from = ""  # mixed until the run has ended
    return run


def _as_labels(labels) -> Tensor:
    """Labels as a tensor; a TypeError for what is no number and no list of numbers."""
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"expected labels as one whole number or as (N,), got {labels!r}") from None

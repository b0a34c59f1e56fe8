"""The pictures of the README, from any trained models: decoded, perturbed, edited and sampled digits, and a GIF."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.devices import random_normal, seeded
from diffae_core.base.plotting import enlarge, labelled_picture, save_png, tile
from diffae_core.data.digits import Digits
from diffae_core.ddim import ddim_steps, step_times
from diffae_core.diffusion import DiffusionModel, to_pixels
from diffae_core.latents import class_directions, edit, lerp
from diffae_core.prior import LatentPrior

# Chosen on validation digits (docs/recipe.md): how far an edit moves, how much of it the prior makes anew, and how
# roughly the network is to take what comes out of that, and what lies between two digits.
STRENGTH, REFINE_TIME, EDIT_NOISE, BETWEEN_NOISE = 1.5, 0.6, 1.0, 1.5


class Demo:
    """Trained models, and one test digit of each class.

    Args:
        autoencoder, model: trained ones.
        prior: a latent prior of the same autoencoder; None leaves out what needs one.
        train: digits whose latents give the classes' directions.
        test: the digits to show.
        num_steps: of DDIM.
        seed: of all noise.
    """

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        prior: LatentPrior | None,
        train: Digits,
        test: Digits,
        num_steps: int = 20,
        seed: int = 0,
    ):
        self.model, self.prior, self.num_steps, self.generator = model, prior, num_steps, seeded(seed)
        first = [(test.labels == label).nonzero()[:1, 0] for label in range(test.num_classes)]
        self.digits = test.subset(torch.cat(first)) if first else test.subset(slice(0, 10))
        self.latents = autoencoder.encode_dataset(self.digits).tensors[0].to(model.device)
        known = train.subset(slice(0, 10_000))
        present = min(len(digits.labels.unique()) for digits in (known, self.digits))  # classes with an example in both
        self.can_edit = prior is not None and present == prior.num_classes >= 2
        if self.can_edit:
            latents, labels = autoencoder.encode_dataset(known).tensors
            self.directions = class_directions(latents, labels).to(model.device)

    def generate(self, latents: Tensor, **settings) -> Tensor:
        """Images from latents, with noise of the demo's own generator."""
        return self.model.generate(latents, self.num_steps, generator=self.generator, **settings).cpu()

    def edited(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents moved towards the classes in ``labels`` ``(N,)``, and refined by the prior with these labels."""
        moved = edit(latents, self.directions[labels], STRENGTH)
        return self.prior.refine(moved, REFINE_TIME, labels=labels, generator=self.generator)

    def decoded(self) -> Image.Image:
        """The digits, from their latents and random noise, and from their latents and their inverted noise."""
        exact = {"num_steps": self.num_steps, "spacing": "quadratic"}
        x_T = self.model.invert(self.digits.images, self.latents, corrections=1, **exact)
        rows = {"original": self.digits.images, "its latent, random noise": self.generate(self.latents)}
        return labelled_picture(
            rows | {"its latent, inverted noise": self.model.generate(self.latents, x_T=x_T, **exact)}
        )

    def perturbed(self) -> Image.Image:
        """Noise added and removed with the latent as it is, with noise on it, and edited into the next class."""
        noisy, _ = self.model.add_noise(self.digits.images, 0.7, self.generator)
        direction = random_normal(self.latents.shape, self.model.device, self.generator)
        rows = {"original": self.digits.images, "noised, t = 0.7": to_pixels(noisy)}
        for strength in (0, 0.5, 1, 2):
            label = f"latent + {strength} std" if strength else "denoised with its latent"
            latents = self.latents + strength * direction
            rows[label] = self.model.denoise_with_latent(noisy, latents, 0.7, self.num_steps)
        if self.can_edit:
            following = torch.arange(len(self.digits)).roll(-1)
            rows["edited into the next class"] = self.generate(
                self.edited(self.latents, following), latent_noise=EDIT_NOISE
            )
        return labelled_picture(rows)

    def one_as_all(self) -> Image.Image:
        """Three digits, each edited into every class."""
        every, rows = torch.arange(len(self.digits)), {}
        for place in {min(place, len(every) - 1) for place in (2, 4, 7)}:
            latents = self.edited(self.latents[[place]].expand(len(every), -1), every)
            rows[self.digits.names[place]] = torch.cat(
                [self.digits.images[[place]], self.generate(latents, latent_noise=EDIT_NOISE)]
            )
        return labelled_picture(rows, ("original", *self.digits.names))

    def from_scratch(self) -> Image.Image:
        """Eight digits of each class, from latents that the prior samples."""
        labels = torch.arange(self.prior.num_classes).repeat_interleave(8)
        latents = self.prior.sample_latents(len(labels), labels, guidance=1.5, generator=self.generator)
        return labelled_picture(dict(zip(self.digits.names, self.generate(latents).split(8))))

    def animation(self) -> list[Image.Image]:
        """Frames: a digit noised and denoised, then interpolated through edits of itself into every class."""
        start = min(4, len(self.digits) - 1)
        image, z = self.digits.images[[start]], self.latents[[start]]
        noised = [self.model.add_noise(image, time, seeded(0))[0] for time in torch.linspace(0, 1, 16)]
        times = step_times(self.num_steps)
        denoised = [x_t for x_t, _ in ddim_steps(self.model.denoise_once, noised[-1], times, z)]
        frames = [*to_pixels(torch.cat([*noised, *denoised, *denoised[-1:] * 6]).detach()).cpu()]
        stops = self.edited(z.expand(len(self.digits), -1), torch.arange(len(self.digits)))
        for a, b in zip([*z, *stops], stops):
            latents = lerp(a[None], b[None], torch.linspace(0, 1, 8, device=a.device)[:, None])
            x_T = noised[-1].expand(8, -1, -1, -1)
            images = self.model.generate(latents, self.num_steps, x_T=x_T, latent_noise=BETWEEN_NOISE).cpu()
            frames += [*images, *images[-1:].expand(4, -1, -1, -1)]
        return [enlarge(tile(frame[None]), 8) for frame in frames]

    def save(self, folder: Path) -> list[Path]:
        """Write all pictures to ``folder``; returns their paths."""
        pictures = {"conditioned_samples": self.decoded, "diffusion_autoencoder_demo": self.perturbed}
        if self.can_edit:
            pictures |= {"one_as_all": self.one_as_all, "from_scratch": self.from_scratch}
        paths = [folder / f"{name}.png" for name in pictures]
        for path, picture in zip(paths, pictures.values()):
            save_png(picture(), path)
        return paths + ([save_gif(self.animation(), folder / "animation.gif")] if self.can_edit else [])


def save_gif(frames: list[Image.Image], path: str | Path, milliseconds: int = 90) -> Path:
    """Write frames of one size as an endless GIF, completely or not at all; returns the path."""
    with atomic_write(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return Path(path)

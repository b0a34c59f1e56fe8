"""The pictures of the README, from any trained models: digits decoded, changed and generated, and an animation."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.checkpoints import atomic_write
from diffae_core.base.devices import random_normal, seeded
from diffae_core.base.plotting import enlarge, labelled_picture, save_png, tile
from diffae_core.data.digits import Digits
from diffae_core.diffusion import NUM_STEPS, DiffusionModel, to_pixels
from diffae_core.evaluation.metrics import stroke_statistics
from diffae_core.latents import slerp, turn
from diffae_core.prior import LatentPrior

GUIDANCE = 1.75  # towards another label; chosen on validation digits (docs/recipe.md)
FRAMES = 8  # of the animation, from one digit to the next


class Demo:
    """Trained models, and one test digit of each class.

    Each picture depends on the seed alone, not on which others were made before.

    Args:
        autoencoder, model: trained.
        prior: a latent prior of the same autoencoder; None leaves out the pictures that need it.
        test: the digits to show.
        num_steps: DDIM steps.
        seed: the seed of all noise.

    Raises:
        ValueError: models that were not trained together.
    """

    def __init__(
        self,
        autoencoder: SimpleAutoencoder,
        model: DiffusionModel,
        prior: LatentPrior | None,
        test: Digits,
        num_steps: int = NUM_STEPS,
        seed: int = 0,
    ):
        model.check_latents_from(autoencoder)
        if prior is not None:
            prior.check_latents_from(autoencoder)
        self.autoencoder, self.model, self.prior, self.test = autoencoder, model, prior, test
        self.num_steps, self.seed = num_steps, seed
        first_of_each = [(test.labels == label).nonzero()[:1, 0] for label in range(test.num_classes)]
        self.digits = test.subset(torch.cat(first_of_each)) if first_of_each else test.subset(slice(0, 10))
        self.latents = self.encode(self.digits)
        self.has_classes = prior is not None and prior.num_classes == test.num_classes >= 2

    def encode(self, digits: Digits) -> Tensor:
        """The digits' latents, on the diffusion model's device."""
        return self.autoencoder.encode_dataset(digits).tensors[0].to(self.model.device)

    def generate(self, latents: Tensor, x_T: Tensor | None = None) -> Tensor:
        """Images from latents, on the CPU."""
        return self.model.generate(latents, self.num_steps, x_T=x_T, generator=seeded(self.seed)).cpu()

    def in_its_hand(self, z_T: Tensor, labels: Tensor) -> Tensor:
        """Images of the classes ``labels`` in the handwritings z_T."""
        return self.generate(self.prior.generate(z_T, labels, guidance=GUIDANCE))

    def decoded(self) -> Image.Image:
        """The digits, decoded from their latents with random noise and with their inverted noise."""
        x_T = self.model.invert(self.digits.images, self.latents, self.num_steps)
        return labelled_picture(
            {
                "original": self.digits.images,
                "its latent, random noise": self.generate(self.latents),
                "its latent, inverted noise": self.generate(self.latents, x_T),
            }
        )

    def perturbed(self) -> Image.Image:
        """Noise added and removed, the latent perturbed at random, the handwriting turned, and another label."""
        noisy, _ = self.model.add_noise(self.digits.images, 0.7, seeded(self.seed))
        rows = {"original": self.digits.images, "noised, t = 0.7": to_pixels(noisy)}
        direction = random_normal(self.latents.shape, self.model.device, seeded(self.seed + 1))
        for strength in (0, 1, 2):
            name = f"latent + {strength} std" if strength else "denoised with its latent"
            perturbed = self.latents + strength * direction
            rows[name] = self.model.denoise_with_latent(noisy, perturbed, 0.7, self.num_steps).cpu()
        if self.prior is not None:
            labels = self.digits.labels if self.has_classes else None
            z_T = self.prior.invert(self.latents, labels)
            for angle in (0.5, 1.0, 1.5):
                turned = turn(z_T, angle, seeded(self.seed + 2))
                rows[f"handwriting turned by {angle}"] = self.generate(self.prior.generate(turned, labels))
        if self.has_classes:
            rows["another label"] = self.in_its_hand(z_T, (labels + 1) % self.prior.num_classes)
        return labelled_picture(rows)

    def one_as_all(self) -> Image.Image:
        """A thin digit, a thick one and a leaning one, each turned into every class in its own handwriting.

        Raises:
            ValueError: there is no prior that knows the digits' classes.
        """
        self._check_classes()
        statistics = stroke_statistics(self.test.images)
        by_thickness = statistics["thickness"].argsort()
        by_slant = statistics["slant"].argsort()
        last = len(self.test) - 1  # not the very extremes, which may be hard to read
        chosen = by_thickness[round(0.03 * last)], by_thickness[round(0.97 * last)], by_slant[round(0.03 * last)]
        digits = self.test.subset(torch.stack(chosen))
        z_T = self.prior.invert(self.encode(digits), digits.labels)
        classes = torch.arange(self.prior.num_classes)
        rows = {}
        for name, image, hand in zip(("thin", "thick", "leaning"), digits.images, z_T):
            rows[name] = torch.cat([image[None], self.in_its_hand(hand.expand(len(classes), -1), classes)])
        return labelled_picture(rows, ("original", *self.test.names))

    def from_scratch(self) -> Image.Image:
        """Eight digits of each class, from latents that the prior samples.

        Raises:
            ValueError: there is no prior that knows the digits' classes.
        """
        self._check_classes()
        labels = torch.arange(self.prior.num_classes).repeat_interleave(8)
        latents = self.prior.sample_latents(len(labels), labels, guidance=GUIDANCE, generator=seeded(self.seed))
        return labelled_picture(dict(zip(self.test.names, self.generate(latents).split(8))))

    def animation(self) -> list[Image.Image]:
        """Frames: a digit is noised and denoised, then turns into the next digits along the arcs between handwritings.

        Raises:
            ValueError: there is no prior that knows the digits' classes.
        """
        self._check_classes()
        # The 4 comes first, because it is easily distinguished from its neighbours.
        order = torch.arange(len(self.digits), device="cpu").roll(-4)
        image, latent = self.digits.images[order[:1]], self.latents[order[:1]]
        noised = [self.model.add_noise(image, time, seeded(self.seed))[0] for time in torch.linspace(0, 1, 16)]
        denoised = []
        self.model.generate(latent, 16, x_T=noised[-1], callback=lambda step, x_t, x_0: denoised.append(x_t))
        frames = [*to_pixels(torch.cat([*noised, *denoised, *denoised[-1:] * 6])).cpu()]

        labels = self.digits.labels[order]
        z_T = self.prior.invert(self.latents[order], labels)
        shares = torch.linspace(0, 1, FRAMES, device=z_T.device)[:, None]
        for index in range(len(order)):
            following = (index + 1) % len(order)
            arc = slerp(z_T[[index]], z_T[[following]], shares)
            arc_labels = labels[[index, following]].repeat_interleave(FRAMES // 2)
            images = self.generate(self.prior.generate(arc, arc_labels), noised[-1])
            frames += [*images, *images[-1:].expand(4, -1, -1, -1)]
        return [enlarge(tile(frame[None]), 8) for frame in frames]

    def save(self, folder: str | Path) -> list[Path]:
        """Write all pictures to ``folder`` and return their paths."""
        folder = Path(folder).expanduser()
        pictures = {"conditioned_samples": self.decoded, "diffusion_autoencoder_demo": self.perturbed}
        if self.has_classes:
            pictures |= {"one_as_all": self.one_as_all, "from_scratch": self.from_scratch}
        paths = [folder / f"{name}.png" for name in pictures]
        for path, make_picture in zip(paths, pictures.values()):
            save_png(make_picture(), path)
        if self.has_classes:
            paths.append(save_gif(self.animation(), folder / "animation.gif"))
        return paths

    def _check_classes(self) -> None:
        if not self.has_classes:
            known = "no prior" if self.prior is None else f"one of {self.prior.num_classes} classes"
            hint = "train one on these digits, which need two or more classes"
            raise ValueError(f"expected a prior of the digits' {self.test.num_classes} classes, got {known}: {hint}")


def save_gif(frames: list[Image.Image], path: str | Path, milliseconds: int = 90) -> Path:
    """Write frames of one size as an endless GIF, completely or not at all, and return the path."""
    with atomic_write(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return Path(path)

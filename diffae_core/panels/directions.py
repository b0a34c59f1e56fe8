"""Where the playground can move a latent to."""

import torch
from torch import Tensor

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.devices import seeded
from diffae_core.data.digits import Digits
from diffae_core.latents import class_directions, class_means, edit, principal_directions


class Directions:
    """Directions by name: "random", "principal 1", "edit 3" (towards class 3), "mean 3" (to the mean of class 3).

    Args:
        autoencoder: trained.
        reference: digits whose latents give the principal directions and, where they have labels, those of the classes.
    """

    def __init__(self, autoencoder: SimpleAutoencoder, reference: Digits):
        latents, labels = autoencoder.encode_dataset(reference).tensors
        self.class_names = reference.names if reference.num_classes > 1 else ()  # a direction leads to another class
        self.principal = principal_directions(latents, min(5, latents.shape[1], len(latents) - 1))
        if self.class_names:
            self.means, self.classes = class_means(latents, labels), class_directions(latents, labels)

    def options(self) -> list[tuple[str, str]]:
        """For a drop-down list: what it shows, and the name."""
        names = ["random", *(f"principal {number + 1}" for number in range(len(self.principal)))]
        edits = [(f"edit towards {name}", f"edit {label}") for label, name in enumerate(self.class_names)]
        means = [(f"to the mean of {name}", f"mean {label}") for label, name in enumerate(self.class_names)]
        return [(name, name) for name in names] + edits + means

    def vector(self, name: str, latent: Tensor, seed: int = 0) -> Tensor:
        """The vector that one unit of strength adds to a latent ``(1, latent_dim)``."""
        kind, _, number = name.partition(" ")
        if kind == "random":
            return torch.randn(latent.shape, generator=seeded(seed))
        if kind == "principal":
            return self.principal[[int(number) - 1]]
        if kind == "mean":
            return self.means[[int(number)]] - latent
        return edit(torch.zeros_like(latent), self.classes[[int(number)]], 1.0)

    @staticmethod
    def label(name: str) -> int | None:
        """The class that a direction leads to."""
        kind, _, number = name.partition(" ")
        return int(number) if kind in ("edit", "mean") else None

"""What all models have in common: a device, sizes that are saved with the weights, checkpoints."""

import hashlib
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from diffae_core.base import checkpoints
from diffae_core.base.validation import check_default_dtype

PRETRAINED = Path(__file__).parent.parent / "pretrained"


class Model(nn.Module):
    """A network that knows its sizes.

    Attributes:
        config: the constructor's arguments, from which :meth:`from_pretrained` builds it again.
        latents_from: the fingerprint of the autoencoder whose latents it was trained on; "" where that is not known.
    """

    pretrained_file: str  # the name of the shipped weights
    config: dict
    latents_from: str = ""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def _apply(self, fn, *args, **settings):
        """What ``.to()``, ``.double()``, ``.half()`` and ``.bfloat16()`` go through: another type is refused."""
        check_default_dtype()
        if (found := fn(torch.zeros(1)).dtype) != torch.float32:
            hint = "for faster arithmetic call it under torch.autocast, or train with TrainingConfig(bfloat16=True)"
            raise TypeError(f"expected a {type(self).__name__} to stay float32, got {found}: {hint}")
        return super()._apply(fn, *args, **settings)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write configuration and weights to ``path``, completely or not at all.

        Raises:
            ValueError: a weight is NaN or infinite: such a model is not saved.
        """
        checkpoints.check_state(self, self.state_dict(), path)
        contents = {"kind": type(self).__name__, "config": self.config, "weights": self.state_dict()}
        checkpoints.save(contents | {"latents_from": self.latents_from}, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights saved from a model of the same sizes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another model, or of other sizes.
        """
        contents = checkpoints.load(path, type(self).__name__)
        found = contents.get("config")
        if found != self.config:
            hint = f"build the model with those sizes, or use {type(self).__name__}.from_pretrained({str(path)!r})"
            raise ValueError(f"expected {path} to hold a model with {self.config}, got one with {found}: {hint}")
        checkpoints.check_state(self, contents.get("weights"), path)
        self.load_state_dict(contents["weights"])
        self.latents_from = contents.get("latents_from", "")

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, device: str | torch.device | None = None) -> Self:
        """The shipped model, or the one saved at ``path``, with its sizes read from the file, in eval mode.

        It is built without memory first (torch's "meta" device), and with it only if the weights in the file fit it.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another model.
        """
        check_default_dtype()
        path = PRETRAINED / cls.pretrained_file if path is None else Path(path).expanduser()
        contents = checkpoints.load(path, cls.__name__)
        config, weights = contents.get("config"), contents.get("weights")
        try:
            checkpoints.check_sizes(config, weights, path.stat().st_size)
            with torch.device("meta") as meta:
                outline = cls(**config, device=meta)
        except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"expected a {cls.__name__} at {path}, got a wrong configuration: {error}") from error
        checkpoints.check_state(outline, weights, path)
        model = cls(**config, device=device)
        model.load_state_dict(weights)
        model.latents_from = contents.get("latents_from", "")
        return model.eval()

    def check_latents_from(self, autoencoder: "Model") -> None:
        """Refuse an autoencoder whose latents this model was not trained on.

        Raises:
            ValueError: it is another; the message says what to do.
        """
        if self.latents_from not in ("", found := encoder_fingerprint(autoencoder)):
            raise ValueError(
                f"expected the autoencoder that this {type(self).__name__} was trained with ({self.latents_from}), got "
                f"another ({found}): load the pair from one folder, or train the {type(self).__name__} anew"
            )


def fingerprint(*tensors: Tensor) -> str:
    """A short name that other numbers would not have."""
    joined = hashlib.sha256()
    for tensor in tensors:
        joined.update(tensor.detach().cpu().contiguous().numpy())
    return joined.hexdigest()[:16]


def encoder_fingerprint(autoencoder: nn.Module) -> str:
    """The name of an autoencoder's latents: the fingerprint of the encoder that gives them."""
    return fingerprint(*autoencoder.encoder.state_dict().values())

"""What all models have in common: a device, sizes that are saved with the weights, checkpoints."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffae_core.base import checkpoints
from diffae_core.base.validation import check_default_dtype

PRETRAINED = Path(__file__).parent.parent / "pretrained"


class Model(nn.Module):
    """A network that knows its sizes.

    Attributes:
        latents_from: the fingerprint of the autoencoder whose latents it was trained on; "" where that is not known,
            as during a training.
    """

    pretrained_file: str  # the name of the shipped weights
    latents_from: str = ""

    @property
    def config(self) -> dict:
        """The constructor's arguments as Python's own numbers: :meth:`from_pretrained` rebuilds the model from them."""
        return self._config

    @config.setter
    def config(self, sizes: dict) -> None:
        self._config = {name: _as_python(size) for name, size in sizes.items()}

    @property
    def device(self) -> torch.device:
        """The device of the weights; the CPU for a network that has none."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    @classmethod
    def kind(cls) -> str:
        """The name in a checkpoint: that of the package's class, even for a subclass of your own."""
        return [base.__name__ for base in cls.__mro__ if Model in base.__bases__][-1]

    def _apply(self, fn, *args, **settings):
        """What ``.to()``, ``.double()``, ``.half()`` and ``.bfloat16()`` call: any type but float32 is refused."""
        check_default_dtype()
        dtype = fn(torch.zeros(1)).dtype
        if dtype != torch.float32:
            hint = "for faster arithmetic call it under torch.autocast, or train with TrainingConfig(bfloat16=True)"
            raise TypeError(f"expected a {type(self).__name__} to stay float32, got {dtype}: {hint}")
        return super()._apply(fn, *args, **settings)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write configuration and weights to ``path``, completely or not at all.

        Raises:
            ValueError: a weight is NaN or infinite: such a model is not saved.
        """
        checkpoints.check_state(self, self.state_dict(), path)
        contents = {"kind": self.kind(), "config": self.config, "latents_from": self.latents_from}
        checkpoints.save(contents | {"weights": plain_names(self.state_dict())}, path)

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights saved from a model of the same sizes; the model is then in eval mode.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another model, or of other sizes.
        """
        contents = checkpoints.load(path, self.kind())
        config = contents.get("config")
        if config != self.config:
            hint = f"build the model with those sizes, or use {type(self).__name__}.from_pretrained({str(path)!r})"
            raise ValueError(f"expected {path} to hold a model with {self.config}, got one with {config}: {hint}")
        names = dict(zip(plain_names(self.state_dict()), self.state_dict()))
        weights = plain_names(contents.get("weights"))
        if isinstance(weights, dict):
            weights = {names.get(name, name): weight for name, weight in weights.items()}
        self.check_weights(weights, path)
        self.load_state_dict(weights)
        self.latents_from = contents.get("latents_from", "")
        self.eval()

    def check_weights(self, weights: dict[str, Tensor], path: str | Path) -> None:
        """Refuse weights from ``path`` that are not this model's, before any of them is loaded."""
        checkpoints.check_state(self, weights, path)

    @classmethod
    @torch.inference_mode(False)  # weights loaded in inference mode could not be trained
    def from_pretrained(cls, path: str | Path | None = None, device: str | torch.device | None = None) -> Self:
        """The shipped model, or the one saved at ``path``, with its sizes read from the file, in eval mode.

        The model is first built without memory (torch's "meta" device), and with memory only if the weights in the
        file fit it. The global random state stays as it is.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another model.
        """
        check_default_dtype()
        path = PRETRAINED / cls.pretrained_file if path is None else Path(path).expanduser()
        contents = checkpoints.load(path, cls.kind())
        config: Any = contents.get("config")
        weights: Any = plain_names(contents.get("weights"))
        try:
            checkpoints.check_sizes(config, weights, path.stat().st_size)
            with torch.device("meta") as meta:
                outline = cls(**config, device=meta)
        except (AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(f"expected a {cls.__name__} at {path}, got a wrong configuration: {error}") from error
        checkpoints.check_state(outline, weights, path)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # the first weights are random, then overwritten
            model = cls(**config, device=device)
        model.load_state_dict(weights)
        model.latents_from = contents.get("latents_from", "")
        return model.eval()

    def check_latents_from(self, autoencoder: "Model") -> None:
        """Refuse an autoencoder whose latents this model was not trained on.

        Raises:
            ValueError: it is another; the message says what to do.
        """
        latents_from = encoder_fingerprint(autoencoder)
        if self.latents_from not in ("", latents_from):
            raise ValueError(
                f"expected the autoencoder that this {type(self).__name__} was trained with ({self.latents_from}), got "
                f"another ({latents_from}): load the pair from one folder, or train the {type(self).__name__} again"
            )


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for the block; afterwards every part is back in its own mode. Not for two threads at once."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def plain_names(weights):
    """Named weights without the prefix that ``torch.compile`` puts before the names of what it compiled."""
    if not isinstance(weights, dict):
        return weights
    return {str(name).replace("_orig_mod.", ""): weight for name, weight in weights.items()}


def _as_python(size):
    """A size, or a list of them, with Python's own numbers in place of NumPy's: what a checkpoint may hold."""
    if isinstance(size, list | tuple):
        return tuple(_as_python(part) for part in size)
    return size.item() if hasattr(size, "item") else size


def fingerprint(*tensors: Tensor) -> str:
    """A short hash of the tensors' numbers."""
    joined = hashlib.sha256()
    for tensor in tensors:
        joined.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return joined.hexdigest()[:16]


def encoder_fingerprint(autoencoder: Any) -> str:
    """The name of an autoencoder's latents: the fingerprint of the encoder that gives them."""
    return fingerprint(*autoencoder.encoder.state_dict().values())

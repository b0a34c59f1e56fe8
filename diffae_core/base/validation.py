"""Checks of users' input, called once where it comes in: an error says what came, what was wanted, what to do."""

import math
import numbers
import sys
import warnings

import torch
from torch import Tensor

_warned_about_range = False


def check_default_dtype() -> None:
    """Refuse any default dtype but float32: new tensors would not fit the models' weights."""
    if (found := torch.get_default_dtype()) != torch.float32:
        hint = "call torch.set_default_dtype(torch.float32)"
        raise TypeError(
            f"expected torch's default dtype to be float32, got {str(found).removeprefix('torch.')}: {hint}"
        )


def check_tensor(value: object, wanted: str) -> Tensor:
    """Return ``value`` if it is a tensor of finite floating-point numbers."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{wanted} {type(value).__name__}: convert it with torch.as_tensor")
    if not value.is_floating_point():
        hint = "convert it with .float(), or pictures of 0 to 255 with diffae_core.as_images"
        raise ValueError(f"{wanted} {_dtype(value)}: {hint}")
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{wanted} NaN or infinity: look for a division by zero or a log of zero before this call")
    return value


def check_images(images: Tensor, size: int = 28, noisy: bool = False) -> Tensor:
    """Return ``images`` if they are finite float32 ``(N, 1, size, size)``.

    A value outside [0, 1] is accepted, with one warning per process: the models were trained on [0, 1]. ``noisy``
    images have no such range.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong rank, channels, size, dtype, or a value that is not finite.
    """
    global _warned_about_range
    wanted = f"expected {'noisy ' * noisy}images (N, 1, {size}, {size}), float32, got"
    if isinstance(images, Tensor) and tuple(images.shape[1:]) != (1, size, size):
        hints = {2: "add the batch and channel dimensions with image[None, None]"}
        hints[3] = "add the missing dimension with images[:, None] (channel) or image[None] (batch)"
        hints[4] = f"make them grey with diffae_core.as_images, and {size} pixels high and wide, e.g. with torchvision"
        hint = hints.get(images.ndim, "reshape them to four dimensions")
        raise ValueError(f"{wanted} {tuple(images.shape)}: {hint}")
    _check_float32(images, wanted, "diffae_core.as_images(images)")
    if not noisy and images.numel() and not _warned_about_range:
        low, high = images.detach().aminmax()
        if low < 0 or high > 1:
            _warned_about_range = True
            warnings.warn(
                f"images have values from {low:.2f} to {high:.2f}, outside [0, 1]: the models were trained on [0, 1], "
                "so their results for these are unreliable. This warning appears once.",
                stacklevel=_levels_to_the_caller(),
            )
    return images


def check_latents(latents: Tensor, latent_dim: int | None = None, count: int | None = None) -> Tensor:
    """Return ``latents`` if they are finite float32 ``(N, latent_dim)``; with None any width or count will do.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong rank, width, count, dtype, or a value that is not finite.
    """
    shape = f"({'N' if count is None else count}, {latent_dim or 'latent_dim'})"
    wanted = f"expected latents {shape}, float32, got"
    if isinstance(latents, Tensor):
        if latents.ndim != 2 or latents.shape[1] != (latent_dim or latents.shape[1]):
            hint = "take them from the encode() of this model's autoencoder"
            raise ValueError(f"{wanted} {tuple(latents.shape)}: {hint}")
        if count is not None and len(latents) != count:
            hint = "give one latent for each image, e.g. with latents.expand"
            raise ValueError(f"{wanted} {tuple(latents.shape)}: {hint}")
    return _check_float32(latents, wanted, "latents.float()")


def holds_whole_numbers(tensor: Tensor) -> bool:
    """Whether the dtype is one of whole numbers: neither floating-point nor complex nor bool."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def check_labels(labels: Tensor, count: int, classes: int | None = 10) -> Tensor:
    """Return ``labels`` as int64 if they are whole numbers from 0 to ``classes - 1``, one for each of ``count`` images.

    With ``classes=None`` there is no largest label.

    Raises:
        TypeError: not a tensor.
        ValueError: another count, other numbers.
    """
    to = "" if classes is None else f" to {classes - 1}"
    wanted = f"expected labels ({count},), whole numbers from 0{to}, got"
    if not isinstance(labels, Tensor):
        raise TypeError(f"{wanted} {type(labels).__name__}: convert it with torch.as_tensor")
    if tuple(labels.shape) != (count,):
        raise ValueError(f"{wanted} {tuple(labels.shape)}: give one label for each image")
    if not holds_whole_numbers(labels):
        raise ValueError(f"{wanted} {_dtype(labels)}: convert with labels.long()")
    labels = labels.long()
    others = labels[(labels < 0) | (labels >= (math.inf if classes is None else classes))]
    if len(others):
        hint = "they have no labels" if bool((labels == -1).all()) else "leave those examples out"
        raise ValueError(f"{wanted} {others.unique()[:5].tolist()}: {hint}")
    return labels


def check_times(diffusion_time: float | Tensor, count: int, device: torch.device) -> Tensor:
    """Diffusion times as a float32 tensor ``(count,)`` on ``device``; 0 is clean, 1 is noise.

    Raises:
        ValueError: a time outside [0, 1], NaN, or not one number for all nor one for each image.
    """
    wanted = "diffusion_time in [0, 1] (0 is clean, 1 is noise)"
    return check_values(diffusion_time, count, device, wanted, 0, 1)


def check_values(value: float | Tensor, count: int, device: torch.device, name: str, low: float, high: float) -> Tensor:
    """A number, or one for each of ``count`` images, as a float32 tensor ``(count,)`` with values in [low, high].

    Raises:
        ValueError: anything else.
    """
    wanted = f"expected {name}, a number or one for each image, got"
    try:
        values = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{wanted} {value!r}") from None
    if values.is_complex() or values.dtype == torch.bool or values.ndim > 1 or values.numel() not in (1, count):
        raise ValueError(f"{wanted} {_dtype(values)} of shape {tuple(values.shape)} for {count} images")
    values = values.reshape(-1).float()
    outside = ~((values >= low) & (values <= high))  # NaN is not between anything
    if bool(outside.any()):
        raise ValueError(f"{wanted} {values[outside][:3].tolist()}: keep it between {low:g} and {high:g}")
    return values.to(device).expand(count)


def check_count(value: int, name: str, at_least: int = 1, multiple_of: int = 1, at_most: int | None = None) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``at_least``; a ValueError otherwise."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least or value % multiple_of or (at_most is not None and value > at_most):
        allowed = f"{at_least} or more" if at_most is None else f"{at_least} to {at_most}"
        multiple = f", a multiple of {multiple_of}" if multiple_of > 1 else ""
        raise ValueError(f"expected {name} to be a whole number of {allowed}{multiple}, got {_shown(value)}")
    return int(value)


def check_number(
    value: float, name: str, low: float, high: float, above_low: bool = False, below_high: bool = False
) -> float:
    """Return ``value``, a number or a tensor without dimensions, as a float in [low, high]; else a ValueError.

    ``above_low`` excludes ``low`` itself, ``below_high`` excludes ``high``.
    """
    number = value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
    is_number = isinstance(number, numbers.Real) and not isinstance(number, bool)
    if not is_number or not low <= number <= high or (above_low and number == low) or (below_high and number == high):
        to = "and below" if below_high else "and up to" if above_low else "to"
        allowed = f"{'above' if above_low else 'from'} {low:g} {to} {high:g}"
        raise ValueError(f"expected {name} to be a number {allowed}, got {_shown(number)}")
    return float(number)


def check_choice(value, name: str, choices: tuple):
    """Return the one of ``choices`` that equals ``value``; a ValueError otherwise."""
    if value not in choices:
        raise ValueError(f"expected {name} to be one of {choices}, got {_shown(value)}")
    return choices[choices.index(value)]


def check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return ``generator`` if it is a ``torch.Generator`` or None; a TypeError otherwise."""
    check_default_dtype()
    if generator is not None and not isinstance(generator, torch.Generator):
        hint = "make one from a seed with diffae_core.seeded(0)"
        raise TypeError(f"expected generator to be a torch.Generator or None, got {type(generator).__name__}: {hint}")
    return generator


def _check_float32(tensor: Tensor, wanted: str, hint: str) -> Tensor:
    check_default_dtype()
    if isinstance(tensor, Tensor) and tensor.dtype != torch.float32:
        raise ValueError(f"{wanted} {_dtype(tensor)}: convert with {hint}")
    return check_tensor(tensor, wanted)


def _levels_to_the_caller() -> int:
    """For ``warnings.warn``: how many calls up is the first code that is neither this package's nor torch's."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("diffae_core", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shown(value: object) -> str:
    """The value; for a tensor, which may have many lines, its shape."""
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)

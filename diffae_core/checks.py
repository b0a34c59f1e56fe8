"""The checks at every public door: what came, what was wanted, what to do."""

import numbers
import warnings

import torch
from torch import Tensor

_warned_about_range = False


def check_images(images: Tensor, size: int = 28, scaled: bool = True) -> Tensor:
    """Return ``images`` if they are float32 ``(N, 1, size, size)`` without NaN or infinity.

    A value outside [0, 1] is accepted, with one warning per process: the models were trained on [0, 1]. ``scaled``
    False is for noisy images, which have no such range.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong rank, channels, size, dtype, or a value that is not finite.
    """
    global _warned_about_range
    wanted = f"expected {'images' if scaled else 'noisy images'} (N, 1, {size}, {size}), float32, got"
    check_tensor(images, wanted)
    got = f"{wanted} {tuple(images.shape)}"
    if images.ndim == 2:
        raise ValueError(f"{got}: add the batch and channel dimensions with image[None, None]")
    if images.ndim == 3:
        raise ValueError(f"{got}: add the missing dimension with images[:, None] (channel) or image[None] (batch)")
    if images.ndim != 4:
        raise ValueError(f"{got}: reshape them to four dimensions")
    if images.shape[1] != 1:
        raise ValueError(f"{got}: make them grey, for example with images.mean(1, keepdim=True)")
    if tuple(images.shape[2:]) != (size, size):
        raise ValueError(f"{got}: resize them, for example with torchvision.transforms.v2.Resize(({size}, {size}))")
    _check_float32(images, wanted, "diffae_core.as_images(images)")
    if scaled and images.numel() and not _warned_about_range:
        low, high = images.detach().aminmax()
        if low < 0 or high > 1:
            _warned_about_range = True
            warnings.warn(
                f"images have values from {low:.2f} to {high:.2f}, outside [0, 1]: the models were trained on [0, 1], "
                "so what they give for these is a guess. This is said once.",
                stacklevel=3,
            )
    return images


def check_latents(latents: Tensor, latent_dim: int | None = None, count: int | None = None) -> Tensor:
    """Return ``latents`` if they are float32 ``(N, latent_dim)`` and finite; with None any width or count will do.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong rank, width, count, dtype, or a value that is not finite.
    """
    shape = f"({'N' if count is None else count}, {latent_dim or 'latent_dim'})"
    wanted = f"expected latents {shape}, float32, got"
    check_tensor(latents, wanted)
    if latents.ndim != 2 or latents.shape[1] != (latent_dim or latents.shape[1]):
        raise ValueError(f"{wanted} {tuple(latents.shape)}: take them from the encode() of this model's autoencoder")
    if count is not None and len(latents) != count:
        raise ValueError(f"{wanted} {tuple(latents.shape)}: give one latent for each image, e.g. with latents.expand")
    return _check_float32(latents, wanted, "latents.float()")


def check_labels(labels: Tensor, count: int, classes: int = 10) -> Tensor:
    """Return ``labels`` if they are whole numbers from 0 to ``classes - 1``, one for each of ``count`` digits.

    Raises:
        TypeError: not a tensor.
        ValueError: another count, other numbers.
    """
    wanted = f"expected labels ({count},), whole numbers from 0 to {classes - 1}, got"
    check_tensor(labels, wanted)
    if tuple(labels.shape) != (count,):
        raise ValueError(f"{wanted} {tuple(labels.shape)}: give one label for each digit")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{wanted} {_dtype(labels)}: convert with labels.long()")
    others = sorted(set(labels.tolist()) - set(range(classes)))
    if others:
        raise ValueError(f"{wanted} {others[:5]}: leave those digits out")
    return labels


def check_alike(a: Tensor, b: Tensor, least_ndim: int = 1) -> None:
    """Refuse what is no pair of tensors of one shape, of finite floating-point numbers.

    Raises:
        TypeError: not two tensors.
        ValueError: another shape, fewer than ``least_ndim`` dimensions, other numbers, or NaN or infinity.
    """
    wanted = "expected two tensors of one shape, of finite floating-point numbers, got"
    check_floats(a, wanted)
    check_floats(b, wanted)
    shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
    if a.shape != b.shape:
        raise ValueError(f"{wanted} {shapes}: give as many of the one as of the other, of one kind")
    if a.ndim < least_ndim:
        raise ValueError(f"{wanted} {shapes}: keep the batch dimension, for example with z[[0]]")


def check_floats(tensor: Tensor, wanted: str) -> Tensor:
    """Return a tensor of finite floating-point numbers; else a TypeError or ValueError that says ``wanted``."""
    check_tensor(tensor, wanted)
    if not tensor.is_floating_point():
        raise ValueError(f"{wanted} {_dtype(tensor)}: convert with .float()")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{wanted} NaN or infinity: look for a division by zero or a log of zero before this call")
    return tensor


def check_time(diffusion_time: float | Tensor, count: int | None = None, device: torch.device | None = None) -> Tensor:
    """Return diffusion times as a ``(count,)`` tensor; 0 is clean, 1 is noise. With None any count will do.

    On ``device``, if one is given, and float32 there; else where they are, in their own floating-point type.

    Raises:
        ValueError: a time outside [0, 1], NaN, or not one number for all nor one for each image.
    """
    wanted = "expected diffusion_time in [0, 1] (0 is clean, 1 is noise), a number or one for each image, got"
    try:
        time = torch.as_tensor(diffusion_time)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{wanted} {diffusion_time!r}") from None
    no_numbers = time.is_complex() or time.dtype == torch.bool
    if no_numbers or time.ndim > 1 or (count is not None and time.numel() not in (1, count)):
        images = "N" if count is None else count
        raise ValueError(f"{wanted} {_dtype(time)} of shape {tuple(time.shape)} for {images} images")
    time = time.reshape(-1) if time.is_floating_point() and device is None else time.reshape(-1).float().to(device)
    if not torch.equal(time, time.clamp(0, 1)):  # NaN equals nothing
        wrong = time[time != time.clamp(0, 1)][:3].tolist()
        raise ValueError(f"{wanted} {wrong}: clamp it, or check where a NaN comes from")
    return time if count is None else time.expand(count)


def check_count(value: int, name: str, at_least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``at_least``; a ValueError otherwise."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < at_least:
        raise ValueError(f"expected {name} to be a whole number of {at_least} or more, got {_shown(value)}")
    return int(value)


def check_number(value: float, name: str, low: float, high: float) -> float:
    """Return ``value``, a number or a tensor without dimensions, as a float in [low, high]; else a ValueError."""
    number = value.item() if isinstance(value, Tensor) and value.ndim == 0 else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real) or not low <= number <= high:
        raise ValueError(f"expected {name} to be a number from {low:g} to {high:g}, got {_shown(number)}")
    return float(number)


def check_tensor(value: object, wanted: str) -> None:
    """A TypeError, which begins with ``wanted``, where ``value`` is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{wanted} {type(value).__name__}: convert it with torch.as_tensor")


def _check_float32(tensor: Tensor, wanted: str, cure: str) -> Tensor:
    if tensor.dtype != torch.float32:
        raise ValueError(f"{wanted} {_dtype(tensor)}: convert with {cure}")
    return check_floats(tensor, wanted)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shown(value: object) -> str:
    """The value; of a tensor, which may have many lines, its shape."""
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)

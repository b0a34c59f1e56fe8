"""Which device computes, in which precision, and where random numbers come from."""

import torch
from torch import Tensor

from diffae_core.base.validation import check_count


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device called ``name``; for None or "auto" the best there is: CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
    if name == torch.device("meta"):  # shapes without memory: how a checkpoint is checked before it is loaded
        return name
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name is None or name == "auto":
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in available:
        raise ValueError(f"expected a device from {available} (this machine's) or 'auto', got {str(name)!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"expected a device from cuda:0 to cuda:{torch.cuda.device_count() - 1}, got {str(name)!r}")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether to train in bfloat16 on ``device``: where CUDA or the CPU has it built in. Elsewhere it is slower.

    It was slower, too, on a processor with Intel's AMX (docs/performance.md).
    """
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # older versions of torch cannot tell
            return False
        has = torch.cpu.get_capabilities()
        return has.get("avx512_bf16", False) and not has.get("amx_bf16", False)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def seeded(seed: int) -> torch.Generator:
    """A CPU generator of random numbers, which serves any device: the same seed gives the same numbers.

    torch uses the lowest 32 bits of the seed: 0 and 2^32 give the same numbers.

    Raises:
        ValueError: ``seed`` is no whole number from 0 to 2^64 - 1.
    """
    return torch.Generator("cpu").manual_seed(check_count(seed, "seed", at_least=0, at_most=2**64 - 1))


def random_normal(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise on ``device``, made where ``generator`` lives: a CPU generator serves any device."""
    source = device if generator is None else generator.device
    return torch.randn(tuple(shape), device=source, generator=generator).to(device)


def random_uniform(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """``(count,)`` numbers in [0, 1) on ``device``, made where ``generator`` lives."""
    return torch.rand(count, device=generator.device, generator=generator).to(device)

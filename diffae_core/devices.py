"""Which device computes, in which precision, and where random numbers come from."""

import torch
from torch import Tensor


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device called ``name``; for None or "auto" the best there is: CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: the name is unknown, or this machine has no such device.
    """
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
        raise ValueError(f"expected a CUDA device below {torch.cuda.device_count()}, got {str(name)!r}")
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices faster than float32 ones.

    A CPU without AVX-512-BF16 or AMX emulates bfloat16, many times slower than float32 (``benchmarks/RECIPE.md``).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def random_normal(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise on ``device``, drawn where ``generator`` lives: a CPU generator serves any device."""
    source = device if generator is None else generator.device
    return torch.randn(shape, device=source, generator=generator).to(device)

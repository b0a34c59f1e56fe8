"""The networks as ONNX files, for ONNX Runtime and other engines: the same numbers, faster, without PyTorch."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from diffae_core.autoencoder import SimpleAutoencoder
from diffae_core.base.checkpoints import atomic_write
from diffae_core.diffusion import DiffusionModel
from diffae_core.prior import LatentPrior

OLDEST_TORCH = "2.9"  # the exporter of 2.6 writes the example's batch size into the file


def export_onnx(
    autoencoder: SimpleAutoencoder, model: DiffusionModel, prior: LatentPrior | None, folder: str | Path
) -> list[Path]:
    """Write ``encoder.onnx``, ``decoder.onnx``, ``unet.onnx`` and ``prior.onnx``, each for batches of any size.

    Inputs are named as the networks' ``forward`` names them: ``unet.onnx`` takes ``x``, ``noise_rate``, ``latents``
    and ``latent_noise`` (-1: not given) and gives ``velocity``; ``prior.onnx`` takes ``x``, ``noise_rate`` and
    ``labels`` (int64). docs/onnx.md samples with them in ten lines of NumPy. Exporting needs the extra ``onnx``.

    Args:
        autoencoder, model: trained.
        prior: a latent prior; None leaves it out.
        folder: where to write; it is created if missing.

    Returns:
        The paths written.

    Raises:
        ImportError: the extra is not installed, or torch is older than 2.9.
        ValueError: models that were not trained together.
    """
    try:
        import onnxscript  # noqa: F401 (torch exports with it)
    except ImportError as error:
        raise ImportError('expected the packages of the extra "onnx": pip install "diffae-core[onnx]"') from error
    if torch.__version__ < OLDEST_TORCH:
        raise ImportError(f"expected torch {OLDEST_TORCH} or newer, got {torch.__version__}: upgrade torch to export")
    model.check_latents_from(autoencoder)
    rates = torch.tensor([0.3, 0.7], device="cpu")
    images = torch.zeros(2, 1, model.image_size, model.image_size, device="cpu")
    latents = torch.zeros(2, model.latent_dim, device="cpu")
    networks: dict[str, tuple[nn.Module, dict[str, Tensor], str]] = {
        "encoder": (autoencoder.encoder, {"input": images}, "latents"),
        "decoder": (autoencoder.decoder, {"input": latents}, "images"),
        "unet": (
            model.network,
            {"x": images, "noise_rate": rates, "latents": latents, "latent_noise": 1 - rates},
            "velocity",
        ),
    }
    if prior is not None:
        prior.check_latents_from(autoencoder)
        labels = torch.zeros(2, dtype=torch.int64, device="cpu")
        networks["prior"] = (prior, {"x": latents, "noise_rate": rates, "labels": labels}, "velocity")
    paths = [Path(folder).expanduser() / f"{name}.onnx" for name in networks]
    for path, (network, inputs, output) in zip(paths, networks.values()):
        with atomic_write(path) as temporary:
            torch.onnx.export(
                copy.deepcopy(network).cpu().eval(),
                kwargs=inputs,
                f=temporary,
                dynamo=True,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC} for name in inputs},
                external_data=False,
                verbose=False,
            )
    return paths

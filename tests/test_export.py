"""ONNX files give what PyTorch gives, for batches of any size; the document's code runs as it stands."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import diffae_core as core

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(torch.__version__ < core.export.OLDEST_TORCH, reason="this torch exports no open batch")


def test_the_documents_code_decodes_digits_as_pytorch_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    autoencoder, model, prior = (
        kind.from_pretrained(device="cpu") for kind in (core.SimpleAutoencoder, core.DiffusionModel, core.LatentPrior)
    )
    latents = torch.from_numpy(names["latents"])
    x_T = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 1, 28, 28), dtype=np.float32))
    assert (model.generate(latents, x_T=x_T) - torch.from_numpy(names["generated"])).abs().max() < 1e-3
    with torch.no_grad():
        assert (autoencoder.encode(torch.from_numpy(names["images"])) - latents).abs().max() < 1e-4
        for count in (1, 5):
            x, rates = torch.randn(count, 256), torch.rand(count)
            labels = torch.arange(count)
            session = onnxruntime.InferenceSession(tmp_path / "onnx" / "prior.onnx")
            inputs = {"x": x, "noise_rate": rates, "labels": labels}
            (velocity,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            assert (prior(x, rates, labels) - torch.from_numpy(velocity)).abs().max() < 1e-4


def test_exporting_leaves_the_models_as_they_are(small_autoencoder, small_model, tmp_path):
    small_model.train()
    paths = core.export_onnx(small_autoencoder, small_model, None, tmp_path)
    assert [path.stem for path in paths] == ["encoder", "decoder", "unet"] and small_model.network.training


def test_a_pair_that_does_not_fit_is_refused(tmp_path):
    other = core.SimpleAutoencoder(device="cpu")
    with pytest.raises(ValueError, match="was trained with"):
        core.export_onnx(other, core.DiffusionModel.from_pretrained(device="cpu"), None, tmp_path)

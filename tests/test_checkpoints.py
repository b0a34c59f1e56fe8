import os
import pickle

import pytest
import torch
from conftest import SMALL

import diffae_core as core
from diffae_core import checkpoints


def test_save_load_equal(small_model, small_autoencoder, tmp_path):
    latents = torch.randn(2, 16)
    for model, draw in (
        (small_autoencoder, lambda m: m.decode(latents)),
        (small_model, lambda m: m.generate(latents, 3, generator=torch.Generator().manual_seed(0))),
    ):
        path = tmp_path / "model.pt"
        model.save_checkpoint(path)
        rebuilt = type(model).from_pretrained(path, device="cpu")
        assert not rebuilt.training and rebuilt.config == model.config
        assert torch.equal(draw(rebuilt), draw(model))
        fresh = type(model)(**model.config, device="cpu")
        fresh.load_checkpoint(path)
        assert torch.equal(draw(fresh), draw(model))


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"DiffusionModel checkpoint at .*none\.pt"):
        core.DiffusionModel.from_pretrained(tmp_path / "none.pt")


@pytest.mark.parametrize("keep", [0, 10, 500, 0.5, 0.99])
def test_truncated(small_model, tmp_path, keep):
    path = tmp_path / "cut.pt"
    small_model.save_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(ValueError, match=r"cut\.pt"):
        core.DiffusionModel.from_pretrained(path)


def test_other_model(small_autoencoder, tmp_path):
    small_autoencoder.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="expected a DiffusionModel checkpoint .* got SimpleAutoencoder"):
        core.DiffusionModel.from_pretrained(tmp_path / "a.pt")


def test_other_sizes(small_model, tmp_path):
    small_model.save_checkpoint(tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"from_pretrained\('.*small\.pt'\)"):
        core.DiffusionModel(**{**SMALL, "widths": (8, 8)}).load_checkpoint(tmp_path / "small.pt")


@pytest.mark.parametrize("harm", ["nan", "missing", "renamed", "config"])
def test_wrong_contents(small_model, tmp_path, harm):
    path = tmp_path / "odd.pt"
    weights, config = dict(small_model.state_dict()), dict(small_model.config)
    name = next(iter(weights))
    if harm == "nan":
        weights[name] = weights[name] * torch.nan
    elif harm == "missing":
        del weights[name]
    elif harm == "renamed":
        weights["other"] = weights.pop(name)
    else:
        config["colour"] = "blue"
    checkpoints.save({"kind": "DiffusionModel", "config": config, "weights": weights}, path)
    with pytest.raises(ValueError, match=r"odd\.pt"):
        core.DiffusionModel.from_pretrained(path, device="cpu")


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch ran-code",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for save in (torch.save, lambda contents, path: path.write_bytes(pickle.dumps(contents))):
        save({"kind": "DiffusionModel", "config": RunsCode()}, tmp_path / "evil.pt")
        with pytest.raises(ValueError, match=r"evil\.pt"):
            core.DiffusionModel.from_pretrained(tmp_path / "evil.pt")
    assert not (tmp_path / "ran-code").exists()


def test_an_earlier_file_survives_an_error_while_saving(small_model, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    small_model.save_checkpoint(path)
    whole = path.read_bytes()

    def full_disk(contents, file):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"model\.pt.*No space left.*earlier file is unchanged"):
        small_model.save_checkpoint(path)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to(small_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*choose a folder"):
        small_model.save_checkpoint(tmp_path / "file" / "model.pt")

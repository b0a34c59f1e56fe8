"""Single files: written completely or not at all, and read without trusting them. tests/robustness damages more."""

import pytest
import torch
from conftest import SMALL

import diffae_core as core
from diffae_core.base import checkpoints


def test_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"DiffusionModel checkpoint at .*none\.pt, got no file: train one first"
    ):
        core.DiffusionModel.from_pretrained(tmp_path / "none.pt")


def test_other_model(small_autoencoder, tmp_path):
    small_autoencoder.save_checkpoint(tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"expected a DiffusionModel checkpoint .* got SimpleAutoencoder: give the right"
    ):
        core.DiffusionModel.from_pretrained(tmp_path / "a.pt")


def test_other_sizes(small_model, tmp_path):
    small_model.save_checkpoint(tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"from_pretrained\('.*small\.pt'\)"):
        core.DiffusionModel(**{**SMALL, "widths": (8, 8)}).load_checkpoint(tmp_path / "small.pt")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("nan", "NaN or infinity"),
        ("missing", "missing"),
        ("renamed", "missing"),
        ("shape", r"\(3,\)"),
        ("dtype", "float64"),
        ("config", "colour"),
        ("size", "widths of .* does not go with its weights"),
        ("expanded", "more memory than the file has bytes"),
        ("no weights", "wrong configuration"),
    ],
)
def test_wrong_contents(small_model, tmp_path, harm, message):
    path = tmp_path / "odd.pt"
    weights, config = dict(small_model.state_dict()), dict(small_model.config)
    name = "network.stem.bias"
    if harm == "nan":
        weights[name] = weights[name] * torch.nan
    elif harm == "missing":
        del weights[name]
    elif harm == "renamed":
        weights["other"] = weights.pop(name)
    elif harm == "shape":
        weights[name] = torch.zeros(3)
    elif harm == "dtype":
        weights[name] = weights[name].double()
    elif harm == "config":
        config["colour"] = "blue"
    elif harm == "size":
        config["widths"] = (10**9, 16)
    elif harm == "expanded":
        weights[name] = torch.zeros(1).expand(10**9)
    contents = {"kind": "DiffusionModel", "config": config, "weights": None if harm == "no weights" else weights}
    checkpoints.save(contents, path)
    with pytest.raises(ValueError, match=rf"odd\.pt.*{message}"):
        core.DiffusionModel.from_pretrained(path, device="cpu")


def test_an_earlier_file_survives_an_error_while_saving(small_model, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    small_model.save_checkpoint(path)
    before = path.read_bytes()

    def full_disk(contents, file):
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match=r"model\.pt.*No space left.*earlier file is unchanged"):
        small_model.save_checkpoint(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), core.checkpoints.atomic_write(tmp_path / "deep" / "table.md") as temporary:
        temporary.write_text("half")
        raise error
    assert list((tmp_path / "deep").iterdir()) == []
    with core.checkpoints.atomic_write(tmp_path / "deep" / "table.md") as temporary:
        temporary.write_text("all of it")
    assert (tmp_path / "deep" / "table.md").read_text() == "all of it" and len(list((tmp_path / "deep").iterdir())) == 1


def test_a_folder_that_cannot_be_written_to(small_model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*choose a folder"):
        small_model.save_checkpoint(tmp_path / "file" / "model.pt")

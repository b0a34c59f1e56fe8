"""Single files: written completely or not at all, and read without trusting them. tests/robustness damages more."""

import errno
import os

import numpy as np
import pytest
import torch
from conftest import SMALL, all_equal

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


def test_numbers_of_numpy_are_saved_as_pythons(tmp_path):
    numbers = {"rate": np.float64(0.5), "sizes": (np.int64(3), [np.arange(2)]), np.str_("name"): np.bool_(True)}
    checkpoints.save({"kind": "run", "config": numbers}, tmp_path / "run.pt")
    config = checkpoints.load(tmp_path / "run.pt", "run")["config"]
    assert config == {"rate": 0.5, "sizes": (3, [[0, 1]]), "name": True} and type(config["rate"]) is float


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save({"kind": "run", "where": path}, path), "it holds pathlib.*save it again with weights"),
        (lambda path: torch.save(torch.nn.Linear(1, 1), path), r"it holds torch\.nn.*Linear\)"),
        (lambda path: path.write_bytes(b"PK, and no more"), "not a zip file.*copy it again, or use another file"),
    ],
)
def test_an_unreadable_file_is_described_without_advice_to_delete_it(tmp_path, write, message):
    write(tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=rf"run checkpoint at .*odd\.pt.*{message}") as error:
        checkpoints.load(tmp_path / "odd.pt", "run")
    assert "delete" not in str(error.value) and "\x1b" not in str(error.value) and "\n" not in str(error.value)


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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions for groups and others")
def test_permissions_are_the_users(tmp_path):
    umask = os.umask(0o077)
    try:
        checkpoints.save({}, tmp_path / "private.pt")
        os.umask(0o002)
        checkpoints.save({}, tmp_path / "private.pt")
        checkpoints.save({}, tmp_path / "shared.pt")
    finally:
        os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"private.pt": 0o600, "shared.pt": 0o664}


def refusing(number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.EPERM, errno.ENOSYS])
def test_a_file_system_without_permissions_locks_or_fsync(small_model, tmp_path, monkeypatch, number):
    for function in ("os.chmod", "os.fsync", "fcntl.flock"):
        monkeypatch.setattr(function, refusing(number))
    for _ in range(2):
        small_model.save_checkpoint(tmp_path / "model.pt")
    loaded = core.DiffusionModel.from_pretrained(tmp_path / "model.pt", "cpu")
    assert all_equal(loaded.state_dict(), small_model.state_dict()) and len(list(tmp_path.iterdir())) == 1


def test_what_fsync_says_of_the_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", refusing(errno.ENOSPC))
    with pytest.raises(OSError, match="could not write .*No space left"):
        checkpoints.save({}, tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())


def test_a_link_is_followed(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here.pt").symlink_to(tmp_path / "there" / "model.pt")
    checkpoints.save({}, tmp_path / "here.pt")
    assert (tmp_path / "here.pt").is_symlink() and [path.name for path in (tmp_path / "there").iterdir()] == [
        "model.pt"
    ]


OTHERS = [".release-please-manifest.json", ".secrets-baseline.json", ".backup-20261128.tar.gz", ".a.diffae-notes.md"]


def test_left_overs_are_ours_and_nobody_writes_to_them(tmp_path):
    for name in OTHERS:
        (tmp_path / name).write_text("another's")
    with checkpoints.atomic_write(tmp_path / "model.pt") as temporary:
        left_over = temporary.with_name(temporary.name.replace("model", "table"))
        left_over.write_text("half of it")
        checkpoints.remove_left_overs(tmp_path)
        assert temporary.exists() and not left_over.exists()
    assert {path.name for path in tmp_path.iterdir()} == {*OTHERS, "model.pt"}

"""Files that are damaged, hostile, or neither checkpoint nor picture: refused by name, and at no cost in memory."""

import io
import itertools
import os
import pickle
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
from conftest import SMALL, all_equal, all_random
from PIL import Image

import diffae_core as core
from diffae_core import checkpoints

long = pytest.mark.long
COUNTS = {
    "truncated": 70,
    "bit flipped": 100,
    "another model's": 10,
    "other sizes": 40,
    "NaN": 40,
    "runs code": 20,
    "huge sizes": 16,
    "zip bomb": 4,
}


def resident_mb():
    return psutil.Process().memory_info().rss / 2**20


class RunsCode:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def damage(kind: str, whole: bytes, path: Path, dice: random.Random, witness: Path) -> None:
    """Write a checkpoint to ``path`` that is damaged in this way."""
    contents = torch.load(io.BytesIO(whole), weights_only=True)
    name = dice.choice([name for name, weight in contents["weights"].items() if weight.is_floating_point()])
    weight = contents["weights"][name]
    if kind == "truncated":
        return path.write_bytes(whole[: dice.randrange(len(whole))])
    if kind == "bit flipped":
        place, bits = dice.randrange(len(whole)), bytearray(whole)
        bits[place] ^= 1 << dice.randrange(8)
        return path.write_bytes(bits)
    if kind == "another model's":
        return core.SimpleAutoencoder(16, device="cpu").save_checkpoint(path)
    if kind == "zip bomb":
        source = zipfile.ZipFile(io.BytesIO(whole))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
            for member in source.infolist():
                large = member.filename.endswith("data/0")
                bomb.writestr(member.filename, bytes(2**28) if large else source.read(member))
        return None
    if kind == "runs code":
        contents["config"] = RunsCode(f"touch {witness}")
        save = dice.choice([torch.save, lambda evil, file: file.write_bytes(pickle.dumps(evil))])
        return save(contents, path)
    if kind == "other sizes":
        contents["weights"][name] = torch.zeros(*weight.shape, dice.randrange(1, 4)).squeeze(-1)[..., None]
    elif kind == "NaN":
        weight = contents["weights"][name] = weight.clone(memory_format=torch.contiguous_format)
        weight.view(-1)[dice.randrange(weight.numel())] = dice.choice([float("nan"), float("inf")])
    elif dice.random() < 0.5:  # huge sizes
        contents["config"] |= {"widths": (10 ** dice.randrange(5, 12), 16)}
    else:
        contents["weights"][name] = torch.zeros(1).expand(10**9)
        contents["config"] |= {"time_embedding_dim": 10**9, "block_depth": 10**6}
    return checkpoints.save(contents, path)


@pytest.mark.parametrize("share", [0.05, pytest.param(1, marks=long)])
@pytest.mark.parametrize("kind", COUNTS)
def test_checkpoints(kind, share, tmp_path):
    dice, found, witness = random.Random(0), Counter(), tmp_path / "ran"
    model = all_random(core.DiffusionModel(**SMALL))
    model.save_checkpoint(tmp_path / "whole.pt")
    whole, before = (tmp_path / "whole.pt").read_bytes(), resident_mb()
    for number in range(max(2, round(share * COUNTS[kind]))):
        path = tmp_path / f"damaged_{number}.pt"
        damage(kind, whole, path, dice, witness)
        try:
            loaded = core.DiffusionModel.from_pretrained(path, device="cpu")
        except ValueError as error:
            assert path.name in str(error)
            found["refused"] += 1
        else:
            assert kind == "bit flipped", "only a bit where nothing is stored (padding, time stamps) may pass"
            assert all_equal(loaded.state_dict(), model.state_dict())
            found["equal"] += 1
        path.unlink()
    assert not witness.exists() and resident_mb() - before < 200
    print(kind, dict(found))


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=long)])
def test_files_of_mnist(count, whole_mnist, tmp_path, monkeypatch):
    dice, raw = random.Random(0), tmp_path / "MNIST" / "raw"
    good = Path(os.environ["DIFFAE_DATA_DIR"]) / "MNIST" / "raw"
    shutil.copytree(good, raw, ignore=shutil.ignore_patterns("*.gz"))
    monkeypatch.setenv("DIFFAE_DATA_DIR", str(tmp_path))
    for _, path in zip(range(count), itertools.cycle(sorted(raw.iterdir()))):
        whole = path.read_bytes()
        place = dice.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]
        path.write_bytes(dice.choice([whole[:place], flipped]))
        with pytest.raises(ValueError, match=path.name):
            core.load_mnist("train" if path.name.startswith("train") else "test")
        path.write_bytes(whole)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


UNREADABLE = {
    "one pixel": encoded(Image.new("L", (1, 1))),
    "empty paper": encoded(Image.new("L", (120, 160), 255)),
    "a PNG cut short": encoded(Image.linear_gradient("L"))[:120],
    "text": b"not a picture at all",
    "nothing": b"",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0 L9 9'/></svg>",
    "a checkpoint": pickle.dumps({"kind": "DigitClassifier"}),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_files_without_a_digit(name):
    with pytest.raises(ValueError, match="^expected a"):
        core.read_digit(UNREADABLE[name])


def test_a_picture_that_would_fill_the_memory():
    huge, before = encoded(Image.new("1", (10_000, 8_500), 1)), resident_mb()
    with pytest.raises(ValueError, match="^expected a"):
        core.read_digit(huge)
    assert resident_mb() - before < 100
